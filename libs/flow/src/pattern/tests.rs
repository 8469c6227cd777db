//! Patterns against a search that goes back and tries again, whatever happens on the way.

use std::{collections::BTreeMap, time::Duration};

use types::DurationText;

use super::*;
use crate::{
    OperatorSpec,
    kept::drive::{Row, each_way, in_order, rows},
};

/// What a search has taken so far: the rows of each step that takes some.
type Taken = Vec<Vec<usize>>;

/// The pattern as the search sees it.
struct Search<'a> {
    spec: &'a PatternSpec,
    /// The steps that take rows, by their places in the specification.
    steps: Vec<usize>,
    rows: &'a [&'a Row],
}

impl Search<'_> {
    fn meets(&self, row: usize, step: usize) -> bool {
        let bit = "abcd".find(&self.spec.steps[step].condition).unwrap();
        self.rows[row].bits >> bit & 1 == 1
    }

    /// The absent steps between two that take rows; behind the last one, where there is no second.
    fn absent(&self, from: usize, to: Option<usize>) -> Vec<usize> {
        let to = to.map_or(self.spec.steps.len(), |to| self.steps[to]);
        (self.steps[from]..to).filter(|step| self.spec.steps[*step].absent).collect()
    }

    fn step(&self, at: usize) -> &PatternStep {
        &self.spec.steps[self.steps[at]]
    }

    /// The preferred way on from a state in which step `at` has taken the row before `next`.
    fn search(&self, first: usize, at: usize, taken: &Taken, next: usize) -> Option<Taken> {
        let count = u32::try_from(taken[at].len()).unwrap();
        let through = count >= self.step(at).least;
        let whole = through && (at + 1..self.steps.len()).all(|step| self.step(step).least == 0);
        let behind = self.absent(at, None);
        let within = i64::try_from(self.spec.within.0.as_millis()).unwrap();
        let mut between: Vec<usize> = Vec::new();
        let mut open = true;
        for row in next..self.rows.len() {
            if self.rows[row].time - self.rows[first].time > within {
                break;
            }
            let clear = |to| !between.iter().any(|row| self.absent(at, Some(to)).iter().any(|s| self.meets(*row, *s)));
            let mut ways = Vec::new();
            if open && count < self.step(at).most && self.meets(row, self.steps[at]) {
                ways.push(at);
            }
            for to in at + 1..self.steps.len() {
                if open && through && clear(to) && self.meets(row, self.steps[to]) {
                    ways.push(to);
                }
                if self.step(to).least > 0 {
                    break;
                }
            }
            for to in &ways {
                let mut taken = taken.clone();
                taken[*to].push(row);
                if let Some(found) = self.search(first, *to, &taken, row + 1) {
                    return Some(found);
                }
            }
            if !ways.is_empty() {
                return (whole && behind.is_empty()).then(|| taken.clone());
            }
            between.push(row);
            open &= self.spec.gaps;
        }
        let spoilt = between.iter().any(|row| behind.iter().any(|step| self.meets(*row, *step)));
        (whole && !spoilt).then(|| taken.clone())
    }

    fn from(&self, first: usize) -> Option<Taken> {
        for at in 0..self.steps.len() {
            if self.meets(first, self.steps[at]) {
                let mut taken = vec![Vec::new(); self.steps.len()];
                taken[at].push(first);
                if let Some(found) = self.search(first, at, &taken, first + 1) {
                    return Some(found);
                }
            }
            if self.step(at).least > 0 {
                break;
            }
        }
        None
    }
}

/// `time, key`, and of each step that takes rows the first, the last and how many.
fn matches(spec: &PatternSpec, rows: &[&Row]) -> Vec<String> {
    let mut of_key = BTreeMap::<&Option<String>, Vec<&Row>>::new();
    rows.iter().for_each(|row| of_key.entry(&row.key).or_default().push(row));
    let mut out = Vec::new();
    for (key, rows) in of_key {
        let steps = (0..spec.steps.len()).filter(|step| !spec.steps[*step].absent).collect();
        let search = Search { spec, steps, rows: &rows };
        let mut first = 0;
        while first < rows.len() {
            let Some(taken) = search.from(first) else {
                first += 1;
                continue;
            };
            let last = *taken.iter().flatten().max().unwrap();
            let id = |row: Option<&usize>| row.map_or("-".to_owned(), |row| rows[*row].id());
            let step = |taken: &Vec<usize>| format!("{} {} {}", id(taken.first()), id(taken.last()), taken.len());
            let measures: Vec<String> = taken.iter().map(step).collect();
            out.push(format!("{} {} {}", rows[last].time, key.as_deref().unwrap_or("-"), measures.join(" ")));
            first = if spec.after == AfterMatch::PastLast { last + 1 } else { first + 1 };
        }
    }
    out
}

