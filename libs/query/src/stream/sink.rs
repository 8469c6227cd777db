//! Where rows go.

use std::{collections::BTreeMap, time::Duration};

use sqlparser::{
    ast::{Expr, FunctionArg, FunctionArguments, Spanned},
    tokenizer::{Location, Token, TokenWithSpan},
};
use types::IndexName;

use super::{
    argument::{Arguments, text},
    source::{Format, format, url},
};
use crate::{
    Diagnostic, nearest,
    text::{at, expression, index_at},
};

const SINKS: [&str; 5] = ["files", "jetstream", "http", "stdout", "blackhole"];
const FILES: &str = "write files('<directory>', format => 'ndjson', roll_after => INTERVAL '1 minute')";
const JETSTREAM: &str = "write jetstream('<subject>'), where {column} stands for a value";
const HTTP: &str = "write http('<url>', headers => 'name: value'), one header on a line";

/// How long a file may be open before it rolls.
const ROLLS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An index.
    Index(IndexName),
    /// Files.
    Files {
        /// The URL of a directory.
        url: String,
        /// Their format.
        format: Format,
        /// A file rolls at that size.
        roll_bytes: Option<u64>,
        /// A file rolls when it is that old.
        roll_after: Option<Duration>,
    },
    /// Messages to a subject of NATS JetStream.
    JetStream {
        /// The subject.
        subject: String,
    },
    /// Requests.
    Http {
        /// The URL.
        url: String,
        /// Headers.
        headers: BTreeMap<String, String>,
    },
    /// The worker's standard output.
    Stdout,
    /// Nowhere.
    Blackhole,
}

impl Target {
    /// The index that it is.
    pub fn index(&self) -> Option<&IndexName> {
        match self {
            Self::Index(index) => Some(index),
            _ => None,
        }
    }

    /// Whether results may change that it has got.
    pub fn takes_changes(&self) -> bool {
        matches!(self, Self::Stdout | Self::Blackhole)
    }

    /// One or two words for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Index(_) => "an index",
            Self::Files { .. } => "files",
            Self::JetStream { .. } => "jetstream",
            Self::Http { .. } => "http",
            Self::Stdout => "stdout",
            Self::Blackhole => "blackhole",
        }
    }
}

/// The target at a place, and the place behind it.
pub(crate) fn target(text: &str, tokens: &[TokenWithSpan], from: usize) -> Result<(Target, usize), Diagnostic> {
    let called = tokens.get(from + 1).is_some_and(|t| t.token == Token::LParen);
    let Some(TokenWithSpan { token: Token::Word(word), span }) = tokens.get(from).filter(|_| called) else {
        return Ok((Target::Index(index_at(tokens, from)?.0), from + 1));
    };
    let end = closing(tokens, from + 1).ok_or_else(|| at(span.start, format!("{word}( has no end")))?;
    let Expr::Function(call) = expression(text, tokens[from..end].to_vec())? else {
        return Err(at(span.start, format!("expected the name of an index, found {word}")));
    };
    let args = match &call.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        _ => &[],
    };
    Ok((read(&word.value.to_lowercase(), call.name.span().start, args)?, end))
}

fn read(name: &str, place: Location, args: &[FunctionArg]) -> Result<Target, Diagnostic> {
    match name {
        "files" => {
            let mut given = Arguments::of(name, place, args, FILES)?;
            let url = url(&mut given, "files")?;
            let format = format(&mut given)?;
            let roll_bytes = given.number("roll_bytes")?.map(|(bytes, _)| bytes);
            let roll_after = given.interval("roll_after", "a file's age", ROLLS)?;
            given.end(&["format", "delimiter", "header", "roll_bytes", "roll_after"])?;
            Ok(Target::Files { url, format, roll_bytes, roll_after })
        }
        "jetstream" => {
            let mut given = Arguments::of(name, place, args, JETSTREAM)?;
            let (subject, _) = text(given.next("a subject")?, "the subject")?;
            given.end(&[])?;
            Ok(Target::JetStream { subject })
        }
        "http" => {
            let mut given = Arguments::of(name, place, args, HTTP)?;
            let (url, at_url) = text(given.next("a URL")?, "the URL")?;
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(at(at_url, format!("{url:?} is not the URL of an HTTP server")).help(HTTP));
            }
            let headers = given.text("headers")?.map_or_else(|| Ok(BTreeMap::new()), headers)?;
            given.end(&["headers"])?;
            Ok(Target::Http { url, headers })
        }
        "stdout" | "blackhole" => {
            Arguments::of(name, place, args, "it takes no arguments")?.end(&[])?;
            Ok(if name == "stdout" { Target::Stdout } else { Target::Blackhole })
        }
        _ => {
            let found = at(place, format!("rows cannot go to {name}()"));
            Err(match nearest(name, SINKS) {
                Some(meant) => found.help(format!("did you mean {meant}?")),
                None => found.help("write INSERT INTO <index>, or one of files('<directory>'), jetstream('<subject>'), http('<url>'), stdout(), blackhole()"),
            })
        }
    }
}

fn headers((lines, place): (String, Location)) -> Result<BTreeMap<String, String>, Diagnostic> {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let (name, value) = (name.trim(), value.trim());
        (!name.is_empty() && name.chars().all(token)).then(|| (name.to_owned(), value.to_owned()))
    };
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| header(line).ok_or_else(|| at(place, format!("{line:?} is not a header")).help(HTTP))).collect()
}

/// The place behind the parenthesis that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
    }
    None
}
