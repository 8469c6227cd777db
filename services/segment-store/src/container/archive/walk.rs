//! What of a segment is copied to its archive next. Pure.

use types::Offset;
use wire::segment_store::ChunkMeta;

/// A chunk, or the end of one, to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The chunk.
    pub(crate) chunk: ChunkMeta,
    /// The first event to copy of it; those before are in the archive.
    pub(crate) from: Offset,
    /// Events between the archive's last and this one: they were truncated before they were copied.
    pub(crate) lost: u64,
}

/// What follows what is archived; nothing when all that is in Tier 2 is.
///
/// `archived` is the offset behind the last event that is there, `start` the first that the segment still has, and `seen` the
/// first that it had when it was seen first. A chunk is taken whole where none of it is there: then its copy is the same bytes.
/// Where chunks were merged meanwhile, the rest of one is.
pub(crate) fn next(chunks: &[ChunkMeta], start: Offset, archived: Option<Offset>, seen: Offset) -> Option<Step> {
    let reached = archived.unwrap_or(0);
    let at = chunks.partition_point(|chunk| chunk.to <= reached.max(start));
    let chunk = chunks.get(at)?;
    let from = reached.max(chunk.from);
    Some(Step { chunk: chunk.clone(), from, lost: lost(archived, seen, chunk.from) })
}

/// Events before an offset that are neither in the archive nor to be had any more. What was gone before anybody looked is none.
pub(crate) fn lost(archived: Option<Offset>, seen: Offset, before: Offset) -> u64 {
    before.saturating_sub(archived.unwrap_or(seen))
}

/// Bytes of the chunks that are not wholly archived.
pub(crate) fn lag(chunks: &[ChunkMeta], start: Offset, archived: Option<Offset>) -> u64 {
    let at = chunks.partition_point(|chunk| chunk.to <= archived.unwrap_or(0).max(start));
    chunks[at..].iter().map(|chunk| chunk.bytes).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use types::Timestamp;

    use super::*;

    fn chunk(from: Offset, to: Offset) -> ChunkMeta {
        let time = Timestamp::MIN;
        ChunkMeta { key: format!("{from}-{to}"), from, to, bytes: to - from, time_min: time, time_max: time }
    }

    #[track_caller]
    fn check(chunks: &[(Offset, Offset)], start: Offset, archived: Option<Offset>, wanted: Option<(&str, u64, u64)>) {
        check_seen(chunks, start, archived, start, wanted);
    }

    #[track_caller]
    fn check_seen(
        chunks: &[(Offset, Offset)],
        start: Offset,
        archived: Option<Offset>,
        seen: Offset,
        wanted: Option<(&str, u64, u64)>,
    ) {
        let chunks: Vec<ChunkMeta> = chunks.iter().map(|&(from, to)| chunk(from, to)).collect();
        let step = next(&chunks, start, archived, seen);
        assert_eq!(step.as_ref().map(|s| (s.chunk.key.as_str(), s.from, s.lost)), wanted);
        assert_eq!(lag(&chunks, start, archived) > 0, wanted.is_some(), "what lags is copied");
    }

    #[test]
    fn it_goes_on_behind_what_is_there() {
        let three = [(0, 10), (10, 20), (20, 30)];
        check(&[], 0, None, None);
        check(&three, 0, None, Some(("0-10", 0, 0)));
        check(&three, 0, Some(10), Some(("10-20", 10, 0)));
        check(&three, 0, Some(30), None);
        check(&three, 0, Some(99), None);
        // Merged meanwhile: the rest of the new chunk.
        check(&[(0, 30)], 0, Some(10), Some(("0-30", 10, 0)));
        // Truncated: a chunk that is cut stays whole.
        check(&three, 15, None, Some(("10-20", 10, 0)));
        check(&three, 15, Some(12), Some(("10-20", 12, 0)));
        // Truncated before it was copied; and what was truncated before there was an archive is not lost.
        check(&three, 20, Some(10), Some(("20-30", 20, 10)));
        check(&three[2..], 20, None, Some(("20-30", 20, 0)));
        check(&three, 30, Some(10), None);
        // Truncated under our eyes before anything of it was copied.
        check_seen(&three, 20, None, 0, Some(("20-30", 20, 20)));
        check_seen(&three, 20, None, 15, Some(("20-30", 20, 5)));
        check_seen(&three, 15, None, 0, Some(("10-20", 10, 10)));
        check_seen(&three, 20, Some(10), 0, Some(("20-30", 20, 10)));
    }

    #[test]
    fn what_a_segment_takes_along_is_lost() {
        for (archived, seen, end, gone) in
            [(None, 0, 30, 30), (None, 20, 30, 10), (Some(10), 0, 30, 20), (Some(30), 0, 30, 0)]
        {
            assert_eq!(lost(archived, seen, end), gone, "{archived:?} {seen} {end}");
        }
    }

    proptest! {
        /// However chunks come, are merged and truncated, and whoever goes on: no event twice, none left out but those that
        /// were truncated and are counted.
        #[test]
        fn every_event_once(moves in prop::collection::vec((0u8..5, 1u64..20), 1..200)) {
            let (mut chunks, mut start, mut copies) = (Vec::<ChunkMeta>::new(), 0, Vec::<(Offset, Offset)>::new());
            let mut lost = 0;
            let copy = |chunks: &[ChunkMeta], start, copies: &mut Vec<(Offset, Offset)>, lost: &mut u64| {
                // A new owner knows nothing but the names.
                let Some(step) = next(chunks, start, copies.iter().map(|c| c.1).max(), 0) else { return false };
                *lost += step.lost;
                copies.push((step.from, step.chunk.to));
                true
            };
            for (what, n) in moves {
                let end = chunks.last().map_or(0, |c| c.to);
                match what {
                    0 | 1 => chunks.push(chunk(end, end + n)),
                    2 if chunks.len() > 2 => {
                        let at = usize::try_from(n).unwrap() % (chunks.len() - 1);
                        let merged = chunk(chunks[at].from, chunks[at + 1].to);
                        chunks.splice(at..at + 2, [merged]);
                    }
                    3 => {
                        start = (start + n).min(end);
                        chunks.retain(|c| c.to > start);
                        if chunks.is_empty() && end > 0 {
                            chunks.push(chunk(end, end + 1));
                        }
                    }
                    _ => drop(copy(&chunks, start, &mut copies, &mut lost)),
                }
            }
            while copy(&chunks, start, &mut copies, &mut lost) {}
            prop_assert!(copies.windows(2).all(|pair| pair[0].1 <= pair[1].0 && pair[0].0 < pair[0].1), "{copies:?}");
            let held: u64 = copies.iter().map(|(from, to)| to - from).sum();
            prop_assert_eq!(held + lost, copies.last().map_or(0, |last| last.1));
            prop_assert_eq!(lag(&chunks, start, copies.last().map(|last| last.1)), 0);
        }
    }
}
