//! The front door: plain NATS publishes become appends, and are acknowledged as JetStream would.
//!
//! One lane is served by the owner of the container of the same number, so that all events of a key pass one place in
//! order. Per segment one append is in flight; what arrives meanwhile is the next block. When a stream scales, what its
//! sealed segments did not take waits for the view that names their successors, and goes there.

pub(crate) mod deliver;
pub(crate) mod gather;
pub(crate) mod streams;

use std::{sync::Arc, time::Duration};

use bus::{Bus, ContainerLog, LaneMessage};
use client::Client;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use host::{Host, Quotas};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::{ByteSize, ContainerId, EVENT_BYTES_MAX, Generation, IndexName, LaneId, SegmentId, Timestamp};
use wire::block;

use crate::{
    lane::{
        deliver::{FULL, NO_STREAM, NOT_READY, OVER_QUOTA, SEALED, TOO_LARGE, deliver, refuse},
        gather::{Ask, Fate, Gather, Lost, Waiting},
        streams::Streams,
    },
    metrics,
    tenure::Owned,
};

/// Bytes that wait or are in flight in one lane; beyond it publishers are refused, so that nothing is lost unheard.
pub(crate) const LANE_BYTES_MAX: usize = 32 << 20;
/// How long an append is tried, and how long after its receipt an event may wait for the successors of a sealed segment.
/// Longer than the 5 to 10 s of a JetStream election: publishers without PubAck depend on it.
pub(crate) const APPEND_WITHIN: Duration = Duration::from_secs(20);
/// For how long a look at the owner record is good. An owner that was paused must look again before it appends what
/// came meanwhile: its successor has received it as well.
const VERIFIED_FOR: Duration = Duration::from_secs(1);
/// How long appends are still tried once the lane is to stop.
pub(crate) const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked whether events have waited too long for successors.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Messages taken at a time before appends are started.
const TAKEN_AT_ONCE_MAX: usize = 1_024;

/// What a lane works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) host: Host,
    pub(crate) tenants: Bus,
    pub(crate) owned: Owned,
    pub(crate) streams: Streams,
    /// What the users of an index may still publish.
    pub(crate) quotas: Quotas,
    /// For containers of other replicas.
    pub(crate) client: Client,
}

/// By what right a lane is served.
#[derive(Clone)]
pub(crate) struct Title {
    pub(crate) container: ContainerId,
    pub(crate) generation: Generation,
    /// The owner record, unique to this tenure.
    pub(crate) owner_seq: u64,
    pub(crate) log: ContainerLog,
}

enum Done {
    Sent {
        segment: SegmentId,
        bytes: usize,
        fate: Fate,
    },
    /// Whether the lane is still this owner's; `None`: nobody can say now.
    Verified(Option<bool>),
}

/// Serves the lane until it is told to stop; then what it holds is still appended, unless another owner took over.
pub(crate) async fn serve(context: Context, title: Title, stop: CancellationToken) {
    let lane = LaneId(title.container.0);
    let generation = title.generation;
    let Some(feed) = open(&context, lane, &stop).await else { return };
    info!(%lane, %generation, "lane opened");
    let mut feed = Some(feed);
    let mut views = context.streams.changes();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut front = Front::new(context, title, stop.clone());
    loop {
        front.start_appends();
        if feed.is_none() && front.is_idle() {
            break;
        }
        tokio::select! {
            () = stop.cancelled(), if feed.is_some() => {
                // What the connection has handed over already is still taken.
                while front.take_next(&mut feed).await {}
                feed = None;
                front.drained_by = Some(Instant::now() + DRAIN_WITHIN);
            }
            message = next(&mut feed) => {
                let Some(message) = message else { feed = None; continue };
                front.take(message).await;
                for _ in 1..TAKEN_AT_ONCE_MAX {
                    if !front.take_next(&mut feed).await {
                        break;
                    }
                }
            }
            Some(done) = front.running.next() => if !front.done(done).await {
                break;
            },
            Ok(()) = views.changed(), if front.gather.has_sealed() => front.settle().await,
            _ = looks.tick(), if front.gather.has_sealed() => front.expire().await,
        }
    }
    front.close().await;
    info!(%lane, %generation, "lane closed");
}

