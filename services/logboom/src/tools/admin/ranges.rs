//! What follows ended segments, and where a stream shall begin, as they are typed. Pure.

use std::{collections::BTreeMap, str::FromStr};

use types::{KeyRange, Offset, SegmentId, StreamCut};
use wire::coordinator::SegmentRange;

/// Ranges of one scale.
const RANGES_MAX: u32 = 10_000;

/// What follows the ended segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ranges {
    /// So many of equal size; what is ended must have no gap.
    Count(u32),
    /// Two of equal size for each.
    Split,
    /// One for all that are neighbours.
    Merge,
}

impl FromStr for Ranges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<u32>()) {
            ("split", _) => Ok(Self::Split),
            ("merge", _) => Ok(Self::Merge),
            (_, Ok(count)) if (1..=RANGES_MAX).contains(&count) => Ok(Self::Count(count)),
            _ => Err(format!("write split, merge, or a number from 1 to {RANGES_MAX}")),
        }
    }
}

impl Ranges {
    /// The segments that end, and the ranges that follow them. `seal` empty is every present one.
    pub(super) fn plan(
        self,
        present: &[SegmentRange],
        seal: &[SegmentId],
    ) -> Result<(Vec<SegmentId>, Vec<KeyRange>), String> {
        if let Some(stranger) = seal.iter().find(|segment| present.iter().all(|p| p.segment != **segment)) {
            return Err(format!("segment {stranger} is not one of the present ones"));
        }
        let mut ended: Vec<SegmentRange> =
            present.iter().filter(|p| seal.is_empty() || seal.contains(&p.segment)).copied().collect();
        ended.sort_by_key(|segment| segment.range);
        let runs = runs(&ended);
        let ranges = match self {
            Self::Merge => runs,
            Self::Split => ended.iter().map(|s| divide(s.range, 2)).collect::<Result<Vec<_>, _>>()?.concat(),
            Self::Count(count) => match runs.as_slice() {
                [run] => divide(*run, count)?,
                _ => {
                    return Err(
                        "the segments have other ones between them: name neighbours, or use split or merge".into()
                    );
                }
            },
        };
        Ok((ended.into_iter().map(|segment| segment.segment).collect(), ranges))
    }
}

/// Neighbours as one.
fn runs(sorted: &[SegmentRange]) -> Vec<KeyRange> {
    let mut runs: Vec<KeyRange> = Vec::new();
    for segment in sorted {
        match runs.last_mut() {
            Some(run) if run.last.checked_add(1) == Some(segment.range.first) => run.last = segment.range.last,
            _ => runs.push(segment.range),
        }
    }
    runs
}

/// Equal parts of a range.
fn divide(range: KeyRange, count: u32) -> Result<Vec<KeyRange>, String> {
    let width = u128::from(range.last) - u128::from(range.first) + 1;
    let count = u128::from(count);
    if width < count {
        return Err(format!("a range of {width} keys cannot be divided by {count}"));
    }
    let edge = |part: u128| u64::try_from(u128::from(range.first) + width * part / count);
    let parts = (0..count).map(|part| {
        // The end behind the last part may lie behind the last key.
        let last = u64::try_from(u128::from(range.first) + width * (part + 1) / count - 1);
        Some(KeyRange { first: edge(part).ok()?, last: last.ok()? })
    });
    parts.collect::<Option<_>>().ok_or_else(|| "the range is none of the key space".to_owned())
}

/// Where a stream shall begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cut {
    /// Where the next events come.
    Tail,
    /// Here.
    At(StreamCut),
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "tail" {
            return Ok(Self::Tail);
        }
        let mut cut = BTreeMap::new();
        for place in text.split(',') {
            let (segment, offset) = place.split_once('=').ok_or("write tail, or SEGMENT=OFFSET separated by commas")?;
            let segment: SegmentId = segment.trim().parse().map_err(|error: types::Invalid| error.to_string())?;
            let offset: Offset = offset.trim().parse().map_err(|_| format!("{offset:?} is no offset"))?;
            if cut.insert(segment, offset).is_some() {
                return Err(format!("segment {segment} is named twice"));
            }
        }
        Ok(Self::At(StreamCut(cut)))
    }
}

#[cfg(test)]
mod tests {
    use types::ContainerId;

    use super::*;

    fn present() -> Vec<SegmentRange> {
        let ranges = KeyRange::split_evenly(4);
        let segment = |number| SegmentId { stream: 1, epoch: 0, number };
        (0..)
            .zip(ranges)
            .map(|(n, range)| SegmentRange { segment: segment(n), container: ContainerId(0), range })
            .collect()
    }

    fn id(number: u32) -> SegmentId {
        present()[number as usize].segment
    }

    #[test]
    fn what_follows_covers_what_ends() {
        let quarters = KeyRange::split_evenly(4);
        let eighths = KeyRange::split_evenly(8);
        for (how, seal, expected) in [
            ("split", vec![], eighths.clone()),
            ("merge", vec![], KeyRange::split_evenly(1)),
            ("2", vec![], KeyRange::split_evenly(2)),
            ("split", vec![id(1)], eighths[2..4].to_vec()),
            ("merge", vec![id(1), id(0)], KeyRange::split_evenly(2)[..1].to_vec()),
            ("merge", vec![id(0), id(2)], vec![quarters[0], quarters[2]]),
            ("4", vec![id(2), id(3)], eighths[4..].to_vec()),
        ] {
            let (ended, ranges) = how.parse::<Ranges>().unwrap().plan(&present(), &seal).unwrap();
            assert_eq!(
                (ranges, ended.len()),
                (expected, if seal.is_empty() { 4 } else { seal.len() }),
                "{how} {seal:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in ["", "0", "half", "-1", "10001"] {
            assert!(text.parse::<Ranges>().is_err(), "{text}");
        }
        let stranger = SegmentId { stream: 2, ..id(0) };
        assert!(Ranges::Split.plan(&present(), &[stranger]).is_err());
        assert!(Ranges::Count(3).plan(&present(), &[id(0), id(2)]).is_err(), "a gap");
        assert!(divide(KeyRange { first: 5, last: 5 }, 2).is_err());
    }

    #[test]
    fn cuts_are_read() {
        let cut = |text: &str| text.parse::<Cut>();
        assert_eq!(cut("tail"), Ok(Cut::Tail));
        assert_eq!(cut("1-0-0=5, 1-0-1=7"), Ok(Cut::At(StreamCut([(id(0), 5), (id(1), 7)].into()))));
        for wrong in ["", "1-0-0", "1-0-0=x", "x=1", "1-0-0=1,1-0-0=2"] {
            assert!(cut(wrong).is_err(), "{wrong}");
        }
    }
}
