//! The index of row groups: it never hides a row, it opens with one read of the end, and what is damaged in it is found.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampNanosecondArray,
    },
    buffer::BooleanBuffer,
    compute::concat_batches,
    datatypes::{Float64Type, Int64Type, TimestampNanosecondType},
};
use bytes::Bytes;
use chunk::{
    Comparison, Error, Filter, Opened, Predicate, ROW_GROUP_ROWS, Read, Scalar, Tail, info, read, read_range,
    read_rows, tail_bytes, write,
};
use proptest::{prelude::*, sample::select};
use types::{SegmentId, Timestamp};

const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

/// A row of the tests.
#[derive(Debug, Clone)]
struct Row {
    time: i64,
    service: Option<&'static str>,
    severity: Option<&'static str>,
    msg: String,
    id: Option<u128>,
    whole: Option<i64>,
    decimal: Option<f64>,
    truth: Option<bool>,
}

fn batch(first: u64, rows: &[Row]) -> RecordBatch {
    let texts =
        |of: &dyn Fn(&Row) -> Option<String>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let offsets = (first..).take(rows.len()).map(|n| i64::try_from(n).unwrap());
    RecordBatch::try_from_iter_with_nullable([
        (
            "_time",
            Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.time))) as ArrayRef,
            false,
        ),
        ("_msg", texts(&|row| Some(row.msg.clone())), false),
        ("severity", texts(&|row| row.severity.map(str::to_owned)), true),
        ("_segment", texts(&|_| Some(SEGMENT.to_string())), false),
        ("_offset", Arc::new(Int64Array::from_iter_values(offsets)), false),
        ("decimal", Arc::new(rows.iter().map(|row| row.decimal).collect::<Float64Array>()), true),
        ("service", texts(&|row| row.service.map(str::to_owned)), true),
        ("trace", texts(&|row| row.id.map(|id| format!("{id:032x}"))), true),
        ("truth", Arc::new(rows.iter().map(|row| row.truth).collect::<BooleanArray>()), true),
        ("whole", Arc::new(rows.iter().map(|row| row.whole).collect::<Int64Array>()), true),
    ])
    .unwrap()
}

fn joined(batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(batches[0].schema_ref(), batches).unwrap()
}

fn opened(bytes: &Bytes) -> Tail {
    match Tail::open(bytes.clone(), bytes.len() as u64).unwrap() {
        Opened::Tail(tail) => *tail,
        Opened::Needs(more) => panic!("{more} bytes of {} are all", bytes.len()),
    }
}

fn parts(bytes: &Bytes, ranges: &[Range<u64>]) -> Vec<(u64, Bytes)> {
    let slice = |range: &Range<u64>| {
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        (range.start, bytes.slice(start..end))
    };
    ranges.iter().map(slice).collect()
}

/// So many lines of four services with words, numbers and ids that differ.
fn many(rows: usize) -> Vec<Row> {
    let row = |n: usize| Row {
        time: 1_767_323_045_000_000_000 + i64::try_from(n * 1_000_003).unwrap(),
        service: [Some("cart"), Some("checkout"), None, Some("search")][n * 7 % 4],
        severity: [Some("info"), Some("error"), None][n % 3],
        msg: format!("request {} from 10.1.{}.{} took {} ms, user_{n}", n * 37, n % 200, n / 200 % 250, n % 13),
        id: n.is_multiple_of(2).then(|| (n as u128 / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834)),
        whole: (!n.is_multiple_of(3)).then(|| i64::try_from(n).unwrap() - 500),
        decimal: n.is_multiple_of(5).then(|| n as f64 / 8.0),
        truth: Some(n.is_multiple_of(2)),
    };
    (0..rows).map(row).collect()
}

