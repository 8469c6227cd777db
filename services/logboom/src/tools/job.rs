//! `logboom job`: continuous queries.

use std::time::Duration;

use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};

use super::Connection;
use crate::screen::Screen;

/// How often a job that is being stopped is looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// How long it is waited for that a job stands, or goes on.
const STOP_WITHIN: Duration = Duration::from_secs(120);

/// Continuous jobs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum JobCommand {
    /// Start a job, for example: logboom job submit rates "INSERT INTO rates SELECT service, window_start, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') GROUP BY service, window_start"
    Submit {
        /// Its id
        job: String,
        /// Continuous SQL
        sql: String,
        /// Where to begin
        #[arg(long, default_value = "earliest", value_parser = ["earliest", "latest"])]
        from: String,
        /// Subtasks per vertex; 0 takes the default
        #[arg(long, default_value_t = 0)]
        parallelism: u16,
        /// What follows a failure, for example '"none"' or '{"fixed": {"attempts": 3, "delay": "10s"}}'
        #[arg(long)]
        restart: Option<String>,
        /// The least time between two checkpoints, for example 1s
        #[arg(long)]
        checkpoint_interval: Option<String>,
        /// The savepoint to begin from: JOB/NAME
        #[arg(long)]
        restore: Option<String>,
        /// Leave behind state of the savepoint that no operator takes over
        #[arg(long, requires = "restore")]
        drop_state: bool,
    },
    /// List jobs
    List,
    /// Show one job
    Show {
        /// Its id
        job: String,
    },
    /// Show the last checkpoints of a job
    Checkpoints {
        /// Its id
        job: String,
    },
    /// Show what ended attempts of a job
    Exceptions {
        /// Its id
        job: String,
    },
    /// Take a savepoint; the same name again shows the same one
    Savepoint {
        /// The job
        job: String,
        /// Its name; without one it is made up
        name: Option<String>,
    },
    /// List the savepoints of a job
    Savepoints {
        /// The job
        job: String,
    },
    /// Delete a savepoint
    DeleteSavepoint {
        /// The job
        job: String,
        /// Its name
        name: String,
    },
    /// Stop a job at a savepoint, from which the same submission lets it go on
    Stop {
        /// Its id
        job: String,
        /// The name of the savepoint; without one it is made up
        #[arg(long)]
        savepoint: Option<String>,
        /// Close every window first; the job is finished then
        #[arg(long)]
        drain: bool,
    },
    /// Give a job another parallelism
    Rescale {
        /// Its id
        job: String,
        /// Subtasks per vertex
        parallelism: u16,
    },
    /// End a job
    Cancel {
        /// Its id
        job: String,
    },
}

/// `JOB/NAME` as the gateway takes it.
fn restored(restore: &str, drop_state: bool) -> anyhow::Result<Value> {
    let Some((job, savepoint)) = restore.split_once('/') else {
        bail!("a savepoint is named JOB/NAME, not {restore:?}")
    };
    Ok(json!({ "job": job, "savepoint": savepoint, "drop_state": drop_state }))
}

