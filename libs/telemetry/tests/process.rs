//! Spans leave over OTLP/gRPC, and a panic aborts. Both are global, so each test runs itself again as a child process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also outside of its test functions")]
#![allow(clippy::disallowed_methods, reason = "a test tells its child through the environment")]

use std::{
    io::Read,
    net::TcpListener,
    process::{Command, Stdio},
};

use telemetry::{Format, Options, abort_on_panic, current_traceparent, init, span_from};

/// What every HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
const CHILD: &str = "TELEMETRY_TEST_CHILD";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn child(test: &str, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, argument).stderr(Stdio::piped()).stdout(Stdio::null());
    command
}

#[test]
fn spans_are_sent_when_the_guard_drops() {
    if let Ok(endpoint) = std::env::var(CHILD) {
        let guard = init(Options { otlp_endpoint: Some(endpoint), ..Options::new("test") }).unwrap();
        span_from(None, "work").in_scope(|| assert!(current_traceparent().unwrap().ends_with("-01")));
        return drop(guard);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut child = child("spans_are_sent_when_the_guard_drops", &endpoint).spawn().unwrap();
    let (mut connection, _) = listener.accept().unwrap();
    let mut first = [0; PREFACE.len()];
    connection.read_exact(&mut first).unwrap();
    assert_eq!(first, PREFACE);
    drop(connection);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_panic_logs_itself_and_aborts() {
    if std::env::var(CHILD).is_ok() {
        let options = Options { format: Format::Json, filter: "warn".into(), ..Options::new("test") };
        let _guard = init(options).unwrap();
        abort_on_panic();
        let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
        span_from(Some(&parent), "work").in_scope(|| panic!("on purpose"));
    }
    let output = child("a_panic_logs_itself_and_aborts", "1").output().unwrap();
    #[cfg(unix)]
    assert!(std::os::unix::process::ExitStatusExt::signal(&output.status).is_some(), "{:?}", output.status);
    assert!(!output.status.success());
    let lines = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = lines.lines().find(|line| line.contains("process aborts after a panic")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((line["level"].as_str(), line["panic"].as_str()), (Some("ERROR"), Some("on purpose")));
    assert_eq!(line["spans"][0]["trace_id"], TRACE);
}
