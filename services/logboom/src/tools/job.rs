//! `logboom job`: continuous queries.

use reqwest::Method;
use serde_json::json;

use super::Connection;
use crate::screen::Screen;

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
    },
    /// List jobs
    List,
    /// Show one job
    Show {
        /// Its id
        job: String,
    },
    /// End a job
    Cancel {
        /// Its id
        job: String,
    },
}

impl JobCommand {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        match self {
            Self::Submit { job, sql, from, parallelism } => {
                let body = json!({ "job": job, "sql": sql, "start": from, "parallelism": parallelism });
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
            Self::Cancel { job } => {
                api.ask(Method::DELETE, &format!("/api/v1/jobs/{job}"), None).await?;
                screen.line(format_args!("job {job} cancelled"));
            }
        }
        Ok(())
    }
}
