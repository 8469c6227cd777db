//! Containers and a coordinator for writers, as simple as can be: what they store is in memory and can be looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bus::Door;
use bytes::Bytes;
use types::{ContainerId, KeyRange, RoutingKey, SegmentId, Timestamp, TransactionId, WriterId};
use wire::{
    Call, Code, Problem,
    block::Block,
    coordinator::{
        AbortTransaction, BeginTransaction, CommitTransaction, DescribeStream, DescribeTransaction, ListSegments,
        PingTransaction, SegmentNode, SegmentNodes, SegmentRange, StreamDescription, Transaction, TransactionPhase,
        TransactionShare,
    },
    segment_store::{
        Append, AppendEvents, Appended, DescribeSegment, DescribeWriter, SegmentInfo, SegmentName, WriterInfo,
        WriterName,
    },
};

use super::{Stage, door};

pub(crate) const CONTAINERS: u16 = 2;

/// One segment.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) sealed: bool,
    pub(crate) last: BTreeMap<WriterId, u64>,
    pub(crate) events: Vec<Bytes>,
}

/// Everything that is stored, and how the store misbehaves.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) segments: Mutex<BTreeMap<SegmentId, Segment>>,
    pub(crate) stream: Mutex<Option<StreamDescription>>,
    pub(crate) transactions: Mutex<BTreeMap<u32, Transaction>>,
    /// Appends are refused: the log has no leader.
    pub(crate) paused: AtomicBool,
    /// Of so many appends one is stored and its answer is lost; 0 is none.
    pub(crate) lose_one_in: AtomicU64,
    pub(crate) appends: AtomicU64,
    pub(crate) pings: AtomicU64,
}

/// A stage with a stream to write to.
pub(crate) struct Writing {
    stage: Stage,
    pub(crate) store: Arc<Store>,
}

impl Deref for Writing {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

pub(crate) fn key(n: usize) -> RoutingKey {
    RoutingKey::new(&format!("key-{n}")).unwrap()
}

fn place(epoch: u32, number: u32, range: KeyRange) -> SegmentRange {
    let container = ContainerId(u16::try_from(number).unwrap() % CONTAINERS);
    SegmentRange { segment: SegmentId { stream: 1, epoch, number }, container, range }
}

impl Writing {
    /// A stream `shop` with so many segments.
    pub(crate) async fn new(segments: u32) -> Self {
        let mut writing = Self::unowned(segments).await;
        for container in 0..CONTAINERS {
            let at = ContainerId(container);
            writing.answer::<AppendEvents>(Some(at), Store::append).await;
            writing.answer::<DescribeWriter>(Some(at), |store, name| store.writer(&name)).await;
            writing.answer::<DescribeSegment>(Some(at), |store, name| store.describe(&name)).await;
        }
        writing
    }

    /// The same, with containers that have no owner yet.
    pub(crate) async fn unowned(segments: u32) -> Self {
        let mut writing = Self { stage: Stage::new().await, store: Arc::default() };
        let ranges = KeyRange::split_evenly(segments).into_iter().zip(0u32..);
        let places: Vec<_> = ranges.map(|(range, number)| place(0, number, range)).collect();
        writing.store.create(&places, &[]);
        let (scope, index) = ("team".parse().unwrap(), "shop".parse().unwrap());
        *writing.store.stream.lock().unwrap() =
            Some(StreamDescription::new((1, Timestamp::default()), scope, index, places));
        writing.answer::<DescribeStream>(None, |store, _| Ok(store.stream.lock().unwrap().clone().unwrap())).await;
        writing.answer::<ListSegments>(None, |store, _| Ok(store.nodes())).await;
        writing.answer::<BeginTransaction>(None, |store, new| Ok(store.begin(new.lease_ms))).await;
        writing
            .answer::<PingTransaction>(None, |store, ping| {
                store.pings.fetch_add(1, Ordering::Relaxed);
                store.transaction(ping.transaction, None)
            })
            .await;
        writing.answer::<DescribeTransaction>(None, |store, name| store.described(name.transaction)).await;
        let commit = Some(TransactionPhase::Committed);
        writing.answer::<CommitTransaction>(None, move |store, name| store.transaction(name.transaction, commit)).await;
        let abort = Some(TransactionPhase::Aborted);
        writing.answer::<AbortTransaction>(None, move |store, name| store.transaction(name.transaction, abort)).await;
        writing
    }