/// Whether a row meets a predicate: said once more, and by the row alone.
fn meets(rows: &RecordBatch, row: usize, predicate: &Predicate) -> bool {
    let column = |name: &str| rows.column_by_name(name).filter(|column| column.is_valid(row));
    let text = |name: &str| Some(column(name)?.as_string_opt::<i32>()?.value(row));
    let compare = |name: &str, op: Comparison, value: &Scalar| {
        let order = match value {
            Scalar::Text(value) => text(name).map(|own| own.cmp(value.as_str())),
            Scalar::Int(value) => column(name).map(|own| own.as_primitive::<Int64Type>().value(row).cmp(value)),
            Scalar::Time(value) => {
                column(name).map(|own| own.as_primitive::<TimestampNanosecondType>().value(row).cmp(&value.nanos()))
            }
            Scalar::Bool(value) => column(name).map(|own| own.as_boolean().value(row).cmp(value)),
            Scalar::Float(value) => column(name).map(|own| match own.as_primitive_opt::<Int64Type>() {
                Some(own) => (own.value(row) as f64).total_cmp(value),
                None => own.as_primitive::<Float64Type>().value(row).total_cmp(value),
            }),
        };
        order.is_some_and(|order| match op {
            Comparison::Equal => order.is_eq(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        })
    };
    let folded = |text: &str| text.to_lowercase().replace('\u{17f}', "s");
    match predicate {
        Predicate::All(all) => all.iter().all(|one| meets(rows, row, one)),
        Predicate::Any(any) => any.iter().any(|one| meets(rows, row, one)),
        Predicate::Compare { column, op, value } => compare(column, *op, value),
        Predicate::OneOf { column, values } => values.iter().any(|value| compare(column, Comparison::Equal, value)),
        Predicate::Contains { column, text: part, any_case: false } => {
            text(column).is_some_and(|own| own.contains(part.as_str()))
        }
        Predicate::Contains { column, text: part, any_case: true } => {
            text(column).is_some_and(|own| folded(own).contains(&folded(part)))
        }
        Predicate::Word { column, text: word, any_case } => text(column).is_some_and(|own| {
            let (own, word) = if *any_case { (folded(own), folded(word)) } else { (own.to_owned(), word.clone()) };
            let in_word = |c: char| c.is_alphanumeric() || c == '_';
            own.match_indices(&word).any(|(at, _)| {
                let (before, after) = (own[..at].chars().next_back(), own[at + word.len()..].chars().next());
                let parted =
                    |end: Option<char>, next: Option<char>| !end.is_some_and(in_word) || !next.is_some_and(in_word);
                parted(word.chars().next(), before) && parted(word.chars().next_back(), after)
            })
        }),
        Predicate::IsNull { column: name } => column(name).is_none(),
    }
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let words = select(vec![
        "a",
        "Broken",
        "broken pipe",
        "etRespon",
        "10.250.73.220",
        "1.2.3.4.5",
        "blk_-77",
        "\u{212a}ey",
        "gr\u{fc}n",
        "x=1",
        "ma\u{17f}k",
        "",
        "__",
        "0af7651916cd43dd8448eb211c80319c",
        "pre-fix",
        " ",
        "4711",
    ]);
    let msg = prop::collection::vec(words, 0..4).prop_map(|words| words.join(" "));
    let long = prop::collection::vec("[a-zK ]{40}", 0..2).prop_map(|words| words.concat());
    let service = select(vec![None, Some("cart"), Some("Checkout"), Some("search")]);
    let row = (
        (0..1_000i64, service, select(vec![None, Some("info"), Some("error")]), msg, long),
        (
            prop::option::of(0..40u128),
            prop::option::of(-5..5i64),
            prop::option::of(select(vec![-1.5, -0.0, 0.0, 2.0, 1e300, f64::INFINITY, f64::NAN])),
            prop::option::of(any::<bool>()),
        ),
    );
    let row = row.prop_map(|((time, service, severity, msg, long), (id, whole, decimal, truth))| Row {
        time,
        service,
        severity,
        msg: msg + &long,
        id,
        whole,
        decimal,
        truth,
    });
    prop::collection::vec(row, 1..40)
}

fn predicate() -> impl Strategy<Value = Predicate> {
    let text_column = select(vec!["_msg", "severity", "service", "trace", "absent"]).prop_map(str::to_owned);
    let text = prop_oneof![
        select(vec![
            "broken",
            "Broken",
            "roken pi",
            "etRespon",
            "10.250.73.220",
            "250.73",
            "2.3.4.5",
            "key",
            "KEY",
            "gr\u{fc}n",
            "mask",
            "cart",
            "check",
            "error",
            "",
            " ",
            "00000000000000000000000000000007",
            "x=1",
            "pre",
            "fix",
            "4711",
        ])
        .prop_map(str::to_owned),
        "[a-zK]{3}",
    ];
    let op = select(vec![
        Comparison::Equal,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ]);
    let number = prop_oneof![
        ((-6..6i64).prop_map(Scalar::Int), Just("whole")),
        (
            select(vec![-2.0, -1.5, -0.0, 0.0, 1.0, 2.0, f64::NAN]).prop_map(Scalar::Float),
            select(vec!["decimal", "whole"])
        ),
        (any::<bool>().prop_map(Scalar::Bool), Just("truth")),
        ((0..1_000i64).prop_map(|at| Scalar::Time(Timestamp::from_nanos(at))), Just("_time")),
    ];
    let leaf =
        prop_oneof![
            (text_column.clone(), op.clone(), text.clone()).prop_map(|(column, op, text)| Predicate::Compare {
                column,
                op,
                value: Scalar::Text(text)
            }),
            (op, number).prop_map(|(op, (value, column))| Predicate::Compare { column: column.to_owned(), op, value }),
            (text_column.clone(), prop::collection::vec(text.clone().prop_map(Scalar::Text), 0..3))
                .prop_map(|(column, values)| Predicate::OneOf { column, values }),
            (text_column.clone(), text.clone(), any::<bool>())
                .prop_map(|(column, text, any_case)| Predicate::Contains { column, text, any_case }),
            (text_column, text, any::<bool>()).prop_map(|(column, text, any_case)| Predicate::Word {
                column,
                text,
                any_case
            }),
            select(vec!["service", "whole", "truth", "absent", "trace"])
                .prop_map(|column| Predicate::IsNull { column: column.to_owned() }),
        ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::All),
            prop::collection::vec(inner, 0..3).prop_map(Predicate::Any),
        ]
    })
}

