//! Traces as programs print them, and what must stay apart.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_000);

fn joined<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let (mut joiner, mut out) = (Joiner::default(), Vec::new());
    for line in lines {
        joiner.push(line.as_bytes(), NOW, &mut out);
    }
    joiner.finish(&mut out);
    out.into_iter().map(|event| String::from_utf8(event).unwrap()).collect()
}

/// Lines of several events, each event given as one text: joining its lines gives it back.
fn check(events: &[&str]) {
    assert_eq!(joined(events.iter().flat_map(|event| event.split('\n'))), events);
}

#[test]
fn java() {
    check(&[
        "2026-01-02 03:04:05,000 ERROR [exec-3] c.e.Order - Failed\njava.lang.IllegalStateException: x=1\n\tat \
         c.e.Order.confirm(Order.java:12)\n\tat c.e.Main.main(Main.java:3)\nCaused by: java.io.IOException: gone\n\tat \
         c.e.Io.read(Io.java:1)\n\t... 17 more",
        "2026-01-02 03:04:05,100 INFO ok",
        "Exception in thread \"main\" java.lang.NullPointerException\n\tat c.e.Main.main(Main.java:3)\n\tSuppressed: \
         java.lang.Error: y\n\t\tat c.e.Main.close(Main.java:9)",
        "done",
    ]);
}

#[test]
fn python() {
    check(&[
        "2026-01-02 03:04:05,000 ERROR root: failed\nTraceback (most recent call last):\n  File \"a.py\", line 1, in \
         <module>\n    f()\nValueError: bad\n\nDuring handling of the above exception, another exception \
         occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    g()\nKeyError: 'x'",
        "ready",
        "Traceback (most recent call last):\n  File \"b.py\", line 9, in h\n    1/0\nZeroDivisionError: division by zero",
        "2026-01-02 03:04:06,000 INFO root: on",
    ]);
}

#[test]
fn go() {
    check(&[
        "panic: runtime error: index out of range [5] with length 3\n\ngoroutine 1 [running]:\nmain.(*Server).run(0xc00001, \
         {0x1, 0x2})\n\t/src/main.go:12 +0x1d\nmain.main()\n\t/src/main.go:5 +0x20\ncreated by main.start in goroutine \
         7\n\t/src/main.go:9 +0x10\nexit status 2",
        "2026/01/02 03:04:05 started",
        "2026/01/02 03:04:06 http: panic serving 10.0.0.1:99: x\ngoroutine 19 [running]:\nnet/http.(*conn).serve.func1()\n\t\
         /usr/go/server.go:1850 +0xb0",
        "2026/01/02 03:04:07 on",
    ]);
}

#[test]
fn dotnet() {
    check(&[
        "fail: Shop.Orders[0]\n      Order failed\n      System.InvalidOperationException: empty\n         at \
         Shop.Orders.Confirm(Int32 id) in /src/Orders.cs:line 12",
        "info: Shop.Orders[0]\n      on",
        "Unhandled exception. System.InvalidOperationException: empty\n ---> System.IO.IOException: gone\n   at \
         Shop.Io.Read()\n   --- End of inner exception stack trace ---\n   at Shop.Main()\n--- End of stack trace from \
         previous location ---\n   at Shop.Other()",
        "2026-01-02 03:04:05 [ERR] failed\nSystem.IO.IOException: gone\n   at Shop.Io.Read()",
    ]);
}

#[test]
fn node() {
    check(&[
        "/app/index.js:3\n    throw new Error('x')\n    ^\n\nError: x\n    at Object.<anonymous> (/app/index.js:3:9)\n    at \
         node:internal/main:1:1 {\n  code: 'E_X'\n}\n\nNode.js v20.1.0",
        "2026-01-02T03:04:05.000Z error: failed\nTypeError: x is not a function\n    at f (/app/a.js:1:2)",
        "TypeError: y\n    at g (/app/a.js:3:4)",
        "listening",
    ]);
}

#[test]
fn what_is_indented_goes_on_and_nothing_else() {
    check(&[
        "2026-01-02 03:04:05 UTC [9] LOG:  statement: SELECT 1\n\tFROM t\n\tWHERE x",
        "{\n  \"a\": 1\n}",
        "{\"a\":1}",
        "{\"a\":2}",
        "one",
        "",
        "two",
        "Error: first",
        "Error: second",
        "java.io.IOException: alone",
        "Caller: x",
        "<13>Jan  2 03:04:05 h a: x\n  y",
        "<13>Jan  2 03:04:05 h a: z",
        "I0102 03:04:05.000000       1 a.go:1] x",
        "}",
    ]);
}

