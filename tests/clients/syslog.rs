//! Unmodified senders of syslog: Python, `logger` and rsyslog, with what `docs/guide/agents` says.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use logboom_tests::{Process, Standalone, Workdir, eventually, free_port, search_path};
use serde_json::Value;

use super::{guide, tool};

/// How soon what was sent must be found: nobody is told when it is stored.
const FOUND_WITHIN: Duration = Duration::from_secs(20);
/// Lines that rsyslog is given, each of which it sends on two ways.
const LINES: usize = 500;

fn key<'c>(credentials: &'c Value, name: &str) -> &'c str {
    credentials[name].as_str().unwrap()
}

/// Waits until an index holds so many events, and one more never.
async fn holds(up: &Standalone, index: &str, count: usize) {
    let sql = format!("SELECT count(*) AS n FROM {index}");
    eventually(&format!("{count} events of {index}"), FOUND_WITHIN, async || {
        let found = up.api.count(&sql).await?;
        anyhow::ensure!(usize::try_from(found)? >= count, "there are {found}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(usize::try_from(up.api.count(&sql).await.unwrap()).unwrap(), count, "{index}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_of_syslog_send_here() {
    let (udp, tcp) = (free_port().unwrap(), free_port().unwrap());
    let set =
        [format!("gateway.syslog_udp_address=127.0.0.1:{udp}"), format!("gateway.syslog_tcp_address=127.0.0.1:{tcp}")];
    let up = Standalone::start_with(&set.each_ref().map(String::as_str)).await.unwrap();
    let addressed = |mut command: Command| {
        command.env("SYSLOG_HOST", "127.0.0.1");
        command.env("SYSLOG_PORT", tcp.to_string()).env("SYSLOG_UDP_PORT", udp.to_string());
        command
    };
    let dir = Workdir::new("syslog").unwrap();
    let python = search_path("python3").expect("python3 is needed: the README asks for it");
    let mut senders = vec![("python", 2, Command::new(python), "-c", guide::blocks_of("agents/syslog.md", "python"))];
    match search_path("logger") {
        Some(_) => {
            senders.push(("logger", 1, Command::new("/bin/sh"), "-c", guide::blocks_of("agents/syslog.md", "sh")));
        }
        None => println!("SKIPPED the logger command: it is not there"),
    }
    for (index, count, program, flag, blocks) in senders {
        let credentials = guide::credentials(&up, index).await;
        let [script] = blocks.try_into().expect("one example a page");
        let mut command = addressed(program);
        let output = guide::run(command.args([flag, &script]), &dir, &credentials);
        assert!(output.status.success(), "{index}: {}", String::from_utf8_lossy(&output.stderr));
        holds(&up, index, count).await;
        let found = up.api.sql(&format!("SELECT _msg, severity, app FROM {index}")).await.unwrap();
        for row in 0..count {
            let text = found.text(row, "_msg").unwrap();
            assert!(text.ends_with("it broke") && !text.contains(key(&credentials, "token")), "{text}");
            assert_eq!([found.text(row, "severity").unwrap(), found.text(row, "app").unwrap()], ["error", "shop"]);
        }
    }
    rsyslog(&up, tcp, dir.path()).await;
    syslog_ng(&up, tcp, dir.path()).await;
}

/// One rsyslog that sends each line with omfwd and with omelasticsearch, configured as the pages say but for the address.
async fn rsyslog(up: &Standalone, tcp: u16, dir: &Path) {
    let Some(rsyslog) = tokio::task::spawn_blocking(tool::rsyslog).await.unwrap() else { return };
    let credentials = guide::credentials(up, "rsyslog").await;
    let http = key(&credentials, "http_url").rsplit(':').next().unwrap().to_owned();
    let actions: String = ["syslog", "elasticsearch"]
        .map(|page| guide::blocks_of(&format!("agents/{page}.md"), "rsyslog").concat())
        .join("\n")
        .replace("logs.example.org", "127.0.0.1")
        .replace("port=\"6514\"", &format!("port=\"{tcp}\""))
        .replace("serverport=\"443\" usehttps=\"on\"", &format!("serverport=\"{http}\" usehttps=\"off\""))
        .replace("TOKEN", key(&credentials, "token"));
    let lines = dir.join("shop.log");
    let (work, lines_at) = (dir.display(), lines.display());
    let config = format!(
        "global(workDirectory=\"{work}\")\nmodule(load=\"imfile\")\n\
         input(type=\"imfile\" File=\"{lines_at}\" Tag=\"shop:\" Severity=\"err\" Facility=\"user\")\n{actions}\n"
    );
    let file = dir.join("rsyslog.conf");
    fs::write(&file, config).unwrap();
    fs::write(&lines, (0..LINES).map(|line| format!("line {line} of many\n")).collect::<String>()).unwrap();
    let mut command = rsyslog.command();
    command.args(["-n", "-i", "NONE", "-f"]).arg(&file).stdin(Stdio::null());
    let process = Process::spawn("rsyslog", &mut command, &dir.join("rsyslog.log")).unwrap();
    holds(up, "rsyslog", 2 * LINES).await;
    let found =
        up.api.sql("SELECT count(DISTINCT _msg) AS n, count(*) AS m FROM rsyslog WHERE severity = 'error'").await;
    drop(process);
    let found = found.unwrap();
    // Each line in each of the two forms.
    assert_eq!(
        [found.text(0, "n").unwrap(), found.text(0, "m").unwrap()].map(|n| n.parse::<usize>().unwrap()),
        [2 * LINES; 2]
    );
}

/// One syslog-ng that sends each line as a message of syslog and to the words of Elasticsearch, configured as the pages say but for the address.
async fn syslog_ng(up: &Standalone, tcp: u16, dir: &Path) {
    let Some(syslog_ng) = tokio::task::spawn_blocking(tool::syslog_ng).await.unwrap() else { return };
    let credentials = guide::credentials(up, "syslogng").await;
    let destination = |page: &str, language: &str, name: &str| {
        let block = guide::blocks_of(&format!("agents/{page}.md"), language).concat();
        assert!(block.contains("destination d_logboom"), "{page} says nothing of syslog-ng");
        block.replace("d_logboom", name)
    };
    let destinations =
        [destination("syslog", "syslog-ng", "d_message"), destination("elasticsearch", "syslog-ng-http", "d_bulk")];
    let destinations = destinations
        .join("\n")
        .replace(
            "port(6514) transport(\"tls\") tls(peer-verify(required-trusted))",
            &format!("port({tcp}) transport(\"tcp\")"),
        )
        .replace("https://logs.example.org", key(&credentials, "http_url"))
        .replace("logs.example.org", "127.0.0.1")
        .replace("TOKEN", key(&credentials, "token"));
    let lines = dir.join("shop-ng.log");
    let config = format!(
        "@version: 3.38\n\
         source s_file {{ file(\"{}\" follow-freq(1) flags(no-parse) program-override(\"shop\") default-severity(err) \
         default-facility(user)); }};\n{destinations}\n\
         log {{ source(s_file); rewrite(r_logboom); destination(d_message); flags(flow-control); }};\n\
         log {{ source(s_file); destination(d_bulk); flags(flow-control); }};\n",
        lines.display()
    );
    let file = dir.join("syslog-ng.conf");
    fs::write(&file, config).unwrap();
    fs::write(&lines, (0..LINES).map(|line| format!("line {line} \"of\" many\n")).collect::<String>()).unwrap();
    let mut command = syslog_ng.command();
    command.args(["--foreground", "--stderr", "--no-caps", "--cfgfile"]).arg(&file).stdin(Stdio::null());
    for (flag, name) in [("--persist-file", "persist"), ("--control", "control"), ("--pidfile", "pid")] {
        command.arg(flag).arg(dir.join(format!("syslog-ng.{name}")));
    }
    let process = Process::spawn("syslog-ng", &mut command, &dir.join("syslog-ng.log")).unwrap();
    holds(up, "syslogng", 2 * LINES).await;
    drop(process);
    let sql = "SELECT count(DISTINCT CASE WHEN _msg LIKE 'line%' THEN _msg END) AS n, count(*) AS m, \
               count(DISTINCT app) AS a FROM syslogng WHERE severity = 'error' AND app = 'shop'";
    let found = up.api.sql(sql).await.unwrap();
    // Each line in each of the two forms: as itself, and within its message of syslog.
    assert_eq!(
        ["n", "m", "a"].map(|name| found.text(0, name).unwrap().parse::<usize>().unwrap()),
        [LINES, 2 * LINES, 1]
    );
}
