//! Compaction as a model: segments grow chunk by chunk, and each row counts how often it was rewritten.

use proptest::prelude::*;

use super::*;

const RULE: Rule = Rule { rows_max: 1 << 19, bytes_max: 1 << 30 };

/// A chunk of a simulated segment: its rows, each with how often it was rewritten.
#[derive(Debug, Clone)]
struct Chunk {
    from: u64,
    rewritten: Vec<u32>,
    /// Its first and its last time, in nanoseconds.
    times: (i64, i64),
}

/// Times of one day.
fn on(day: i64) -> (i64, i64) {
    (day * DAY, day * DAY + 1)
}

/// Times of no day.
const WIDE: (i64, i64) = (i64::MIN, i64::MAX);

fn part(chunk: &Chunk) -> Part {
    let (rows, at) = (chunk.rewritten.len() as u64, types::Timestamp::from_nanos);
    let (time_min, time_max) = (at(chunk.times.0), at(chunk.times.1));
    let (from, to, bytes) = (chunk.from, chunk.from + rows, rows * 10);
    Part::of(&ChunkMeta { key: String::new(), from, to, bytes, time_min, time_max }, false)
}

fn most_rewritten(chunks: &[Chunk]) -> u32 {
    chunks.iter().flat_map(|chunk| &chunk.rewritten).max().copied().unwrap_or(0)
}

/// Merges until nothing is planned; answers how many merges that took.
fn settle(chunks: &mut Vec<Chunk>, closed: bool, rule: Rule) -> usize {
    let mut merges = 0;
    loop {
        let parts: Vec<Part> = chunks.iter().map(part).collect();
        let Some(range) = plan(&parts, closed, rule) else { return merges };
        assert!(range.len() >= 2 && range.len() <= MERGE_MAX, "{range:?}");
        let inputs: Vec<Chunk> = chunks.drain(range.clone()).collect();
        let mut merged = Chunk { from: inputs[0].from, rewritten: Vec::new(), times: inputs[0].times };
        for input in inputs {
            merged.times = (merged.times.0.min(input.times.0), merged.times.1.max(input.times.1));
            assert_eq!(input.from, merged.from + merged.rewritten.len() as u64, "out of order");
            merged.rewritten.extend(input.rewritten.iter().map(|n| n + 1));
        }
        assert!(merged.rewritten.len() as u64 <= rule.rows_max);
        chunks.insert(range.start, merged);
        merges += 1;
    }
}

fn arrive(chunks: &mut Vec<Chunk>, rows: usize, times: (i64, i64)) {
    let from = chunks.last().map_or(0, |c| c.from + c.rewritten.len() as u64);
    chunks.push(Chunk { from, rewritten: vec![0; rows], times });
}

fn parts(rows: &[u64]) -> Vec<Part> {
    rows.iter().map(|&rows| Part { rows, ..Part::default() }).collect()
}