/// A pattern of steps like `a`, `a{1,3}` or `!a`.
fn spec(steps: &str, within: u64, after: AfterMatch, gaps: bool) -> PatternSpec {
    let step = |(number, text): (usize, &str)| {
        let (absent, text) = text.strip_prefix('!').map_or((false, text), |text| (true, text));
        let (condition, times) = text.split_once('{').unwrap_or((text, "1,1}"));
        let (least, most) = times.trim_end_matches('}').split_once(',').unwrap();
        let most = if most.is_empty() { u32::MAX } else { most.parse().unwrap() };
        let (name, condition) = (format!("s{number}"), condition.to_owned());
        PatternStep { name, condition, least: least.parse().unwrap(), most, absent }
    };
    let steps: Vec<PatternStep> = steps.split(' ').enumerate().map(step).collect();
    let id = || "id".to_owned();
    let measures = steps.iter().filter(|step| !step.absent).flat_map(|step| {
        [("f", MeasureValue::First(id())), ("l", MeasureValue::Last(id())), ("n", MeasureValue::Count)]
            .map(|(name, value)| Measure { name: format!("{name}_{}", step.name), step: step.name.clone(), value })
    });
    let measures = measures.collect();
    let within = DurationText(Duration::from_millis(within));
    PatternSpec { keys: vec!["key".into()], steps, within, after, gaps, measures }
}

const PATTERNS: [&str; 14] = [
    "a b",
    "a b c",
    "a a",
    "a{2,2} b{2,2}",
    "a{1,3} b",
    "a{1,} b",
    "a b{0,1} c",
    "a{0,2} b c{0,1}",
    "a{1,3} b{1,2}",
    "a b{1,}",
    "a !c b",
    "a !b",
    "a{1,2} !c b{0,2} !d",
    "a{1,} !d b{0,1} c",
];

#[test]
fn rows_match_as_a_search_finds_them() {
    for (seed, steps) in (0..).zip(PATTERNS) {
        for after in [AfterMatch::PastLast, AfterMatch::NextRow] {
            for gaps in [true, false] {
                let within = if steps == "a !b" { 6 } else { 25 };
                let spec = spec(steps, within, after, gaps);
                let mut rows = rows(seed, 1, 500, 3);
                if !gaps {
                    // Runs without gaps are rare else.
                    rows.iter_mut().for_each(|row| row.bits |= usize::try_from(row.offset).unwrap() * 5 % 16);
                }
                let expected = matches(&spec, &in_order(&rows, 0));
                let name = format!("{steps}, {after:?}, gaps {gaps}");
                each_way(&OperatorSpec::Pattern(spec), None, &rows, &expected, &name);
            }
        }
    }
}

#[test]
fn one_sequence_over_everything_needs_no_key() {
    let keyless = PatternSpec { keys: Vec::new(), ..spec("a b c", 9, AfterMatch::PastLast, true) };
    let mut rows = rows(3, 1, 300, 3);
    rows.iter_mut().for_each(|row| row.key = None);
    let expected: Vec<String> =
        matches(&keyless, &in_order(&rows, 0)).iter().map(|row| row.replacen(" -", "", 1)).collect();
    each_way(&OperatorSpec::Pattern(keyless), None, &rows, &expected, "no key");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let cases = [
        ("has two steps", {
            let mut twice = spec("a b", 9, AfterMatch::PastLast, true);
            twice.steps[1].name = "s0".into();
            twice
        }),
        ("no number of rows", spec("a !b{1,2} c", 9, AfterMatch::PastLast, true)),
        ("the lesser one", spec("a{2,1}", 9, AfterMatch::PastLast, true)),
        ("begins with an absent", spec("!a b", 9, AfterMatch::PastLast, true)),
        ("no row at all", spec("a{0,1} b{0,3}", 9, AfterMatch::PastLast, true)),
        ("out of range", spec("a b", 0, AfterMatch::PastLast, true)),
        ("1 to 16", spec(&["a"; 17].join(" "), 9, AfterMatch::PastLast, true)),
        ("which is no step", {
            let mut other = spec("a b", 9, AfterMatch::PastLast, true);
            other.measures[0].step = "z".into();
            other
        }),
        ("which is absent", {
            let mut absent = spec("a !b c", 9, AfterMatch::PastLast, true);
            absent.measures[0].step = "s1".into();
            absent
        }),
        ("rename one", {
            let mut twice = spec("a b", 9, AfterMatch::PastLast, true);
            twice.measures[0].name = "key".into();
            twice
        }),
    ];
    for (wanted, spec) in cases {
        let found = spec.validate().unwrap_err().to_string();
        assert!(found.contains(wanted), "{found:?} does not say {wanted:?}");
    }
}
