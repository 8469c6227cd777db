//! `logboom rule`: alert rules.

use reqwest::Method;
use serde_json::{Value, json};

use super::Connection;
use crate::screen::Screen;

/// Alert rules.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RuleCommand {
    /// Create or replace a rule, for example: logboom rule put errors --index shop --query "SELECT service, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') WHERE severity = 'error' GROUP BY service, window_start" --condition "n > 20"
    Put {
        /// Its id
        rule: String,
        /// Index that it watches
        #[arg(long)]
        index: String,
        /// Windowed query
        #[arg(long)]
        query: String,
        /// Condition over a column of the query
        #[arg(long)]
        condition: String,
        /// URL that gets each transition by POST
        #[arg(long)]
        webhook: Option<String>,
        /// Text for people
        #[arg(long, default_value = "")]
        summary: String,
    },
    /// List rules with their instances
    List,
    /// Delete a rule
    Delete {
        /// Its id
        rule: String,
    },
}

impl RuleCommand {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        match self {
            Self::Put { rule, index, query, condition, webhook, summary } => {
                let body = json!({
                    "index": index, "query": query, "condition": condition,
                    "webhook": webhook, "summary": summary,
                });
                let answer = api.ask(Method::PUT, &format!("/api/v1/rules/{rule}"), Some(&body)).await?;
                match screen.is_json() {
                    true => screen.value(&answer),
                    false => {
                        screen.line(format_args!("rule {rule} watches {index}; its alerts go to alerts.{index}.{rule}"))
                    }
                }
            }
            Self::List => {
                let list = api.ask(Method::GET, "/api/v1/rules", None).await?;
                let rules = list["rules"].as_array().cloned().unwrap_or_default();
                if screen.is_json() {
                    screen.value(&Value::Array(rules));
                    return Ok(());
                }
                let rows = rules.iter().map(|r| {
                    let firing = r["instances"].as_array().into_iter().flatten().filter(|i| i["state"] == "firing");
                    vec![
                        r["rule"]["rule"].as_str().unwrap_or("-").to_owned(),
                        r["rule"]["index"].as_str().unwrap_or("-").to_owned(),
                        r["rule"]["condition"].as_str().unwrap_or("-").to_owned(),
                        firing.count().to_string(),
                        r["pending_count"].to_string(),
                    ]
                });
                screen.table(&["rule", "index", "condition", "firing", "undelivered"], rows.collect());
            }
            Self::Delete { rule } => {
                api.ask(Method::DELETE, &format!("/api/v1/rules/{rule}"), None).await?;
                screen.line(format_args!("rule {rule} deleted"));
            }
        }
        Ok(())
    }
}