/// Waits until a job does not stop any more; says what became of it.
async fn stood(connection: &Connection, job: &str) -> anyhow::Result<Value> {
    let api = connection.api()?;
    let look = async {
        loop {
            let shown = api.ask(Method::GET, &format!("/api/v1/jobs/{job}"), None).await?;
            if shown["status"] != json!("stopping") {
                return anyhow::Ok(shown);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    match tokio::time::timeout(STOP_WITHIN, look).await {
        Ok(shown) => shown,
        Err(_) => bail!("job {job} is being stopped still; look at it with `logboom job show {job}`"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl JobCommand {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        match self {
            Self::Submit { job, sql, from, parallelism, restart, checkpoint_interval, restore, drop_state } => {
                let mut body = json!({ "job": job, "sql": sql, "start": from, "parallelism": parallelism });
                if let Some(restart) = restart {
                    body["restart"] = serde_json::from_str(&restart)?;
                }
                if let Some(interval) = checkpoint_interval {
                    body["checkpoint_interval"] = json!(interval);
                }
                if let Some(restore) = restore {
                    body["restore"] = restored(&restore, drop_state)?;
                }
                let answer = api.ask(Method::POST, "/api/v1/jobs", Some(&body)).await?;
                match screen.is_json() {
                    true => screen.value(&answer),
                    false => {
                        screen.line(format_args!("job {job}: {}", answer["status"].as_str().unwrap_or("accepted")))
                    }
                }
            }
            Self::List => {
                let list = api.ask(Method::GET, "/api/v1/jobs", None).await?;
                let rows = list["jobs"].as_array().cloned().unwrap_or_default();
                screen.rows(&rows, &["job", "status", "attempt", "checkpoint", "source", "failure", "text"]);
            }
            Self::Show { job } => {
                screen.value(&api.ask(Method::GET, &format!("/api/v1/jobs/{job}"), None).await?);
            }
            Self::Checkpoints { job } => {
                let shown = api.ask(Method::GET, &format!("/api/v1/jobs/{job}/checkpoints"), None).await?;
                let rows = shown["checkpoints"].as_array().cloned().unwrap_or_default();
                screen.rows(&rows, &["number", "savepoint", "outcome", "bytes", "began", "ended"]);
            }
            Self::Exceptions { job } => {
                let shown = api.ask(Method::GET, &format!("/api/v1/jobs/{job}/exceptions"), None).await?;
                let rows = shown["exceptions"].as_array().cloned().unwrap_or_default();
                screen.rows(&rows, &["at", "attempt", "cause", "task", "worker", "reason"]);
            }
            Self::Savepoint { job, name } => {
                let path = format!("/api/v1/jobs/{job}/savepoints");
                let taken = api.ask(Method::POST, &path, Some(&json!({ "name": name }))).await?;
                match screen.is_json() {
                    true => screen.value(&taken),
                    false => screen.line(format_args!("savepoint {job}/{}", text(&taken["name"]["name"]))),
                }
            }
            Self::Savepoints { job } => {
                let list = api.ask(Method::GET, &format!("/api/v1/jobs/{job}/savepoints"), None).await?;
                let mut rows = list["savepoints"].as_array().cloned().unwrap_or_default();
                for row in &mut rows {
                    row["name"] = row["name"]["name"].take();
                }
                screen.rows(&rows, &["name", "checkpoint", "taken", "bytes"]);
            }
            Self::DeleteSavepoint { job, name } => {
                api.ask(Method::DELETE, &format!("/api/v1/jobs/{job}/savepoints/{name}"), None).await?;
                screen.line(format_args!("savepoint {job}/{name} deleted"));
            }
            Self::Stop { job, savepoint, drain } => {
                let body = json!({ "savepoint": savepoint, "drain": drain });
                api.ask(Method::POST, &format!("/api/v1/jobs/{job}/stop"), Some(&body)).await?;
                let shown = stood(connection, &job).await?;
                if !["suspended", "finished"].contains(&text(&shown["status"])) {
                    bail!("job {job} goes on: {}", text(&shown["failure"]));
                }
                screen.line(format_args!("job {job} {}", text(&shown["status"])));
            }
            Self::Rescale { job, parallelism } => {
                let body = json!({ "parallelism": parallelism });
                api.ask(Method::POST, &format!("/api/v1/jobs/{job}/rescale"), Some(&body)).await?;
                let shown = stood(connection, &job).await?;
                if shown["parallelism"] != json!(parallelism) {
                    bail!("job {job} goes on with parallelism {}: {}", shown["parallelism"], text(&shown["failure"]));
                }
                screen.line(format_args!("job {job} goes on with parallelism {parallelism}"));
            }
            Self::Cancel { job } => {
                api.ask(Method::DELETE, &format!("/api/v1/jobs/{job}"), None).await?;
                screen.line(format_args!("job {job} cancelled"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_savepoint_is_named_with_its_job() {
        let wanted = json!({ "job": "rates", "savepoint": "before", "drop_state": true });
        assert_eq!(restored("rates/before", true).unwrap(), wanted);
        assert!(restored("before", false).unwrap_err().to_string().contains("JOB/NAME"));
    }
}