#[test]
fn what_is_merged_is_said_by_the_tiers() {
    /// Rows of chunks, whether the segment is closed, what is merged.
    type Case = (&'static [u64], bool, Option<Range<usize>>);
    let cases: &[Case] = &[
        (&[], true, None),
        (&[5], true, None),
        (&[5; 7], false, None),
        (&[5; 8], false, Some(0..8)),
        (&[5, 5], true, Some(0..2)),
        (&[100, 5, 5], false, None),
        (&[5, 5, 100], false, Some(0..3)),
        (&[100, 5, 5, 100], false, Some(1..4)),
        (&[400, 100, 5, 412], false, Some(2..4)),
        (&[400, 100, 5, 510], false, Some(0..4)),
        (&[5, 400_000, 5, 5, 400_000, 5, 5], false, Some(2..4)),
        (&[5, 400_000, 5, 400_000, 5, 5], false, None),
        (&[5, 400_000, 5, 400_000, 5, 5], true, Some(4..6)),
        (&[200_000, 200_000, 200_000], true, Some(0..2)),
    ];
    for (rows, closed, expected) in cases {
        assert_eq!(plan(&parts(rows), *closed, RULE), *expected, "{rows:?} closed: {closed}");
    }
}

#[test]
fn a_solid_chunk_parts_its_neighbours() {
    let mut some = parts(&[5, 5, 5, 5]);
    some[1].solid = true;
    assert_eq!(plan(&some, true, RULE), Some(2..4));
    some[2].solid = true;
    assert_eq!(plan(&some, true, RULE), None);
}

#[test]
fn a_day_is_one_where_events_lie_within_one() {
    for (first, last, day) in [
        (0, 5, Some(0)),
        (-1, -1, Some(-1)),
        (DAY - 1, DAY, Some(1)),
        (3 * DAY, 4 * DAY, Some(4)),
        (0, DAY + 1, None),
        (i64::MIN, i64::MAX, None),
    ] {
        let at = types::Timestamp::from_nanos;
        let key = "k".to_owned();
        let meta = ChunkMeta { key, from: 7, to: 9, bytes: 30, time_min: at(first), time_max: at(last) };
        assert_eq!(Part::of(&meta, false), Part { rows: 2, bytes: 30, solid: false, day }, "{first} to {last}");
    }
}

#[test]
fn chunks_of_two_days_stay_apart_unless_days_go_down() {
    let days = |days: &[Option<i64>]| -> Vec<Part> {
        days.iter().map(|day| Part { rows: 5, day: *day, ..Part::default() }).collect()
    };
    for (of, closed, expected) in [
        (&[Some(1), Some(1), Some(2)][..], false, Some(0..2)),
        (&[Some(1), Some(2), Some(2)], false, None),
        (&[Some(1), Some(2), Some(3)], true, None),
        (&[Some(1), Some(2), Some(1)], true, Some(1..3)),
        (&[Some(1), None, Some(2)], true, Some(0..3)),
        (&[Some(1), Some(1), Some(2), Some(2)], true, Some(0..2)),
    ] {
        assert_eq!(plan(&days(of), closed, RULE), expected, "{of:?}");
    }
}

#[test]
fn before_the_end_of_a_day_no_chunk_is_merged_with_smaller_ones_only() {
    /// Rows of chunks of one day, before the next one; what is merged.
    type Case = (&'static [u64], Option<Range<usize>>);
    let cases: &[Case] = &[
        (&[50, 10], None),
        (&[10, 50], None),
        (&[50, 20, 20], Some(1..3)),
        (&[50, 20, 30], Some(0..3)),
        (&[10, 50, 10], None),
        (&[40, 12, 50, 10], Some(0..4)),
    ];
    for (rows, expected) in cases {
        let mut some: Vec<Part> = rows.iter().map(|&rows| Part { rows, day: Some(1), ..Part::default() }).collect();
        some.push(Part { rows: 10, day: Some(2), ..Part::default() });
        for closed in [false, true] {
            assert_eq!(plan(&some, closed, RULE), *expected, "{rows:?}");
        }
        some[rows.len()].solid = true;
        assert_eq!(plan(&some, false, RULE), Some(0..rows.len()), "nothing comes between {rows:?} and a full chunk");
    }
}

#[test]
fn clocks_that_differ_cost_few_rewrites() {
    const HOUR: i64 = DAY / 24;
    // Every second chunk has a line whose clock is three hours ahead: around midnight for ever, and as time goes by.
    for pace in [0, HOUR / 60] {
        let mut chunks = Vec::new();
        for n in 0..3_000 {
            let now = 46 * HOUR + n * pace;
            arrive(&mut chunks, 10, (now, now + if n % 2 == 0 { 3 * HOUR } else { 0 }));
            settle(&mut chunks, false, RULE);
            assert!(chunks.len() <= 30, "{} chunks", chunks.len());
        }
        settle(&mut chunks, true, RULE);
        let (rows, most) = (30_000_u32, most_rewritten(&chunks));
        assert!(most <= rows.ilog2() - 10_u32.ilog2() + 2, "a row was rewritten {most} times");
        let all = chunks.iter().flat_map(|chunk| &chunk.rewritten).sum::<u32>();
        assert!(all <= 8 * rows, "{all} rows were written for {rows}");
    }
}

#[test]
fn days_that_rise_with_each_chunk_are_merged_too() {
    let mut chunks = Vec::new();
    for day in 0..10_000 {
        arrive(&mut chunks, 1, on(day));
        if day % 16 == 0 {
            settle(&mut chunks, false, RULE);
            assert!(chunks.len() <= DAYS_MAX, "{} chunks", chunks.len());
        }
    }
    settle(&mut chunks, true, RULE);
    assert!(chunks.len() <= DAYS_MAX, "{} chunks", chunks.len());
    assert!(chunks[chunks.len() - 900..].iter().all(|chunk| chunk.rewritten == [0]), "the newest days stay apart");
    assert!(most_rewritten(&chunks) <= 13, "a row was rewritten {} times", most_rewritten(&chunks));
}

#[test]
fn a_year_of_a_trickle_is_a_chunk_for_each_day() {
    let mut chunks = Vec::new();
    for day in 0..365 {
        for _ in 0..40 {
            arrive(&mut chunks, 10, on(day));
            settle(&mut chunks, false, RULE);
        }
    }
    settle(&mut chunks, true, RULE);
    assert!(chunks.iter().all(|chunk| chunk.rewritten.len() == 400));
    assert!(chunks.iter().map(|chunk| chunk.times).eq((0..365).map(on)));
    assert!(chunks.iter().flat_map(|c| &c.rewritten).max() <= Some(&6));
}

#[test]
fn bytes_bound_a_merge() {
    let wide = |bytes| Part { rows: 3, bytes, ..Part::default() };
    let rule = Rule { bytes_max: 1_000, ..RULE };
    assert_eq!(plan(&[wide(400), wide(400), wide(400)], true, rule), Some(0..2));
    assert_eq!(plan(&[wide(501), wide(400), wide(501)], true, rule), None, "full ones stay");
}

#[test]
fn a_trickle_for_days_stays_within_its_bounds() {
    let mut chunks = Vec::new();
    for _ in 0..60_000 {
        arrive(&mut chunks, 10, on(0));
        settle(&mut chunks, false, RULE);
    }
    assert!(chunks.len() <= 7 * 7 + 2, "{} chunks", chunks.len());
    let most = chunks.iter().flat_map(|c| &c.rewritten).max().copied();
    assert!(most <= Some(8), "{most:?}");
    settle(&mut chunks, true, RULE);
    assert!(chunks.len() <= 3, "{} chunks of 600 000 rows", chunks.len());
}

proptest! {
    #[test]
    fn any_segment_converges_in_order_with_few_chunks_and_few_rewrites(
        sizes in prop::collection::vec(prop_oneof![5 => 1usize..20, 2 => 20usize..900, 1 => 900usize..5_000], 1..250),
        settle_every in 1usize..40,
        rows_max in prop_oneof![Just(4_096u64), Just(1 << 19)],
    ) {
        let rule = Rule { rows_max, ..RULE };
        let mut chunks = Vec::new();
        for (n, size) in sizes.iter().enumerate() {
            arrive(&mut chunks, *size, WIDE);
            if n % settle_every == 0 {
                settle(&mut chunks, false, rule);
            }
        }
        let tiers = (rows_max / 2).ilog(8) as usize + 1;
        settle(&mut chunks, false, rule);
        let full = chunks.iter().filter(|c| rule.is_full(&part(c))).count();
        prop_assert!(chunks.len() <= 2 * full + 7 * tiers, "{} chunks, {full} full", chunks.len());
        settle(&mut chunks, true, rule);
        let full = chunks.iter().filter(|c| rule.is_full(&part(c))).count();
        prop_assert!(chunks.len() <= 2 * full + 1, "{} chunks, {full} full", chunks.len());
        let rows: usize = sizes.iter().sum();
        prop_assert!((full as u64) * rows_max / 2 <= rows as u64, "a full chunk is more than half full");
        prop_assert_eq!(chunks.iter().map(|c| c.rewritten.len()).sum::<usize>(), rows);
        let most = chunks.iter().flat_map(|c| &c.rewritten).max().copied().unwrap_or(0);
        prop_assert!(most as usize <= tiers + 2, "a row was rewritten {} times", most);
    }

    /// Lines of any days in any order: few chunks, few rewrites.
    #[test]
    fn any_days_converge_in_order(
        days in prop::collection::vec(prop::option::weighted(0.9, 0i64..4), 1..200),
        settle_every in 1usize..20,
    ) {
        let mut chunks = Vec::new();
        for (n, day) in days.iter().enumerate() {
            arrive(&mut chunks, 10, day.map_or(WIDE, on));
            if n % settle_every == 0 {
                settle(&mut chunks, false, RULE);
            }
        }
        settle(&mut chunks, true, RULE);
        prop_assert!(chunks.len() <= 20, "{} chunks of four days", chunks.len());
        // Two hundred chunks double seven times; the last merge may join days, and what joined days is joined again.
        let most = most_rewritten(&chunks);
        prop_assert!(most <= 16, "a row was rewritten {most} times");
        prop_assert_eq!(chunks.iter().map(|c| c.rewritten.len()).sum::<usize>(), days.len() * 10);
    }

    /// Sizes as an object has them: much of a small one is its footer, so that merging shrinks.
    #[test]
    fn it_ends_whatever_the_sizes(sizes in prop::collection::vec((1u64..100_000, 1u64..2_000_000, any::<bool>()), 0..300), closed: bool) {
        let rule = Rule { rows_max: 1 << 19, bytes_max: 4 << 20 };
        let mut all: Vec<Part> = sizes.iter().map(|&(rows, bytes, solid)| Part { rows, bytes, solid: solid && rows % 7 == 0, day: None }).collect();
        let before = all.len();
        let mut merges = 0;
        while let Some(range) = plan(&all, closed, rule) {
            let mut sum = Part::default();
            for part in all.drain(range.clone()) {
                prop_assert!(!part.solid, "a solid chunk is never merged");
                sum.add(&part);
            }
            prop_assert!(rule.fits(&sum));
            sum.bytes = sum.bytes / 3 + 4_000;
            all.insert(range.start, sum);
            merges += 1;
        }
        prop_assert!(merges < before.max(1));
    }
}