/// Makes a column too various for its values to be kept, so that its filter is asked.
fn various(mut rows: Vec<Row>) -> Vec<Row> {
    for n in 0..=chunk::VALUES_MAX {
        let mut row = rows[n % rows.len()].clone();
        row.msg = format!("filler{}", "z".repeat(n % 40 + 1));
        row.msg.extend(std::iter::repeat_n('-', n / 40));
        rows.push(row);
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_matters_is_hidden_and_every_row_comes_back(
        rows in rows(),
        is_various in any::<bool>(),
        predicates in prop::collection::vec(predicate(), 24),
        cut in any::<prop::sample::Index>(),
    ) {
        let rows = if is_various { various(rows) } else { rows };
        let all = batch(7, &rows);
        let at = cut.index(rows.len());
        let chunk = write(SEGMENT, 7, &[all.slice(0, at), all.slice(at, rows.len() - at)]).unwrap();
        prop_assert_eq!(format!("{:?}", joined(&read(chunk.bytes.clone()).unwrap())), format!("{all:?}"));
        let some = read_range(chunk.bytes.clone(), 7 + at as u64, None).unwrap();
        prop_assert_eq!(format!("{:?}", joined(&some)), format!("{:?}", all.slice(at, rows.len() - at)));
        let tail = opened(&chunk.bytes);
        for predicate in predicates {
            let has = (0..rows.len()).any(|row| meets(&all, row, &predicate));
            prop_assert!(tail.may_match(0, &predicate) || !has, "{predicate:?}");
        }
    }
}

#[test]
fn most_row_groups_are_left_out() {
    let rows = many(3 * ROW_GROUP_ROWS);
    let chunk = write(SEGMENT, 0, &[batch(0, &rows)]).unwrap();
    let tail = opened(&chunk.bytes);
    assert_eq!((tail.row_groups(), tail.info().order.as_deref()), (3, Some("service")));
    let found = |predicate: Predicate| (0..3).filter(|group| tail.may_match(*group, &predicate)).count();
    let equal = |column: &str, value| Predicate::Compare { column: column.into(), op: Comparison::Equal, value };
    let text = |text: &str| Scalar::Text(text.into());
    let word = |text: &str| Predicate::Word { column: "_msg".into(), text: text.into(), any_case: false };
    let contains = |text: &str| Predicate::Contains { column: "_msg".into(), text: text.into(), any_case: true };
    // Chance has it that a filter says "may be" once in 256 times.
    assert!(found(word("request")) == 3 && found(contains("REQUEST 12")) == 3);
    assert!(found(word("user_100003")) <= 2 && found(equal("_msg", text(&rows[100_003].msg))) <= 2);
    assert!(found(contains("from 10.1.3.4 took")) >= 1);
    assert_eq!((found(word("quarkbeacon")), found(contains("uarkbeaco"))), (0, 0));
    assert_eq!(found(equal("service", text("search"))), 1);
    assert_eq!(found(equal("severity", text("fatal"))), 0);
    assert!(found(equal("trace", text(&format!("{:032x}", rows[20_000].id.unwrap())))) <= 2);
    assert_eq!(found(equal("trace", text("no id"))), 0);
    assert_eq!(found(equal("whole", Scalar::Int(-501))), 0);
    assert_eq!(found(equal("absent", Scalar::Int(1))), 0);
    // Values of other types are compared by whoever knows the table.
    assert_eq!(found(equal("whole", text("-501"))), 3);
    let times: Vec<_> = (0..3).map(|group| tail.zone(group, "_time").unwrap()).collect();
    assert!(times.iter().any(|zone| zone.min == Scalar::Time(tail.info().time_min)));
    assert!(times.iter().any(|zone| zone.max == Scalar::Time(tail.info().time_max)));
    assert_eq!(tail.zone(0, "truth").unwrap().max, Scalar::Bool(true));
    assert_eq!((tail.zone(0, "_msg"), tail.zone(9, "_time"), tail.zone(0, "absent")), (None, None, None));
    assert_eq!((0..3).map(|group| tail.rows(group)).sum::<u64>(), rows.len() as u64);
}

#[test]
fn a_chunk_opens_by_its_end_and_is_read_by_ranges() {
    let rows = many(ROW_GROUP_ROWS + 9_000);
    let all = batch(40, &rows);
    let bytes = write(SEGMENT, 40, std::slice::from_ref(&all)).unwrap().bytes;
    let length = bytes.len() as u64;
    let end = |count: u64| bytes.slice(usize::try_from(length - count).unwrap()..);
    // From too few bytes on, each answer leads to the next.
    let mut count = 1;
    let tail = loop {
        match Tail::open(end(count), length).unwrap() {
            Opened::Needs(more) => {
                assert!(more > count && more <= length);
                count = more;
            }
            Opened::Tail(tail) => break tail,
        }
    };
    assert!(count < length / 3, "{count} of {length}");
    assert!(tail_bytes(length) < length && tail_bytes(100) == 100);
    assert_eq!(tail.info(), &info(&bytes).unwrap());
    let names = ["_msg".to_owned(), "trace".to_owned(), "absent".to_owned()];
    let ranges = tail.ranges(&[1], Some(&names));
    assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() < length / 2);
    let what = |columns, filters| Read { groups: &[1], run: 0..u64::MAX, rows: None, columns, filters };
    let found = joined(&tail.read(&parts(&bytes, &ranges), what(Some(&names[..]), Vec::new())).unwrap());
    assert_eq!((found.num_rows(), found.num_columns()), (9_000, 2));
    // The last row group holds rows of the last service alone.
    let expected = all["service"].as_string::<i32>().iter().enumerate().filter(|(_, of)| *of == Some("search"));
    let expected: Vec<usize> = expected.map(|(row, _)| row).collect();
    let expected = &expected[expected.len() - 9_000..];
    let texts = |batch: &RecordBatch, name: &str, row: usize| {
        let column = batch[name].as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    for (row, from) in expected.iter().enumerate() {
        assert_eq!(texts(&found, "_msg", row), texts(&all, "_msg", *from));
        assert_eq!(texts(&found, "trace", row), texts(&all, "trace", *from));
    }
    let none = tail.read(&parts(&bytes, &tail.ranges(&[1], Some(&[]))), what(Some(&[]), Vec::new())).unwrap();
    assert_eq!(none.iter().map(RecordBatch::num_rows).sum::<usize>(), 9_000);
    // Pieces may be cut anywhere.
    let blocks: Vec<_> = (0..length).step_by(1_000).map(|from| from..length.min(from + 1_000)).collect();
    let same = tail.read(&parts(&bytes, &blocks), what(Some(&names[..]), Vec::new())).unwrap();
    assert_eq!(joined(&same), found);
    let error = tail.read(&parts(&bytes, &blocks[..9]), what(None, Vec::new())).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn filters_are_asked_in_order_and_only_about_rows_that_are_left() {
    let rows = many(20_000);
    let all = batch(40, &rows);
    let bytes = write(SEGMENT, 40, std::slice::from_ref(&all)).unwrap().bytes;
    let tail = opened(&bytes);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let [severity, trace, offset] = ["severity", "trace", "_offset"].map(str::to_owned);
    let is_error =
        |batch: RecordBatch| Ok(batch["severity"].as_string::<i32>().iter().map(|s| Some(s? == "error")).collect());
    let has_digit = move |batch: RecordBatch| {
        counter.fetch_add(batch.num_rows(), Ordering::Relaxed);
        Ok(batch["trace"].as_string::<i32>().iter().map(|id| Some(id?.ends_with('4'))).collect())
    };
    let filters = vec![
        Filter { columns: std::slice::from_ref(&severity), keep: Box::new(is_error) },
        Filter { columns: std::slice::from_ref(&trace), keep: Box::new(has_digit) },
    ];
    let columns = [offset];
    let what = Read { groups: &[0], run: 1_040..9_040, rows: None, columns: Some(&columns), filters };
    let found = tail.read(&[(0, bytes.clone())], what).unwrap();
    let mut found: Vec<i64> =
        found.iter().flat_map(|batch| batch["_offset"].as_primitive::<Int64Type>().values().to_vec()).collect();
    found.sort_unstable();
    let errors = (1_000..9_000).filter(|n| rows[*n].severity == Some("error"));
    let expected = errors.clone().filter(|n| rows[*n].id.is_some_and(|id| id % 16 == 4));
    assert_eq!(found, expected.map(|n| i64::try_from(n + 40).unwrap()).collect::<Vec<_>>());
    assert_eq!(asked.load(Ordering::Relaxed), errors.count());
}

#[test]
fn rows_of_a_window_are_read_in_the_order_of_offsets() {
    let rows = many(30_000);
    let all = batch(40, &rows);
    let bytes = write(SEGMENT, 40, std::slice::from_ref(&all)).unwrap().bytes;
    assert!(!opened(&bytes).is_ordered());
    for from in [40, 41, 9_999, 30_038] {
        let some = joined(&read_rows(bytes.clone(), SEGMENT, from..30_040, 17).unwrap());
        let at = usize::try_from(from - 40).unwrap();
        assert_eq!(some, all.slice(at, 17.min(30_000 - at)));
    }
    let names = ["service".to_owned()];
    let some = joined(&read_range(bytes, 29_040, Some(&names)).unwrap());
    assert_eq!(some, all.slice(29_000, 1_000).project(&[6]).unwrap());
}

#[test]
fn rows_of_one_program_keep_the_order_of_offsets() {
    let mut rows = many(100);
    for (service, expected) in [(None, None), (Some("cart"), None)] {
        rows.iter_mut().for_each(|row| row.service = service);
        let chunk = write(SEGMENT, 0, &[batch(0, &rows)]).unwrap();
        assert_eq!(info(&chunk.bytes).unwrap().order, expected);
    }
    rows[7].service = Some("search");
    let chunk = write(SEGMENT, 0, &[batch(0, &rows)]).unwrap();
    assert_eq!(info(&chunk.bytes).unwrap().order.as_deref(), Some("service"));
}

/// Every byte of the end is proved when it is opened by itself, and every byte of a column when it is read by itself.
#[test]
fn damage_in_what_is_read_by_itself_is_found_and_named() {
    let bytes = write(SEGMENT, 0, &[batch(0, &many(60))]).unwrap().bytes;
    let (length, tail) = (bytes.len() as u64, opened(&bytes));
    let pair = b"logboom.region";
    let footer = bytes.len()
        - 8
        - usize::try_from(u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap())).unwrap();
    let region = bytes.windows(8).position(|window| window == b"LBINDEX2").unwrap();
    assert!(bytes[footer..].windows(pair.len()).any(|window| window == pair));
    for at in region..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= flip;
            let found = Tail::open(Bytes::from(damaged).slice(region..), length);
            let (part, is_named) = match &found {
                Err(Error::Damaged { part, .. }) => (part.as_str(), true),
                // A footer that cannot be understood does not tell where its own checksum is.
                Err(_) | Ok(Opened::Needs(_)) => ("footer", at >= footer),
                Ok(Opened::Tail(_)) => ("nothing", false),
            };
            assert!(is_named, "byte {at} of {length}, footer from {footer}: {part}");
        }
    }
    let columns = tail.ranges(&[0], None);
    let what = || Read { groups: &[0], run: 0..u64::MAX, rows: None, columns: None, filters: Vec::new() };
    assert!(columns.len() == 1 && tail.read(&parts(&bytes, &columns), what()).is_ok());
    let range = usize::try_from(columns[0].start).unwrap()..usize::try_from(columns[0].end).unwrap();
    for at in range {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        let error = tail.read(&parts(&damaged.into(), &columns), what()).unwrap_err().to_string();
        assert!(
            error.starts_with("the column \"") && error.contains("in row group 0 of the chunk is damaged"),
            "{error}"
        );
    }
    for short in 0..200.min(bytes.len()) {
        assert!(!matches!(Tail::open(bytes.slice(..short), short as u64), Ok(Opened::Tail(_))));
    }
    assert!(matches!(Tail::open(bytes.clone(), length - 1), Err(Error::Length { .. })));
}

