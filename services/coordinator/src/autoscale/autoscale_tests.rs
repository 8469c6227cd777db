use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// Owners tell every ten seconds.
const TICK: u64 = 10;

/// A stream under a load, scaled as it is decided. Everything follows from the curve: no clock, no chance.
struct Sim {
    scaler: Autoscaler,
    stream: Scaled,
    counts: BTreeMap<SegmentId, f64>,
    epoch: u32,
    next_number: u32,
    second: u64,
    /// When how many segments there were: each change.
    changes: Vec<(u64, usize)>,
}

fn policy(target: u64, factor: u16, min_segments: u16) -> ScalingPolicy {
    ScalingPolicy::EventRate { target, factor, min_segments }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(second * 1_000).unwrap())
}

impl Sim {
    fn new(policy: ScalingPolicy, segment_count: u32) -> Self {
        let mut sim = Self {
            scaler: Autoscaler::new(MINUTE),
            stream: Scaled { index: "shop".parse().unwrap(), policy, present: Vec::new() },
            counts: BTreeMap::new(),
            epoch: 0,
            next_number: 0,
            second: 0,
            changes: Vec::new(),
        };
        let ranges = KeyRange::split_evenly(segment_count);
        let present = ranges.into_iter().map(|range| sim.segment(range)).collect();
        sim.stream.present = present;
        sim.scaler.watch(&[sim.stream.clone()], at(0));
        sim
    }

    fn segment(&mut self, range: KeyRange) -> SegmentRange {
        let segment = SegmentId { stream: 0, epoch: self.epoch, number: self.next_number };
        self.next_number += 1;
        SegmentRange { segment, container: ContainerId(0), range }
    }

    /// Ten seconds of so many events per second, spread evenly over the keys.
    fn tick(&mut self, rate: f64) {
        let mut told = Vec::new();
        for there in &self.stream.present {
            let part = as_rate(there.range.last - there.range.first) / as_rate(u64::MAX);
            let grown = rate * part * as_rate(TICK);
            let count = self.counts.entry(there.segment).or_insert(0.0);
            *count += grown;
            if grown > 0.0 {
                told.push((there.segment, *count));
            }
        }
        self.second += TICK;
        self.tell(1, &told);
        let streams = [self.stream.clone()];
        self.scaler.watch(&streams, at(self.second));
        for scale in self.scaler.decide(&streams, at(self.second)) {
            self.apply(&scale);
        }
    }

    fn tell(&mut self, generation: u64, told: &[(SegmentId, f64)]) {
        let segments = told.iter().map(|(segment, count)| {
            let events = format!("{count:.0}").parse().unwrap();
            wire::segment_store::SegmentLoad { segment: *segment, events, bytes: events * 100 }
        });
        let (container, generation) = (ContainerId(0), Generation(generation));
        let load = ContainerLoad { container, generation, at: at(self.second), segments: segments.collect() };
        self.scaler.take(&load, at(self.second));
    }

    fn apply(&mut self, scale: &Scale) {
        self.epoch += 1;
        self.stream.present.retain(|there| !scale.seal.contains(&there.segment));
        let begun: Vec<_> = scale.ranges.iter().map(|range| self.segment(*range)).collect();
        self.stream.present.extend(begun);
        self.stream.present.sort_unstable_by_key(|there| there.range);
        let ranges: Vec<_> = self.stream.present.iter().map(|there| there.range).collect();
        assert!(KeyRange::cover_once(&ranges), "{ranges:?}");
        self.changes.push((self.second / 60, self.stream.present.len()));
    }

    fn run(&mut self, minutes: u64, rate: impl Fn(u64) -> f64) -> &[(u64, usize)] {
        let until = self.second + minutes * 60;
        while self.second < until {
            let rate = rate(self.second);
            self.tick(rate);
        }
        &self.changes
    }
}

/// What the policy makes of a load that does not change: minutes and segments after each change.
#[test]
fn a_steady_load_finds_its_segments_and_stays() {
    for (policy, begin, rate, expected, why) in [
        (policy(100, 4, 1), 1, 90.0, vec![], "below the target"),
        (policy(100, 4, 1), 1, 110.0, vec![(10, 2)], "a little above it: after ten minutes"),
        (policy(100, 4, 1), 1, 350.0, vec![(10, 4)], "as many as it needs"),
        (policy(100, 2, 1), 1, 350.0, vec![(10, 2), (20, 4)], "no more at once than the factor, and then again"),
        (policy(100, 8, 1), 1, 100_000.0, vec![(10, 8), (20, 64)], "again after each cool-down"),
        (policy(100, 4, 1), 4, 10.0, vec![(20, 2), (40, 1)], "neighbours in pairs"),
        (policy(100, 4, 3), 4, 10.0, vec![(20, 3)], "never below the least"),
        (policy(100, 4, 1), 4, 0.0, vec![(20, 2), (40, 1)], "nothing is told of what is idle"),
        (policy(100, 4, 1), 4, 399.0, vec![], "warm"),
        (policy(100, 4, 1), 4, 201.0, vec![], "below the target, but not below its half"),
        (ScalingPolicy::Fixed, 1, 1e6, vec![], "only by hand"),
        (ScalingPolicy::DataRate { target_kib: 10, factor: 4, min_segments: 1 }, 1, 300.0, vec![(10, 3)], "30 kB/s"),
    ] {
        let mut sim = Sim::new(policy, begin);
        let minutes = if rate > 10_000.0 { 25 } else { 240 };
        assert_eq!(sim.run(minutes, |_| rate), expected, "{policy:?} {rate}: {why}");
    }
}

