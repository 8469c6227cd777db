//! Queries of the pipe language and of LogQL, lowered to SQL and run: what the words mean, shown on twelve events.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also outside of its test functions")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::DataType,
};
use engine::{EngineError, Limits, Rows, TableSource, run_select};
use query::{
    Column, ColumnKind, Select, Surroundings,
    logql::{LogqlRange, lower_logs, lower_metric},
};
use types::{IndexName, Timestamp};

const SECOND: i64 = 1_000_000_000;
/// 2026-01-02T03:04:00Z
const BASE: i64 = 1_767_323_040 * SECOND;

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn events() -> RecordBatch {
    let time =
        || Arc::new(TimestampNanosecondArray::from_iter_values((0..12).map(|i| BASE + i * 10 * SECOND))) as ArrayRef;
    let third = |i: i64| i % 3 == 0;
    let message = |i: i64| {
        if third(i) { format!("ERROR Connection broken to db-{i}") } else { format!("GET /item/{i} took {i}ms") }
    };
    let of = |value: &dyn Fn(i64) -> Option<String>| texts((0..12).map(value));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("_time", time()),
        ("_received", time()),
        ("_msg", of(&|i| Some(message(i)))),
        ("severity", of(&|i| Some(if third(i) { "error" } else { "info" }.to_owned()))),
        ("_segment", of(&|_| Some("1-0-0".to_owned()))),
        ("_offset", Arc::new(Int64Array::from_iter_values(0..12))),
        ("service", of(&|i| Some(if i % 2 == 0 { "cart" } else { "web" }.to_owned()))),
        ("http.status", Arc::new(Int64Array::from_iter_values((0..12).map(|i| if third(i) { 500 } else { 200 })))),
        ("dur", Arc::new((0..12).map(|i| f64::from(i) * 0.5).collect::<Float64Array>())),
        ("latency_ms", Arc::new(Int64Array::from_iter_values((0..12).map(|i| i * 100)))),
        ("user", of(&|i| (i % 4 != 3).then(|| format!("u{}", i % 4)))),
        ("client", of(&|i| Some(format!("10.0.{}.1", i * 20)))),
        ("ok", Arc::new((0..12).map(|i| Some(!third(i))).collect::<BooleanArray>())),
        ("size", of(&|i| Some(format!("{i}KB")))),
        ("took", of(&|i| Some(format!("{}ms", i * 300)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn users() -> RecordBatch {
    let time = || Arc::new(TimestampNanosecondArray::from_iter_values((0..2).map(|i| BASE + i * SECOND))) as ArrayRef;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("_time", time()),
        ("_msg", texts(["hello", "hello"].into_iter().map(|t| Some(t.to_owned())))),
        ("user", texts(["u0", "u1"].into_iter().map(|t| Some(t.to_owned())))),
        ("plan", texts(["gold", "free"].into_iter().map(|t| Some(t.to_owned())))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn kind(of: &DataType) -> ColumnKind {
    match of {
        DataType::Utf8 => ColumnKind::Text,
        DataType::Int64 => ColumnKind::Integer,
        DataType::Float64 => ColumnKind::Number,
        DataType::Boolean => ColumnKind::Boolean,
        DataType::Timestamp(..) => ColumnKind::Time,
        _ => ColumnKind::Other,
    }
}

fn tables() -> Vec<(IndexName, RecordBatch)> {
    vec![("shop".parse().unwrap(), events()), ("users".parse().unwrap(), users())]
}

fn surroundings() -> Surroundings {
    let columns = |batch: &RecordBatch| {
        let fields = batch.schema();
        fields.fields().iter().map(|f| Column { name: f.name().clone(), kind: kind(f.data_type()) }).collect::<Vec<_>>()
    };
    let columns: BTreeMap<_, _> = tables().iter().map(|(index, batch)| (index.clone(), columns(batch))).collect();
    Surroundings { now: Timestamp::from_nanos(BASE + 120 * SECOND), columns, rows_max: 1_000 }
}

async fn answer(select: &Select) -> Result<String, EngineError> {
    let limits =
        Limits { rows_max: 1_000, memory_bytes: 64 << 20, timeout: Duration::from_secs(20), ..Limits::default() };
    let tables = tables().into_iter().filter(|(index, _)| select.tables.contains(index));
    let tables = tables.map(|(index, batch)| (index, Arc::new(Rows::new(vec![batch])) as Arc<dyn TableSource>));
    let result = run_select(select, tables.collect(), limits).await?;
    Ok(result.to_json_rows()?.iter().map(|row| row.get().to_owned()).collect::<Vec<_>>().join("\n"))
}

async fn pipe(text: &str) -> String {
    let text = format!("index:shop {text}");
    let plan = query::parse_pipe(&text).unwrap_or_else(|found| panic!("{}", found.render(&text)));
    let select = query::lower(&plan, &text, &surroundings()).unwrap_or_else(|found| panic!("{}", found.render(&text)));
    answer(&select).await.unwrap_or_else(|error| panic!("{text}\n{}\n{error:?}", select.text))
}

/// The offsets of the events that a search finds, newest first.
#[tokio::test]
async fn searches_find() {
    for (text, offsets) in [
        ("*", "11 10 9 8 7 6 5 4 3 2 1 0"),
        ("broken", "9 6 3 0"),
        ("Broken", ""),
        ("i(BROKEN)", "9 6 3 0"),
        ("broke", ""),
        ("brok*", "9 6 3 0"),
        ("roken", ""),
        ("*roke*", "9 6 3 0"),
        ("\"Connection broken\"", "9 6 3 0"),
        ("~\"db-[36]\"", "6 3"),
        ("db-3 or 4ms", "4 3"),
        ("GET -4ms -5ms", "11 10 8 7 2 1"),
        ("http.status=500 service=cart", "6 0"),
        ("http.status!=500 service!=cart", "11 7 5 1"),
        ("http.status>=500", "9 6 3 0"),
        ("http.status=\"500\"", "9 6 3 0"),
        ("severity=ERROR", "9 6 3 0"),
        ("severity>=warn", "9 6 3 0"),
        ("severity<error _offset<3", "2 1"),
        ("dur>5s", "11"),
        ("latency_ms>=1s", "11 10"),
        ("took>3s", "11"),
        ("size>9KB", "11 10"),
        ("size in (\"1KB\", \"2KB\")", "2 1"),
        ("_offset in (1, 2, 30)", "2 1"),
        ("user=u1", "9 5 1"),
        ("user!=u1", "10 8 6 4 2 0"),
        ("-user=u1", "11 10 8 7 6 4 3 2 0"),
        ("-user=*", "11 7 3"),
        ("user=* _offset>8", "10 9"),
        ("client=10.0.2*", "11 10 1"),
        ("client in 10.0.0.0/19", "1 0"),
        ("client in 10.0.200.1", "10"),
        ("ok=true _offset<5", "4 2 1"),
        ("since:30s", "11 10 9"),
        ("since:2026-01-02T03:05:30Z until:2026-01-02T03:05:50Z", "10 9"),
        ("_time>=\"2026-01-02T03:05:40Z\"", "11 10"),
        ("user in [index:users plan=gold | keep user]", "8 4 0"),
        ("-user in [index:users * | keep user] _offset>5", "11 10 7 6"),
        ("service:ca*", "10 8 6 4 2 0"),
        ("(broken or took) service=web -dur>2s", "3 1"),
    ] {
        let rows = pipe(&format!("{text} | keep _offset")).await;
        let found: Vec<&str> =
            rows.lines().map(|row| row.trim_start_matches("{\"_offset\":").trim_end_matches('}')).collect();
        assert_eq!(found.join(" "), offsets, "{text}");
    }
}

#[tokio::test]
async fn steps_do_what_they_say() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("* | head 2 | keep _offset, service", r#"{"_offset":11,"service":"web"} {"_offset":10,"service":"cart"}"#),
        ("* | tail 2 | keep _offset", r#"{"_offset":1} {"_offset":0}"#),
        ("* | sort dur | head 1 | keep dur", r#"{"dur":0.0}"#),
        ("* | sort -service, dur | head 1 | drop dur | keep service, _offset", r#"{"service":"web","_offset":1}"#),
        ("* | sort user | keep user | tail 1", r#"{"user":null}"#),
        ("* | keep _offset | head 1 | rename _offset as n", r#"{"n":11}"#),
        ("* | stats count", r#"{"count":12}"#),
        ("* | stats count by service", r#"{"service":"cart","count":6} {"service":"web","count":6}"#),
        (
            "broken | stats count, avg(dur), max(latency_ms) as worst, dc(user)",
            r#"{"count":4,"avg_dur":2.25,"worst":900,"dc_user":3}"#,
        ),
        (
            "* | stats countif(http.status >= 500) as bad, count(user) by service",
            r#"{"service":"cart","bad":2,"count_user":6} {"service":"web","bad":2,"count_user":3}"#,
        ),
        (
            "* | stats sum(size), sum(latency_ms), first(_msg), last(_offset)",
            r#"{"sum_size":null,"sum_latency_ms":6600,"first__msg":"ERROR Connection broken to db-0","last__offset":11}"#,
        ),
        (
            "* | stats p50(latency_ms), min(service), stdev(ok) as s | let s = round(s, 3)",
            r#"{"p50_latency_ms":550.0,"min_service":"cart","s":0.492}"#,
        ),
        ("since:2m * | stats rate", r#"{"rate":0.1}"#),
        (
            "* | chart count every 1m",
            r#"{"_time":"2026-01-02T03:04:00Z","count":6} {"_time":"2026-01-02T03:05:00Z","count":6}"#,
        ),
        (
            "broken | chart count, rate by service every 1m",
            r#"{"_time":"2026-01-02T03:04:00Z","service":"cart","count":1,"rate":0.016666666666666666} {"_time":"2026-01-02T03:04:00Z","service":"web","count":1,"rate":0.016666666666666666} {"_time":"2026-01-02T03:05:00Z","service":"cart","count":1,"rate":0.016666666666666666} {"_time":"2026-01-02T03:05:00Z","service":"web","count":1,"rate":0.016666666666666666}"#,
        ),
        (
            "since:50s * | chart count over 40s every 20s",
            r#"{"_time":"2026-01-02T03:05:20Z","count":4} {"_time":"2026-01-02T03:05:40Z","count":4}"#,
        ),
        ("* | top 1 user", r#"{"user":"u0","count":3,"percent":33.333333333333336}"#),
        (
            "_offset>3 | rare 1 service by http.status",
            r#"{"http.status":200,"service":"cart","count":3,"percent":50.0} {"http.status":500,"service":"cart","count":1,"percent":50.0}"#,
        ),
        ("* | dedup service | keep _offset", r#"{"_offset":11} {"_offset":10}"#),
        (
            "* | sort _offset | dedup user | keep user, _offset",
            r#"{"user":"u0","_offset":0} {"user":"u1","_offset":1} {"user":"u2","_offset":2}"#,
        ),
        (
            "_offset=4 | let a = latency_ms / 1000 + 1, b = a * 2, c = if(b > 2, \"big\", \"small\") | keep a, b, c",
            r#"{"a":1.4,"b":2.8,"c":"big"}"#,
        ),
        (
            "_offset=4 | let a = len(_msg), b = substr(_msg, 1, 3), c = upper(service), d = concat(user, \"-\", a), e = round(dur / 3, 2), f = -a % 5 | keep a, b, c, d, e, f",
            r#"{"a":20,"b":"GET","c":"CART","d":"u0-20","e":0.67,"f":0}"#,
        ),
        (
            "_offset=4 | let a = 1 / 0, b = num(size), c = contains(_msg, \"item\"), d = split_part(client, \".\", 3), e = abs(-3), f = bin(_time, 1m), g = replace(service, \"c\", \"k\"), h = coalesce(user, \"x\"), i = extract(_msg, \"item/(\\d+)\") | keep a, b, c, d, e, f, g, h, i",
            r#"{"a":null,"b":null,"c":true,"d":"80","e":3,"f":"2026-01-02T03:04:00Z","g":"kart","h":"u0","i":"4"}"#,
        ),
        ("* | where latency_ms > 2 * 400 and not ok | keep _offset", r#"{"_offset":9}"#),
        (
            "* | where dur in (1, 1.5) or user = \"u2\" and _offset > 8 | keep _offset",
            r#"{"_offset":10} {"_offset":3} {"_offset":2}"#,
        ),
        ("_offset=5 | parse \"<verb> /item/<item> took <_>ms\" | keep verb, item", r#"{"verb":"GET","item":"5"}"#),
        (
            "_offset=5 | rex \"(?<word>took|broke)n? (x)?(?<ms>[0-9]+)ms\" | keep word, ms",
            r#"{"word":"took","ms":"5"}"#,
        ),
        ("_offset=3 | rex \"(?<ms>[0-9]+)ms\" | keep ms", r#"{"ms":null}"#),
        (
            "_offset=5 | rex \"/item/(?<item>\\d+)\" | where num(item) = 5 | stats count by item",
            r#"{"item":"5","count":1}"#,
        ),
        (
            "_offset<2 | fill user with \"none\" | fill nothing with 0 | format \"{user} {{at}} {service}\" as line | replace \"u\" with \"U\" in line | keep line, nothing",
            r#"{"line":"U1 {at} web","nothing":0} {"line":"U0 {at} cart","nothing":0}"#,
        ),
        (
            "_offset<2 | bin _time by 1m | bin latency_ms by 80 | keep _time, latency_ms",
            r#"{"_time":"2026-01-02T03:04:00Z","latency_ms":80} {"_time":"2026-01-02T03:04:00Z","latency_ms":0}"#,
        ),
        (
            "_offset<3 | running sum(latency_ms) as total by service | delta _offset | keep _offset, total, delta__offset",
            r#"{"_offset":2,"total":200,"delta__offset":1} {"_offset":1,"total":100,"delta__offset":1} {"_offset":0,"total":0,"delta__offset":null}"#,
        ),
        (
            "_offset<3 | annotate count by service | keep service, count",
            r#"{"service":"cart","count":2} {"service":"web","count":1} {"service":"cart","count":2}"#,
        ),
        (
            "(_offset<3 or _offset in (7, 8)) | session gap 15s | keep _time, count, duration",
            r#"{"_time":"2026-01-02T03:05:10Z","count":2,"duration":10.0} {"_time":"2026-01-02T03:04:00Z","count":3,"duration":20.0}"#,
        ),
        (
            "_offset<3 | session by service gap 15s | sort service, _time | keep service, count",
            r#"{"service":"cart","count":1} {"service":"cart","count":1} {"service":"web","count":1}"#,
        ),
        (
            "_offset<3 | join user [index:users] | keep _offset, user, plan",
            r#"{"_offset":1,"user":"u1","plan":"free"} {"_offset":0,"user":"u0","plan":"gold"}"#,
        ),
        (
            "_offset<3 | join left user [index:users] | keep _offset, plan",
            r#"{"_offset":2,"plan":null} {"_offset":1,"plan":"free"} {"_offset":0,"plan":"gold"}"#,
        ),
        (
            "_offset=1 | append [index:users plan=free] | keep _time, _msg, plan, service",
            r#"{"_time":"2026-01-02T03:04:10Z","_msg":"GET /item/1 took 1ms","plan":null,"service":"web"} {"_time":"2026-01-02T03:04:01Z","_msg":"hello","plan":"free","service":null}"#,
        ),
        (
            "_offset<4 | keep user, severity | fields",
            r#"{"field":"severity","count":4,"values":2,"coverage":100.0} {"field":"user","count":3,"values":3,"coverage":75.0}"#,
        ),
        (
            "* | sequence broken then took by service within 20s",
            r#"{"service":"web","_time":"2026-01-02T03:05:30Z","until":"2026-01-02T03:05:50Z","duration":20.0} {"service":"cart","_time":"2026-01-02T03:05:00Z","until":"2026-01-02T03:05:20Z","duration":20.0} {"service":"web","_time":"2026-01-02T03:04:30Z","until":"2026-01-02T03:04:50Z","duration":20.0} {"service":"cart","_time":"2026-01-02T03:04:00Z","until":"2026-01-02T03:04:20Z","duration":20.0}"#,
        ),
        ("* | sequence broken then latency_ms=400 then broken within 50s | keep duration", r#"{"duration":30.0}"#),
        ("_offset in (5, 6) | context before 1 after 0 | keep _offset", r#"{"_offset":6} {"_offset":5} {"_offset":4}"#),
        ("_offset=11 | context 1 | keep _offset, user", r#"{"_offset":11,"user":null} {"_offset":10,"user":"u2"}"#),
        ("* | sample 4 | keep _offset", r#"{"_offset":8} {"_offset":4} {"_offset":0}"#),
        (
            "* | let x = if(_offset = 9, 1000, 1) | anomaly max(x) every 10s",
            r#"{"_time":"2026-01-02T03:05:30Z","max_x":1000,"expected":1.0,"score":null}"#,
        ),
        (
            "* | patterns | keep count, percent, pattern, example",
            r#"{"count":8,"percent":66.66666666666667,"pattern":"GET <*> took <*>","example":"GET /item/1 took 1ms"} {"count":4,"percent":33.333333333333336,"pattern":"ERROR Connection broken to <*>","example":"ERROR Connection broken to db-0"}"#,
        ),
        (
            "since:1m broken | stats count by service | compare -1m",
            r#"{"service":"cart","count":1,"count_before":1} {"service":"web","count":1,"count_before":1}"#,
        ),
        ("since:1m * | stats count | compare -30s", r#"{"count":6,"count_before":6}"#),
        (
            "since:1m * | chart count every 30s | compare -1m",
            r#"{"_time":"2026-01-02T03:05:00Z","count":3,"count_before":3} {"_time":"2026-01-02T03:05:30Z","count":3,"count_before":3}"#,
        ),
        (
            "since:10s until:5s * | stats count by service | compare -10s",
            r#"{"service":"cart","count":null,"count_before":1} {"service":"web","count":1,"count_before":null}"#,
        ),
        ("_offset<2 | search cart or web or GET | parse json | keep _offset", r#"{"_offset":1}"#),
        ("_offset=1 | let `odd \"name'` = \"it's \\\"\" | keep `odd \"name'`", r#"{"odd \"name'":"it's \""}"#),
    ] {
        let found = pipe(text).await.replace('\n', " ");
        if found != expected {
            wrong.push(format!("{text}\n  found    {found}\n  expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_regular_expression_that_cannot_be_read_is_told_so() {
    let select = query::parse_select("SELECT _msg FROM shop WHERE _msg ~ '('").unwrap();
    let found = answer(&select).await.unwrap_err();
    assert!(matches!(&found, EngineError::Query(told) if told.message.ends_with("unclosed group")), "{found:?}");
}

#[tokio::test]
async fn several_indexes_are_one_table() {
    let text = "index:shop,users user=u1 | sort _time | head 2 | keep _msg, plan, http.status";
    let plan = query::parse_pipe(text).unwrap();
    let select = query::lower(&plan, text, &surroundings()).unwrap();
    let rows = answer(&select).await.unwrap_or_else(|error| panic!("{}\n{error:?}", select.text));
    assert_eq!(
        rows,
        "{\"_msg\":\"hello\",\"plan\":\"free\",\"http.status\":null}\n{\"_msg\":\"GET /item/1 took 1ms\",\"plan\":null,\"http.status\":200}"
    );
}

fn logql_range(step: u64) -> LogqlRange {
    LogqlRange {
        indexes: vec!["shop".parse().unwrap()],
        start: Timestamp::from_nanos(BASE),
        end: Timestamp::from_nanos(BASE + 120 * SECOND),
        step: Duration::from_secs(step),
        labels: vec!["service".to_owned()],
    }
}

#[tokio::test]
async fn lines_of_logql() {
    for (text, forward, offsets) in [
        (r#"{service="web"} |= "GET" | http_status="200""#, true, "1 5 7 11"),
        (r#"{service="web", nothing=""} |= "GET""#, false, "11 7 5 1"),
        (r#"{nothing="x"}"#, false, ""),
        (r#"{nothing!="x", level="error"}"#, false, "9 6 3 0"),
        (r#"{detected_level=~"err.*"} | json | latency_ms > 300ms"#, true, "6 9"),
        (r#"{service=~"c|web"} != "GET" !~ "db-[09]""#, true, "3"),
        (r#"{} | pattern "<verb> /item/<item> <_>" | item="7""#, true, "7"),
        (r#"{} | line_format "{{.user}}-{{.service}}" |= "u1-web" | label_format w=service | w="web""#, true, "1 5 9"),
        (r#"{user="u0"} | drop service, __error__ | keep user"#, true, "0 4 8"),
    ] {
        let query::Logql::Logs(plan) = query::parse_logql(text).unwrap() else { panic!("{text}") };
        let select = lower_logs(&plan, text, &surroundings(), &logql_range(60), forward).unwrap();
        let rows = answer(&select).await.unwrap_or_else(|error| panic!("{text}\n{}\n{error:?}", select.text));
        let offset = |row: &str| row.split("\"_offset\":").nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
        let found: Vec<String> = rows.lines().map(offset).collect();
        assert_eq!(found.join(" "), offsets, "{text}");
    }
}

#[tokio::test]
async fn series_of_logql() {
    for (text, step, expected) in [
        ("vector(1)+vector(1)", 0, r#"06:00Z 2.0"#),
        ("1 + 2 * 3", 60, "04:00Z 7.0; 05:00Z 7.0; 06:00Z 7.0"),
        ("sum(count_over_time({}[1m]))", 60, "04:00Z 1.0; 05:00Z 6.0; 06:00Z 5.0"),
        (
            "count_over_time({}[1m])",
            60,
            "04:00Z cart 1.0; 05:00Z cart 3.0; 06:00Z cart 2.0; 05:00Z web 3.0; 06:00Z web 3.0",
        ),
        (
            r#"sum by (level, detected_level) (count_over_time({service="cart"} | drop __error__[1m]))"#,
            60,
            "04:00Z error error 1.0; 05:00Z error error 1.0; 05:00Z info info 2.0; 06:00Z info info 2.0",
        ),
        ("sum(rate({}[2m])) * 120", 60, "04:00Z 1.0; 05:00Z 7.0; 06:00Z 11.0"),
        ("sum(count_over_time({}[20s]))", 60, "04:00Z 1.0; 05:00Z 2.0; 06:00Z 1.0"),
        ("sum(count_over_time({}[1m] offset 1m))", 60, "05:00Z 1.0; 06:00Z 6.0"),
        ("sum by (service) (sum_over_time({} | unwrap latency_ms [1m]))", 0, "06:00Z cart 1800.0; 06:00Z web 2700.0"),
        ("max_over_time({} | unwrap dur [2m]) by (service)", 0, "06:00Z cart 5.0; 06:00Z web 5.5"),
        ("max(max_over_time({} | unwrap bytes(size) [2m]))", 0, "06:00Z 11000.0"),
        ("topk(1, sum by (service) (count_over_time({}[1m])))", 60, "04:00Z cart 1.0; 05:00Z cart 3.0; 06:00Z web 3.0"),
        (r#"4 * sum(count_over_time({} |= "ERROR"[2m])) / sum(count_over_time({user="u0"}[2m]))"#, 0, "06:00Z 6.0"),
        ("count(count_over_time({}[1m]) > 2)", 60, "05:00Z 2.0; 06:00Z 1.0"),
        ("avg without (service) (bytes_over_time({} |= \"/item/1 \"[1m]))", 60, "05:00Z 20.0"),
        (r#"absent_over_time({service="nothing"}[1m])"#, 60, "04:00Z 1.0; 05:00Z 1.0; 06:00Z 1.0"),
        ("absent_over_time({}[1m])", 60, ""),
        ("sum by (http_status) (count_over_time({} | json[2m]))", 0, "06:00Z 200 8.0; 06:00Z 500 3.0"),
        (
            "sum by (service) (count_over_time({}[2m])) / on(service) sum by (service) (count_over_time({}[2m]))",
            0,
            "06:00Z cart 1.0; 06:00Z web 1.0",
        ),
        ("vector(1) > 2", 0, ""),
    ] {
        let query::Logql::Metric(metric) = query::parse_logql(text).unwrap() else { panic!("{text}") };
        let select = lower_metric(&metric, text, &surroundings(), &logql_range(step))
            .unwrap_or_else(|found| panic!("{}", found.render(text)));
        let rows = answer(&select).await.unwrap_or_else(|error| panic!("{text}\n{}\n{error:?}", select.text));
        let plain = |row: &str| {
            let values = row
                .trim_matches(['{', '}'])
                .split(",\"")
                .map(|member| member.split_once(':').unwrap().1.trim_matches('"'));
            values.map(|value| value.trim_start_matches("2026-01-02T03:")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(rows.lines().map(plain).collect::<Vec<_>>().join("; "), expected, "{text}\n{}", select.text);
    }
}
