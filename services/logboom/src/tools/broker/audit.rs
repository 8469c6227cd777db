//! `logboom broker audit`: the two entries of each request as one line.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};
use types::{DurationText, InstanceId, Timestamp};
use wire::{
    Problem,
    broker::{AuditEntry, Stage},
    subjects,
};

use super::Tools;
use crate::tools::installation::{refused, time};

/// Requests that are shown at most.
const SHOWN_MAX: usize = 100_000;
/// How far the clocks of two replicas may be apart, and an entry come late to the stream.
const DISORDER: Duration = Duration::from_secs(60);

/// Which entries.
#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    /// Only what was asked for since then: a time (2026-01-31T12:00:00Z) or how long ago (30m, 2h, 7d)
    #[arg(long, default_value = "24h", value_parser = since)]
    since: Since,
    /// Only about this service instance
    #[arg(long)]
    instance: Option<InstanceId>,
}

/// A place in time, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(DurationText(ago)) = text.parse() {
        return Ok(Since::Ago(ago));
    }
    let wrong = || format!("{text:?} is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 2h");
    let at: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    i64::try_from(at.as_nanosecond()).map(|nanos| Since::At(Timestamp::from_nanos(nanos))).map_err(|_| wrong())
}

impl Tools {
    pub(super) async fn audit(&self, args: &AuditArgs) -> anyhow::Result<()> {
        let host = &self.admin.host;
        let from = match args.since {
            Since::At(at) => at,
            Since::Ago(ago) => host.clock.now() - ago,
        };
        let subject = match &args.instance {
            Some(instance) => subjects::broker_audit(Some(instance)),
            None => wire::filter_of("lb.v1.audit.broker.{instance}"),
        };
        let is_before =
            |payload: &[u8]| wire::decode::<AuditEntry>(payload).is_ok_and(|entry| entry.at + DISORDER < from);
        let unread = |error| anyhow::Error::from(refused(Problem::from(error))).context("the audit cannot be read");
        let mut reader = host.bus.audit(&subject, is_before).await.map_err(unread)?;
        let mut requests = Requests::default();
        loop {
            let records = reader.read().await.map_err(unread)?;
            if records.is_empty() {
                break;
            }
            for record in records {
                let entry = wire::decode::<AuditEntry>(&record.payload);
                requests.take(entry.with_context(|| format!("entry {} of the audit", record.seq))?);
            }
            anyhow::ensure!(
                requests.all.len() <= SHOWN_MAX,
                "more than {SHOWN_MAX} requests; say --since or --instance"
            );
        }
        let shown = requests.in_order().filter(|entry| entry.at >= from);
        // The placeholder stands for requests that name no instance of ours, and might be the name of one.
        let shown = shown.filter(|entry| args.instance.as_ref().is_none_or(|only| only.as_str() == entry.instance));
        let rows: Vec<Value> = shown.map(row).collect();
        let columns = ["at", "action", "instance", "binding", "outcome", "credential", "user", "operation", "request"];
        self.admin.screen.rows(&rows, &columns);
        Ok(())
    }
}

/// The requests of the audit by their ids: of each what is known last.
#[derive(Default)]
struct Requests {
    all: BTreeMap<String, AuditEntry>,
}

impl Requests {
    fn take(&mut self, entry: AuditEntry) {
        match self.all.get_mut(&entry.id) {
            // The time of a request is when it was asked for; what is repeated by the server's clients changes nothing.
            Some(known) if known.stage == Stage::Asked => *known = AuditEntry { at: known.at, ..entry },
            Some(known) => known.at = known.at.min(entry.at),
            None => drop(self.all.insert(entry.id.clone(), entry)),
        }
    }

    fn in_order(&self) -> impl Iterator<Item = &AuditEntry> {
        let mut all: Vec<&AuditEntry> = self.all.values().collect();
        all.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        all.into_iter()
    }
}

fn row(entry: &AuditEntry) -> Value {
    let outcome = match (entry.status, &entry.error) {
        (None, _) => "unknown".to_owned(),
        (Some(status), None) => format!("{status}"),
        (Some(status), Some(error)) => format!("{status} {error}"),
    };
    json!({
        "at": time(entry.at), "id": entry.id, "replica": entry.replica, "via": entry.via, "action": entry.action,
        "instance": entry.instance, "binding": entry.binding, "service_id": entry.service_id, "plan_id": entry.plan_id,
        "outcome": outcome, "status": entry.status, "error": entry.error, "credential": entry.credential,
        "platform": entry.platform, "user": name_of(&entry.user), "operation": entry.operation,
        "request": entry.request_identity,
    })
}

/// A user as people know him: the name that Kubernetes or Cloud Foundry give, else all that was said.
fn name_of(user: &str) -> String {
    let said: Value = serde_json::from_str(user).unwrap_or_default();
    let name = ["username", "user_name", "user_id"].iter().find_map(|key| said[*key].as_str());
    name.unwrap_or(user).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, stage: Stage, at: i64, status: Option<u16>) -> AuditEntry {
        AuditEntry {
            id: id.into(),
            stage,
            at: Timestamp::from_millis(at),
            replica: "a".parse().unwrap(),
            via: "osb".into(),
            credential: "admin".into(),
            platform: "kubernetes".into(),
            user: r#"{"username":"duke","uid":"7"}"#.into(),
            request_identity: "r".into(),
            action: "provision".into(),
            instance: "i".into(),
            binding: None,
            service_id: None,
            plan_id: None,
            status,
            error: None,
            operation: None,
        }
    }

    #[test]
    fn both_sides_of_a_request_are_one_line() {
        let mut requests = Requests::default();
        requests.take(entry("b", Stage::Asked, 20, None));
        requests.take(entry("a", Stage::Asked, 10, None));
        requests.take(entry("a", Stage::Answered, 30, Some(201)));
        requests.take(entry("a", Stage::Asked, 10, None));
        // The second entry may come alone: the first was lost, or is too old.
        requests.take(entry("c", Stage::Answered, 40, Some(409)));
        requests.take(entry("c", Stage::Asked, 5, None));
        let rows: Vec<Value> = requests.in_order().map(row).collect();
        let seen: Vec<_> =
            rows.iter().map(|row| (row["id"].as_str().unwrap(), row["outcome"].as_str().unwrap())).collect();
        assert_eq!(seen, [("c", "409"), ("a", "201"), ("b", "unknown")]);
        assert_eq!(rows[0]["user"], "duke");
    }

    #[test]
    fn a_time_is_absolute_or_ago() {
        assert_eq!(since("2h"), Ok(Since::Ago(Duration::from_secs(7200))));
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(Since::At(Timestamp::from_millis(1000))));
        assert!(since("yesterday").unwrap_err().contains("2h"));
    }
}
