//! `logboom status`: what runs, and where.

use reqwest::Method;
use serde_json::Value;

use super::Connection;
use crate::screen::Screen;

/// Shows members, containers, jobs and rules at a glance.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {}

impl StatusArgs {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let api = connection.api()?;
        let status = api.ask(Method::GET, "/api/v1/status", None).await?;
        if screen.is_json() {
            screen.value(&status);
            return Ok(());
        }
        screen.line(format_args!("gateway {}", api.gateway));
        if let Some(members) = status["members"].as_array() {
            screen.rows(members, &["service", "replica", "exchange_address", "slots"]);
            let unready = members.iter().flat_map(|member| {
                let reasons = member["unready"].as_object().into_iter().flatten();
                reasons.map(move |(_, why)| (&member["service"], &member["replica"], why))
            });
            for (service, replica, why) in unready {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                screen.line(format_args!("not ready: {} {}: {}", text(service), text(replica), text(why)));
            }
        }
        for (name, value) in status.as_object().into_iter().flatten() {
            if !matches!(value, Value::Array(_) | Value::Object(_)) {
                screen.line(format_args!("{name:24} {value}"));
            }
        }
        Ok(())
    }
}
