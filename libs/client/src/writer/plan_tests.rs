//! Single decisions of the plan.

use std::{cell::RefCell, rc::Rc};

use types::{ContainerId, KeyRange};
use wire::{Code, Outcome, Problem, segment_store::Appended};

use super::*;

/// What was told, in order: first place, count, and `stored` or the outcome.
#[derive(Debug, Clone, Default)]
struct Told(Rc<RefCell<Vec<(u32, u32, String)>>>);

impl Fate for Told {
    fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
    fn stored(&self, first: u32, _: SegmentId, count: u32, _: &[Option<types::Offset>]) {
        self.0.borrow_mut().push((first, count, "stored".into()));
    }
    fn failed(&self, first: u32, count: u32, error: &WriteError) {
        self.0.borrow_mut().push((first, count, format!("{:?}", error.outcome)));
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limits() -> Limits {
    Limits {
        bytes_max: 100_000,
        spill_bytes_max: 0,
        linger: ms(5),
        block_bytes_max: 1_000,
        in_flight_max: 1,
        give_up_after: ms(60_000),
        spill_after: ms(1_000),
    }
}

fn view(epoch: u32, numbers: &[u32]) -> Vec<SegmentRange> {
    let ranges = KeyRange::split_evenly(u32::try_from(numbers.len()).unwrap());
    let place = |(number, range): (&u32, KeyRange)| SegmentRange {
        segment: SegmentId { stream: 1, epoch, number: *number },
        container: ContainerId(3),
        range,
    };
    numbers.iter().zip(ranges).map(place).collect()
}

/// A plan over one segment, and that segment.
fn plan(limits: Limits) -> (Plan<Told>, SegmentId) {
    let mut plan = Plan::new("shop".parse().unwrap(), "w".parse().unwrap(), Kind::Stream, limits);
    plan.view((1, 0), view(0, &[0]), false, ms(0));
    (plan, SegmentId { stream: 1, epoch: 0, number: 0 })
}

fn push(plan: &mut Plan<Told>, hash: u64, bytes: usize, now: Duration) -> Told {
    match plan.push(Timestamp::default(), hash, &vec![1; bytes], now).unwrap() {
        Push::Taken { fate, .. } => fate.clone(),
        Push::Full => panic!("full"),
    }
}

/// The appends that are to be sent: block, attempt, first number.
fn appends(plan: &mut Plan<Told>, now: Duration) -> Vec<(u64, u64, u64)> {
    let actions = plan.poll(now).0;
    let append = |action| match action {
        Action::Append { block, attempt, first, .. } => Some((block, attempt, first)),
        _ => None,
    };
    actions.into_iter().filter_map(append).collect()
}

fn stored(count: u32, duplicates: u32) -> Result<Appended, Problem> {
    let offsets = (0..u64::from(count)).map(Some).collect();
    Ok(Appended { offsets, duplicate_count: duplicates, duplicates: (0..duplicates).collect() })
}

fn unknown() -> Result<Appended, Problem> {
    Err(Problem::new(Code::Deadline, "Deadline", "x").unknown())
}

/// Brings a plan to where its first block, one event, is under way.
fn under_way(limits: Limits) -> (Plan<Told>, SegmentId, Told, (u64, u64, u64)) {
    let (mut plan, segment) = plan(limits);
    let fate = push(&mut plan, 7, 10, ms(0));
    assert!(matches!(plan.poll(ms(0)).0[..], [Action::Describe { .. }]));
    plan.described(segment, Ok(4), ms(1));
    let sent = appends(&mut plan, ms(6));
    assert_eq!(sent.len(), 1);
    (plan, segment, fate, sent[0])
}

#[test]
fn a_block_goes_after_the_linger_and_the_next_when_it_is_acknowledged() {
    let (mut plan, segment) = plan(limits());
    push(&mut plan, 7, 10, ms(0));
    plan.poll(ms(0));
    plan.described(segment, Ok(4), ms(1));
    let (actions, wake) = plan.poll(ms(2));
    assert_eq!((actions, wake), (vec![], Some(ms(5))));
    let first = appends(&mut plan, ms(5));
    assert_eq!(first.iter().map(|sent| sent.2).collect::<Vec<_>>(), [5]);
    // One in flight: what comes meanwhile waits, and goes at once when there is room, because it has waited.
    let fate = push(&mut plan, 7, 10, ms(6));
    push(&mut plan, 8, 10, ms(6));
    assert_eq!(appends(&mut plan, ms(50)), []);
    plan.appended((segment, first[0].0, first[0].1), stored(1, 0), ms(50));
    let second = appends(&mut plan, ms(50));
    assert_eq!(second.iter().map(|sent| sent.2).collect::<Vec<_>>(), [6]);
    plan.appended((segment, second[0].0, second[0].1), stored(2, 0), ms(51));
    assert_eq!(fate.0.borrow()[..], [(0, 2, "stored".into())]);
    assert!(plan.is_idle() && plan.backlog() == (0, 0));
}

#[test]
fn a_quota_holds_a_writer_for_as_long_as_it_takes_and_loses_nothing() {
    let (mut plan, segment, fate, (block, mut attempt, first)) = under_way(limits());
    let mut now = ms(10);
    let refused = Problem::throttled("QuotaBytes", "x").retry_after_ms(36_000_000);
    // An hour, of which a minute without any answer would have ended the writer.
    while now < ms(3_600_000) {
        plan.appended((segment, block, attempt), Err(refused.clone()), now);
        assert_eq!(appends(&mut plan, now + ms(9_000)), [], "it does not ask all the time");
        now += ms(13_000);
        let again = appends(&mut plan, now);
        assert_eq!(again.iter().map(|sent| (sent.0, sent.2)).collect::<Vec<_>>(), [(block, first)]);
        attempt = again[0].1;
    }
    plan.appended((segment, block, attempt), stored(1, 0), now);
    assert_eq!(fate.0.borrow()[..], [(0, 1, "stored".into())]);
}

#[test]
fn a_block_that_no_day_has_room_for_is_not_waited_for() {
    let (mut plan, segment, fate, (block, attempt, _)) = under_way(limits());
    let refused = Problem { retry_after_ms: None, ..Problem::throttled("QuotaBytes", "x") };
    plan.appended((segment, block, attempt), Err(refused), ms(10));
    assert_eq!(appends(&mut plan, ms(20_000)), []);
    let fates = fate.0.borrow();
    assert!(fates.len() == 1 && fates[0].2 != "stored", "{fates:?}");
}

#[test]
fn an_unknown_block_goes_again_under_its_numbers() {
    let (mut plan, segment, fate, (block, attempt, first)) = under_way(limits());
    plan.appended((segment, block, attempt), unknown(), ms(10));
    assert_eq!(appends(&mut plan, ms(10)), [], "only after a pause");
    let again = appends(&mut plan, ms(60));
    assert_eq!((again[0].0, again[0].2), (block, first));
    // An answer to the first attempt is not one to the second.
    plan.appended((segment, block, attempt), stored(1, 0), ms(61));
    assert!(fate.0.borrow().is_empty());
    plan.appended((segment, block, again[0].1), stored(1, 1), ms(62));
    assert_eq!(fate.0.borrow()[..], [(0, 1, "stored".into())]);
}

#[test]
fn a_repeat_of_what_was_sent_once_is_somebody_elses() {
    let (mut plan, segment, fate, (block, attempt, _)) = under_way(limits());
    plan.appended((segment, block, attempt), stored(1, 1), ms(10));
    assert_eq!(fate.0.borrow()[..], [(0, 1, "NotApplied".into())]);
    let refusal = plan.push(Timestamp::default(), 1, b"x", ms(11)).unwrap_err();
    assert!(matches!(refusal.cause, WriteCause::WriterIdInUse { .. }), "{refusal}");
}

#[test]
fn a_sealed_segment_waits_for_the_next_epoch_and_then_for_nothing() {
    let (mut plan, segment, fate, (block, attempt, _)) = under_way(limits());
    push(&mut plan, u64::MAX, 10, ms(7));
    plan.appended((segment, block, attempt), Err(Problem::conflict("SegmentSealed", "x")), ms(10));
    assert_eq!(plan.poll(ms(10)).0, [Action::View]);
    // The description is old: it is asked for again after a pause, and nothing is sent.
    plan.view((1, 0), view(0, &[0]), false, ms(11));
    let (actions, wake) = plan.poll(ms(11));
    assert!(actions.is_empty() && wake.is_some_and(|at| at > ms(11) && at < ms(60)), "{actions:?} {wake:?}");
    assert_eq!(plan.poll(ms(60)).0, [Action::View]);
    plan.view((1, 1), view(1, &[1, 2]), false, ms(61));
    let asked = plan.poll(ms(61)).0;
    assert_eq!(asked.len(), 2, "both successors are asked for their numbers: {asked:?}");
    for place in view(1, &[1, 2]) {
        plan.described(place.segment, Ok(4), ms(62));
    }
    assert_eq!(appends(&mut plan, ms(62)).iter().map(|sent| sent.2).collect::<Vec<_>>(), [5, 5]);
    assert!(fate.0.borrow().is_empty());
}

#[test]
fn nothing_overtakes_a_block_whose_fate_is_not_known() {
    let (mut plan, segment, fate, (block, attempt, first)) = under_way(limits());
    push(&mut plan, 7, 10, ms(7));
    plan.appended((segment, block, attempt), unknown(), ms(10));
    // The next epoch is open already; the old segment must still say whether it has the block.
    plan.view((1, 1), view(1, &[1]), false, ms(11));
    let again = appends(&mut plan, ms(60));
    assert_eq!(again.iter().map(|sent| (sent.0, sent.2)).collect::<Vec<_>>(), [(block, first)]);
    assert!(plan.poll(ms(61)).0.is_empty());
    plan.appended((segment, block, again[0].1), stored(1, 1), ms(62));
    assert_eq!(fate.0.borrow()[..], [(0, 1, "stored".into())]);
    let next = plan.poll(ms(63)).0;
    assert!(matches!(next[..], [Action::Describe { place }] if place.segment.epoch == 1), "{next:?}");
}

#[test]
fn what_a_deleted_segment_may_have_had_is_unknown_and_the_rest_goes_on() {
    let (mut plan, segment, fate, (block, attempt, _)) = under_way(limits());
    let later = push(&mut plan, 7, 10, ms(7));
    plan.appended((segment, block, attempt), unknown(), ms(10));
    let again = appends(&mut plan, ms(60));
    plan.appended((segment, block, again[0].1), Err(Problem::not_found("UnknownSegment", "x")), ms(61));
    assert_eq!(fate.0.borrow()[..], [(0, 1, "Unknown".into())]);
    plan.view((1, 1), view(1, &[1]), false, ms(62));
    let next = plan.poll(ms(62)).0;
    assert!(matches!(next[..], [Action::Describe { .. }]), "{next:?}");
    assert!(later.0.borrow().is_empty());
}

#[test]
fn a_segment_that_forgot_the_writer_is_asked_again() {
    let (mut plan, segment, fate, (block, attempt, _)) = under_way(limits());
    plan.appended((segment, block, attempt), Err(Problem::conflict("EventNumberGap", "x")), ms(10));
    assert!(matches!(plan.poll(ms(10)).0[..], [Action::Describe { .. }]));
    plan.described(segment, Ok(0), ms(11));
    let again = appends(&mut plan, ms(11));
    assert_eq!((again[0].0, again[0].2), (block, 1));
    plan.appended((segment, block, again[0].1), stored(1, 0), ms(12));
    assert_eq!(fate.0.borrow()[..], [(0, 1, "stored".into())]);

    // Not if it may be stored under its old number.
    let (mut plan, segment, fate, (block, attempt, _)) = under_way(limits());
    plan.appended((segment, block, attempt), unknown(), ms(10));
    let again = appends(&mut plan, ms(60));
    plan.appended((segment, block, again[0].1), Err(Problem::conflict("EventNumberGap", "x")), ms(61));
    assert_eq!(fate.0.borrow()[..], [(0, 1, "Unknown".into())]);
}

#[test]
fn giving_up_tells_the_truth_about_each_event() {
    let (mut plan, segment, fate, (block, attempt, _)) = under_way(limits());
    let later = push(&mut plan, 7, 10, ms(7));
    plan.appended((segment, block, attempt), unknown(), ms(10));
    plan.poll(ms(59_000));
    assert!(plan.failure().is_none());
    plan.poll(ms(60_100));
    assert_eq!(fate.0.borrow()[..], [(0, 1, "Unknown".into())]);
    assert_eq!(later.0.borrow()[..], [(0, 1, "NotApplied".into())]);
    let failure = plan.failure().unwrap();
    assert!(matches!(&failure.cause, WriteCause::GaveUp { .. }) && failure.outcome == Outcome::Unknown, "{failure}");
    // What comes afterwards is certainly not stored.
    assert_eq!(plan.push(Timestamp::default(), 1, b"x", ms(60_200)).unwrap_err().outcome, Outcome::NotApplied);
    assert_eq!(plan.backlog(), (0, 0));
}

#[test]
fn the_end_of_a_stream_is_the_end_of_its_writer() {
    for sealed in [true, false] {
        let (mut plan, segment, fate, (block, attempt, _)) = under_way(limits());
        plan.appended((segment, block, attempt), Err(Problem::conflict("SegmentSealed", "x")), ms(10));
        assert_eq!(plan.poll(ms(10)).0, [Action::View]);
        match sealed {
            true => plan.view((1, 0), view(0, &[0]), true, ms(11)),
            false => plan.view_failed(Problem::not_found("UnknownIndex", "x"), ms(11)),
        }
        assert_eq!(fate.0.borrow()[..], [(0, 1, "NotApplied".into())]);
        let wanted = if sealed { "is sealed" } else { "does not exist" };
        let failure = plan.push(Timestamp::default(), 1, b"x", ms(12)).unwrap_err().to_string();
        assert!(failure.contains(wanted), "{failure}");
    }
}

#[test]
fn memory_is_bounded_and_what_is_too_large_is_refused() {
    let (mut plan, _) = plan(Limits { bytes_max: 5_000, ..limits() });
    let mut taken = 0;
    while let Push::Taken { .. } = plan.push(Timestamp::default(), 7, &[1; 64], ms(0)).unwrap() {
        taken += 1;
    }
    assert_eq!((taken, plan.backlog()), (50, (5_000, 0)));
    let large = vec![0; EVENT_BYTES_MAX + 1];
    let refusal = plan.push(Timestamp::default(), 7, &large, ms(0)).unwrap_err();
    assert!(matches!(refusal.cause, WriteCause::EventTooLarge { .. }), "{refusal}");
}

#[test]
fn events_leave_memory_only_when_their_segment_does_not_answer() {
    let limits = Limits { bytes_max: 8_000, spill_bytes_max: 20_000, ..limits() };
    let (mut plan, segment, _, (block, attempt, _)) = under_way(limits);
    let mut pushed = 0;
    let mut fill = |plan: &mut Plan<Told>, now| {
        while let Push::Taken { .. } = plan.push(Timestamp::default(), 7, &[1; 64], now).unwrap() {
            pushed += 1;
        }
    };
    fill(&mut plan, ms(100));
    assert_eq!(plan.poll(ms(100)).0, [], "it has not been silent for long");
    let mut keys = Vec::new();
    for now in (1_200..1_300).step_by(2) {
        for action in plan.poll(ms(now)).0 {
            let Action::Spill { segment, block, key, label, .. } = action else { panic!("{action:?}") };
            keys.push(key);
            plan.spilled((segment, block, key), (label.bytes, Ok(())), ms(now));
        }
        fill(&mut plan, ms(now));
    }
    let (memory, disk) = plan.backlog();
    assert!(memory <= 8_100 && (15_000..=20_000).contains(&disk), "{memory} {disk}");
    // The owner is back: everything goes, in order of numbers, from wherever it is.
    plan.appended((segment, block, attempt), stored(1, 0), ms(1_300));
    let mut next = 6;
    for now in 1_300..2_000 {
        for action in plan.poll(ms(now)).0 {
            match action {
                Action::Append { block, attempt, first, .. } => {
                    assert_eq!(first, next);
                    let count = plan.lanes[&segment].queue[0].count;
                    next += u64::from(count);
                    plan.appended((segment, block, attempt), stored(count, 0), ms(now));
                }
                Action::Release { key } => keys.retain(|known| *known != key),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((next - 6, plan.backlog(), keys), (pushed, (0, 0), vec![]));
}