    async fn answer<C: Call>(
        &mut self,
        key: Option<C::Key>,
        answer: impl Fn(&Store, C::Request) -> Result<C::Reply, Problem> + Send + Sync + 'static,
    ) {
        let store = self.store.clone();
        self.stage.serve::<C>(key.as_ref(), move |request| answer(&store, request)).await;
    }
}

/// Who owns every container, on a connection of its own.
pub(crate) struct Owner {
    /// Whatever is asked from now on is never answered, as by a process that was killed a moment later.
    pub(crate) dying: Arc<AtomicBool>,
    /// Appends that came while it was dying.
    pub(crate) taken: Arc<AtomicU64>,
    _doors: Vec<Door>,
}

impl Owner {
    pub(crate) async fn serve(stage: &Writing) -> Self {
        let bus = stage.connect().await;
        let (dying, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut doors = Vec::new();
        for container in (0..CONTAINERS).map(ContainerId) {
            let (store, dies, takes) = (stage.store.clone(), dying.clone(), taken.clone());
            let append = move |append| {
                let answered = if dies.load(Ordering::Relaxed) { None } else { Some(store.append(append)) };
                takes.fetch_add(u64::from(answered.is_none()), Ordering::Relaxed);
                async move {
                    match answered {
                        Some(answered) => answered,
                        None => std::future::pending().await,
                    }
                }
            };
            doors.push(door::<AppendEvents, _, _>(&bus, Some(&container), append).await);
            let store = stage.store.clone();
            let last = move |name| std::future::ready(store.writer(&name));
            doors.push(door::<DescribeWriter, _, _>(&bus, Some(&container), last).await);
            let store = stage.store.clone();
            let describe = move |name| std::future::ready(store.describe(&name));
            doors.push(door::<DescribeSegment, _, _>(&bus, Some(&container), describe).await);
        }
        Self { dying, taken, _doors: doors }
    }
}

impl Store {
    fn create(&self, places: &[SegmentRange], ended: &[SegmentRange]) {
        let mut segments = self.segments.lock().unwrap();
        for new in places {
            let mut segment = Segment::default();
            for old in ended.iter().filter(|old| old.range.overlaps(new.range)) {
                for (writer, last) in &segments[&old.segment].last {
                    let known = segment.last.entry(writer.clone()).or_default();
                    *known = (*known).max(*last);
                }
            }
            segments.insert(new.segment, segment);
        }
    }

    /// Seals every segment and opens an epoch with so many new ones; the description follows when `open` is called.
    pub(crate) fn scale(&self, count: u32) -> impl FnOnce() + use<'_> {
        let mut stream = self.stream.lock().unwrap().clone().unwrap();
        for place in &stream.segments {
            self.segments.lock().unwrap().get_mut(&place.segment).unwrap().sealed = true;
        }
        stream.epoch += 1;
        let first = u32::try_from(self.segments.lock().unwrap().len()).unwrap();
        let ranges = KeyRange::split_evenly(count).into_iter().zip(first..);
        let places: Vec<_> = ranges.map(|(range, number)| place(stream.epoch, number, range)).collect();
        self.create(&places, &stream.segments);
        stream.segments = places;
        move || *self.stream.lock().unwrap() = Some(stream)
    }

    /// The present segments, as if nothing had been before them.
    fn nodes(&self) -> SegmentNodes {
        let stream = self.stream.lock().unwrap().clone().unwrap();
        let node = |at: &SegmentRange| SegmentNode {
            segment: at.segment,
            container: at.container,
            range: at.range,
            sealed_in: None,
            predecessors: vec![],
            successors: vec![],
        };
        SegmentNodes { segments: stream.segments.iter().map(node).collect(), more: false }
    }

    fn append(&self, append: Append) -> Result<Appended, Problem> {
        let count = self.appends.fetch_add(1, Ordering::Relaxed) + 1;
        if self.paused.load(Ordering::Relaxed) {
            return Err(Problem::unavailable("ContainerUnavailable", "its log has no leader"));
        }
        let mut segments = self.segments.lock().unwrap();
        let unknown = || Problem::not_found("UnknownSegment", "no such segment");
        let segment = segments.get_mut(&append.segment).ok_or_else(unknown)?;
        let block = Block::open(append.block).map_err(|e| Problem::bad_request("MalformedBlock", e))?;
        let last = segment.last.entry(append.writer).or_default();
        let end = append.first_event_number + block.len() as u64 - 1;
        let repeated = end <= *last;
        if segment.sealed && !repeated {
            return Err(Problem::conflict("SegmentSealed", "sealed"));
        }
        if append.first_event_number > *last + 1 {
            return Err(Problem::conflict("EventNumberGap", "gap"));
        }
        if !repeated && append.expected_end.is_some_and(|end| end != segment.events.len() as u64) {
            return Err(Problem::conflict("ConditionFailed", "ends elsewhere"));
        }
        let mut appended = Appended { offsets: vec![], duplicate_count: 0, duplicates: vec![] };
        for (number, event) in (append.first_event_number..).zip(block.iter()) {
            if number <= *last {
                appended.duplicate_count += 1;
                appended.offsets.push(None);
            } else {
                appended.offsets.push(Some(segment.events.len() as u64));
                segment.events.push(event.payload);
                *last = number;
            }
        }
        let lose = self.lose_one_in.load(Ordering::Relaxed);
        if lose > 0 && count.is_multiple_of(lose) {
            return Err(Problem::new(Code::Deadline, "AppendUnknown", "lost").unknown());
        }
        Ok(appended)
    }

