use arrow::array::{Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
use query::parse_continuous;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let rows = columns.first().map_or(0, |(_, column)| i64::try_from(column.len()).unwrap());
    let base: Vec<(&str, ArrayRef)> = vec![
        ("_time", Arc::new(TimestampNanosecondArray::from_iter_values(0..rows))),
        ("_offset", Arc::new(Int64Array::from_iter_values(0..rows))),
    ];
    RecordBatch::try_from_iter(base.into_iter().chain(columns)).unwrap()
}

fn ints(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn texts(values: Vec<&str>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn shown(batch: &RecordBatch) -> Vec<String> {
    crate::json_rows(batch).unwrap().into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
}

fn stage(filter: Option<&str>, columns: &[(&str, &str)]) -> Result<Stage, EngineError> {
    let columns = columns.iter().map(|(name, expr)| ((*name).to_owned(), (*expr).to_owned()));
    Stage::new(filter.map(str::to_owned), columns.collect())
}

#[test]
fn a_windowed_query_gets_columns_of_fixed_types_whatever_comes() {
    let query = parse_continuous(
        "SELECT service, http.status, count(*) AS n, sum(latency) AS total, count(userId) AS users \
         FROM tumble(shop, INTERVAL '1 s') WHERE severity <> 'debug' GROUP BY service, http.status, window_start",
    )
    .unwrap();
    let stage = Stage::for_query(&query).unwrap();
    let full = batch(vec![
        ("severity", texts(vec!["error", "debug", "info"])),
        ("service", texts(vec!["cart", "cart", "shop"])),
        ("http.status", ints(vec![500, 200, 200])),
        ("latency", ints(vec![7, 8, 9])),
    ]);
    let odd = batch(vec![
        ("severity", texts(vec!["error", "info"])),
        ("service", ints(vec![1, 2])),
        ("latency", texts(vec!["12", "12ms"])),
        ("userId", Arc::new(Float64Array::from(vec![Some(1.5), None]))),
    ]);
    let empty = batch(vec![("x", ints(vec![1]))]);
    let out = [&full, &odd, &empty].map(|batch| stage.apply(batch).unwrap());
    assert!(out.iter().all(|batch| batch.schema() == out[0].schema()), "{:?}", out.map(|b| b.schema()));
    let types: Vec<String> =
        out[0].schema().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    assert_eq!(
        types,
        ["_time Timestamp(ns)", "_offset Int64", "service Utf8", "http.status Utf8", "total Float64", "users Float64"]
    );
    let text = |batch: &RecordBatch| shown(&batch.project(&[1, 2, 3, 4, 5]).unwrap());
    assert_eq!(
        text(&out[0]),
        [
            r#"{"_offset":0,"service":"cart","http.status":"500","total":7.0}"#,
            r#"{"_offset":2,"service":"shop","http.status":"200","total":9.0}"#
        ]
    );
    assert_eq!(
        text(&out[1]),
        [r#"{"_offset":0,"service":"1","total":12.0,"users":1.0}"#, r#"{"_offset":1,"service":"2"}"#]
    );
    assert_eq!(out[2].num_rows(), 0, "severity is null, so the filter is null");
}

#[test]
fn what_does_not_fit_is_null_and_never_an_error() {
    let stage = stage(Some("code > 1"), &[("k", "latency / 1000"), ("n", "CAST(raw AS INT)")]).unwrap();
    let fits =
        batch(vec![("code", ints(vec![1, 2])), ("latency", ints(vec![1000, 2000])), ("raw", texts(vec!["1", "2"]))]);
    assert_eq!(shown(&stage.apply(&fits).unwrap().project(&[1, 2, 3]).unwrap()), [r#"{"_offset":1,"k":2,"n":2}"#]);
    let odd = batch(vec![
        ("code", texts(vec!["5", "x", "7"])),
        ("latency", texts(vec!["a", "b", "c"])),
        ("raw", texts(vec!["1", "2", "three"])),
    ]);
    let out = shown(&stage.apply(&odd).unwrap().project(&[1, 3]).unwrap());
    assert_eq!(out, [r#"{"_offset":0,"n":1}"#, r#"{"_offset":2}"#]);
}

#[test]
fn without_columns_every_column_passes() {
    let stage = stage(Some("a > 1 AND b IS NULL"), &[]).unwrap();
    let rows = batch(vec![("a", ints(vec![1, 2])), ("c", texts(vec!["x", "y"]))]);
    let out = stage.apply(&rows).unwrap();
    assert_eq!(out.schema(), rows.schema());
    assert_eq!(shown(&out.project(&[2, 3]).unwrap()), [r#"{"a":2,"c":"y"}"#]);
    let all = super::Stage::new(None, Vec::new()).unwrap();
    assert_eq!(all.apply(&rows).unwrap(), rows);
}

#[test]
fn a_time_may_be_selected_by_its_name() {
    let stage = stage(None, &[("_time", "_time"), ("m", "a")]).unwrap();
    let out = stage.apply(&batch(vec![("a", ints(vec![1]))])).unwrap();
    let names: Vec<String> = out.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["_offset", "_time", "m"]);
}

#[test]
fn expressions_that_can_never_work_are_refused_at_once() {
    for (filter, columns, words) in [
        (Some("frobnicate(a)"), vec![], "frobnicate"),
        (Some("a +"), vec![], "expected"),
        (Some("1 + 1"), vec![], "not true or false"),
        (None, vec![("x", "count(*)")], "aggregate"),
        (None, vec![("x", "lower(a, b, c)")], "lower"),
    ] {
        let found = stage(filter, &columns).unwrap_err();
        assert!(matches!(found, EngineError::Query(_)), "{found:?}");
        assert!(found.to_string().contains(words), "{found}");
    }
}

#[test]
fn plans_are_bounded() {
    let stage = stage(None, &[("x", "a")]).unwrap();
    for i in 0..PLANS_KEPT_MAX + 10 {
        let name = format!("c{i}");
        stage.apply(&batch(vec![("a", ints(vec![1])), (&name, ints(vec![1]))])).unwrap();
    }
    assert_eq!(stage.plans.lock().len(), PLANS_KEPT_MAX);
}

#[test]
fn rows_that_fail_are_named_by_their_number_in_the_batch() {
    let stage = stage(Some("n < 9"), &[("share", "35 / n"), ("number", "CAST(t AS BIGINT)")]).unwrap();
    let mut failed = Vec::new();
    let rows = batch(vec![("n", ints(vec![9, 5, 0, 7])), ("t", texts(vec!["1", "x", "3", "4"]))]);
    assert_eq!(stage.apply_noting(&rows, &mut failed).unwrap().num_rows(), 3);
    let found: Vec<_> = failed.iter().map(|failure| (failure.row, failure.kind)).collect();
    assert_eq!(found, [(2, FailureKind::DivisionByZero), (1, FailureKind::Conversion)]);
}
