use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{Float64Type, Int64Type, TimestampNanosecondType},
};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{Column, Kind, Unit};

fn layout() -> Layout {
    let columns =
        [("k", Kind::Integer), ("v", Kind::Float), ("name", Kind::Text), ("ok", Kind::Boolean), ("at", Kind::Time)];
    let columns = columns.map(|(name, kind)| Column::new(name, kind)).to_vec();
    Layout::new(columns, Some("time"), Unit::Millis).unwrap()
}

/// Everything that a reader gives of a text that comes in pieces of that size.
#[derive(Debug)]
struct All {
    rows: RecordBatch,
    offsets: Vec<i64>,
    faults: Vec<Fault>,
    misses: u32,
}

impl PartialEq for All {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.offsets == other.offsets && self.faults == other.faults
    }
}

fn all(mut reader: Ndjson, text: &[u8], piece: usize, rows_max: usize) -> All {
    let (mut batches, mut offsets, mut faults, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new(), 0, 0);
    let begin = reader.position();
    loop {
        let ended = to == text.len();
        let taken = reader.read(&text[from..to], ended, rows_max).unwrap();
        let Rows { batch, offsets: found, faults: wrong } = taken.rows;
        assert_eq!(batch.num_rows(), found.len());
        assert!(found.len() + wrong.len() <= rows_max.max(1));
        batches.push(batch);
        offsets.extend(found.iter().copied());
        faults.extend(wrong);
        from += taken.bytes;
        if taken.bytes == 0 {
            if ended {
                assert_eq!(reader.position(), begin + text.len() as u64);
                let rows = concat_batches(reader.columns.layout.schema(), &batches).unwrap();
                return All { rows, offsets, faults, misses: reader.misses };
            }
            to = (to + piece).min(text.len());
        }
    }
}

use crate::Rows;

fn fast(text: &[u8], piece: usize) -> All {
    all(Ndjson::new(layout(), 0), text, piece, 50)
}

fn full(text: &[u8]) -> All {
    all(Ndjson::new(layout(), 0).without_shapes(), text, text.len().max(1), usize::MAX)
}

const LINE: &str = r#"{"time":"2026-01-01T00:00:12.345Z","k":17,"v":2.5,"name":"cart","more":"x","ok":true,"at":1}"#;

