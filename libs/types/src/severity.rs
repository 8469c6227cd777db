//! How grave a log line is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The longest word that names a severity.
const WORD_BYTES_MAX: usize = 13;

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
        let unknown = || Invalid::new("severity", text, "a known severity word");
        let word = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let mut lower = [0; WORD_BYTES_MAX];
        let lower = lower.get_mut(..word.len()).ok_or_else(unknown)?;
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        Ok(match &*lower {
            b"trace" | b"finest" | b"finer" | b"verbose" | b"v" | b"t" => Self::Trace,
            b"debug" | b"fine" | b"d" | b"dbg" | b"debug1" | b"debug2" | b"debug3" | b"debug4" | b"debug5" => {
                Self::Debug
            }
            b"info" | b"information" | b"informational" | b"notice" | b"log" | b"i" | b"config" | b"statement" => {
                Self::Info
            }
            b"warn" | b"warning" | b"w" => Self::Warn,
            b"error" | b"err" | b"e" | b"severe" => Self::Error,
            b"fatal" | b"critical" | b"crit" | b"panic" | b"emerg" | b"emergency" | b"alert" | b"f" | b"c" => {
                Self::Fatal
            }
            _ => return Err(unknown()),
        })
    }
}
