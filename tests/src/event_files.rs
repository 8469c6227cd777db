//! Files of events that are not in order: NDJSON as sources of a stream read it, made from a seed.
//!
//! A line is `{"time":"…","key":17,"value":512,"mark":"error","id":42}`: event time, key, value, kind of event, and a number that no other
//! line has; or with short names. Every file holds a share of the whole span, so their ranges interleave.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Result;
use jiff::Timestamp;

use crate::{
    recompute::{ENDED, Row},
    seeded::Seeded,
};

/// Kinds of events, the frequent one first.
pub const MARKS: [&str; 4] = ["view", "login", "error", "order"];
/// Names of key, value, kind and number in a line.
pub const LONG: [&str; 4] = ["key", "value", "mark", "id"];
/// Names that need no quotes in anybody's SQL.
pub const SHORT: [&str; 4] = ["k", "v", "mark", "n"];
/// A row from the future lies so far ahead, in milliseconds.
const FUTURE_MS: i64 = 86_400_000;

/// What events there are.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Decides everything else.
    pub seed: u64,
    /// Lines in all files together.
    pub lines: u64,
    /// Files.
    pub files: u64,
    /// Different keys.
    pub keys: u64,
    /// Event time of the first line, in milliseconds.
    pub start_ms: i64,
    /// Lines in a second of event time.
    pub rate: u64,
    /// In a thousand: lines that lie up to `disorder_ms` behind.
    pub disordered: u64,
    /// How far behind they lie at most.
    pub disorder_ms: i64,
    /// In a thousand: lines that lie up to a minute further behind.
    pub late: u64,
    /// In a thousand: lines from a day later.
    pub future: u64,
    /// In a thousand: lines without a time.
    pub undated: u64,
    /// In a thousand: lines that are no JSON object, or whose members are of the wrong kind.
    pub corrupt: u64,
    /// [`LONG`] or [`SHORT`].
    pub names: [&'static str; 4],
}

impl Mix {
    /// Half of the lines up to five seconds behind, and nothing else wrong.
    pub fn disordered(seed: u64, lines: u64, keys: u64) -> Self {
        // 2026-01-01.
        let start_ms = 1_767_225_600_000;
        Self {
            seed,
            lines,
            files: 2,
            keys,
            start_ms,
            rate: 33_333,
            disordered: 500,
            disorder_ms: 5_000,
            late: 0,
            future: 0,
            undated: 0,
            corrupt: 0,
            names: LONG,
        }
    }

    /// The same with some of everything that goes wrong.
    pub fn rough(seed: u64, lines: u64, keys: u64) -> Self {
        Self { late: 30, future: 3, undated: 10, corrupt: 10, ..Self::disordered(seed, lines, keys) }
    }

    /// The lines in the order in which they are made.
    pub fn lines(self) -> Lines {
        Lines { mix: self, random: Seeded::new(self.seed), number: 0 }
    }

    /// What a source makes of the lines: those with a time, each file a split.
    pub fn rows(self) -> Vec<Row> {
        let row = |line: Line| {
            let Kind::Dated { time } = line.kind else { return None };
            Some(Row {
                split: line.file,
                offset: line.number,
                time,
                received: ENDED,
                key: line.key.to_string(),
                value: line.value,
                mark: line.mark.to_owned(),
                id: line.number.to_string(),
            })
        };
        self.lines().filter_map(row).collect()
    }

    /// How many lines have no time, and how many are no event.
    pub fn wrong(self) -> (u64, u64) {
        self.lines().fold((0, 0), |(undated, corrupt), line| match line.kind {
            Kind::Dated { .. } => (undated, corrupt),
            Kind::Undated => (undated + 1, corrupt),
            Kind::Corrupt { .. } => (undated, corrupt + 1),
        })
    }

    /// Writes the files into a directory: `events-0.ndjson` and so on. `see` is shown every line.
    pub fn write(self, dir: &Path, mut see: impl FnMut(&Line)) -> Result<Vec<PathBuf>> {
        let paths: Vec<PathBuf> = (0..self.files).map(|n| dir.join(format!("events-{n}.ndjson"))).collect();
        let open = |path: &PathBuf| Ok(BufWriter::with_capacity(1 << 20, File::create(path)?));
        let mut files = paths.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut text = String::new();
        for line in self.lines() {
            text.clear();
            line.write(self.names, &mut text)?;
            files[usize::try_from(line.file)?].write_all(text.as_bytes())?;
            see(&line);
        }
        for mut file in files {
            file.flush()?;
        }
        Ok(paths)
    }
}

/// One line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which line of all it is; in a file they rise.
    pub number: u64,
    /// The file.
    pub file: u64,
    /// The key.
    pub key: u64,
    /// The value.
    pub value: i64,
    /// The kind of event.
    pub mark: &'static str,
    /// Whether it is what it should be.
    pub kind: Kind,
}

/// Whether a line is what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has a time, in milliseconds; be it late or far ahead.
    Dated {
        /// Event time.
        time: i64,
    },
    /// Its time is missing, `null`, or no time.
    Undated,
    /// It cannot be read.
    Corrupt {
        /// In which way.
        way: u64,
    },
}

