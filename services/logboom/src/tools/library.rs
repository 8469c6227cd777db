//! `logboom library`: the views, saved searches and lookups of an index.

use std::path::PathBuf;

use anyhow::Context;
use reqwest::{Method, RequestBuilder, header};
use serde_json::{Value, json};

use super::Connection;
use crate::screen::Screen;

/// Items that are asked for at once.
const PAGE: usize = 200;

/// Views, saved searches and lookups of an index.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Examples:\n  logboom library put shop view errors --language pipe --text 'severity=error'\n  logboom query 'SELECT count(*) FROM shop.errors'\n  logboom library put shop lookup hosts hosts.csv --title 'Who owns a host'\n  logboom query --language pipe 'index:shop error | lookup hosts host -> owner'\n  logboom library put shop saved slow --language pipe --text 'dur>5s | top 10 path' --from -1h\n  logboom query --index shop --saved slow"
)]
pub(crate) enum LibraryCommand {
    /// List what the library of an index holds
    List {
        /// Index
        index: String,
        /// Only of this kind
        #[arg(long, value_parser = KINDS)]
        kind: Option<String>,
    },
    /// Show one item
    Get {
        /// Index
        index: String,
        /// What it is
        #[arg(value_parser = KINDS)]
        kind: String,
        /// Its name
        name: String,
    },
    /// Put an item there, or another in its place
    Put(Box<PutArgs>),
    /// Delete an item
    Delete {
        /// Index
        index: String,
        /// What it is
        #[arg(value_parser = KINDS)]
        kind: String,
        /// Its name
        name: String,
        /// Only if it is in this version
        #[arg(long)]
        if_version: Option<u64>,
    },
}

const KINDS: [&str; 3] = ["view", "saved", "lookup"];

/// What is put there.
#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// Index
    index: String,
    /// What it is
    #[arg(value_parser = KINDS)]
    kind: String,
    /// Its name
    name: String,
    /// File with the text of the query, or with the table as CSV; `-` is standard input
    #[arg(required_unless_present = "text")]
    file: Option<PathBuf>,
    /// The text of the query
    #[arg(long, conflicts_with = "file")]
    text: Option<String>,
    /// Language of the text
    #[arg(long, default_value = "sql", value_parser = ["sql", "pipe", "logql"])]
    language: String,
    /// What it is for, in a few words
    #[arg(long, default_value = "")]
    title: String,
    /// Of a saved search: where its range begins, for example -1h
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// Of a saved search: where its range ends
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Of a saved search: the columns that are shown, in order
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Only if it is in this version
    #[arg(long, conflicts_with = "new")]
    if_version: Option<u64>,
    /// Only if there is none of this name
    #[arg(long)]
    new: bool,
}

/// Where items of a kind are.
pub(crate) fn shelf(kind: &str) -> &'static str {
    match kind {
        "view" => "views",
        "lookup" => "lookups",
        _ => "saved",
    }
}

fn place(index: &str, kind: &str, name: &str) -> String {
    format!("/api/v1/indexes/{index}/{}/{name}", shelf(kind))
}

fn in_version(request: RequestBuilder, version: Option<u64>) -> RequestBuilder {
    match version {
        Some(version) => request.header(header::IF_MATCH, format!("\"{version}\"")),
        None => request,
    }
}

impl LibraryCommand {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        match self {
            Self::List { index, kind } => {
                let mut rows: Vec<Value> = Vec::new();
                for kind in KINDS.into_iter().filter(|other| kind.as_deref().is_none_or(|kind| kind == *other)) {
                    let mut after = String::new();
                    // Ends with the last page; each begins behind the one before.
                    loop {
                        let path = format!("/api/v1/indexes/{index}/{}?limit={PAGE}{after}", shelf(kind));
                        let page = api.ask(Method::GET, &path, None).await?;
                        rows.extend(page["items"].as_array().into_iter().flatten().cloned());
                        match rows.last().and_then(|row| row["name"].as_str()).filter(|_| page["more"] == true) {
                            Some(last) => after = format!("&after={last}"),
                            None => break,
                        }
                    }
                }
                screen.rows(&rows, &["kind", "name", "version", "changed", "language", "rows", "title"]);
            }
            Self::Get { index, kind, name } => {
                screen.value(&api.ask(Method::GET, &place(&index, &kind, &name), None).await?);
            }
            Self::Put(args) => {
                let request = args.request(api.gateway(Method::PUT, &args.path()))?;
                let item = api.send(request).await?;
                match screen.is_json() {
                    true => screen.value(&item),
                    false => screen.line(format_args!(
                        "{} {}.{} is in version {}",
                        args.kind, args.index, args.name, item["version"]
                    )),
                }
            }
            Self::Delete { index, kind, name, if_version } => {
                let request = api.gateway(Method::DELETE, &place(&index, &kind, &name));
                api.send(in_version(request, if_version)).await?;
                screen.line(format_args!("{kind} {index}.{name} deleted"));
            }
        }
        Ok(())
    }
}

impl PutArgs {
    fn content(&self) -> anyhow::Result<Vec<u8>> {
        match (&self.text, &self.file) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(file)) if file.as_os_str() != "-" => {
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
            }
            _ => {
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut std::io::stdin(), &mut content)?;
                Ok(content)
            }
        }
    }

    /// Where it goes; a table leaves no room for a title in its body.
    fn path(&self) -> String {
        let place = place(&self.index, &self.kind, &self.name);
        if self.kind != "lookup" || self.title.is_empty() {
            return place;
        }
        format!("{place}?title={}", escaped(&self.title))
    }

    fn request(&self, request: RequestBuilder) -> anyhow::Result<RequestBuilder> {
        let request = if self.new { request.header(header::IF_NONE_MATCH, "*") } else { request };
        let request = in_version(request, self.if_version);
        let content = self.content()?;
        if self.kind == "lookup" {
            return Ok(request.header(header::CONTENT_TYPE, "text/csv").body(content));
        }
        let text = String::from_utf8(content).context("the text is not UTF-8")?;
        let mut body = json!({ "text": text.trim_end(), "language": self.language, "title": self.title });
        if self.kind == "saved" {
            body["columns"] = json!(self.columns);
            body["from"] = json!(self.from);
            body["to"] = json!(self.to);
        }
        Ok(request.json(&body))
    }
}

/// A text as a part of an address.
fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_a_part_of_an_address() {
        assert_eq!(escaped("Who owns a host? ü"), "Who%20owns%20a%20host%3F%20%C3%BC");
    }
}
