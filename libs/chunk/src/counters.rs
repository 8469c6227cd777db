//! How many events of which severity fell into which minute.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{Severity, Timestamp};

use crate::cursor::{Cursor, put_signed, put_varint};

/// The most cells of one chunk before the step grows: a week of minutes.
///
/// Days, the largest step, are limited by what a timestamp holds (213 504 days).
pub const CELLS_MAX: usize = 7 * 24 * 60;

const MINUTE: i64 = 60_000_000_000;
/// Minutes, hours, days.
const STEPS: [u32; 3] = [1, 60, 24 * 60];

/// Events per step of event time and severity; charts and counts are answered from it without reading rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The length of a step in minutes: 1, or 60 or 1440 where the chunk spans more than [`CELLS_MAX`] of them.
    pub step_minutes: u32,
    /// Counts by number of the step since 1970: trace, debug, info, warn, error, fatal, none.
    pub cells: BTreeMap<i64, [u64; 7]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { step_minutes: STEPS[0], cells: BTreeMap::new() }
    }
}

impl Counters {
    fn add(&mut self, step: i64, counts: [u64; 7]) {
        let cell = self.cells.entry(step).or_default();
        for (sum, count) in cell.iter_mut().zip(counts) {
            *sum += count;
        }
        if self.cells.len() > CELLS_MAX {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        let Some(&coarser) = STEPS.iter().find(|step| **step > self.step_minutes) else { return };
        let ratio = i64::from(coarser / self.step_minutes);
        self.step_minutes = coarser;
        for (step, counts) in std::mem::take(&mut self.cells) {
            let cell = self.cells.entry(step.div_euclid(ratio)).or_default();
            for (sum, count) in cell.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }

    /// All events of the severity; those without one for `None`.
    pub fn count(&self, severity: Option<Severity>) -> u64 {
        self.cells.values().map(|cell| cell[place(severity)]).sum()
    }

    /// All events.
    pub fn total(&self) -> u64 {
        self.cells.values().flatten().sum()
    }
}

/// Counts events one after the other; those of one step are added at once, since most come after another of theirs.
#[derive(Default)]
pub(crate) struct Tally {
    counters: Counters,
    /// The step that is counted, and what of it is not added yet.
    step: i64,
    counts: [u64; 7],
}

impl Tally {
    pub(crate) fn add(&mut self, time: Timestamp, severity: Option<Severity>) {
        let step = time.nanos().div_euclid(i64::from(self.counters.step_minutes) * MINUTE);
        if step == self.step {
            self.counts[place(severity)] += 1;
            return;
        }
        self.flush();
        // The step may have grown.
        self.step = time.nanos().div_euclid(i64::from(self.counters.step_minutes) * MINUTE);
        self.counts[place(severity)] += 1;
    }

    fn flush(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        if counts != [0; 7] {
            self.counters.add(self.step, counts);
        }
    }

    pub(crate) fn finish(mut self) -> Counters {
        self.flush();
        self.counters
    }
}

/// The counters as bytes; each step as its distance from the one before.
pub(crate) fn write(counters: &Counters, out: &mut Vec<u8>) {
    put_varint(out, u64::from(counters.step_minutes));
    put_varint(out, counters.cells.len() as u64);
    let mut last = 0;
    for (step, counts) in &counters.cells {
        put_signed(out, step.wrapping_sub(last));
        last = *step;
        counts.iter().for_each(|count| put_varint(out, *count));
    }
}

/// What [`write`] wrote.
pub(crate) fn read(from: &mut Cursor<'_>) -> Result<Counters, String> {
    let step_minutes = u32::try_from(from.varint()?).ok().filter(|step| STEPS.contains(step));
    let step_minutes = step_minutes.ok_or("its counters have steps of a length that is none")?;
    let mut counters = Counters { step_minutes, cells: BTreeMap::new() };
    let mut last = 0i64;
    for _ in 0..from.count(usize::MAX)? {
        last = last.wrapping_add(from.signed()?);
        let mut counts = [0; 7];
        for count in &mut counts {
            *count = from.varint()?;
        }
        counters.cells.insert(last, counts);
    }
    Ok(counters)
}

fn place(severity: Option<Severity>) -> usize {
    match severity {
        Some(Severity::Trace) => 0,
        Some(Severity::Debug) => 1,
        Some(Severity::Info) => 2,
        Some(Severity::Warn) => 3,
        Some(Severity::Error) => 4,
        Some(Severity::Fatal) => 5,
        None => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_minutes_until_there_are_too_many() {
        let mut tally = Tally::default();
        for minute in -5..i64::try_from(CELLS_MAX).unwrap() - 5 {
            tally.add(Timestamp::from_nanos(minute * MINUTE + 1), Some(Severity::Warn));
        }
        tally.flush();
        assert_eq!((tally.counters.step_minutes, tally.counters.cells.len()), (1, CELLS_MAX));
        tally.add(Timestamp::from_nanos(-5 * MINUTE - 1), None);
        tally.flush();
        let counters = &tally.counters;
        assert_eq!((counters.step_minutes, counters.cells.len()), (60, 169));
        assert_eq!(counters.cells[&-1], [0, 0, 0, 5, 0, 0, 1]);
        assert_eq!((counters.count(Some(Severity::Warn)), counters.total()), (CELLS_MAX as u64, CELLS_MAX as u64 + 1));
        for day in 0..1_000 {
            tally.add(Timestamp::from_nanos(day * 1_440 * MINUTE), None);
            tally.add(Timestamp::from_nanos(day * 1_440 * MINUTE + 3_600_000_000_000 * 13), None);
        }
        assert_eq!(tally.finish().total(), CELLS_MAX as u64 + 2_001);
    }

    #[test]
    fn the_ends_of_time_fit() {
        let mut tally = Tally::default();
        tally.add(Timestamp::MIN, None);
        tally.add(Timestamp::MAX, None);
        let counters = tally.finish();
        assert_eq!(counters.total(), 2);
        let text = serde_json::to_string(&counters).unwrap();
        assert_eq!(serde_json::from_str::<Counters>(&text).unwrap(), counters);
        let mut bytes = Vec::new();
        write(&counters, &mut bytes);
        assert_eq!(read(&mut Cursor::new(&bytes)).unwrap(), counters);
        assert!(read(&mut Cursor::new(&bytes[..bytes.len() - 1])).is_err());
        assert!(read(&mut Cursor::new(&[7, 0])).unwrap_err().contains("steps of a length"));
    }
}