async fn open(context: &Context, lane: LaneId, stop: &CancellationToken) -> Option<bus::Lane> {
    loop {
        match context.tenants.lane(lane).await {
            Ok(feed) => return Some(feed),
            Err(error) => warn!(%lane, %error, "lane cannot be opened, the attempt is repeated"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(VERIFIED_FOR) => {}
        }
    }
}

async fn next(feed: &mut Option<bus::Lane>) -> Option<LaneMessage> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

/// A lane that is served.
struct Front {
    context: Arc<Context>,
    title: Title,
    stop: CancellationToken,
    gather: Gather,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    verified: Instant,
    /// When the look was begun that is under way.
    asked: Instant,
    verifying: bool,
    /// When nothing waits any longer; while the lane is not to stop, none.
    drained_by: Option<Instant>,
}

impl Front {
    fn new(context: Context, title: Title, stop: CancellationToken) -> Self {
        let writer = format!("lane-{}-{}-{}", title.container, title.generation, title.owner_seq);
        let (gather, running) = (Gather::new(writer, LANE_BYTES_MAX), FuturesUnordered::new());
        let (context, verified) = (Arc::new(context), Instant::now());
        let (asked, verifying) = (verified, false);
        Self { context, title, stop, gather, running, verified, asked, verifying, drained_by: None }
    }

    /// Sends what can go, or first looks whether it still may.
    fn start_appends(&mut self) {
        if self.verified.elapsed() < VERIFIED_FOR {
            while let Some(batch) = self.gather.next_batch() {
                let (context, stop) = (self.context.clone(), self.stop.clone());
                let (segment, bytes) = (batch.segment.segment, batch.bytes);
                let sent = async move { Done::Sent { segment, bytes, fate: deliver(&context, batch, &stop).await } };
                self.running.push(sent.boxed());
            }
        } else if self.gather.has_ready() && !self.verifying {
            (self.verifying, self.asked) = (true, Instant::now());
            self.running.push(verify(self.title.clone()).boxed());
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && !self.gather.has_ready() && !self.gather.has_sealed()
    }

    /// Takes the next message if there is one at hand.
    async fn take_next(&mut self, feed: &mut Option<bus::Lane>) -> bool {
        match feed.as_mut().and_then(|feed| feed.next().now_or_never()) {
            Some(Some(message)) => {
                self.take(message).await;
                true
            }
            _ => false,
        }
    }

    /// Routes one message into the blocks that wait, or refuses it.
    async fn take(&mut self, message: LaneMessage) {
        metrics::LANE_MESSAGES.inc();
        let LaneMessage { index, routing_key, reply, message_id, payload } = message;
        let ask = Ask { reply, has_id: message_id.is_some() };
        if payload.len() > EVENT_BYTES_MAX {
            let limit = ByteSize(to_u64(EVENT_BYTES_MAX));
            let text = format!("event of {} bytes exceeds {limit}", payload.len());
            return self.refuse(&ask, "too-large", (413, TOO_LARGE), &text).await;
        }
        let stream = self.context.streams.get(&index);
        if stream.as_ref().is_some_and(|stream| stream.sealed) {
            return self.lost(&index, &ask, Lost::Sealed).await;
        }
        let hash = stream.as_ref().map_or(0, |stream| stream.hash(routing_key.as_ref()));
        let Some(segment) = stream.and_then(|stream| stream.route_hash(hash)) else {
            return self.lost(&index, &ask, Lost::Deleted).await;
        };
        let bytes = to_u64(payload.len());
        let received = match self.context.quotas.take(&index, 1, bytes) {
            Ok(taken) => taken,
            Err(over) => {
                // Whoever floods without waiting for answers costs no more than this.
                let text = if ask.reply.is_some() { format!("{}: {over}", over.kind()) } else { String::new() };
                return self.refuse(&ask, "quota", (429, OVER_QUOTA), &text).await;
            }
        };
        let id = message_id.as_deref().map_or(0, block::message_id);
        let waiting = Waiting { payload, received, id, hash, ask };
        if let Err(refused) = self.gather.push(&index, segment, waiting) {
            self.give_back(&index, [&refused]);
            let text = "the lane holds 32 MiB of events that are not durable yet: publish again later";
            self.refuse(&refused.ask, "full", (429, FULL), text).await;
        }
    }

    /// Takes note of what ended; false if the lane is another owner's.
    async fn done(&mut self, done: Done) -> bool {
        match done {
            Done::Sent { segment, bytes, fate } => {
                let sealed = matches!(fate, Fate::Sealed(_));
                self.gather.done(segment, bytes, fate);
                if sealed {
                    // The view may be further already.
                    self.settle().await;
                }
            }
            Done::Verified(mine) => {
                self.verifying = false;
                match mine {
                    // What was true when it was asked; the answer may have taken its time.
                    Some(true) => self.verified = self.asked,
                    Some(false) => return false,
                    None => tokio::time::sleep(VERIFIED_FOR / 10).await,
                }
            }
        }
        true
    }

    /// Lets events of sealed segments follow the streams' views.
    async fn settle(&mut self) {
        for index in self.gather.sealed_indexes() {
            let view = self.context.streams.get(&index);
            let lost = self.gather.settle(&index, view.as_deref());
            self.give_back(&index, lost.iter().map(|(event, _)| event));
            for (event, why) in lost {
                self.lost(&index, &event.ask, why).await;
            }
        }
    }

    /// Refuses what has waited too long for successors, all of it once the lane is to be closed.
    async fn expire(&mut self) {
        let at = match self.drained_by {
            Some(end) if end <= Instant::now() => Timestamp::MAX,
            _ => self.context.host.clock.now() - APPEND_WITHIN,
        };
        for (index, event) in self.gather.expire(at) {
            self.give_back(&index, [&event]);
            let text = "the segment of the event was sealed and has no successor yet: publish again";
            self.refuse(&event.ask, "no-successor", (503, NOT_READY), text).await;
        }
    }

    /// Takes note that events which the quota let pass are certainly not stored.
    fn give_back<'a>(&self, index: &IndexName, events: impl IntoIterator<Item = &'a Waiting>) {
        self.context.quotas.give_back(index, events.into_iter().map(let_in));
    }

    async fn lost(&mut self, index: &IndexName, ask: &Ask, why: Lost) {
        let (reason, code, text) = match why {
            Lost::Deleted => ("unknown-index", (404, NO_STREAM), format!("log index {index} does not exist")),
            Lost::Sealed => ("sealed", (400, SEALED), format!("log index {index} is sealed: it takes no more events")),
            Lost::NoSegment => {
                ("no-segment", (503, NOT_READY), format!("log index {index} has no segment for the key: publish again"))
            }
        };
        self.refuse(ask, reason, code, &text).await;
    }

    async fn refuse(&mut self, ask: &Ask, reason: &str, code: (u16, u32), text: &str) {
        metrics::LANE_REFUSED.with(reason).inc();
        refuse(&self.context.tenants, ask, code, text).await;
    }

    /// Waits for what is on its way, and gives up the rest. What is on its way may arrive, so its producers are told.
    async fn close(mut self) {
        while let Some(done) = self.running.next().await {
            if let Done::Sent { segment, bytes, fate } = done {
                self.gather.done(segment, bytes, fate);
            }
        }
        let Self { context, gather, .. } = self;
        for (index, events) in gather.abandon() {
            context.quotas.give_back(&index, events.iter().map(let_in));
            for event in events {
                let text = "the lane has another owner: publish again";
                refuse(&context.tenants, &event.ask, (503, NOT_READY), text).await;
            }
        }
    }
}

/// What the quota counted of an event, and when.
fn let_in(event: &Waiting) -> (u64, u64, Timestamp) {
    (1, to_u64(event.payload.len()), event.received)
}

pub(crate) fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

async fn verify(title: Title) -> Done {
    match title.log.owner().await {
        Ok(owner) => Done::Verified(Some(owner.is_some_and(|(_, record)| record.generation == title.generation))),
        Err(error) => {
            warn!(container = %title.container, %error, "lane waits, its owner record cannot be read");
            Done::Verified(None)
        }
    }
}