#[test]
fn each_window_has_its_own_threshold() {
    // After twenty quiet minutes: so many times the target, and the minute in which the segment is split.
    for (times, expected) in [(20.0, 20), (5.5, 21), (2.5, 24), (1.1, 29)] {
        let mut sim = Sim::new(policy(100, 64, 1), 1);
        sim.run(20, |_| 1.0);
        let changes = sim.run(30, |_| times * 100.0).to_vec();
        assert_eq!(changes[0].0, expected, "{times} times the target");
    }
    let mut sim = Sim::new(policy(100, 64, 1), 1);
    sim.run(20, |_| 1.0);
    assert_eq!(sim.run(1, |_| 450.0), [], "one loud minute is no reason");
    assert_eq!(sim.run(30, |_| 1.0), []);
}

/// Up, down and up again, as S5.
#[test]
fn the_number_of_segments_follows_the_load() {
    let mut sim = Sim::new(policy(100, 2, 1), 1);
    let day = |second: u64| if (second / 3_600).is_multiple_of(2) { 190.0 } else { 5.0 };
    let counts: Vec<_> = sim.run(60 * 6, day).iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [2, 1, 2, 1, 2, 1], "one change for each change of the load");
}

#[test]
fn a_load_that_swings_around_the_target_does_not_flap() {
    // Two minutes above, two below: the rules look at ten and twenty minutes before they act on so little.
    let swinging = |second: u64| if (second / 120).is_multiple_of(2) { 120.0 } else { 40.0 };
    assert_eq!(Sim::new(policy(100, 4, 1), 1).run(60 * 12, swinging), []);
    assert_eq!(Sim::new(policy(100, 4, 1), 2).run(60 * 12, swinging).len(), 1, "80 is enough for one, once");
    // What is split once is not cold: 48 per segment, and cold is below 50 over twenty minutes.
    let mut sim = Sim::new(policy(100, 4, 1), 1);
    sim.run(15, |_| 120.0);
    assert_eq!(sim.run(60 * 6, |_| 104.0).len(), 1);
}

#[test]
fn a_change_of_owners_is_no_leap() {
    let mut sim = Sim::new(policy(100, 4, 1), 1);
    let segment = sim.stream.present[0].segment;
    sim.run(30, |_| 90.0);
    // Nobody owns the container for three minutes; the events came all the same, and are told at once.
    sim.second += 180;
    *sim.counts.get_mut(&segment).unwrap() += 180.0 * 90.0;
    let count = sim.counts[&segment];
    sim.tell(2, &[(segment, count)]);
    // The former owner still tells what it knows, and later much more than is true.
    sim.tell(1, &[(segment, count - 10_000.0)]);
    sim.tell(1, &[(segment, count * 10.0)]);
    assert_eq!(sim.scaler.decide(&[sim.stream.clone()], at(sim.second)), []);
    let rate = sim.scaler.segments[&segment].series.rate(MINUTE * 2, at(sim.second)).unwrap();
    assert!((80.0..100.0).contains(&rate), "{rate}");
    // The new owner tells with its own generation from now on.
    let told: Vec<_> = (1..=60u32).map(|n| count + 900.0 * f64::from(n)).collect();
    for count in told {
        sim.second += TICK;
        sim.tell(2, &[(segment, count)]);
        assert_eq!(sim.scaler.decide(&[sim.stream.clone()], at(sim.second)), []);
    }
}

#[test]
fn a_new_leader_takes_the_first_count_for_no_load() {
    let mut sim = Sim::new(policy(100, 4, 1), 1);
    let segment = sim.stream.present[0].segment;
    sim.counts.insert(segment, 1e9);
    assert_eq!(sim.run(60, |_| 90.0), [], "a thousand million events came before its time");
    let mut late = Sim::new(policy(100, 4, 1), 1);
    let (fixed, by_rate) = (ScalingPolicy::Fixed, late.stream.policy);
    late.stream.policy = fixed;
    late.run(60, |_| 5_000.0);
    late.stream.policy = by_rate;
    assert_eq!(late.run(60, |_| 90.0), [], "what came before the policy does not count");
    let mut idle = Sim::new(policy(100, 4, 1), 2);
    assert_eq!(idle.run(19, |_| 0.0), [], "twenty minutes of silence must have been heard");
    assert_eq!(idle.run(2, |_| 0.0), [(20, 1)]);
}

