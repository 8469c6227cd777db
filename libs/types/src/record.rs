//! What a log line is once it is understood.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Invalid, Timestamp};

/// How grave a line is; the order is that of OpenTelemetry's severity ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Finest detail.
    Trace,
    /// For developers.
    Debug,
    /// Normal operation.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
    /// The process cannot go on.
    Fatal,
}

impl Severity {
    /// The lower-case word stored in the `severity` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = Invalid;

    /// Reads the spellings found in the field: syslog, log4j, Go, Python, PostgreSQL and single letters.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let lower = text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase();
        Ok(match lower.as_str() {
            "trace" | "finest" | "finer" | "verbose" | "v" | "t" => Self::Trace,
            "debug" | "fine" | "d" | "dbg" | "debug1" | "debug2" | "debug3" | "debug4" | "debug5" => Self::Debug,
            "info" | "information" | "informational" | "notice" | "log" | "i" | "config" | "statement" => Self::Info,
            "warn" | "warning" | "w" => Self::Warn,
            "error" | "err" | "e" | "severe" => Self::Error,
            "fatal" | "critical" | "crit" | "panic" | "emerg" | "emergency" | "alert" | "f" | "c" => Self::Fatal,
            _ => return Err(Invalid::new("severity", text, "a known severity word")),
        })
    }
}

/// One typed field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text; nested JSON is kept as its text.
    Text(String),
}

/// One understood event, before it becomes a row of a column batch.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// Event time, or the receive time where the line holds none.
    pub time: Timestamp,
    /// The message, several lines long for a stack trace.
    pub message: String,
    /// Inferred severity.
    pub severity: Option<Severity>,
    /// Typed fields by name.
    pub fields: BTreeMap<String, Value>,
}
