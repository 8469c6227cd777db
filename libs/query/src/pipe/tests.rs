use proptest::{prelude::*, strategy::ValueTree};

use super::*;
use crate::plan::{Pattern, PatternKind, Predicate, Step, Value};

fn read(text: &str) -> Plan {
    parse_pipe(text).unwrap_or_else(|found| panic!("{}", found.render(text)))
}

/// What people do with logs, in one spelling; and the spelling in which a plan is written.
const TASKS: [(u8, &str, &str); 51] = [
    (1, "foo", "foo"),
    (2, r#""a b""#, r#""a b""#),
    (3, "a or b -c", "a or b -c"),
    (4, "status=500", "status=500"),
    (5, "err*", r#""err"*"#),
    (6, r#"path~"^/api/v\d+""#, r#"path~"^/api/v\\d+""#),
    (7, "since:1h error", "since:1h error"),
    (8, "dur>5s", "dur>5s"),
    (8, "size>=10MB", "size>=10MB"),
    (9, "user in (ann, bob)", r#"user in ("ann", "bob")"#),
    (9, "user in [index:bans * | keep user]", "user in [index:bans | keep user]"),
    (10, "client in 10.0.0.0/8", "client in 10.0.0.0/8"),
    (11, "error | keep host, dur", "error | keep host, dur"),
    (11, "error | drop host", "error | drop host"),
    (12, "error | rename lvl as level", "error | rename lvl as level"),
    (12, "* | let kb = bytes / 1024", "| let kb = bytes / 1024"),
    (13, "error | sort -dur | head 20", "error | sort -dur | head 20"),
    (14, "error | stats count", "error | stats count"),
    (15, "* | stats avg(dur) by service", "| stats avg(dur) by service"),
    (16, "* | chart count by service every 1m", "| chart count by service every 1m"),
    (17, "* | chart avg(dur) over 5m every 10s", "| chart avg(dur) over 5m every 10s"),
    (18, "* | top 10 url", "| top 10 url"),
    (19, "* | rare url", "| rare 10 url"),
    (20, "* | dedup user", "| dedup user"),
    (21, "* | stats dc(user)", "| stats dc(user)"),
    (22, "* | stats p95(dur) by service", "| stats p95(dur) by service"),
    (23, "error | chart rate every 1m", "error | chart rate every 1m"),
    (24, r#"* | rex "user=(?<user>\w+)""#, r#"| rex "user=(?<user>\\w+)""#),
    (25, r#"* | parse "<ip> - <b>""#, r#"| parse "<ip> - <b>""#),
    (26, "* | parse json from body", "| parse json from body"),
    (27, "* | parse logfmt", "| parse logfmt"),
    (27, "* | parse syslog", "| parse syslog"),
    (28, "* | session by sid gap 5m", "| session by sid gap 5m"),
    (28, "* | sequence login then error within 1m", "| sequence login then error within 1m"),
    (29, "error | join user [index:users * | keep user, plan]", "error | join user [index:users | keep user, plan]"),
    (30, "error | lookup owners by service", "error | lookup owners service"),
    (
        30,
        "view:errors | lookup hosts host, zone OUTPUT owner team",
        "view:errors | lookup hosts host, zone -> owner, team",
    ),
    (30, "index:a,shop.errors view:x y | lookup a.b c", "index:a,shop.errors view:x y | lookup a.b c"),
    (31, "* | expand tags", "| expand tags"),
    (32, "error | follow", "error | follow"),
    (33, "error | context 5", "error | context before 5 after 5"),
    (34, "error | patterns", "error | patterns"),
    (35, "* | anomaly count every 1m", "| anomaly count every 1m"),
    (36, "error | fields", "error | fields"),
    (37, "since:1d * | chart count every 1h | compare -7d", "since:1d | chart count every 1h | compare -1w"),
    (38, "dur>5s | create view slow", "dur>5s | create view slow"),
    (39, "error | stats count | alert when count > 100", "error | stats count | alert when count > 100"),
    (39, "error | stats count | alert when count > 9 for 5m", "error | stats count | alert when count > 9 for 5m"),
    (40, "error | into index errors", "error | into index errors"),
    (40, "error | export parquet", "error | export parquet"),
    (23, "since:1h error | stats rate by service", "since:1h error | stats rate by service"),
];

#[test]
fn forty_tasks_in_eighty_characters_each() {
    let mut numbers: Vec<u8> = TASKS.iter().map(|(number, ..)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    for (number, text, written) in TASKS {
        assert!(text.chars().count() <= 80, "{number}: {text}");
        let plan = read(text);
        assert_eq!(plan.to_string(), written, "{number}: {text}");
        assert_eq!(read(written), plan, "{number}: {text}");
    }
}

/// How other languages say it, and ours.
#[test]
fn other_spellings() {
    for (text, written) in [
        ("search index=shop earliest=-1h latest=now error", "index:shop since:1h until:0s error"),
        ("index:shop,cart error", "index:shop,cart error"),
        ("error AND NOT debug", "error -debug"),
        ("a && !b || c", "a -b or c"),
        ("since:1h a or b", "since:1h (a or b)"),
        ("(a or b) c", "(a or b) c"),
        ("-(a or b)", "-(a or b)"),
        ("a (b (c d))", "a b c d"),
        ("status = 500", "status=500"),
        ("status==500", "status=500"),
        ("status!=500", "status!=500"),
        ("http.status>=500 user-agent=curl", r#"http.status>=500 `user-agent`="curl""#),
        ("level:warn msg:\"a b\"", r#"level:warn msg:"a b""#),
        ("f=a* g=* h!=*x*", r#"f="a"* g=* h=* -h=*"x"*"#),
        ("f!~\"x\"", "f=* -f~\"x\""),
        ("*part*", "*\"part\"*"),
        ("i(Error) i(\"a b\") i(pre*)", "i(Error) i(\"a b\") i(\"pre\"*)"),
        ("~\"a|b\"", "_msg~\"a|b\""),
        ("_msg:foo", "foo"),
        ("12:30:05 /var/log blk_-12 http://x/y?z", "12:30:05 /var/log blk_-12 http://x/y?z"),
        ("error in module", "error \"in\" module"),
        ("can't open, really!", "can't open, really!"),
        ("since:2026-11-22 until:2026-11-22T05:00:00+01:00", "since:2026-11-22T00:00:00Z until:2026-11-22T04:00:00Z"),
        ("`odd name`=5 `index`=x", "`odd name`=5 `index`=\"x\""),
        ("f=1.5 g=-3 h=12345678901234567890", "f=1.5 g=-3 h=\"12345678901234567890\""),
        ("f=5m g=\"5m\" h=true", "f=5m g=\"5m\" h=true"),
        ("f in (1, 2.5, 5s, \"a b\")", "f in (1, 2.5, 5s, \"a b\")"),
        ("client in 10.1.2.3", "client in 10.1.2.3/32"),
        ("client in 10.1.2.3/9", "client in 10.0.0.0/9"),
        ("| timechart span=1m count by host", "| chart count by host every 1m"),
        ("| stats count avg(x) as mean by a b", "| stats count, avg(x) as mean by a, b"),
        ("| stats count() as n, count(*) as m", "| stats count as n, count as m"),
        ("| stats perc95(x) median(x)", "| stats p95(x), p50(x)"),
        ("| eval a=x+1, b = if(a>2, \"y\", \"n\")", "| let a = x + 1, b = if(a > 2, \"y\", \"n\")"),
        ("| where not (a = 1 or b in (2, 3)) and c ~ \"x\"", "| where not (a = 1 or b in (2, 3)) and c ~ \"x\""),
        ("| where (a + b) * -c - (d - e) > 2MB", "| where (a + b) * -c - (d - e) > 2MB"),
        ("| fields a, b", "| keep a, b"),
        ("| fields - a, b", "| drop a, b"),
        ("| table a b", "| keep a, b"),
        ("| limit 5", "| head 5"),
        ("| sort a desc, +b", "| sort -a, b"),
        ("| top limit=3 url by host", "| top 3 url by host"),
        ("| transaction sid maxpause=5m", "| session by sid gap 5m"),
        ("| sequence a or b then c -d by user within 1m", "| sequence a or b then c -d by user within 1m"),
        ("| fillnull value=0 a b", "| fill a, b with 0"),
        ("| eventstats avg(x) by y", "| annotate avg(x) by y"),
        ("| streamstats sum(x)", "| running sum(x)"),
        ("| join type=left a [index:b *]", "| join left a [index:b]"),
        ("| append [index:b error]", "| append [index:b error]"),
        ("| uniq by (a)", ""),
        ("| rex field=f \"(?P<a>x)\"", "| rex \"(?P<a>x)\" from f"),
        ("| spath", "| parse json"),
        ("| collect index=x", "| into index x"),
        ("| outputcsv", "| export csv"),
        ("| format \"{a} {{b}}\" as c", "| format \"{a} {{b}}\" as c"),
        ("| bin _time span=5m", "| bin _time by 5m"),
        ("| delta x", "| delta x as delta_x"),
        ("| replace \"a\" with \"\" in f", "| replace \"a\" with \"\" in f"),
        ("| context after 3", "| context before 0 after 3"),
        ("| count by level", "| stats count by level"),
        ("", "*"),
        ("*", "*"),
        ("since:1h", "since:1h"),
    ] {
        if written.is_empty() {
            assert!(parse_pipe(text).is_err(), "{text}");
            continue;
        }
        let plan = read(text);
        assert_eq!(plan.to_string(), written, "{text}");
        assert_eq!(read(written), plan, "{text}");
    }
}

#[test]
fn a_plan_is_plain_data() {
    let plan = read("index:shop error f=\"5\" in it | append [index:shop,owners y] | follow");
    assert!(plan.follows());
    let Predicate::All(parts) = &plan.search else { panic!("{plan:?}") };
    let error = Pattern { kind: PatternKind::Word, text: "error".into(), any_case: false };
    assert_eq!(parts[0], Predicate::Text { field: None, pattern: error });
    let Predicate::Compare { value, .. } = &parts[1] else { panic!("{plan:?}") };
    assert_eq!(value, &Value::Text("5".into()));
    assert!(matches!(&plan.steps[0], Step::Append(_)));
    let names: Vec<String> = plan.all_indexes().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["shop", "owners"], "what stands behind the phrase in is a word");
    let nested = read("index:a x in [index:b y in [index:c *]] | join k [index:d *]");
    let names: Vec<String> = nested.all_indexes().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
}

#[test]
fn every_command_has_an_example_that_reads() {
    assert!(Command::ALL.len() >= 40, "{}", Command::ALL.len());
    let mut words: Vec<&str> = Command::ALL.iter().flat_map(|command| command.words).copied().collect();
    let all = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), all, "a word names one command");
    for command in Command::ALL {
        let text = format!("| {}", command.usage);
        let plan = read(&text);
        assert!(command.usage.contains(command.name()), "{}", command.usage);
        assert_eq!(read(&plan.to_string()), plan, "{text}");
        assert!(Command::of(&command.name().to_uppercase()).is_some());
    }
}

/// Pieces of queries, right and wrong, in any order.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "a",
        "foo",
        "error",
        "in",
        "or",
        "and",
        "not",
        "then",
        "search",
        "i",
        "i(",
        "(",
        ")",
        "[",
        "]",
        "|",
        "| ",
        ",",
        "*",
        "-",
        "!",
        "~",
        "=",
        "!=",
        ">",
        "<=",
        "=~",
        ":",
        "\"",
        "'",
        "`",
        "`a b`",
        "\"x y\"",
        "\"a\\\"b\"",
        "\\",
        "5",
        "1.5",
        "-3",
        "5s",
        "10MB",
        "1e3",
        "since:1h",
        "until:5m",
        "index:shop",
        "index=",
        "f=",
        "f:",
        "f in (",
        "f in 10.0.0.0/8",
        "f in [index:b *]",
        "f=a*b",
        "f=*",
        "stats count",
        "stats avg(x) as y by z",
        "chart count every 1m",
        "by",
        "as",
        "every",
        "where",
        "let x =",
        "let a = -",
        "head",
        "sort -",
        "top 3 a",
        "join a [*]",
        "rex \"(?<a>b)\"",
        "parse \"<a> b\"",
        "parse json",
        "sequence a then b within 1m",
        "session by a gap 5m",
        "alert when",
        "for 5m",
        "into index x",
        "fields",
        "keep",
        "drop a",
        "rename a as b",
        "fill a with 0",
        "if(",
        "lower(",
        "len(x)",
        "true",
        "not",
        "{",
        "}",
        "é",
        "\u{1F600}",
        "\n",
        "\t",
        "\u{0}",
        "count",
        "left",
        "by",
        "\u{a0}",
    ]);
    prop_oneof![6 => fixed.prop_map(str::to_owned), 1 => any::<String>(), 1 => "[a-z]{1,4}"]
}

/// Queries that mostly read.
fn sensible() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "[a-z]{1,5}",
        "-?[0-9]{1,20}(\\.[0-9]{1,4})?",
        "[0-9]{1,3}(ms|s|m|h|MB|KiB)",
        any::<String>().prop_map(|s| quoted(&s))
    ];
    let field = prop_oneof!["[a-z_]{1,5}(\\.[a-z]{1,3})?", Just("by".to_owned()), "[^`]{1,6}",]
        .prop_map(|name| field_text(&name));
    let op = prop::sample::select(vec!["=", "!=", "<", ">=", "~", "!~", ":"]);
    let test = prop_oneof![
        "[a-z]{1,5}\\*?",
        any::<String>().prop_map(|s| quoted(&format!("{s}x"))),
        "[a-z]{1,3}".prop_map(|s| format!("*{s}*")),
        "[a-z]{1,3}".prop_map(|s| format!("i({s})")),
        (field.clone(), op, value.clone()).prop_map(|(f, op, v)| format!("{f}{op}{v}")),
        (field.clone(), prop::collection::vec(value.clone(), 1..4))
            .prop_map(|(f, v)| format!("{f} in ({})", v.join(","))),
        field.clone().prop_map(|f| format!("{f}=*")),
    ];
    let test = test.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| format!("-{t}")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|t| format!("({})", t.join(" "))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|t| format!("({})", t.join(" or "))),
            inner.prop_map(|t| format!("f in [index:b {t} | head 3]")),
        ]
    });
    let term = prop_oneof!["[a-z]{1,3}", "[0-9]{1,3}(\\.[0-9])?", Just("\"t\"".to_owned()), Just("5s".to_owned())];
    let term = term.prop_recursive(4, 16, 2, |inner| {
        let op = prop::sample::select(vec!["+", "-", "*", "/", "%", "=", "<", "and", "or", "~", "!="]);
        prop_oneof![
            (inner.clone(), op, inner.clone(), any::<bool>()).prop_map(|(a, op, b, p)| if p {
                format!("({a} {op} {b})")
            } else {
                format!("{a} {op} {b}")
            }),
            inner.clone().prop_map(|t| format!("-{t}")),
            inner.clone().prop_map(|t| format!("not {t}")),
            inner.clone().prop_map(|t| format!("coalesce({t}, 1)")),
            inner.prop_map(|t| format!("({t}) in (1, \"x\")")),
        ]
    });
    let step = prop_oneof![
        term.clone().prop_map(|t| format!("where {t}")),
        (field.clone(), term.clone()).prop_map(|(f, t)| format!("let {f} = {t}")),
        test.clone().prop_map(|t| format!("search {t}")),
        (term, field.clone(), field.clone()).prop_map(|(t, a, b)| format!("stats countif({t}) as {a}, count by {b}")),
        (field.clone(), field.clone()).prop_map(|(a, b)| format!("rename {a} as {b}")),
        (field.clone(), value.clone()).prop_map(|(f, v)| format!("fill {f} with {v}")),
        (test.clone(), test.clone(), field).prop_map(|(a, b, f)| format!("sequence {a} then {b} by {f} within 1m")),
    ];
    (test, prop::collection::vec(step, 0..3))
        .prop_map(|(test, steps)| std::iter::once(test).chain(steps).collect::<Vec<_>>().join(" | "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_reads_is_written_and_reads_the_same(pieces in prop::collection::vec(piece(), 0..12), spaced in any::<bool>()) {
        let text = pieces.join(if spaced { " " } else { "" });
        if let Ok(plan) = parse_pipe(&text) {
            let written = plan.to_string();
            let again = parse_pipe(&written).map_err(|found| TestCaseError::fail(format!("{text:?}\n{}", found.render(&written))))?;
            prop_assert_eq!(&again, &plan, "{:?} -> {:?}", text, written);
            prop_assert_eq!(again.to_string(), written);
        }
    }

    #[test]
    fn sensible_queries_read(text in sensible()) {
        match parse_pipe(&text) {
            Ok(plan) => {
                let written = plan.to_string();
                let again = parse_pipe(&written).map_err(|found| TestCaseError::fail(format!("{text:?}\n{}", found.render(&written))))?;
                prop_assert_eq!(again, plan, "{:?} -> {:?}", text, written);
            }
            Err(found) => prop_assert!(!found.message.is_empty()),
        }
    }

    #[test]
    fn no_text_breaks_anything(text in any::<String>(), cursor in 0..40usize) {
        if let Err(found) = parse_pipe(&text) {
            prop_assert!(found.render(&text).contains('^'));
        }
        let known = Known { indexes: &[], fields: &[], values: &|_| Vec::new() };
        prop_assert!(complete(&text, cursor, &known).len() <= 50);
    }
}

#[test]
fn most_sensible_queries_are_queries() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let texts = (0..300).map(|_| sensible().new_tree(&mut runner).unwrap().current());
    let read = texts.filter(|text| parse_pipe(text).is_ok()).count();
    assert!(read > 150, "of 300 only {read} are read, the property above says little");
}

#[test]
fn limits_say_what_they_are() {
    for (text, words) in [
        ("(".repeat(DEPTH_MAX + 1), "nests deeper"),
        ("-".repeat(5_000), "nests deeper"),
        (format!("| where {}x", "not ".repeat(200)), "nests deeper"),
        (format!("| where {}1", "(".repeat(200)), "nests deeper"),
        (format!("| where 1{}", "+1".repeat(TESTS_MAX + 1)), "more than 256 tests"),
        ("a ".repeat(TESTS_MAX + 1), "more than 256 tests"),
        ("| head 1 ".repeat(STEPS_MAX + 1), "at most 32 steps"),
        (format!("f in ({}1)", "1,".repeat(LIST_MAX)), "at most 1000"),
        ("x".repeat(TEXT_BYTES_MAX + 1), "are the most a query may have"),
        ("f in [".repeat(DEPTH_MAX + 1), "nests deeper"),
    ] {
        let found = parse_pipe(&text).unwrap_err();
        assert!(found.message.contains(words), "{}: {}", &text[..20.min(text.len())], found.message);
    }
}
