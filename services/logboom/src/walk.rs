//! The walk: the main job from end to end, through public doors only, each result compared with what was published.

mod alert;
mod binding;
mod publish;
mod receiver;
mod report;
mod sums;
mod table;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::json;
use types::{Clock, Timestamp};

use self::{binding::Binding, publish::Published, receiver::Receiver, report::Report, table::Table};
use crate::{
    screen::Screen,
    standalone,
    tools::{
        Api, RunFile,
        index::{plan_ids, provision_body},
    },
};

/// The index that the walk fills.
pub(crate) const INDEX: &str = "walk";
/// The index that the walk's job fills.
pub(crate) const SUMS: &str = "walk_sums";
/// Event time between two generated events; the last one is now. A publisher with 256 events in flight then mixes up
/// about 1.5 s of event time, well within the watermark delay of the walk's job.
const STEP: Duration = Duration::from_millis(6);

/// Arguments of the walk.
#[derive(Debug, clap::Args)]
pub(crate) struct WalkArgs {
    /// Generated log events
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Keep the data directory and say where it is
    #[arg(long)]
    keep: bool,
    /// Speak TLS on every connection
    #[arg(long)]
    tls: bool,
}

/// Starts a fresh standalone, walks, and ends it.
pub(crate) fn run(args: WalkArgs, screen: Screen) -> anyhow::Result<ExitCode> {
    let dir = tempfile::Builder::new().prefix("logboom-walk-").tempdir()?;
    let path = dir.path().to_owned();
    let result = on_fresh_data(&path, &args, screen);
    if args.keep || !matches!(result, Ok(true)) {
        screen.line(format_args!("data and logs are kept in {}", dir.keep().display()));
    }
    Ok(if result? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn on_fresh_data(data: &std::path::Path, args: &WalkArgs, screen: Screen) -> anyhow::Result<bool> {
    let child = standalone::Child::start(data, args.tls)?;
    let run = child.wait_until_ready(data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let right = runtime.block_on(walk(&local_api(data, &run)?, &run.nats_url, args.events, screen));
    child.stop()?;
    Ok(right)
}

/// The doors of a local standalone with its own secrets.
pub(crate) fn local_api(data: &std::path::Path, run: &RunFile) -> anyhow::Result<Api> {
    let read = |name: &str| -> anyhow::Result<String> {
        let path: PathBuf = data.join("keys").join(name);
        Ok(std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?.trim().to_owned())
    };
    let auth = format!("admin:{}", read("broker.password")?);
    Api::at(run, &read("admin.token")?, &auth)
}

/// Walks; true if every step's result was right.
pub(crate) async fn walk(api: &Api, nats_url: &str, events: u64, screen: Screen) -> bool {
    screen.line("walking through the main job");
    let mut report = Report::new(screen);
    // The step that went wrong has been printed; the steps after it lean on it.
    let _printed = Box::pin(steps(api, nats_url, events, screen, &mut report)).await;
    report.close()
}

async fn steps(api: &Api, nats_url: &str, events: u64, screen: Screen, report: &mut Report) -> anyhow::Result<()> {
    let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let begun = bus::SystemClock.now();
    let ids = report.step("catalog", catalog(api)).await?;
    report.step("provision two indexes", provision(api, &ids)).await?;
    let bound = report.step("bind", Binding::create(api, &ids, INDEX, "admin")).await?;
    let binding = &bound;
    report.step("clear earlier walks", clear(api)).await?;
    let receiver = Receiver::start().await?;
    let mut alerts = report.step("subscribe to alerts", alert::Alerts::subscribe(binding, nats_url)).await?;
    report.step("create an alert rule", alert::put_rule(api, &run, &receiver.url)).await?;
    let job = format!("walk-sums-{run}");
    report.step("start a windowed job", sums::submit(api, &job)).await?;
    let span = STEP * u32::try_from(events)?;
    let published = report
        .step("publish over NATS", publish::publish(binding, nats_url, events, begun - span, span, screen))
        .await?;
    report.step("count by SQL", count(api, begun, &published)).await?;
    report.step("severities by SQL", severities(api, begun, &published)).await?;
    report.step("one trace by SQL", multi_line(api, begun)).await?;
    report.step("close the windows", publish::marker(binding, nats_url, begun + Duration::from_secs(60))).await?;
    report.step("window sums", sums::compare(api, begun, &published.truth)).await?;
    report.step("a burst fires the alert", alert::burst(binding, nats_url, begun, &mut alerts)).await?;
    report.step("calm resolves it, once", alert::resolve(binding, nats_url, begun, &mut alerts, &receiver)).await?;
    report.step("HTTP ingest", http_ingest(api, binding)).await?;
    report.step("unbind cuts off", Box::pin(binding::cut_off(api, &ids, nats_url))).await?;
    Ok(())
}

async fn catalog(api: &Api) -> anyhow::Result<((String, String), String)> {
    let ids = plan_ids(api, "standard").await?;
    let result = format!("offering log-index, plan standard ({})", ids.1);
    Ok((ids, result))
}

async fn provision(api: &Api, ids: &(String, String)) -> anyhow::Result<((), String)> {
    let mut words = Vec::new();
    for (index, segments) in [(INDEX, 4), (SUMS, 1)] {
        let body = provision_body(ids, json!({ "index": index, "segments": segments }));
        let (status, _) = api.osb(Method::PUT, &format!("/v2/service_instances/cli-{index}"), Some(&body)).await?;
        ensure!(matches!(status.as_u16(), 200 | 201), "provisioning {index} answered {status}");
        words.push(format!("{index} {}", if status.as_u16() == 201 { "created" } else { "was there" }));
    }
    Ok(((), words.join(", ")))
}

/// Ends jobs and rules of walks before this one, so that they do not take slots.
async fn clear(api: &Api) -> anyhow::Result<((), String)> {
    let mut ended = 0;
    let jobs = api.ask(Method::GET, "/api/v1/jobs", None).await?;
    for job in jobs["jobs"].as_array().into_iter().flatten() {
        let name = job["job"].as_str().unwrap_or_default();
        if name.starts_with("walk-sums-") && job["status"] != "cancelled" {
            api.ask(Method::DELETE, &format!("/api/v1/jobs/{name}"), None).await?;
            ended += 1;
        }
    }
    let rules = api.ask(Method::GET, "/api/v1/rules", None).await?;
    for rule in rules["rules"].as_array().into_iter().flatten() {
        let name = rule["rule"]["rule"].as_str().unwrap_or_default();
        if name.starts_with("walk-errors-") {
            api.ask(Method::DELETE, &format!("/api/v1/rules/{name}"), None).await?;
            ended += 1;
        }
    }
    Ok(((), format!("{ended} ended")))
}

/// An instant as SQL.
pub(crate) fn sql_time(at: Timestamp) -> String {
    let text = jiff::Timestamp::from_nanosecond(i128::from(at.nanos())).map(|t| t.to_string()).unwrap_or_default();
    format!("TIMESTAMP '{}'", text.trim_end_matches('Z'))
}

async fn count(api: &Api, begun: Timestamp, published: &Published) -> anyhow::Result<((), String)> {
    let sql = format!("SELECT count(*) AS n FROM {INDEX} WHERE _received >= {}", sql_time(begun));
    let n = Table::of(&api.sql(&sql).await?).number(0, "n")?;
    ensure!(n == published.truth.total, "SQL counts {n}, but {} events were acknowledged", published.truth.total);
    Ok(((), format!("{n} = events acknowledged")))
}

async fn severities(api: &Api, begun: Timestamp, published: &Published) -> anyhow::Result<((), String)> {
    let sql = format!(
        "SELECT coalesce(severity, 'none') AS severity, count(*) AS n FROM {INDEX} WHERE _received >= {} GROUP BY 1 ORDER BY 2 DESC",
        sql_time(begun)
    );
    let table = Table::of(&api.sql(&sql).await?);
    let mut words = Vec::new();
    for row in 0..table.len() {
        let (severity, n) = (table.text(row, "severity")?, table.number(row, "n")?);
        let expected = published.truth.by_severity.get(severity.as_str()).copied().unwrap_or(0);
        ensure!(n == expected, "SQL counts {n} of severity {severity}, but {expected} were published");
        words.push(format!("{severity} {n}"));
    }
    ensure!(words.len() == published.truth.by_severity.len(), "severities are missing: found {}", words.join(", "));
    Ok(((), words.join(", ")))
}

/// A stack trace is one event of several lines.
async fn multi_line(api: &Api, begun: Timestamp) -> anyhow::Result<((), String)> {
    let sql = format!(
        "SELECT _msg FROM {INDEX} WHERE _received >= {} AND _msg LIKE '%Exception%' AND _msg LIKE '%\n%' LIMIT 1",
        sql_time(begun)
    );
    let table = Table::of(&api.sql(&sql).await?);
    let lines = table.text(0, "_msg").context("no stack trace was found")?.lines().count();
    ensure!(lines > 2, "the stack trace came apart: it has {lines} lines");
    Ok(((), format!("a stack trace of {lines} lines is one event")))
}

/// Good lines are kept, bad ones come back with their number.
async fn http_ingest(api: &Api, binding: &Binding) -> anyhow::Result<((), String)> {
    let body = "{\"level\":\"info\",\"msg\":\"over HTTP\"}\n{broken\n{\"level\":\"warn\",\"msg\":\"good again\"}\n";
    let path = format!("/api/v1/indexes/{INDEX}/ingest");
    let response = api.with_token(&binding.token).gateway(Method::POST, &path).body(body).send().await?;
    let status = response.status();
    let answer: serde_json::Value = response.json().await?;
    let (accepted, line) = (&answer["accepted"], &answer["rejected"][0]["line"]);
    ensure!(accepted == 2 && line == 2, "expected 2 accepted and line 2 rejected, got {status}: {answer}");
    Ok(((), format!("2 accepted; line 2: {}", answer["rejected"][0]["reason"].as_str().unwrap_or_default())))
}
