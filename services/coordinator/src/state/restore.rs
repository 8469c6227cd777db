//! Streams that come back by a restore.

use types::Timestamp;
use wire::coordinator::{NewStream, Reservation, StreamDescription, StreamRestore};

use super::{Changed, Event, Phase, STREAMS_MAX, ScopePhase, State, Stream, decide::check_policies, graph::Graph};
use crate::error::CoordinatorError;

impl State {
    /// A number below the next one belongs to a stream, or never will again: a restore may have it back.
    pub(super) fn reserve_stream(&self, wanted: Reservation) -> Result<Vec<Event>, CoordinatorError> {
        if self.container_count == 0 {
            return Err(CoordinatorError::NotInstalled);
        }
        let Some(number) = wanted.stream else {
            return Ok(vec![Event::StreamReserved { stream: self.next_stream }]);
        };
        if let Some(there) = self.streams.get(&number) {
            let index = there.description.index.clone();
            return Err(CoordinatorError::StreamNumberTaken { number, index });
        }
        let given = number < self.next_stream || number == u32::MAX;
        Ok(if given { Vec::new() } else { vec![Event::StreamReserved { stream: number }] })
    }

    pub(super) fn restore_stream(&self, restore: StreamRestore) -> Result<Vec<Event>, CoordinatorError> {
        if self.container_count == 0 {
            return Err(CoordinatorError::NotInstalled);
        }
        if let Some(there) = self.stream(&restore.index) {
            let described = &there.description;
            if described.scope != restore.scope {
                return Err(CoordinatorError::IndexNameTaken { index: restore.index });
            }
            return match there.phase {
                Phase::Deleting => Err(CoordinatorError::BeingDeleted(restore.index)),
                _ if there.restored && described.stream == restore.stream => Ok(Vec::new()),
                _ => Err(CoordinatorError::StreamDiffers { scope: restore.scope, index: restore.index }),
            };
        }
        self.refuse_deleting_scope(&restore.scope)?;
        if self.streams.len() >= STREAMS_MAX {
            return Err(CoordinatorError::TooManyStreams(STREAMS_MAX));
        }
        if let Some(there) = self.streams.get(&restore.stream) {
            let (number, index) = (restore.stream, there.description.index.clone());
            return Err(CoordinatorError::StreamNumberTaken { number, index });
        }
        check_policies(&restore.scaling, restore.retention.as_ref(), &restore.tags)?;
        Graph::restored(&restore, self.container_count)?;
        Ok(vec![Event::StreamRestored { restore }])
    }

    /// Takes in a stream that is back. It was checked before it was journaled.
    pub(super) fn take_back(&mut self, restore: &StreamRestore, at: Timestamp) {
        let Ok(mut graph) = Graph::restored(restore, self.container_count) else { return };
        // Who had the stream's number before may have had more segments than this knows of, and containers take none again that
        // was deleted. The seconds of the day it comes back are above whatever was given since an earlier return.
        graph.number_from(u32::try_from(at.nanos() / 1_000_000_000).unwrap_or(0));
        let StreamRestore {
            stream, scope, index, created, retention_days, scaling, retention, tags, encrypted, ..
        } = restore.clone();
        let first = restore.segments.iter().filter(|s| s.segment.epoch == 0).count();
        let segment_count = u16::try_from(first).unwrap_or(u16::MAX);
        let new = NewStream { scope, index, segment_count, retention_days, scaling, retention, tags, encrypted };
        let mut back = Stream::begun(graph, &new, created.min(at));
        (back.phase, back.restored, back.description.sealed) = (Phase::Live, true, restore.sealed);
        self.streams.insert(stream, back);
        self.by_index.insert(new.index, stream);
        self.scopes.entry(new.scope).or_insert(ScopePhase::Live);
        self.next_stream = self.next_stream.max(stream.saturating_add(1));
    }

    /// Gives a restored stream to whoever asks for one of this name, with the policies and tags that are asked for.
    pub(super) fn take_over(&self, new: NewStream) -> Result<Vec<Event>, CoordinatorError> {
        let there: &StreamDescription = &self.live_stream(&new.index)?.description;
        let before = Changed {
            retention_days: there.retention_days,
            scaling: there.scaling,
            retention: there.retention,
            tags: there.tags.clone(),
        };
        if there.encrypted != new.encrypted {
            return Err(CoordinatorError::StreamDiffers { scope: new.scope, index: new.index });
        }
        let NewStream { retention_days, scaling, retention, tags, .. } = new;
        let (stream, changed) = (there.stream, Changed { retention_days, scaling, retention, tags });
        Ok(if changed == before { Vec::new() } else { vec![Event::StreamUpdated { stream, changed }] })
    }
}

#[cfg(test)]
mod tests {
    use host::ControlState;
    use types::{IndexName, KeyRange, SegmentId, StreamCut};
    use wire::coordinator::RestoredSegment;

    use super::*;
    use crate::state::Command;

    const AT: Timestamp = Timestamp::from_nanos(1_000);

    fn installed() -> State {
        let mut state = State::default();
        run(&mut state, Command::Install { container_count: 8 }).unwrap();
        state
    }

    fn run(state: &mut State, command: Command) -> Result<Vec<Event>, CoordinatorError> {
        let events = state.decide(command, AT)?;
        events.iter().for_each(|event| state.apply(event, AT));
        Ok(events)
    }