    fn writer(&self, name: &WriterName) -> Result<WriterInfo, Problem> {
        let segments = self.segments.lock().unwrap();
        let unknown = || Problem::not_found("UnknownSegment", "no such segment");
        let segment = segments.get(&name.segment).ok_or_else(unknown)?;
        Ok(WriterInfo { last_event_number: segment.last.get(&name.writer).copied().unwrap_or(0) })
    }

    fn describe(&self, name: &SegmentName) -> Result<SegmentInfo, Problem> {
        let segments = self.segments.lock().unwrap();
        let segment = &segments[&name.segment];
        Ok(SegmentInfo {
            segment: name.segment,
            index: "shop".parse().unwrap(),
            start: 0,
            tail_from: 0,
            end: segment.events.len() as u64,
            sealed: segment.sealed,
            chunks: vec![],
            bytes: 0,
            truncated_bytes: 0,
            transactional: false,
        })
    }

    fn begin(&self, lease_ms: u32) -> Transaction {
        let stream = self.stream.lock().unwrap().clone().unwrap();
        let mut transactions = self.transactions.lock().unwrap();
        let transaction = u32::try_from(transactions.len()).unwrap() + 1;
        let share = |at: &SegmentRange| {
            let number = 0x8000_0000 + transaction * 100 + at.segment.number;
            let shadow = SegmentId { number, ..at.segment };
            self.segments.lock().unwrap().insert(shadow, Segment::default());
            TransactionShare { shadow, segment: at.segment, container: at.container, range: at.range }
        };
        let begun = Transaction {
            index: "shop".parse().unwrap(),
            transaction: TransactionId(transaction),
            epoch: stream.epoch,
            phase: TransactionPhase::Open,
            shares: stream.segments.iter().map(share).collect(),
            begun: Timestamp::default(),
            expires: Timestamp::default() + std::time::Duration::from_millis(lease_ms.into()),
            reason: None,
        };
        transactions.insert(transaction, begun.clone());
        begun
    }

    fn described(&self, id: TransactionId) -> Result<Transaction, Problem> {
        let transactions = self.transactions.lock().unwrap();
        transactions.get(&id.0).cloned().ok_or_else(|| Problem::not_found("UnknownTransaction", "no such transaction"))
    }

    /// Answers an open transaction and ends it, if so told; one that is over as it should be is answered as well.
    fn transaction(&self, id: TransactionId, end: Option<TransactionPhase>) -> Result<Transaction, Problem> {
        let open = self.described(id)?;
        match (open.phase, end) {
            (TransactionPhase::Open, None) => Ok(open),
            (TransactionPhase::Open, Some(phase)) => {
                self.end(id, phase, None);
                self.described(id)
            }
            (phase, Some(wanted)) if phase == wanted => Ok(open),
            _ => Err(Problem::conflict("TransactionOver", "it is over")),
        }
    }

    /// Merges or deletes the parts of a transaction.
    pub(crate) fn end(&self, id: TransactionId, phase: TransactionPhase, reason: Option<&str>) {
        let mut transactions = self.transactions.lock().unwrap();
        let ended = transactions.get_mut(&id.0).unwrap();
        let mut segments = self.segments.lock().unwrap();
        for share in std::mem::take(&mut ended.shares) {
            let shadow = segments.remove(&share.shadow).unwrap();
            if phase == TransactionPhase::Committed {
                segments.get_mut(&share.segment).unwrap().events.extend(shadow.events);
            }
        }
        (ended.phase, ended.reason) = (phase, reason.map(str::to_owned));
    }

    /// Everything readable, in the order in which each key is read.
    pub(crate) fn events(&self) -> Vec<Bytes> {
        let segments = self.segments.lock().unwrap();
        let readable = segments.iter().filter(|(id, _)| id.number < 0x8000_0000);
        readable.flat_map(|(_, segment)| segment.events.iter().cloned()).collect()
    }

    /// Asserts that events `<key>:<number>` are there once each and in order for each key, `count` of every key.
    pub(crate) fn assert_exact(&self, keys: usize, count: usize) {
        let mut next: BTreeMap<String, usize> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for event in self.events() {
            let text = String::from_utf8(event.to_vec()).unwrap();
            let mut words = text.split([':', ' ']);
            let (key, number) = (words.next().unwrap(), words.next().unwrap().parse::<usize>().unwrap());
            assert!(seen.insert((key.to_owned(), number)), "{key}:{number} is there twice");
            let expected = next.entry(key.to_owned()).or_default();
            assert_eq!(*expected, number, "order of {key}");
            *expected += 1;
        }
        assert_eq!(next.len(), keys);
        assert!(next.values().all(|known| *known == count), "{next:?}");
    }
}
