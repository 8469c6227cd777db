//! Severity: words near the beginning of a line, and the numbers of the common scales.

use types::Severity;

/// How far after the timestamp a severity word is looked for.
const PROBE_BYTES_MAX: usize = 96;

/// Whether a word alone is enough, or only with punctuation that marks it as a level.
#[derive(Clone, Copy, PartialEq)]
enum Weight {
    Strong,
    Weak,
}

/// Finds the severity word of a line; `text` begins right after the timestamp if there is one (`dated`).
///
/// A word counts when it is in brackets, before a colon, after `level=`, in capitals, or the first word of a dated
/// line. Words that also mean something else (`log`, `config`) need brackets, or capitals before a colon.
/// A single capital of `VDIWEF` counts where only numbers precede it, as on Android.
/// A word in brackets comes before the first of the others, unless that one opens a dated line: there stands the level.
pub(crate) fn in_text(text: &str, dated: bool) -> Option<Severity> {
    let bytes = text.as_bytes();
    let mut window = &bytes[..bytes.len().min(PROBE_BYTES_MAX)];
    if let Some(end) = memchr::memchr(b'\n', window) {
        window = &window[..end];
    }
    let (mut at, mut words, mut bare) = (0, 0, None);
    while at < window.len() {
        if !window[at].is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let start = at;
        while at < window.len() && (window[at].is_ascii_alphanumeric() || window[at] == b'_') {
            at += 1;
        }
        let before = start.checked_sub(1).map(|i| window[i]);
        let after = bytes.get(at).copied();
        let first = dated && words == 0;
        match judge(&window[start..at], before, after, &window[..start], first) {
            Some((found, bracketed)) if first || bracketed => return Some(found),
            Some((found, _)) => bare = bare.or(Some(found)),
            None => {}
        }
        words += 1;
    }
    bare
}

/// The severity that a word states, and whether it stands in brackets.
fn judge(word: &[u8], before: Option<u8>, after: Option<u8>, head: &[u8], first: bool) -> Option<(Severity, bool)> {
    if !before.is_none_or(|b| b" \t[(<|=\"':,>".contains(&b)) || !after.is_none_or(|b| b" \t\n\r])>|:,\"'".contains(&b))
    {
        return None;
    }
    if let [letter] = word {
        let alone = before.is_none_or(|b| b == b' ') && after == Some(b' ');
        return (first && alone).then(|| of_letter(*letter)).flatten().map(|found| (found, false));
    }
    let capitals = word.iter().all(|b| !b.is_ascii_lowercase());
    let bracketed = before.is_some_and(|b| b"[(<|".contains(&b)) && after.is_some_and(|b| b"])>|".contains(&b));
    let keyed = before == Some(b'=') && [&b"level="[..], b"severity=", b"lvl="].iter().any(|key| head.ends_with(key));
    let marked = after == Some(b':') && before != Some(b'=');
    // Prose ends here, before any word is looked up.
    if !(bracketed || keyed || marked || capitals || first) {
        return None;
    }
    let (severity, weight) = word_of(word)?;
    let counts = match weight {
        Weight::Strong => true,
        Weight::Weak => bracketed || keyed || (marked && capitals),
    };
    counts.then_some((severity, bracketed))
}

/// The severity of a letter, as Android and klog write it.
pub(crate) fn of_letter(letter: u8) -> Option<Severity> {
    Some(match letter {
        b'V' => Severity::Trace,
        b'D' => Severity::Debug,
        b'I' => Severity::Info,
        b'W' => Severity::Warn,
        b'E' => Severity::Error,
        b'F' => Severity::Fatal,
        _ => return None,
    })
}

/// The longest word of the table.
const WORD_BYTES_MAX: usize = 13;

fn word_of(word: &[u8]) -> Option<(Severity, Weight)> {
    let mut lower = [0u8; WORD_BYTES_MAX];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let weight = match &*lower {
        b"trace" | b"debug" | b"info" | b"notice" | b"warn" | b"warning" | b"error" | b"err" | b"severe" | b"fatal"
        | b"critical" | b"crit" | b"emerg" | b"panic" => Weight::Strong,
        b"verbose" | b"finest" | b"finer" | b"fine" | b"dbg" | b"debug1" | b"debug2" | b"debug3" | b"debug4"
        | b"debug5" | b"information" | b"informational" | b"config" | b"log" | b"statement" | b"alert"
        | b"emergency" => Weight::Weak,
        _ => return None,
    };
    let severity = std::str::from_utf8(lower).ok()?.parse().ok()?;
    Some((severity, weight))
}

/// A syslog priority's severity, `0..=7`.
pub(crate) fn of_syslog(number: i64) -> Option<Severity> {
    Some(match number {
        0..=2 => Severity::Fatal,
        3 => Severity::Error,
        4 => Severity::Warn,
        5 | 6 => Severity::Info,
        7 => Severity::Debug,
        _ => return None,
    })
}