/// Chunks of before have no region: they open too, with what Parquet itself says of their row groups.
#[test]
fn a_chunk_of_version_1_opens_by_its_end() {
    let bytes = Bytes::from_static(include_bytes!("../testdata/v1.parquet"));
    let tail = opened(&bytes);
    assert_eq!((tail.info().version, tail.row_groups(), tail.is_ordered()), (1, 1, true));
    let status = |value| Predicate::Compare { column: "http.status".into(), op: Comparison::Equal, value };
    assert!(tail.may_match(0, &status(Scalar::Int(203))) && !tail.may_match(0, &status(Scalar::Int(204))));
    assert_eq!(tail.zone(0, "_offset").unwrap().max, Scalar::Int(1_099));
    let word = Predicate::Word { column: "_msg".into(), text: "absent".into(), any_case: false };
    assert!(tail.may_match(0, &word), "it has no filter");
    let what = Read { groups: &[0], run: 1_010..1_020, rows: None, columns: None, filters: Vec::new() };
    let some = tail.read(&parts(&bytes, &tail.ranges(&[0], None)), what).unwrap();
    assert_eq!(joined(&some), joined(&read_rows(bytes, tail.info().segment, 1_010..1_100, 10).unwrap()));
}

#[test]
fn of_named_rows_alone_filters_are_asked() {
    let rows = many(ROW_GROUP_ROWS + 5_000);
    let bytes = write(SEGMENT, 40, &[batch(40, &rows)]).unwrap().bytes;
    let tail = opened(&bytes);
    let columns = ["_offset".to_owned()];
    let offsets = |wanted: Option<BooleanBuffer>, run, filters| {
        let what = Read { groups: &[1], run, rows: wanted, columns: Some(&columns), filters };
        let found = tail.read(&[(0, bytes.clone())], what).unwrap();
        found
            .iter()
            .flat_map(|batch| batch["_offset"].as_primitive::<Int64Type>().values().to_vec())
            .collect::<Vec<_>>()
    };
    let all = offsets(None, 0..u64::MAX, Vec::new());
    assert_eq!(all.len(), 5_000);
    let each = |step: usize| BooleanBuffer::collect_bool(5_000, |row| row % step == 0);
    for step in [1, 2, 700, 4_999] {
        let expected: Vec<i64> = all.iter().copied().step_by(step).collect();
        assert_eq!(offsets(Some(each(step)), 0..u64::MAX, Vec::new()), expected, "each of {step}");
        let middle = 30_000..60_000;
        let within: Vec<i64> = expected.iter().copied().filter(|offset| middle.contains(offset)).collect();
        assert_eq!(offsets(Some(each(step)), 30_000..60_000, Vec::new()), within, "each of {step} in a run");
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let keep = move |batch: RecordBatch| {
            counter.fetch_add(batch.num_rows(), Ordering::Relaxed);
            Ok(batch["_offset"].as_primitive::<Int64Type>().iter().map(|offset| Some(offset? % 2 == 0)).collect())
        };
        let even: Vec<i64> = expected.iter().copied().filter(|offset| offset % 2 == 0).collect();
        let filters = vec![Filter { columns: &columns, keep: Box::new(keep) }];
        assert_eq!(offsets(Some(each(step)), 0..u64::MAX, filters), even);
        assert_eq!(asked.load(Ordering::Relaxed), expected.len());
    }
    assert!(offsets(Some(BooleanBuffer::new_unset(5_000)), 0..u64::MAX, Vec::new()).is_empty());
}
