//! promtail as it was shipped: it follows a file and pushes what comes, configured as `docs/guide/agents/loki.md` says.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use logboom_tests::{Process, Standalone, Workdir, eventually};

use super::{guide, tool};

/// How soon what was written must be found: promtail waits a second for more.
const FOUND_WITHIN: Duration = Duration::from_secs(20);
/// Lines there are before it starts, and lines that come while it runs.
const LINES: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtail_follows_a_file() {
    let Some(promtail) = tokio::task::spawn_blocking(tool::promtail).await.unwrap() else { return };
    let up = Standalone::start().await.unwrap();
    let credentials = guide::credentials(&up, "promtail").await;
    let key = |name: &str| credentials[name].as_str().unwrap().to_owned();
    let dir = Workdir::new("promtail").unwrap();
    let at = |name: &str| dir.path().join(name);
    let clients = guide::blocks_of("agents/loki.md", "yaml").swap_remove(0);
    assert!(clients.starts_with("clients:"), "the first configuration of the page is promtail's");
    let (positions, lines) = (at("positions.yaml"), at("shop.log"));
    let config = format!(
        "server: {{disable: true}}\npositions: {{filename: \"{}\"}}\n{clients}\nscrape_configs:\n  \
         - job_name: shop\n    static_configs:\n      - targets: [localhost]\n        \
         labels: {{app: shop, __path__: \"{}\"}}\n",
        positions.display(),
        lines.display()
    );
    fs::write(at("promtail.yaml"), config).unwrap();
    let text = |from: usize| (from..from + LINES).map(|n| format!("{{\"level\":\"error\",\"msg\":\"line {n}\"}}\n"));
    fs::write(&lines, text(0).collect::<String>()).unwrap();
    let mut command = Command::new(promtail);
    command.arg("-config.file").arg(at("promtail.yaml")).arg("-config.expand-env=true").stdin(Stdio::null());
    command.env("LOKI_URL", key("loki_url")).env("TOKEN", key("token"));
    let process = Process::spawn("promtail", &mut command, &at("promtail.log")).unwrap();
    let holds = async |count: usize| {
        eventually(&format!("{count} lines of promtail"), FOUND_WITHIN, async || {
            let found = up.api.count("SELECT count(*) AS n FROM promtail").await?;
            anyhow::ensure!(usize::try_from(found)? >= count, "there are {found}");
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", fs::read_to_string(at("promtail.log")).unwrap()));
    };
    holds(LINES).await;
    fs::OpenOptions::new()
        .append(true)
        .open(&lines)
        .unwrap()
        .write_all(text(LINES).collect::<String>().as_bytes())
        .unwrap();
    holds(2 * LINES).await;
    drop(process);
    let sql = "SELECT count(*) AS n, count(DISTINCT _msg) AS m FROM promtail \
               WHERE app = 'shop' AND severity = 'error' AND _msg LIKE 'line %'";
    let found = up.api.sql(sql).await.unwrap();
    let counts = ["n", "m"].map(|name| found.text(0, name).unwrap().parse::<usize>().unwrap());
    assert_eq!(counts, [2 * LINES; 2], "none is lost and none is there twice");
}
