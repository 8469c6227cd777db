//! The page that says what is inferred, tried row by row.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use ingest::{RawEvent, Record, Source, Value, Window, parse};
use types::{Severity, Timestamp};

const PAGE: &str = include_str!("../../../docs/guide/inference.md");

/// 2026-01-02 03:04:05 UTC, and eight days later.
const T: Timestamp = Timestamp::from_millis(1_767_323_045_000);
const RECEIVED: Timestamp = Timestamp::from_millis(1_768_003_200_000);

/// The cells of the table of that many columns under a heading, without its head.
fn rows<const COLUMNS: usize>(heading: &str) -> Vec<[&'static str; COLUMNS]> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.skip(2).map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().try_into().unwrap()).collect()
}

fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

fn read(line: &str) -> Record<'_> {
    parse(RawEvent { payload: line.as_bytes(), received: RECEIVED })
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.to_string(),
    }
}

#[test]
fn formats() {
    let rows = rows::<4>("Formats");
    assert_eq!(rows.len(), 9);
    for [format, line, message, fields] in rows {
        let line = code(line).unwrap();
        let record = read(line);
        assert_eq!(record.message, code(message).unwrap_or(line), "{format}");
        let found: BTreeSet<_> = record.fields.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
        let said: BTreeSet<_> = code(fields).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        assert_eq!(found, said, "{format}");
        assert!(T <= record.time && record.time < T + std::time::Duration::from_secs(1), "{format}: {}", record.time);
    }
}

#[test]
fn layouts() {
    let rows = rows::<2>("Times");
    assert_eq!(rows.iter().map(|row| row[0]).collect::<BTreeSet<_>>().len(), 26);
    for [layout, line] in rows {
        let (layout, line) = (code(layout).unwrap(), code(line).unwrap());
        let mut source = Source::new(Window::ANY);
        let record = source.parse(RawEvent { payload: line.as_bytes(), received: RECEIVED });
        assert_eq!(source.layout(), Some(layout), "{line}");
        let zone = std::time::Duration::from_secs(if line.contains("+01:00") { 3_600 } else { 0 });
        let time = record.time + zone;
        assert!(T <= time && time < T + std::time::Duration::from_secs(1), "{line}: {time}");
        assert!(
            time == T || line.contains("5.123") || line.contains("5,123") || line.contains("045123"),
            "{line}: {time}"
        );
    }
}

#[test]
fn severities() {
    let rows = rows::<2>("Severity");
    assert_eq!(rows.len(), 6);
    for [severity, words] in rows {
        let severity: Severity = code(severity).unwrap().parse().unwrap();
        for word in words.split_whitespace() {
            let word = code(word).unwrap();
            assert_eq!(read(&format!("2026-01-02 03:04:05 [{word}] x")).severity, Some(severity), "{word}");
            assert_eq!(read(&format!("{{\"level\":\"{word}\"}}")).severity, Some(severity), "{word}");
        }
    }
}

#[test]
fn limits() {
    let numbers = [
        ("fields of an event", ingest::FIELDS_MAX),
        ("columns of an index", ingest::COLUMNS_MAX),
        ("patterns of a template dictionary", ingest::template::PATTERNS_MAX),
    ];
    let rows = rows::<3>("Limits");
    for (what, limit) in numbers {
        let row = rows.iter().find(|row| row[0] == what).unwrap();
        let said: String = row[1].split(',').next().unwrap().chars().filter(char::is_ascii_digit).collect();
        assert_eq!(said.parse(), Ok(limit), "{what}");
    }
}
