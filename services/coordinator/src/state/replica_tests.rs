//! Random commands: every replica has the same state, however it came by it.

use host::ControlState;
use proptest::prelude::*;
use types::StreamCut;

use super::{
    tests::{index, installed, new, scale},
    *,
};

/// A command by numbers that find their meaning in the state at hand.
fn command(state: &State, kind: u8, a: usize, b: u64) -> Command {
    let graph = state.stream(&index()).map(Stream::graph);
    let segments: Vec<SegmentRange> = graph.map(|g| g.present().copied().collect()).unwrap_or_default();
    let picked = |n: usize| segments.get(n % segments.len().max(1)).copied();
    let stream = state.stream(&index()).map_or(0, |s| s.summary().stream);
    match kind % 12 {
        0 | 1 => Command::BeginStream(new("a", "shop", 3)),
        2 => Command::EndStream { stream, index: index() },
        3 | 4 => match picked(a) {
            Some(s) if b.is_multiple_of(2) && s.range.first < s.range.last => {
                let middle = s.range.first + (s.range.last - s.range.first) / 2;
                let low = KeyRange { first: s.range.first, last: middle };
                scale(&[s.segment], &[KeyRange { first: middle + 1, last: s.range.last }, low])
            }
            Some(_) => {
                let all: Vec<SegmentId> = segments.iter().map(|s| s.segment).collect();
                scale(&all, &KeyRange::split_evenly(1 + u32::try_from(b % 4).unwrap()))
            }
            None => Command::CreateScope { scope: "a".parse().unwrap() },
        },
        5 | 6 => {
            let epoch = graph.and_then(|g| g.scaling()).map_or(0, |scaling| scaling.epoch);
            Command::EndScale { stream, epoch }
        }
        7 => {
            let cut = StreamCut(segments.iter().map(|s| (s.segment, b)).collect());
            Command::BeginTruncation { index: index(), cut }
        }
        8 => Command::EndTruncation { stream, number: b },
        9 if a.is_multiple_of(8) => Command::BeginSeal { index: index() },
        9 => Command::EndSeal { stream },
        10 if a.is_multiple_of(4) => Command::BeginDeletion { index: index() },
        10 => Command::EndDeletion { stream },
        _ => Command::BeginScopeDeletion { scope: "a".parse().unwrap(), recursive: a.is_multiple_of(16) },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What one replica decides, every other one has: by replay from the start, and from a snapshot in the middle.
    #[test]
    fn replicas_agree(steps in prop::collection::vec((any::<u8>(), any::<usize>(), 0u64..6), 1..60), middle in 0usize..60) {
        let mut state = installed();
        let (mut journal, mut copy) = (Vec::new(), None);
        for (at, (kind, a, b)) in steps.into_iter().enumerate() {
            if at == middle {
                copy = Some(wire::decode::<State>(&wire::encode(&state)).unwrap());
            }
            let command = command(&state, kind, a, b);
            let time = Timestamp::from_nanos(i64::try_from(at).unwrap());
            let Ok(events) = state.decide(command.clone(), time) else { continue };
            for event in events {
                let event: Event = wire::decode(&wire::encode(&event)).unwrap();
                state.apply(&event, time);
                if let Some(copy) = &mut copy {
                    copy.apply(&event, time);
                }
                journal.push((event, time));
            }
            // A repeat of what succeeded succeeds; it happens again only if it has no name that tells it from a new one.
            let again = state.decide(command.clone(), time);
            let refused = matches!(command, Command::EndStream { .. } | Command::BeginStream(_));
            prop_assert!(again.as_ref().is_ok_and(Vec::is_empty) || refused || matches!(again, Err(CoordinatorError::ScaleInProgress(_))),
                "{:?} {:?}", command, again);
            if let Some(graph) = state.graph(&index()) {
                let ranges: Vec<KeyRange> = graph.present().map(|s| s.range).collect();
                prop_assert!(KeyRange::cover_once(&ranges));
            }
        }
        let mut replica = installed();
        journal.iter().for_each(|(event, at)| replica.apply(event, *at));
        prop_assert_eq!(&replica, &state);
        prop_assert_eq!(copy.unwrap_or(replica), state);
    }
}