#[test]
fn lines_in_envelopes_are_joined_inside_the_first() {
    assert_eq!(
        joined([
            "2026-01-02T03:04:05.1Z stdout F 2026-01-02 03:04:05 ERROR failed",
            "2026-01-02T03:04:05.2Z stderr F other",
            "2026-01-02T03:04:05.3Z stdout F java.io.IOException: gone",
            "2026-01-02T03:04:05.3Z stdout F \tat a.B.c(B.java:1)",
            "2026-01-02T03:04:05.4Z stdout F next",
        ]),
        [
            "2026-01-02T03:04:05.1Z stdout F 2026-01-02 03:04:05 ERROR failed\njava.io.IOException: gone\n\tat a.B.c(B.java:1)",
            "2026-01-02T03:04:05.4Z stdout F next",
            "2026-01-02T03:04:05.2Z stderr F other",
        ]
    );
    assert_eq!(
        joined([
            r#"{"log":"boom \"x\"\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}"#,
            r#"{"log":"\tat a.B.c(B.java:1)\n","stream":"stdout","time":"2026-01-02T03:04:06Z"}"#,
            r#"{"log":"next\n","stream":"stdout","time":"2026-01-02T03:04:07Z"}"#,
        ]),
        [
            r#"{"log":"boom \"x\"\n\tat a.B.c(B.java:1)\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}"#,
            r#"{"log":"next\n","stream":"stdout","time":"2026-01-02T03:04:07Z"}"#,
        ]
    );
}

#[test]
fn time_ends_an_event() {
    let (mut joiner, mut out) = (Joiner::default(), Vec::new());
    joiner.push(b"one", NOW, &mut out);
    joiner.push(b"  more", NOW + JOIN_WAIT / 2, &mut out);
    joiner.expire(NOW + JOIN_WAIT, &mut out);
    assert!(out.is_empty(), "its last line came late");
    joiner.expire(NOW + JOIN_WAIT * 2, &mut out);
    assert_eq!(out, [b"one\n  more"]);
    joiner.push(b"  late", NOW + JOIN_WAIT * 3, &mut out);
    joiner.finish(&mut out);
    assert_eq!(out[1], b"  late", "what comes after is an event of its own");
}

#[test]
fn what_is_too_long_becomes_several_events() {
    let frame = format!("\tat {}", "x".repeat(1_000));
    let lines: Vec<_> = std::iter::once("head").chain(std::iter::repeat_n(frame.as_str(), 600)).collect();
    let events = joined(lines.iter().copied());
    assert!(events.len() > 1 && events.iter().all(|event| event.len() <= JOIN_BYTES_MAX));
    assert_eq!(events.join("\n"), lines.join("\n"));
    let lines: Vec<_> = std::iter::once("head").chain(std::iter::repeat_n(" x", JOIN_LINES_MAX * 2)).collect();
    let events = joined(lines.iter().copied());
    assert_eq!(events.iter().map(|event| event.lines().count()).max(), Some(JOIN_LINES_MAX));
    assert_eq!(events.join("\n"), lines.join("\n"));
    let long = "y".repeat(JOIN_BYTES_MAX * 2);
    assert_eq!(joined([long.as_str(), "z"]), [long.as_str(), "z"]);
}

proptest! {
    /// Whatever comes, every line comes out once and in order.
    #[test]
    fn nothing_is_lost(lines in proptest::collection::vec(line(), 0..40)) {
        let (mut joiner, mut out) = (Joiner::default(), Vec::new());
        for (number, line) in lines.iter().enumerate() {
            joiner.push(line, NOW + Duration::from_millis(u64::try_from(number).unwrap() * 200), &mut out);
            if number % 7 == 0 {
                joiner.expire(NOW + Duration::from_millis(u64::try_from(number).unwrap() * 210), &mut out);
            }
        }
        joiner.finish(&mut out);
        prop_assert_eq!(out.join(&b'\n'), lines.join(&b'\n'));
    }
}

/// Lines without envelopes: kept texts of traces, and any bytes.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let known: [&[u8]; 14] = [
        b"",
        b" ",
        b"panic: x",
        b"goroutine 1 [running]:",
        b"main.main()",
        b"Traceback (most recent call last):",
        b"ValueError: x",
        b"    ^",
        b"}",
        b"{",
        b"Caused by: x",
        b"2026-01-02 03:04:05 x",
        b"java.lang.Error",
        b"\t... 1 more",
    ];
    prop_oneof![
        (0..known.len()).prop_map(move |at| known[at].to_vec()),
        proptest::collection::vec(any::<u8>().prop_filter("a line has no line end", |b| *b != b'\n'), 0..30),
    ]
}