#[test]
fn what_was_decided_is_not_decided_again_at_once() {
    let mut sim = Sim::new(policy(100, 4, 1), 1);
    let streams = [sim.stream.clone()];
    let mut decided = Vec::new();
    // The scales fail: nothing changes, and it is tried again after ten minutes.
    for _ in 0..6 * 35 {
        sim.second += TICK;
        sim.counts.entry(streams[0].present[0].segment).and_modify(|n| *n += 10_000.0).or_insert(10_000.0);
        let told: Vec<_> = sim.counts.iter().map(|(segment, count)| (*segment, *count)).collect();
        sim.scaler.watch(&streams, at(sim.second));
        sim.tell(1, &told);
        if !sim.scaler.decide(&streams, at(sim.second)).is_empty() {
            decided.push(sim.second / 60);
        }
    }
    assert_eq!(decided, [10, 20, 30]);
}

#[test]
fn only_streams_with_a_policy_are_watched() {
    let mut sim = Sim::new(policy(100, 4, 1), 4);
    let fixed = Scaled { policy: ScalingPolicy::Fixed, ..Sim::new(ScalingPolicy::Fixed, 9).stream };
    sim.scaler.watch(&[sim.stream.clone(), fixed], at(1));
    assert_eq!(sim.scaler.watched_count(), 4);
    let told: Vec<_> = (0..1_000).map(|number| (SegmentId { stream: 5, epoch: 0, number }, 1.0)).collect();
    sim.tell(1, &told);
    assert_eq!(sim.scaler.watched_count(), 4, "what is told of others is not kept");
    sim.run(300, |second| as_rate(second % 7));
    let points = sim.scaler.segments.values().map(|watched| format!("{:?}", watched.series).len()).max();
    assert!(points.unwrap() < 61 * 100, "a row has a bound");
    sim.scaler.watch(&[], at(30_000));
    assert_eq!(sim.scaler.watched_count(), 0);
}

#[test]
fn ranges_are_split_evenly_and_never_below_a_key() {
    let range = |first, last| KeyRange { first, last };
    for (whole, count, parts) in [
        (range(0, u64::MAX), 2, vec![range(0, u64::MAX / 2), range(u64::MAX / 2 + 1, u64::MAX)]),
        (range(10, 19), 3, vec![range(10, 12), range(13, 15), range(16, 19)]),
        (range(5, 6), 4, vec![range(5, 5), range(6, 6)]),
        (range(7, 7), 2, vec![range(7, 7)]),
    ] {
        assert_eq!(parts_of(whole, count), parts);
    }
}

#[test]
fn a_stream_grows_up_to_the_most_segments_and_not_beyond() {
    let begin = u32::try_from(SEGMENTS_PRESENT_MAX).unwrap() - 2;
    let mut sim = Sim::new(policy(1, 64, 1), begin);
    for minute in 1..=12u32 {
        sim.second += 60;
        let told: Vec<_> = sim.stream.present.iter().map(|s| (s.segment, 60_000.0 * f64::from(minute))).collect();
        sim.tell(1, &told);
    }
    let decided = sim.scaler.decide(&[sim.stream.clone()], at(sim.second));
    sim.apply(&decided[0]);
    assert_eq!((decided[0].seal.len(), sim.stream.present.len()), (1, SEGMENTS_PRESENT_MAX), "what fits is done");
    assert_eq!(sim.scaler.decide(&[sim.stream.clone()], at(sim.second)), [], "and then nothing, rather than in vain");
}

#[test]
fn watched_segments_have_a_limit() {
    let mut scaler = Autoscaler::new(MINUTE);
    let wide = Sim::new(policy(1, 2, 1), u32::try_from(WATCHED_MAX / 4).unwrap()).stream;
    let streams: Vec<Scaled> = (0..5)
        .map(|stream| {
            let of = |there: &SegmentRange| SegmentRange { segment: SegmentId { stream, ..there.segment }, ..*there };
            Scaled { present: wide.present.iter().map(of).collect(), ..wide.clone() }
        })
        .collect();
    assert_eq!((scaler.watch(&streams[..4], at(0)), scaler.watched_count()), (0, WATCHED_MAX));
    assert_eq!((scaler.watch(&streams, at(1)), scaler.watched_count()), (WATCHED_MAX / 4, WATCHED_MAX));
    // One of the others goes, and there is room.
    assert_eq!((scaler.watch(&streams[1..], at(2)), scaler.watched_count()), (0, WATCHED_MAX));
}
