//! What many seeds came to, as a table.

use std::{collections::BTreeMap, time::Duration};

use crate::{schedule::Schedule, trial::Outcome};

/// Sums over seeds.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    seeds: u64,
    faults: BTreeMap<&'static str, u64>,
    skipped: BTreeMap<&'static str, u64>,
    acknowledged: u64,
    transactions: usize,
    longest_wait_ms: u64,
    took: Duration,
    /// Seeds that broke a promise, and which.
    pub(crate) broken: BTreeMap<u64, Vec<String>>,
}

impl Summary {
    pub(crate) fn add(&mut self, schedule: &Schedule, outcome: Outcome) {
        let broken = (!outcome.broken.is_empty()).then_some((schedule.seed, outcome.broken));
        self.merge(Self {
            seeds: 1,
            faults: outcome.faults,
            skipped: outcome.skipped,
            acknowledged: outcome.acknowledged,
            transactions: outcome.transactions,
            longest_wait_ms: outcome.longest_wait_ms,
            took: outcome.times.total(),
            broken: broken.into_iter().collect(),
        });
    }

    /// Takes in what others have come to.
    pub(crate) fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.acknowledged += other.acknowledged;
        self.transactions += other.transactions;
        self.longest_wait_ms = self.longest_wait_ms.max(other.longest_wait_ms);
        self.took += other.took;
        for (sums, more) in [(&mut self.faults, other.faults), (&mut self.skipped, other.skipped)] {
            for (kind, count) in more {
                *sums.entry(kind).or_default() += count;
            }
        }
        self.broken.extend(other.broken);
    }

    /// The table, and below it what was broken, each with the seed that shows it again.
    pub(crate) fn text(&self) -> String {
        let mut rows = vec![("seeds".to_owned(), self.seeds.to_string())];
        rows.extend(self.faults.iter().map(|(kind, count)| (format!("fault: {kind}"), count.to_string())));
        rows.extend(self.skipped.iter().map(|(kind, count)| (format!("did not happen: {kind}"), count.to_string())));
        rows.push(("events acknowledged".to_owned(), self.acknowledged.to_string()));
        rows.push(("transactions".to_owned(), self.transactions.to_string()));
        rows.push(("longest wait for an acknowledgement, ms".to_owned(), self.longest_wait_ms.to_string()));
        rows.push(("seconds of all trials".to_owned(), self.took.as_secs().to_string()));
        rows.push(("seeds with broken promises".to_owned(), self.broken.len().to_string()));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text: String = rows.iter().map(|(name, value)| format!("  {name:width$}  {value:>8}\n")).collect();
        for (seed, broken) in &self.broken {
            text += &format!("  seed {seed} (LB_SEED={seed} LB_SEEDS=1 ./justw chaos):\n");
            text.extend(broken.iter().map(|one| format!("    {one}\n")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_told_with_its_seed() {
        let mut summary = Summary::default();
        let kinds = || BTreeMap::from([("split", 2)]);
        let outcome = |broken| Outcome { faults: kinds(), acknowledged: 5, broken, ..Outcome::default() };
        summary.add(&Schedule::of(7), outcome(Vec::new()));
        summary.add(&Schedule::of(9), outcome(vec!["k 3 is gone".to_owned()]));
        let text = summary.text();
        for words in ["fault: split", "4\n", "10\n", "seed 9 (LB_SEED=9 LB_SEEDS=1", "k 3 is gone"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("seed 7"));
    }
}
