//! Which installation a tool speaks to over NATS, and the calls that it makes there.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use host::{Host, StartError};
use reqwest::StatusCode;
use settings::{Common, Settings};
use wire::{Call, Problem, Service};

use super::{Connection, ToolError};
use crate::{cli::SettingsArgs, process, screen::Screen};

/// How long one call may take: a scale waits for every container that it touches.
pub(super) const CALL_WITHIN: Duration = Duration::from_secs(60);

/// Which installation.
#[derive(Debug, clap::Args)]
pub(crate) struct Installation {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// NATS servers; without it those of the settings, else those of the local standalone
    #[arg(long, env = "LOGBOOM_NATS")]
    nats: Option<String>,
    /// Credentials file of the platform account; needs --nats
    #[arg(long, requires = "nats", value_name = "FILE")]
    creds: Option<PathBuf>,
}

impl Installation {
    /// The settings that lead to the installation, and whether it is the local standalone.
    pub(crate) fn settings(&self, connection: &Connection) -> anyhow::Result<(Settings, bool)> {
        let mut layers = self.settings.clone();
        let local = connection.data.join("standalone.toml");
        let named = !layers.files.is_empty();
        if let Some(nats) = &self.nats {
            layers.set.push(format!("common.nats_url={nats}"));
            if let Some(creds) = &self.creds {
                let creds = creds.canonicalize().with_context(|| format!("cannot read {}", creds.display()))?;
                layers.set.push(format!("common.nats_creds=file:{}", creds.display()));
            }
        } else if !named && local.is_file() {
            layers.files.insert(0, local.clone());
        }
        if let Some(ca) = &connection.ca {
            layers.set.push(format!("common.tls_ca={}", ca.display()));
        }
        let is_local = layers.files.contains(&local);
        // The replica's name is that of this process: two tools at once must not be taken for one.
        layers.set.push(format!("common.replica=admin-{}", std::process::id()));
        Ok((process::load(&layers)?, is_local))
    }
}

/// Connects in the platform's account.
pub(super) async fn connect(common: Common) -> anyhow::Result<Host> {
    let url = common.nats_url.clone();
    Host::connect(Service::Gateway, common).await.map_err(|error| match error {
        StartError::Bus(error) => ToolError::NoNats { url, reason: error.to_string() }.into(),
        other => other.into(),
    })
}

/// Somebody who may call everything.
pub(super) struct Admin {
    pub(super) host: Host,
    pub(super) screen: Screen,
}

impl Admin {
    /// Connects in the platform's account.
    pub(super) async fn connect(common: Common, screen: Screen) -> anyhow::Result<Self> {
        Ok(Self { host: connect(common).await?, screen })
    }

    pub(super) async fn call<C: Call>(&self, key: &C::Key, request: &C::Request) -> Result<C::Reply, ToolError> {
        self.host.bus.call_within::<C>(key, request, CALL_WITHIN).await.map_err(refused)
    }

    /// A bar for work on so many things, where a person watches.
    pub(super) fn bar(&self, count: usize, what: &'static str) -> indicatif::ProgressBar {
        if !self.screen.is_watched() {
            return indicatif::ProgressBar::hidden();
        }
        let bar = indicatif::ProgressBar::new(count as u64).with_message(what);
        let style = indicatif::ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}");
        style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
    }
}

/// A time for people.
pub(super) fn time(at: types::Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(at.nanos().into()).map_or_else(|_| at.to_string(), |time| time.to_string())
}

/// What a service refuses, with the number of the page that tells what to do.
pub(super) fn refused(problem: Problem) -> ToolError {
    let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let page = problem.lb_code().map(|code| format!(" ({code})")).unwrap_or_default();
    ToolError::Refused { status, message: format!("{problem}{page}") }
}