    fn shop() -> IndexName {
        "shop".parse().unwrap()
    }

    fn restore(stream: u32, segments: &[(u32, u32, KeyRange, u64)]) -> StreamRestore {
        let segments = segments.iter().map(|(epoch, number, range, start)| {
            let segment = SegmentId { stream, epoch: *epoch, number: *number };
            RestoredSegment { segment, container: segment.container(8), range: *range, start: *start }
        });
        StreamRestore {
            stream,
            scope: "team".parse().unwrap(),
            index: shop(),
            created: Timestamp::from_nanos(5),
            segments: segments.collect(),
            opened: [(1, Timestamp::from_nanos(7))].into(),
            sealed: false,
            retention_days: None,
            scaling: Default::default(),
            retention: None,
            tags: Vec::new(),
            encrypted: false,
        }
    }

    #[test]
    fn a_number_is_given_once_and_comes_back_to_who_had_it() {
        let mut state = installed();
        let number = |n| Command::ReserveStream(Reservation { stream: n, encrypted: false });
        assert_eq!(run(&mut state, number(Some(7))).unwrap(), [Event::StreamReserved { stream: 7 }]);
        assert_eq!(run(&mut state, number(Some(7))).unwrap(), [], "a repeat");
        let next = run(&mut state, number(None)).unwrap();
        assert_eq!(next, [Event::StreamReserved { stream: 8 }]);
        run(&mut state, Command::BeginStream(NewStream::fixed("team".parse().unwrap(), shop(), 1))).unwrap();
        let there = state.stream(&shop()).unwrap().summary().stream;
        assert_eq!(there, 9);
        let taken = run(&mut state, number(Some(9))).unwrap_err();
        assert_eq!(taken, CoordinatorError::StreamNumberTaken { number: 9, index: shop() });
    }

    #[test]
    fn a_stream_comes_back_with_its_epochs_and_goes_on() {
        let mut state = installed();
        let halves = KeyRange::split_evenly(2);
        let all = KeyRange::split_evenly(1)[0];
        let back = restore(7, &[(0, 0, all, 0), (1, 1, halves[0], 0), (1, 2, halves[1], 0)]);
        assert_eq!(run(&mut state, Command::RestoreStream(back.clone())).unwrap().len(), 1);
        let described = state.describe(&shop()).unwrap();
        assert_eq!((described.stream, described.epoch, described.segments.len()), (7, 1, 2));
        assert_eq!(described.head, StreamCut::default());
        let graph = state.graph(&shop()).unwrap();
        let first = SegmentId { stream: 7, epoch: 0, number: 0 };
        assert_eq!((graph.node(first).unwrap().sealed_in, graph.successors(first).len()), (Some(1), 2));
        assert_eq!(graph.epochs(0).nth(1).unwrap().at, Timestamp::from_nanos(7));
        assert_eq!(run(&mut state, Command::RestoreStream(back)).unwrap(), [], "twice is once");
        let (seal, ranges) = (vec![SegmentId { stream: 7, epoch: 1, number: 1 }], vec![halves[0]]);
        let scale = Command::BeginScale { index: shop(), seal, ranges, containers: None, for_commit: false };
        let Event::ScaleBegun { scaling, .. } = &run(&mut state, scale).unwrap()[0] else { panic!("no scale") };
        assert_eq!(scaling.created[0].segment, SegmentId { stream: 7, epoch: 2, number: 3 }, "numbers go on");
    }

    #[test]
    fn whoever_asks_for_a_restored_stream_gets_it_with_other_policies() {
        let mut state = installed();
        let all = KeyRange::split_evenly(1)[0];
        run(&mut state, Command::RestoreStream(restore(7, &[(0, 0, all, 0)]))).unwrap();
        let asked = NewStream { retention_days: Some(3), ..NewStream::fixed("team".parse().unwrap(), shop(), 4) };
        run(&mut state, Command::BeginStream(asked.clone())).unwrap();
        let described = state.describe(&shop()).unwrap();
        assert_eq!((described.stream, described.retention_days, described.segments.len()), (7, Some(3), 1));
        assert_eq!(run(&mut state, Command::BeginStream(asked.clone())).unwrap(), [], "twice is once");
        let stranger = NewStream { scope: "other".parse().unwrap(), ..asked };
        let taken = run(&mut state, Command::BeginStream(stranger)).unwrap_err();
        assert_eq!(taken, CoordinatorError::IndexNameTaken { index: shop() });
    }

    #[test]
    fn what_is_there_is_never_replaced() {
        let mut state = installed();
        run(&mut state, Command::BeginStream(NewStream::fixed("team".parse().unwrap(), shop(), 1))).unwrap();
        let all = KeyRange::split_evenly(1)[0];
        let differs = run(&mut state, Command::RestoreStream(restore(7, &[(0, 0, all, 0)]))).unwrap_err();
        assert!(matches!(differs, CoordinatorError::StreamDiffers { .. }), "{differs:?}");
        let (number, other) = (state.stream(&shop()).unwrap().summary().stream, "other".parse().unwrap());
        let twin = StreamRestore { index: other, ..restore(number, &[(0, 0, all, 0)]) };
        let taken = run(&mut state, Command::RestoreStream(twin)).unwrap_err();
        assert_eq!(taken, CoordinatorError::StreamNumberTaken { number, index: shop() });
    }
}
