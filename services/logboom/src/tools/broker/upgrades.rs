//! `logboom broker upgrade-all`: every instance, several at once, with a true exit code.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use types::InstanceId;
use wire::{
    broker::{BindingsOf, InstanceView, ShowInstance, Upgrade, UpgradeInstance},
    coordinator::Page,
};

use super::{Tools, who};
use crate::tools::installation::refused;

/// Pause between two looks at an upgrade that is under way.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How to upgrade.
#[derive(Debug, clap::Args)]
pub(crate) struct UpgradeArgs {
    /// Instances that are upgraded at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    at_once: u8,
    /// Seconds that one upgrade may take
    #[arg(long, default_value_t = 600)]
    within: u64,
}

/// What became of one instance.
struct Outcome {
    instance: InstanceId,
    version: Option<String>,
    /// `None` if it was upgraded, or is gone and needs none.
    failure: Option<String>,
}

impl Tools {
    pub(super) async fn upgrade_all(&self, args: &UpgradeArgs) -> anyhow::Result<()> {
        let wanted = self.instances(false, true).await?;
        let (count, within) = (wanted.len(), Duration::from_secs(args.within));
        let bar = self.admin.bar(count, "upgrading");
        let upgrades = wanted.into_iter().map(|view| {
            let bar = &bar;
            async move {
                let (instance, version) = (view.instance.clone(), view.upgrade.clone());
                let failure = self.upgrade(view, within).await.err().map(|error| format!("{error:#}"));
                bar.inc(1);
                Outcome { instance, version, failure }
            }
        });
        let outcomes: Vec<Outcome> = stream::iter(upgrades).buffer_unordered(args.at_once.into()).collect().await;
        bar.finish_and_clear();
        let row = |outcome: &Outcome| {
            let word = if outcome.failure.is_none() { "upgraded" } else { "failed" };
            let Outcome { instance, version, failure } = outcome;
            json!({ "instance": instance, "version": version, "outcome": word, "failure": failure })
        };
        let rows: Vec<Value> = outcomes.iter().map(row).collect();
        self.admin.screen.rows(&rows, &["instance", "version", "outcome", "failure"]);
        let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
        anyhow::ensure!(failed == 0, "{failed} of {count} instances were not upgraded");
        Ok(())
    }

    /// Begins the upgrade of one instance and waits for its end.
    async fn upgrade(&self, view: InstanceView, within: Duration) -> anyhow::Result<()> {
        let wanted = Upgrade { instance: view.instance.clone(), by: who() };
        let begun = Instant::now();
        // The same call on and on: it begins the upgrade, finds it under way, or finds nothing to do.
        let upgrade = match self.admin.host.bus.call_within::<UpgradeInstance>(&(), &wanted, within).await {
            Ok(upgrade) => upgrade,
            Err(problem) if is_over(&problem.kind) => return Ok(()),
            Err(problem) => return Err(refused(problem).into()),
        };
        let Some(operation) = upgrade.operation else { return Ok(()) };
        let look = BindingsOf { instance: view.instance, after: None, limit: Page(1) };
        loop {
            let seen = self.admin.call::<ShowInstance>(&(), &look).await?;
            // It was deprovisioned meanwhile.
            let Some(seen) = seen.instance else { return Ok(()) };
            if seen.operation.ended || seen.operation.token != operation {
                if let Some(reason) = seen.operation.failure.filter(|_| seen.operation.token == operation) {
                    anyhow::bail!("{reason}");
                }
                let version = seen.version.unwrap_or_else(|| "none".to_owned());
                anyhow::ensure!(version == upgrade.version, "it has version {version} afterwards");
                return Ok(());
            }
            let problem = seen.operation.problem.unwrap_or_else(|| "it is still under way".to_owned());
            anyhow::ensure!(begun.elapsed() < within, "not within {} s: {problem}", within.as_secs());
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Somebody else has upgraded or deprovisioned it between the list and the call.
fn is_over(kind: &str) -> bool {
    matches!(kind, "NothingToUpgrade" | "UnknownInstance")
}
