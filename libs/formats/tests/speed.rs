//! What a line costs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and this one is there to print"
)]

use std::{fmt::Write as _, time::Instant};

use formats::{Column, Kind, Layout, Ndjson, Unit};

const LINES: usize = 400_000;

/// Printed, and compared with the full parser in the same run; a figure alone would be the machine's.
#[test]
fn a_shape_is_much_faster_than_the_full_parser() {
    let mut text = String::new();
    for n in 0..LINES {
        let (second, ms) = (n / 33_333 % 60, n % 1_000);
        let (key, value) = (n * 7_919 % 1_000, n * 104_729 % 1_000);
        writeln!(
            text,
            r#"{{"time":"2026-01-01T00:00:{second:02}.{ms:03}Z","k":{key},"v":{value},"mark":"error","n":{n}}}"#
        )
        .unwrap();
    }
    let columns = [("k", Kind::Integer), ("v", Kind::Integer), ("mark", Kind::Text), ("n", Kind::Integer)];
    let mut nanos = Vec::new();
    for (count, shapes) in [(2, true), (4, true), (2, false)] {
        let columns = columns.iter().take(count).map(|(name, kind)| Column::new(name, *kind)).collect();
        let reader = Ndjson::new(Layout::new(columns, Some("time"), Unit::Millis).unwrap(), 0);
        let mut reader = if shapes { reader } else { reader.without_shapes() };
        let begin = Instant::now();
        let (mut at, mut rows) = (0, 0);
        while at < text.len() {
            let taken = reader.read(&text.as_bytes()[at..(at + (1 << 20)).min(text.len())], false, 8_192).unwrap();
            rows += taken.rows.batch.num_rows();
            at += taken.bytes;
        }
        assert_eq!(rows, LINES);
        let spent = begin.elapsed().as_secs_f64();
        let (each, speed) = (spent * 1e9 / LINES as f64, text.len() as f64 / spent / 1e6);
        let by = if shapes { "shapes" } else { "full parser" };
        println!("NDJSON, time and {count} of 4 columns, {by}: {each:.0} ns an event, {speed:.0} MB/s");
        nanos.push(each);
    }
    assert!(nanos[0] * 2.0 < nanos[2], "a shape is at least twice as fast: {nanos:?}");
}