/// OpenTelemetry's severity number, `1..=24`.
pub fn of_otel(number: i64) -> Option<Severity> {
    Some(match number {
        1..=4 => Severity::Trace,
        5..=8 => Severity::Debug,
        9..=12 => Severity::Info,
        13..=16 => Severity::Warn,
        17..=20 => Severity::Error,
        21..=24 => Severity::Fatal,
        _ => return None,
    })
}

/// What the numbers under a key such as `level` mean; a source uses one scale throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// No number was seen that only one scale has: tens are those of the JavaScript loggers, the rest is syslog's.
    Unknown,
    /// 10 to 60 in tens, what lies between counting as the ten below.
    Tens,
    /// OpenTelemetry's 1 to 24.
    OpenTelemetry,
}

impl Scale {
    /// Reads a number, and learns from it if only one scale has it.
    pub(crate) fn read(&mut self, number: i64) -> Option<Severity> {
        match number {
            8 | 9 | 11..=19 | 21..=24 => *self = Self::OpenTelemetry,
            25..70 => *self = Self::Tens,
            _ => {}
        }
        match self {
            Self::OpenTelemetry => of_otel(number),
            _ => of_tens(number).or_else(|| of_syslog(number)),
        }
    }
}

fn of_tens(number: i64) -> Option<Severity> {
    Some(match number {
        10..20 => Severity::Trace,
        20..30 => Severity::Debug,
        30..40 => Severity::Info,
        40..50 => Severity::Warn,
        50..60 => Severity::Error,
        60..70 => Severity::Fatal,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_count_and_words_that_do_not() {
        use Severity::{Debug, Error, Fatal, Info, Trace, Warn};
        let cases: [(&str, bool, Option<Severity>); 27] = [
            (" INFO [main] start", true, Some(Info)),
            (" - WARN  [main] start", true, Some(Warn)),
            (" [error] 12#0: *3 open() failed", true, Some(Error)),
            (", Info    CBS  Loaded", true, Some(Info)),
            (" error while reading", true, Some(Error)),
            (" UTC [12] LOG:  checkpoint", true, Some(Info)),
            (" UTC [12] app@db ERROR:  deadlock", true, Some(Error)),
            (" UTC [12] FATAL:  gone", true, Some(Fatal)),
            ("  1702  2395 D WindowManager: x", true, Some(Debug)),
            ("  1702  2395 V Window: x", true, Some(Trace)),
            (" host sshd[1]: error: PAM: bad", true, Some(Error)),
            (" host sshd[1]: Failed password", true, None),
            (" R02 RAS KERNEL FATAL data", true, Some(Fatal)),
            (" [info] x", false, Some(Info)),
            (" <warning> x", false, Some(Warn)),
            ("the error was small", false, None),
            ("Error: it broke", false, Some(Error)),
            ("an informational log of config", false, None),
            (" pid=3 level=debug x", false, Some(Debug)),
            (" plan: A I did", true, None),
            ("no-ERROR-here", false, None),
            ("errors=0 warnings=0", false, None),
            (" [main] log: written", true, None),
            (" |ERROR| x", false, Some(Error)),
            ("worker: ERROR count is 0 [info]", false, Some(Info)),
            (" ERROR cannot set level [info]", true, Some(Error)),
            (" host app: ERROR then DEBUG", true, Some(Error)),
        ];
        for (text, dated, expected) in cases {
            assert_eq!(in_text(text, dated), expected, "{text:?}");
        }
        assert_eq!(in_text(&format!("{} ERROR", "x ".repeat(60)), false), None, "too far in");
        assert_eq!(in_text("first line\nERROR second", false), None, "only the first line");
    }

    #[test]
    fn numbers_are_read_on_the_scale_of_their_source() {
        use Severity::{Debug, Error, Fatal, Info, Trace, Warn};
        let mut unknown = Scale::Unknown;
        assert_eq!(
            [0, 3, 4, 6, 7, 10, 20].map(|n| unknown.read(n)),
            [Fatal, Error, Warn, Info, Debug, Trace, Debug].map(Some)
        );
        assert_eq!(unknown, Scale::Unknown);
        let mut otel = unknown;
        assert_eq!([9, 20, 4, 24].map(|n| otel.read(n)), [Info, Error, Trace, Fatal].map(Some));
        let mut tens = unknown;
        assert_eq!([30, 35, 20, 55].map(|n| tens.read(n)), [Info, Info, Debug, Error].map(Some));
        assert_eq!([-1, 70, 1000].map(|n| tens.read(n)), [None; 3]);
    }

    #[test]
    fn every_word_of_the_table_is_known_to_the_parser() {
        for word in ["trace", "emergency", "informational", "debug5", "statement", "severe", "dbg"] {
            assert!(word_of(word.as_bytes()).is_some(), "{word}");
        }
    }
}
