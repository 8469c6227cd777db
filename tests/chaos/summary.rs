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
        self.seeds += 1;
        self.acknowledged += outcome.acknowledged;
        self.transactions += outcome.transactions;
        self.longest_wait_ms = self.longest_wait_ms.max(outcome.longest_wait_ms);
        self.took += outcome.took;
        for (sums, more) in [(&mut self.faults, outcome.faults), (&mut self.skipped, outcome.skipped)] {
            for (kind, count) in more {
                *sums.entry(kind).or_default() += count;
            }
        }
        if !outcome.broken.is_empty() {
            self.broken.insert(schedule.seed, outcome.broken);
        }
    }

    /// The table, and below it what was broken, each with the seed that shows it again.
    pub(crate) fn text(&self) -> String {
        let mut rows = vec![("seeds".to_owned(), self.seeds.to_string())];
        rows.extend(self.faults.iter().map(|(kind, count)| (format!("fault: {kind}"), count.to_string())));
        rows.extend(self.skipped.iter().map(|(kind, count)| (format!("did not happen: {kind}"), count.to_string())));
        rows.push(("events acknowledged".to_owned(), self.acknowledged.to_string()));
        rows.push(("transactions".to_owned(), self.transactions.to_string()));
        rows.push(("longest wait for an acknowledgement, ms".to_owned(), self.longest_wait_ms.to_string()));
        rows.push(("seconds".to_owned(), self.took.as_secs().to_string()));
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
