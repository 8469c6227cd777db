//! Accuracy on lines of the software people run.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Field, Int64Type, Schema, TimestampNanosecondType},
};
use types::{SegmentId, Severity, Timestamp};

use crate::{
    BASE_COLUMNS, BatchBuilder, COLUMNS_MAX, FIELD_NAME_BYTES_MAX, FIELDS_MAX, REST_COLUMN, RawEvent, Record, Value,
    base_schema, conform, merge_schemas, parse, to_batch,
};

/// 2026-01-02 03:04:05 UTC.
const T: Timestamp = Timestamp::from_millis(1_767_323_045_000);
/// 2026-01-10 00:00:00 UTC.
const RECEIVED: Timestamp = Timestamp::from_millis(1_768_003_200_000);
const SEGMENT: SegmentId = SegmentId { stream: 7, epoch: 1, number: 3 };

fn read(payload: &str) -> Record<'_> {
    parse(RawEvent { payload: payload.as_bytes(), received: RECEIVED })
}

fn text(value: &str) -> Value<'_> {
    value.into()
}

fn check(payload: &str, time: Timestamp, severity: Option<Severity>, fields: &[(&str, Value<'_>)]) {
    let record = read(payload);
    assert_eq!((record.time, record.severity), (time, severity), "{payload}");
    for (name, value) in fields {
        assert_eq!(record.field(name), Some(value), "{name} of {payload}");
    }
    assert!(fields.len() == record.fields.len(), "{payload}: {:?}", record.fields);
}

#[test]
fn nginx_access() {
    check(
        r#"203.0.113.9 - bob [02/Jan/2026:03:04:05 +0000] "GET /a?b=c HTTP/2.0" 200 5316 "https://x.example/" "curl/8 \"q\"""#,
        T,
        None,
        &[
            ("remote_addr", text("203.0.113.9")),
            ("remote_user", text("bob")),
            ("method", text("GET")),
            ("path", text("/a?b=c")),
            ("protocol", text("HTTP/2.0")),
            ("status", Value::Int(200)),
            ("bytes", Value::Int(5316)),
            ("referer", text("https://x.example/")),
            ("user_agent", text(r#"curl/8 \"q\""#)),
        ],
    );
    check(
        r#"::1 - - [02/Jan/2026:04:04:05 +0100] "-" 400 -"#,
        T,
        None,
        &[("remote_addr", text("::1")), ("status", Value::Int(400))],
    );
    check("2026/01/02 03:04:05 [error] 31#31: *7 open() \"/x\" failed", T, Some(Severity::Error), &[]);
}

#[test]
fn sshd_syslog() {
    let fields = |pid| [("app", text("sshd")), ("host", text("web-1")), ("pid", Value::Int(pid))];
    check(
        "Jan  2 03:04:05 web-1 sshd[24206]: Failed password for root from 10.0.0.1 port 22 ssh2",
        T,
        None,
        &fields(24206),
    );
    check("<86>Jan  2 03:04:05 web-1 sshd[9]: session opened", T, Some(Severity::Info), &fields(9));
    check("<13>Jan  2 03:04:05 web-1 sshd[9]: error: PAM: bad", T, Some(Severity::Error), &fields(9));
    check(
        "<34>1 2026-01-02T03:04:05.000Z web-1 sshd 77 ID47 - 'su root' failed",
        T,
        Some(Severity::Fatal),
        &[("app", text("sshd")), ("host", text("web-1")), ("msgid", text("ID47")), ("pid", Value::Int(77))],
    );
    check("Jan  2 03:04:05 web-1 kernel: eth0 up", T, None, &[("app", text("kernel")), ("host", text("web-1"))]);
}

#[test]
fn java_with_a_stack_trace_is_one_record() {
    let payload = "2026-01-02 03:04:05,000 ERROR [exec-3] c.e.Order - Failed\njava.lang.IllegalStateException: x=1 y=2\n\tat \
                   c.e.Order.confirm(Order.java:12)\nCaused by: java.io.IOException: gone\n\t... 17 more\n";
    check(payload, T, Some(Severity::Error), &[]);
    assert_eq!(read(payload).message, payload.trim_end());
    check("2026-01-02 03:04:05,000 - INFO  [main:Quorum@1] - started", T, Some(Severity::Info), &[]);
}

#[test]
fn logfmt() {
    let payload = r#"ts=2026-01-02T03:04:05Z level=warn msg="disk \"sda\" is slow" ms=12.5 n=3 ok=false id=007 empty="#;
    check(
        payload,
        T,
        Some(Severity::Warn),
        &[
            ("level", text("warn")),
            ("ms", Value::Float(12.5)),
            ("n", Value::Int(3)),
            ("ok", Value::Bool(false)),
            ("id", text("007")),
            ("empty", text("")),
        ],
    );
    assert_eq!(read(payload).message, "disk \"sda\" is slow");
    check("[2026-01-02T03:04:05Z] a=1 b=2", T, None, &[("a", Value::Int(1)), ("b", Value::Int(2))]);
    assert_eq!(read("a=1 b=2").message, "a=1 b=2");
}

#[test]
fn json() {
    let payload = r#"{"@timestamp":"2026-01-02T03:04:05Z","level":"notice","message":"hi\n","n":1,"f":1.5,"ok":true,
        "gone":null,"tags":["a",{"b":1}],"http":{"req":{"path":"/"},"status":200},"big":18446744073709551615}"#;
    check(
        payload,
        T,
        Some(Severity::Info),
        &[
            ("level", text("notice")),
            ("n", Value::Int(1)),
            ("f", Value::Float(1.5)),
            ("ok", Value::Bool(true)),
            ("tags", text(r#"["a",{"b":1}]"#)),
            ("http.req.path", text("/")),
            ("http.status", Value::Int(200)),
            ("big", text("18446744073709551615")),
        ],
    );
    assert_eq!(read(payload).message, "hi");
    // Better keys win, the others stay fields; epochs of every unit; numeric levels.
    check(r#"{"time":1767323045000,"ts":5,"msg":"x"}"#, T, None, &[("ts", Value::Int(5))]);
    check(r#"{"ts":1767323045.0,"level":50,"msg":"x"}"#, T, Some(Severity::Error), &[("level", Value::Int(50))]);
    check(r#"{"_time":"1767323045000000000","severity":"ERROR","_msg":"x"}"#, T, Some(Severity::Error), &[]);
    check(
        r#"{"severity_number":17,"msg":"x"}"#,
        RECEIVED,
        Some(Severity::Error),
        &[("severity_number", Value::Int(17))],
    );
    // Docker's envelope: the level stands in the message.
    check(
        r#"{"log":"ERROR it broke\n","stream":"stderr","time":"2026-01-02T03:04:05Z"}"#,
        T,
        Some(Severity::Error),
        &[("stream", text("stderr"))],
    );
    let silent = r#"{"a":{"b":1}}"#;
    assert_eq!(read(silent).message, silent);
}

#[test]
fn names_of_the_platform_are_not_taken_over() {
    check(
        r#"{"_segment":"x","_time":"never","severity":"odd","":1,"_attrs":2,"msg":{"a":1}}"#,
        RECEIVED,
        None,
        &[
            ("field_segment", text("x")),
            ("field_time", text("never")),
            ("field_severity", text("odd")),
            ("field_", Value::Int(1)),
            ("field_attrs", Value::Int(2)),
            ("msg.a", Value::Int(1)),
        ],
    );
}

#[test]
fn postgresql_klog_and_others() {
    check("2026-01-02 03:04:05.000 UTC [17] app@db LOG:  duration: 3 ms", T, Some(Severity::Info), &[]);
    check("2026-01-02 03:04:05.000 UTC [17] FATAL:  the database is gone", T, Some(Severity::Fatal), &[]);
    check(
        "E0102 03:04:05.000000       1 controller.go:114] \"Sync failed\" err=\"x\" n=2",
        T,
        Some(Severity::Error),
        &[("thread", Value::Int(1)), ("caller", text("controller.go:114")), ("err", text("x")), ("n", Value::Int(2))],
    );
    check("W0102 03:04:05.000000 said] by hand", T, Some(Severity::Warn), &[]);
    check("01-02 03:04:05.000  1702  2395 W ActivityManager: slow", T, Some(Severity::Warn), &[]);
    check("[Fri Jan 02 03:04:05 2026] [notice] jk2_init() found", T, Some(Severity::Info), &[]);
    check("26/01/02 03:04:05 INFO storage.BlockManager: found", T, Some(Severity::Info), &[]);
    check("just words", RECEIVED, None, &[]);
    check("", RECEIVED, None, &[]);
    check("{\"broken\": ", RECEIVED, None, &[]);
    let odd = parse(RawEvent { payload: b"caf\xe9 2026-01-02T03:04:05Z", received: RECEIVED });
    assert_eq!((odd.message.as_ref(), odd.time), ("caf\u{f7e9} 2026-01-02T03:04:05Z", T));
}

#[test]
fn nothing_makes_it_fail() {
    let seeds = [
        "{\"a\":{\"b\":[1,2,{\"c\":null}]},\"ts\":1e300,\"level\":-9}",
        "Jan  2 03:04:05 héé a[]: x",
        "<191>1 2026-01-02T03:04:05Z - - - - x=1 y=\"é\"",
        "1.2.3.4 - é [10/Oct/2000:13:55:36 -0700] \"GET /é HTTP/1.1\" 200 - \"\\\" \"é\"",
        "E0229 03:04:05.9é WARN [é] ts=é é=\"\\",
    ];
    for seed in seeds {
        for cut in 0..=seed.len() {
            let payload = &seed.as_bytes()[..cut];
            let record = parse(RawEvent { payload, received: RECEIVED });
            assert!(record.time > Timestamp::default());
            // And with every byte in turn replaced by something else.
            let mut odd = seed.as_bytes().to_vec();
            for byte in [0u8, b'9', b'"', b'\\', b' ', b'=', b'[', 0xff] {
                if let Some(slot) = odd.get_mut(cut) {
                    *slot = byte;
                }
                parse(RawEvent { payload: &odd, received: Timestamp::MAX });
                parse(RawEvent { payload: &odd, received: Timestamp::MIN });
            }
        }
    }
}

#[test]
fn fields_beyond_the_limit_stay_in_one_column() {
    let members: Vec<_> = (0..FIELDS_MAX + 5).map(|n| format!("\"k{n:03}\":{n}")).collect();
    let payload = format!("{{{},\"msg\":\"m\",\"level\":\"info\"}}", members.join(","));
    let record = read(&payload);
    assert_eq!((record.message.as_ref(), record.severity), ("m", Some(Severity::Info)));
    assert_eq!(record.fields.len(), FIELDS_MAX + 1);
    let Some(Value::Text(rest)) = record.field(REST_COLUMN) else { panic!("text") };
    let rest: serde_json::Value = serde_json::from_str(rest).unwrap();
    assert_eq!((&rest["k200"], &rest["k204"], &rest["level"]), (&200.into(), &204.into(), &"info".into()));
}

#[test]
fn a_record_is_never_much_larger_than_its_event() {
    let members = |count: usize| (0..count).map(|n| format!("\"{n:x}\":1")).collect::<Vec<_>>().join(",");
    let long = "k".repeat(FIELD_NAME_BYTES_MAX);
    for payload in [
        // Each member would repeat a long name, or one of the longest names that are flattened.
        format!("{{\"{}\":{{{}}}}}", "k".repeat(20_000), members(2_000)),
        format!("{{\"{long}\":{{\"m\":{{{}}}}}}}", members(2_000)),
        format!("{{\"{}\":{{{}}}}}", &long[..200], members(2_000)),
        format!("{{\"a\":{{{}}}}}", members(2_000)),
    ] {
        let record = read(&payload);
        let size: usize = record.fields.iter().map(|(name, value)| name.len() + format!("{value:?}").len()).sum();
        assert!(size < payload.len() * 3 + FIELDS_MAX * FIELD_NAME_BYTES_MAX, "{size} bytes of {}", payload.len());
        assert!(record.fields.len() <= FIELDS_MAX + 1);
        assert!(record.field(REST_COLUMN).is_some());
    }
    let payload = format!("{{\"{long}\":{{\"m\":{{\"x\":1}}}},\"o\":2}}");
    let record = read(&payload);
    assert_eq!(record.field("o"), Some(&Value::Int(2)));
    assert_eq!(record.field(REST_COLUMN), Some(&Value::Text(format!("{{\"{long}.m\":{{\"x\":1}}}}").into())));
}

fn batch(payloads: &[&str]) -> RecordBatch {
    to_batch(SEGMENT, 40, payloads.iter().map(|p| RawEvent { payload: p.as_bytes(), received: RECEIVED }))
}

fn names(schema: &Schema) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().map(|value| value.map(str::to_owned)).collect()
}

#[test]
fn a_batch_has_typed_columns_in_a_fixed_order() {
    let batch = batch(&[
        r#"{"msg":"a","level":"error","b":1,"c":1,"d":true,"B":"x"}"#,
        "plain",
        r#"{"msg":"c","b":2.5,"c":true,"d":false}"#,
    ]);
    let schema = batch.schema();
    assert_eq!(names(&schema), [&BASE_COLUMNS[..], &["B", "b", "c", "d", "level"]].concat());
    let of = |name| schema.field_with_name(name).unwrap().data_type().clone();
    assert_eq!(
        [of("B"), of("b"), of("c"), of("d")],
        [DataType::Utf8, DataType::Float64, DataType::Utf8, DataType::Boolean]
    );
    assert_eq!(texts(&batch, "c"), [Some("1".into()), None, Some("true".into())]);
    assert_eq!(texts(&batch, "_msg"), [Some("a".into()), Some("plain".into()), Some("c".into())]);
    assert_eq!(texts(&batch, "severity"), [Some("error".into()), None, None]);
    assert_eq!(texts(&batch, "_segment"), vec![Some("7-1-3".to_owned()); 3]);
    assert_eq!(batch.column(5).as_primitive::<Int64Type>().values(), &[40, 41, 42]);
    assert_eq!(batch.column(0).as_primitive::<TimestampNanosecondType>().value(0), RECEIVED.nanos());
    assert_eq!(&Schema::new(schema.fields()[..6].to_vec()), &base_schema());
    assert_eq!(to_batch(SEGMENT, 0, []).schema().as_ref(), &base_schema());
}

#[test]
fn numbers_become_text_the_same_way_wherever_they_meet_text() {
    let together =
        batch(&[r#"{"v":1}"#, r#"{"v":1.0}"#, r#"{"v":1e300}"#, r#"{"v":true}"#, r#"{"v":"x"}"#, r#"{"v":0.1}"#]);
    let expected = ["1.0", "1.0", "1e300", "true", "x", "0.1"].map(|v| Some(v.to_owned()));
    assert_eq!(texts(&together, "v"), expected);
    let alone = [batch(&[r#"{"v":1.0}"#, r#"{"v":1e300}"#]), batch(&[r#"{"v":true}"#]), batch(&[r#"{"v":"x"}"#])];
    let schema =
        Arc::new(merge_schemas(alone.iter().map(|b| b.schema()).collect::<Vec<_>>().iter().map(AsRef::as_ref)));
    let conformed: Vec<_> = alone.iter().flat_map(|b| texts(&conform(b, &schema).unwrap(), "v")).collect();
    assert_eq!(conformed, expected[1..5]);
}

#[test]
fn batches_of_different_schemas_form_one_table() {
    let (a, b) = (batch(&[r#"{"x":1,"n":1}"#]), batch(&[r#"{"y":"z","n":0.5}"#]));
    let schema = Arc::new(merge_schemas([a.schema().as_ref(), b.schema().as_ref()]));
    assert_eq!(names(&schema)[6..], ["n", "x", "y"]);
    assert_eq!(schema.field_with_name("n").unwrap().data_type(), &DataType::Float64);
    let table = [conform(&a, &schema).unwrap(), conform(&b, &schema).unwrap()];
    assert!(table.iter().all(|batch| batch.schema() == schema));
    assert_eq!(texts(&table[0], "y"), [None]);
    assert_eq!(conform(&table[0], &schema).unwrap(), table[0]);
    assert_eq!(merge_schemas([]), base_schema());
    let narrow = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    assert_eq!(conform(&a, &narrow).unwrap().num_columns(), 1);
    let wrong = Arc::new(Schema::new(vec![Field::new("_msg", DataType::Int64, false)]));
    assert!(conform(&a, &wrong).unwrap_err().to_string().starts_with("column \"_msg\" cannot become Int64"));
    let narrower = conform(&b, &narrow).unwrap_err();
    assert!(narrower.to_string().starts_with("column \"n\" cannot become Int64"), "0.5 must not become 0");
    let missing = Arc::new(Schema::new(vec![Field::new("q", DataType::Int64, false)]));
    assert!(conform(&a, &missing).unwrap_err().to_string().contains("no column \"q\""));
}

#[test]
fn columns_beyond_the_limit_lose_nothing() {
    let mut builder = BatchBuilder::new(SEGMENT, 0);
    for row in 0..10 {
        let fields = (0..150).map(|n| (format!("r{row}_{n:03}").into(), Value::Int(n))).collect();
        let record = Record { time: T, message: "".into(), severity: None, fields };
        assert!(builder.push(&record, RECEIVED));
    }
    let wide = builder.finish();
    assert_eq!(wide.num_columns(), COLUMNS_MAX);
    let rest = texts(&wide, REST_COLUMN);
    // 993 inferred columns: six rows of 150 and 93 of the seventh.
    assert_eq!(rest[5], None);
    assert!(rest[6].as_ref().unwrap().starts_with(r#"{"r6_093":93,"#));
    let more = batch(&[r#"{"zz":1,"_attrs":9,"r0_000":3}"#, r#"{"msg":"none"}"#]);
    let schema = Arc::new(merge_schemas([wide.schema().as_ref(), more.schema().as_ref()]));
    assert_eq!(schema.fields().len(), COLUMNS_MAX);
    let conformed = conform(&more, &schema).unwrap();
    assert_eq!(texts(&conformed, REST_COLUMN), [Some(r#"{"field_attrs":9,"zz":1}"#.into()), None]);
    assert_eq!(conformed.column_by_name("r0_000").unwrap().null_count(), 1);
    // Once cut, a table's schema stays cut: merging it with itself changes nothing.
    assert_eq!(merge_schemas([schema.as_ref(), schema.as_ref()]), *schema);
}