impl Line {
    /// Appends the line, with its end.
    pub fn write(&self, names: [&str; 4], out: &mut String) -> Result<()> {
        let Self { number, key, value, mark, .. } = self;
        let [k, v, m, n] = names;
        let rest = format!("\"{k}\":{key},\"{v}\":{value},\"{m}\":\"{mark}\",\"{n}\":{number}}}");
        match self.kind {
            Kind::Dated { time } => writeln!(out, "{{\"time\":\"{:.3}\",{rest}", Timestamp::from_millisecond(time)?)?,
            Kind::Undated => {
                let time = ["", "\"time\":null,", "\"time\":\"soon\","][usize::try_from(number % 3)?];
                writeln!(out, "{{{time}{rest}")?;
            }
            Kind::Corrupt { way: 0 } => {
                writeln!(out, "{{\"time\":\"2026-01-01T00:00:00.000Z\",\"{k}\":{key},\"{v}\":")?
            }
            Kind::Corrupt { way: 1 } => writeln!(out, "\u{fffd} not an event at all {number}")?,
            Kind::Corrupt { .. } => writeln!(out, "[{key},{value}]")?,
        }
        Ok(())
    }
}

/// Lines without end but the mix's.
#[derive(Debug)]
pub struct Lines {
    mix: Mix,
    random: Seeded,
    number: u64,
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let (mix, random, number) = (self.mix, &mut self.random, self.number);
        if number >= mix.lines {
            return None;
        }
        self.number += 1;
        let elapsed = i64::try_from(number.saturating_mul(1_000) / mix.rate.max(1)).unwrap_or(i64::MAX);
        let now = mix.start_ms.saturating_add(elapsed);
        let (file, key, value) = (random.below(mix.files), random.below(mix.keys), random.up_to(1_000));
        // Every second event is a frequent one.
        let mark = MARKS[usize::try_from(random.below(6).saturating_sub(2)).unwrap_or(0)];
        let mut share = random.below(1_000);
        let mut within = |part: u64| match share.checked_sub(part) {
            Some(rest) => {
                share = rest;
                false
            }
            None => {
                share = 1_000;
                true
            }
        };
        let kind = if within(mix.corrupt) {
            Kind::Corrupt { way: random.below(3) }
        } else if within(mix.undated) {
            Kind::Undated
        } else if within(mix.future) {
            Kind::Dated { time: now + FUTURE_MS }
        } else if within(mix.late) {
            Kind::Dated { time: now - mix.disorder_ms - random.up_to(60_000) - 1 }
        } else if within(mix.disordered) {
            Kind::Dated { time: now - random.up_to(mix.disorder_ms + 1) }
        } else {
            Kind::Dated { time: now }
        };
        Some(Line { number, file, key, value, mark, kind })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_lines_and_another_one_others() {
        let some = |seed| Mix::rough(seed, 500, 7).lines().collect::<Vec<_>>();
        assert_eq!(some(3), some(3));
        assert_ne!(some(3), some(4));
    }

    #[test]
    fn there_is_as_much_of_everything_as_was_asked_for() {
        let mix = Mix::rough(1, 100_000, 50);
        let (undated, corrupt) = mix.wrong();
        let mut latest = mix.start_ms;
        let (mut behind, mut late, mut future) = (0u64, 0, 0);
        for row in mix.rows() {
            let now = mix.start_ms + i64::try_from(row.offset * 1_000 / mix.rate).unwrap();
            behind += u64::from((1..=mix.disorder_ms).contains(&(now - row.time)));
            late += u64::from(now - row.time > mix.disorder_ms);
            future += u64::from(row.time > now);
            latest = latest.max(row.time.min(now));
        }
        for (what, found, wanted) in [
            ("disordered", behind, 50_000),
            ("late", late, 3_000),
            ("future", future, 300),
            ("undated", undated, 1_000),
            ("corrupt", corrupt, 1_000),
        ] {
            assert!((wanted * 8 / 10..=wanted * 12 / 10).contains(&found), "{what}: {found} of about {wanted}");
        }
        assert_eq!(latest, mix.start_ms + 3_000);
    }

    #[test]
    fn files_hold_the_rows_and_their_ranges_interleave() {
        let dir = tempfile::tempdir().unwrap();
        let mix = Mix { files: 3, ..Mix::rough(9, 3_000, 5) };
        let paths = mix.write(dir.path(), |_| {}).unwrap();
        let (mut dated, mut bad, mut spans) = (Vec::new(), 0, Vec::new());
        for path in &paths {
            let mut numbers = Vec::new();
            for line in fs::read_to_string(path).unwrap().lines() {
                let event = serde_json::from_str::<Value>(line).unwrap_or_default();
                match event["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok()) {
                    Some(time) => {
                        let number = event["id"].as_u64().unwrap();
                        numbers.push(number);
                        dated.push((number, time.as_millisecond(), event["key"].to_string(), event["value"].as_i64()));
                    }
                    None => bad += 1,
                }
            }
            assert!(numbers.is_sorted());
            spans.push((numbers[0], numbers[numbers.len() - 1]));
        }
        dated.sort();
        let mut rows: Vec<_> = mix.rows().into_iter().map(|r| (r.offset, r.time, r.key, Some(r.value))).collect();
        rows.sort();
        assert_eq!(dated, rows);
        let (undated, corrupt) = mix.wrong();
        assert_eq!(bad, undated + corrupt);
        assert!(spans.iter().all(|(first, last)| *first < 100 && *last > 2_900), "{spans:?}");
        assert_eq!(mix.lines().map(|line| line.mark).collect::<BTreeSet<_>>().len(), MARKS.len());
    }
}