/// The line with a change, between others that fit the learnt shape, and what comes of it: a row or the begin of a problem.
#[test]
fn what_a_line_means() {
    let cases: &[(&str, Result<&str, &str>)] = &[
        (LINE, Ok("17|2.5|cart|true|1000000")),
        (
            r#"{"time":1767225612345,"k":-0,"v":-0,"name":"","ok":false,"at":"1970-01-01T00:00:01Z"}"#,
            Ok("0|-0|||1000000000"),
        ),
        (r#" { "time" : 1 , "k" : 17 } "#, Ok("17||null||")),
        ("{\"time\":1,\"k\":17}\r", Ok("17||null||")),
        (r#"{"time":1,"name":"a\"b\\\u00e9\n"}"#, Ok("||a\"b\\é\n||")),
        (r#"{"time":1,"name":"é☃"}"#, Ok("||é☃||")),
        (r#"{"time":1,"\u006b":5}"#, Ok("5||null||")),
        (r#"{"time":1,"k":1,"k":2}"#, Ok("2||null||")),
        (r#"{"time":1,"k":"x","k":2,"more":{"k":[1,{"k":3}]}}"#, Ok("2||null||")),
        (r#"{"time":1,"name":{"a": [1, "}"]}}"#, Ok(r#"||{"a": [1, "}"]}||"#)),
        (r#"{"time":1,"name":12.50,"v":1e3,"k":null}"#, Ok("|1000|12.50||")),
        (r#"{"time":1,"k":9223372036854775807}"#, Ok("9223372036854775807||null||")),
        (r#"{"time":1,"k":9223372036854775808}"#, Err("\"k\" is 9223372036854775808, not a whole number")),
        (r#"{"time":1,"k":1.0}"#, Err("\"k\" is 1.0, not a whole")),
        (r#"{"time":1,"k":"1"}"#, Err("\"k\" is \"1\", not a whole")),
        (r#"{"time":1,"v":1e999}"#, Err("\"v\" is 1e999, not a number")),
        (r#"{"time":1,"k":01}"#, Err("invalid number")),
        (r#"{"time":1,"ok":1}"#, Err("\"ok\" is 1, not true")),
        (r#"{"time":1,"at":"soon"}"#, Err("\"at\" is \"soon\", not a time")),
        (r#"{"time":"soon"}"#, Err("\"time\" is \"soon\", not a time")),
        (r#"{"time":null}"#, Err("\"time\" is missing or null")),
        (r#"{"k":1}"#, Err("\"time\" is missing or null")),
        (r#"{"time":9223372036854775807}"#, Err("\"time\" is 9223372036854775807, not a time")),
        (r#"{"time":1,"name":"\ud800"}"#, Err("unexpected end of hex escape")),
        ("{\"time\":1,\"name\":\"a\tb\"}", Err("control character")),
        (r#"{"time":1,"k":1"#, Err("EOF while parsing")),
        (r#"{"time":1} {"time":2}"#, Err("trailing characters")),
        (r#"{"time":1,}"#, Err("trailing comma")),
        ("not an event", Err("expected")),
        ("[1,2]", Err("invalid type: sequence")),
        ("null", Err("invalid type: null")),
        (r#"{"time":tru}"#, Err("expected ident")),
    ];
    for (line, wanted) in cases {
        let text = format!("{LINE}\n\n  \t\r\n{LINE}\n{line}\n{LINE}");
        let found = fast(text.as_bytes(), 1_000);
        assert_eq!(found, full(text.as_bytes()), "{line}");
        let at = i64::try_from(2 * LINE.len() + 8).unwrap();
        match wanted {
            Ok(wanted) => {
                assert_eq!((found.rows.num_rows(), found.offsets[2], found.faults.len()), (4, at, 0), "{line}");
                assert_eq!(shown(&found.rows, 2), *wanted, "{line}");
            }
            Err(wanted) => {
                assert_eq!((found.rows.num_rows(), found.faults.len()), (3, 1), "{line}");
                let Fault { offset, kind, problem, text } = &found.faults[0];
                assert!(problem.starts_with(wanted) || problem.contains(wanted), "{line}: {problem}");
                let undated = problem.starts_with("\"time\"");
                assert_eq!(*kind, if undated { FaultKind::Undated } else { FaultKind::Corrupt }, "{line}");
                assert_eq!((i64::try_from(*offset).unwrap(), text.as_str()), (at, *line));
            }
        }
    }
}

fn shown(rows: &RecordBatch, row: usize) -> String {
    let column = |name: &str| rows.column_by_name(name).unwrap();
    let text = |name: &str, text: String| if column(name).is_null(row) { String::new() } else { text };
    let ok = column("ok").as_boolean().value(row);
    [
        text("k", column("k").as_primitive::<Int64Type>().value(row).to_string()),
        text("v", column("v").as_primitive::<Float64Type>().value(row).to_string()),
        if column("name").is_null(row) {
            "null".to_owned()
        } else {
            column("name").as_string::<i32>().value(row).to_owned()
        },
        if ok { "true".to_owned() } else { String::new() },
        text("at", column("at").as_primitive::<TimestampNanosecondType>().value(row).to_string()),
    ]
    .join("|")
}

#[test]
fn lines_of_one_program_are_read_by_their_shape() {
    let text = format!("{LINE}\n").repeat(1_000);
    let found = fast(text.as_bytes(), 1 << 20);
    // Besides the first one only the last ones of the text are too near to its end.
    assert_eq!((found.rows.num_rows(), found.misses), (1_000, 1));
    let time = found.rows.column_by_name("_time").unwrap().as_primitive::<TimestampNanosecondType>().value(999);
    assert_eq!(time, 1_767_225_612_345_000_000);
    // Two programs that write to one file.
    let text = format!("{LINE}\n{}\n", r#"{"time":1,"k":5,"other":null}"#).repeat(1_000);
    assert!(fast(text.as_bytes(), 1 << 20).misses < LEARN_EVERY + 2);
}

#[test]
fn a_line_that_is_too_long_is_one_fault_and_is_read_again_from_its_begin() {
    for length in [LINE_BYTES_MAX - 50, LINE_BYTES_MAX + 1, 3 * LINE_BYTES_MAX] {
        for end in ["\n", ""] {
            let long = format!(r#"{{"time":1,"name":"{}"}}"#, "x".repeat(length));
            let text =
                format!("{LINE}\n{long}{}{end}", if end.is_empty() { String::new() } else { format!("\n{LINE}") });
            let found = fast(text.as_bytes(), LINE_BYTES_MAX / 3);
            assert_eq!(found, full(text.as_bytes()));
            assert_eq!(found.rows.num_rows() + found.faults.len(), if end.is_empty() { 2 } else { 3 });
            let kinds: Vec<FaultKind> = found.faults.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds.len(), usize::from(length > LINE_BYTES_MAX));
            assert!(found.faults.iter().all(|f| f.kind == FaultKind::TooLong && f.offset == LINE.len() as u64 + 1));
        }
    }
    let mut reader = Ndjson::new(layout(), 500);
    assert_eq!(reader.read(&vec![b'x'; LINE_BYTES_MAX + 1], false, 9).unwrap().bytes, LINE_BYTES_MAX + 1);
    assert_eq!(reader.position(), 500, "who goes on from there meets the fault again");
}

#[test]
fn the_event_time_can_be_a_column_too() {
    let columns = vec![Column::new("time", Kind::Time), Column::new("k", Kind::Integer)];
    let reader = Ndjson::new(Layout::new(columns, Some("time"), Unit::Seconds).unwrap(), 0);
    let found = all(reader, b"{\"time\":3,\"k\":1}", 5, 9);
    let names: Vec<String> = found.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["_time", "time", "k"]);
    assert_eq!(found.rows.column(0), found.rows.column(1));
    for (columns, wrong) in [
        (vec![Column::new("time", Kind::Text)], "declare it as a time"),
        (vec![Column::new("a", Kind::Text), Column::new("a", Kind::Text)], "twice"),
        (vec![Column::new("_time", Kind::Time)], "name another"),
    ] {
        assert!(Layout::new(columns, Some("time"), Unit::Seconds).unwrap_err().to_string().contains(wrong), "{wrong}");
    }
    assert!(Layout::new(Vec::new(), None, Unit::Seconds).is_err());
}

fn value() -> impl Strategy<Value = String> {
    let text = prop_oneof![3 => "[a-zA-Z0-9 ,:}{]{0,20}", 1 => any::<String>()];
    prop_oneof![
        4 => any::<i64>().prop_map(|n| n.to_string()),
        2 => (-1000i64..1000).prop_map(|n| n.to_string()),
        3 => any::<f64>().prop_filter("JSON", |n| n.is_finite()).prop_map(|n| Value::from(n).to_string()),
        1 => (any::<i32>(), 0u8..6).prop_map(|(n, d)| format!("{:.*}", usize::from(d), f64::from(n) / 1000.0)),
        4 => text.prop_map(|text| Value::from(text).to_string()),
        3 => (0i64..2_000_000_000, 0u32..1000).prop_map(|(s, ms)| format!("\"20{:02}-01-{:02}T00:{:02}:00.{ms:03}Z\"", s % 60, s % 31 + 1, s % 60)),
        2 => prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(str::to_owned),
        1 => prop_oneof![Just("[1,{\"k\":2}]"), Just("{}"), Just("{\"time\": 1}")].prop_map(str::to_owned),
    ]
}

/// Lines of a few programs: of each the names and what is between them, then values that fit the columns most often.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let names =
        prop::sample::subsequence(vec!["time", "k", "v", "name", "ok", "at", "more", "other"], 1..8).prop_shuffle();
    let program = (names, prop_oneof![3 => Just((":", ",")), 1 => Just((" : ", ", "))], any::<bool>());
    let programs = prop::collection::vec(program, 1..3);
    let line = (any::<prop::sample::Index>(), prop::collection::vec((value(), 0u8..10), 8));
    (programs, prop::collection::vec(line, 0..60)).prop_map(|(programs, lines)| {
        let mut text = String::new();
        for (program, values) in lines {
            let (names, (colon, comma), carriage) = program.get(&programs);
            let member = |(name, (value, odd)): (&&str, &(String, u8))| {
                let number = value.len() * 7919 % 1_000_003;
                let fitting = match *name {
                    "time" => format!("\"2026-01-01T00:{:02}:00Z\"", number % 60),
                    "k" => format!("{number}"),
                    "v" => format!("{}.{}", number % 100, number % 7),
                    "ok" => (number % 2 == 0).to_string(),
                    "at" => format!("{number}000"),
                    _ => Value::from(value.as_str()).to_string(),
                };
                format!("\"{name}\"{colon}{}", if *odd == 0 { value } else { &fitting })
            };
            let members: Vec<String> = names.iter().zip(&values).map(member).collect();
            text.push_str(&format!("{{{}}}{}\n", members.join(comma), if *carriage { "\r" } else { "" }));
        }
        text.into_bytes()
    })
}

proptest! {
    /// The shapes change nothing: whatever comes, and however it is cut.
    #[test]
    fn shapes_and_the_full_parser_agree(
        mut text in lines(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 0..12),
        piece in 1usize..4_000,
    ) {
        for (place, byte, way) in damages {
            if text.is_empty() {
                break;
            }
            let place = place.index(text.len());
            let likely = b"\",:{}[]\\ \n\r0-.e"[usize::from(byte) % 15];
            match way {
                0 => text[place] = byte,
                1 => text[place] = likely,
                2 => drop(text.remove(place)),
                _ => text.insert(place, likely),
            }
        }
        prop_assert_eq!(fast(&text, piece), full(&text));
    }

    /// The full parser means what `serde_json::Value` means.
    #[test]
    fn a_row_has_the_values_of_its_line(text in lines()) {
        let found = fast(&text, 1 << 20);
        let mut row = 0;
        for line in std::str::from_utf8(&text).unwrap().lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            let fault = found.faults.iter().any(|fault| fault.text.trim_end() == line);
            let fits = |kind: &str| match (&value[kind], kind) {
                (Value::Null, "time") => false,
                (Value::Null, _) | (_, "name") => true,
                (value, "k") => value.is_i64(),
                (value, "v") => value.is_number(),
                (value, "ok") => value.is_boolean(),
                (Value::Number(n), _) => n.as_i64().is_some_and(|n| n.checked_mul(1_000_000).is_some()),
                (Value::String(text), _) => crate::instant::Day::default().instant(text.as_bytes()).is_some(),
                _ => false,
            };
            prop_assert_eq!(fault, !["time", "k", "v", "name", "ok", "at"].into_iter().all(fits), "{}", line);
            if fault {
                continue;
            }
            let column = |name: &str| found.rows.column_by_name(name).unwrap();
            let k = column("k").as_primitive::<Int64Type>();
            prop_assert_eq!(k.is_valid(row).then(|| k.value(row)), value["k"].as_i64());
            let v = column("v").as_primitive::<Float64Type>();
            // Theirs are rounded in haste.
            let near = |a: f64, b: f64| (a - b).abs() <= a.abs() * 1e-14 + f64::MIN_POSITIVE;
            prop_assert_eq!(v.is_valid(row), !value["v"].is_null());
            prop_assert!(value["v"].as_f64().is_none_or(|wanted| near(v.value(row), wanted)), "{}", line);
            let ok = column("ok").as_boolean();
            prop_assert_eq!(ok.is_valid(row).then(|| ok.value(row)), value["ok"].as_bool());
            let name = column("name").as_string::<i32>();
            if let Value::String(text) = &value["name"] {
                prop_assert_eq!(name.value(row), text);
            }
            row += 1;
        }
        prop_assert_eq!(row, found.rows.num_rows());
    }
}
