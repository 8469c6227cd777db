//! What lines have in common. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ingest::template::{BRANCHES, Dictionary};

/// Patterns of one answer.
const PATTERNS_MAX: usize = 300;
/// How our templates and Loki's patterns write what varies.
const OURS: &str = "<*>";
const LOKIS: &str = "<_>";

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) text: String,
    /// The first second of each step, and how many lines there are in it.
    pub(super) samples: Vec<(i64, u64)>,
}

/// The patterns of lines with their times in nanoseconds, most lines first.
///
/// Bounds: [`PATTERNS_MAX`] patterns; lines that are too long or too odd to have a pattern are left out.
pub(super) fn mine<'l>(lines: impl Iterator<Item = (i64, &'l str)>, step: Duration) -> Vec<Found> {
    let step = i64::try_from(step.as_secs()).unwrap_or(i64::MAX).max(1);
    let mut dictionary = Dictionary::default();
    let mut counts: HashMap<u64, BTreeMap<i64, u64>> = HashMap::new();
    for (time, line) in lines {
        let signature = dictionary.learn(line).signature;
        let second = time.div_euclid(1_000_000_000);
        *counts.entry(signature).or_default().entry(second - second.rem_euclid(step)).or_default() += 1;
    }
    let mut templates = dictionary.templates(BRANCHES);
    templates.truncate(PATTERNS_MAX);
    let one = |template: ingest::template::Template| {
        let mut samples: BTreeMap<i64, u64> = BTreeMap::new();
        for (second, count) in template.signatures.iter().filter_map(|signature| counts.get(signature)).flatten() {
            *samples.entry(*second).or_default() += count;
        }
        Found { text: template.text.replace(OURS, LOKIS), samples: samples.into_iter().collect() }
    };
    templates.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_kind_are_counted_by_steps() {
        let names = ["ann", "bob", "cy", "dan", "eve", "fay", "gus"];
        let logins = names.iter().map(|name| format!("Accepted password for {name} from 10.0.0.7"));
        let lines: Vec<(i64, String)> = (0..)
            .zip(logins)
            .map(|(i, line)| (i * 5_000_000_000, line))
            .chain([(31_000_000_000, "disk full".to_owned())])
            .collect();
        let found = mine(lines.iter().map(|(time, line)| (*time, line.as_str())), Duration::from_secs(10));
        assert_eq!(
            found,
            [
                Found {
                    text: "Accepted password for <_> from <_>".into(),
                    samples: vec![(0, 2), (10, 2), (20, 2), (30, 1)]
                },
                Found { text: "disk full".into(), samples: vec![(30, 1)] },
            ]
        );
        assert!(mine([(1, "x".repeat(1 << 20).as_str())].into_iter(), Duration::ZERO).is_empty());
    }
}
