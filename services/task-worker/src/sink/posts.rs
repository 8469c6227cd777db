//! Where jobs may post rows to, and with which secrets: what the settings name and nothing else.
//!
//! A job is a text that somebody sends, so it must not choose addresses freely: those inside the installation's network answer the worker and
//! would not answer its sender. No redirection is followed, and no proxy of the environment used.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use host::{Host, StartError};
use reqwest::{
    Client, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use tls::{Files, Tls};

use crate::{config::Config, error::TaskError};

/// How long a connection may take to stand.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a receiver has to take a request and to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Headers of one sink.
const HEADERS_MAX: usize = 32;
/// Bytes of a secret.
const SECRET_BYTES_MAX: u64 = 16 << 10;
/// Headers that are the connection's or say what the rows are.
const OURS: [&str; 8] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "idempotency-key",
    "lb-writer",
    "lb-first-number",
];

/// The way out.
#[derive(Debug, Default)]
pub(crate) struct Posts {
    /// None where nothing is allowed.
    client: Option<Client>,
    allowed: Vec<Url>,
    /// Below which headers name their secrets; empty: nowhere.
    secrets: PathBuf,
}

impl Posts {
    /// As the settings say.
    ///
    /// Errors: a prefix that is no URL, authorities that cannot be read.
    pub(crate) fn open(host: &Host, config: &Config) -> Result<Self, StartError> {
        let tls = match config.http_ca.as_str() {
            // Nothing of the installation counts outside: neither its authorities nor its certificate.
            "" => Tls::open(Files::default())?,
            ca => host.trusting("task_worker.http_ca", ca)?,
        };
        Self::with(&tls, config).map_err(StartError::other)
    }

    fn with(tls: &Tls, config: &Config) -> Result<Self, String> {
        let allowed = prefixes(&config.http_prefixes)?;
        let builder = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured((*tls.outward()).clone());
        let client = match allowed.is_empty() {
            true => None,
            false => Some(builder.build().map_err(|error| crate::error::told(&error))?),
        };
        Ok(Self { client, allowed, secrets: config.http_headers_dir.clone().into() })
    }

    /// The client for an address, if rows may go there.
    pub(super) fn to(&self, url: &str) -> Result<(Client, Url), TaskError> {
        let wrong = |problem: &str| TaskError::Source { what: "http sink".to_owned(), problem: problem.to_owned() };
        let Some(client) = &self.client else {
            return Err(wrong("jobs of this worker post nothing: set task_worker.http_prefixes"));
        };
        let url = Url::parse(url).map_err(|error| wrong(&format!("its URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("its URL holds credentials: name them in a header as file:NAME"));
        }
        if !self.allowed.iter().any(|prefix| is_below(&url, prefix)) {
            return Err(wrong("its URL does not lie below task_worker.http_prefixes"));
        }
        Ok((client.clone(), url))
    }

    /// The headers of a sink; a value `file:NAME` is the text of that file in the directory of secrets.
    pub(super) fn headers(&self, wanted: &BTreeMap<String, String>) -> Result<HeaderMap, TaskError> {
        let wrong = |name: &str, problem: &str| TaskError::Source {
            what: format!("header {name:?} of the http sink"),
            problem: problem.to_owned(),
        };
        if wanted.len() > HEADERS_MAX {
            return Err(wrong("all", &format!("there are {}: up to {HEADERS_MAX} are sent", wanted.len())));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in wanted {
            let parsed: HeaderName = name.parse().map_err(|_| wrong(name, "its name is none"))?;
            if OURS.contains(&parsed.as_str()) {
                return Err(wrong(name, "it is set by the sink: leave it out"));
            }
            let secret = match (value.strip_prefix("file:"), value.strip_prefix("env:")) {
                (Some(file), _) => Some(self.secret(file).map_err(|problem| wrong(name, &problem))?),
                (None, Some(_)) => return Err(wrong(name, "env: is not read for jobs: use file:NAME")),
                (None, None) => None,
            };
            let text = secret.as_deref().unwrap_or(value);
            let mut value =
                HeaderValue::from_str(text).map_err(|_| wrong(name, "its value holds a line end or the like"))?;
            value.set_sensitive(secret.is_some());
            headers.append(parsed, value);
        }
        Ok(headers)
    }

    fn secret(&self, name: &str) -> Result<String, String> {
        if self.secrets.as_os_str().is_empty() {
            return Err("jobs of this worker have no secrets: set task_worker.http_headers_dir".to_owned());
        }
        let path = Path::new(name);
        if name.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err("a secret is a file below task_worker.http_headers_dir, without '..' and without '/' in front"
                .to_owned());
        }
        let told = |error: std::io::Error| format!("file:{name}: {error}");
        let root = self.secrets.canonicalize().map_err(told)?;
        let path = root.join(path);
        // Secrets that Kubernetes mounts are links, to places in the same directory.
        let real = path.canonicalize().map_err(told)?;
        if !real.starts_with(&root) {
            return Err(format!("file:{name} does not lie below task_worker.http_headers_dir"));
        }
        if fs::metadata(&real).map_err(told)?.len() > SECRET_BYTES_MAX {
            return Err(format!("file:{name} is longer than {SECRET_BYTES_MAX} bytes"));
        }
        fs::read_to_string(&real).map(|text| text.trim_end().to_owned()).map_err(told)
    }
}

/// The URLs of the setting.
///
/// Errors: the text that is none, or that leaves open what it allows.
pub(crate) fn prefixes(text: &str) -> Result<Vec<Url>, String> {
    let prefix = |text: &str| {
        let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))?;
        let plain = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
        let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        match plain && bare {
            true => Ok(url),
            false => Err(format!("{text:?} must be like https://host:port/path")),
        }
    };
    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(prefix).collect()
}

/// Whether a URL lies below a prefix: the same scheme, host and port, and its path or one further down.
fn is_below(url: &Url, prefix: &Url) -> bool {
    let same = url.scheme() == prefix.scheme()
        && url.host_str() == prefix.host_str()
        && url.port_or_known_default() == prefix.port_or_known_default();
    let behind = url.path().strip_prefix(prefix.path().trim_end_matches('/'));
    same && behind.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
#[path = "posts_tests.rs"]
mod tests;
