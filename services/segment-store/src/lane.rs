//! The front door: plain NATS publishes become appends, and are acknowledged as JetStream would.
//!
//! One lane is served by the owner of the container of the same number, so that all events of a key pass one place in
//! order. Per segment one append is in flight; what arrives meanwhile is the next block.

pub(crate) mod gather;
pub(crate) mod streams;

use std::{sync::Arc, time::Duration};

use bus::{Bus, ContainerLog, LaneMessage};
use client::Patience;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use host::Host;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::{ByteSize, ContainerId, EVENT_BYTES_MAX, Generation, LaneId};
use wire::{
    Code, Outcome, Problem, block,
    segment_store::{Append, AppendEvents, Appended},
};

use crate::{
    lane::{
        gather::{Ask, Batch, Fate, Gather, Waiting},
        streams::Streams,
    },
    metrics,
    tenure::Owned,
};

/// Bytes that wait or are in flight in one lane; beyond it publishers are refused, so that nothing is lost unheard.
pub(crate) const LANE_BYTES_MAX: usize = 32 << 20;
/// How long an append is tried. Longer than the 5 to 10 s of a JetStream election: publishers without PubAck depend on it.
const APPEND_WITHIN: Duration = Duration::from_secs(20);
/// One try of a local append; the log itself is tried for about 10 s.
const TRY_WITHIN: Duration = Duration::from_secs(15);
/// For how long a look at the owner record is good. An owner that was paused must look again before it appends what
/// came meanwhile: its successor has received it as well.
const VERIFIED_FOR: Duration = Duration::from_secs(1);
/// How long appends are still tried once the lane is to stop.
pub(crate) const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// Messages taken at a time before appends are started.
const TAKEN_AT_ONCE_MAX: usize = 1_024;

/// JetStream's number for a message above the maximum size.
const TOO_LARGE: u32 = 10_054;
/// JetStream's number for a stream that is not there.
const NO_STREAM: u32 = 10_059;
/// JetStream's number for a store at its limit.
const FULL: u32 = 10_077;
/// JetStream's number for a store that is not available for the moment.
const NOT_READY: u32 = 10_008;

/// What a lane works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) host: Host,
    pub(crate) tenants: Bus,
    pub(crate) owned: Owned,
    pub(crate) streams: Streams,
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
        segment: types::SegmentId,
        bytes: usize,
        fate: Fate,
    },
    /// Whether the lane is still this owner's; `None`: nobody can say now.
    Verified(Option<bool>),
}

/// Serves the lane until it is told to stop; then what it holds is still appended, unless another owner took over.
pub(crate) async fn serve(context: Context, title: Title, stop: CancellationToken) {
    let lane = LaneId(title.container.0);
    let mut feed = loop {
        match context.tenants.lane(lane).await {
            Ok(feed) => break Some(feed),
            Err(error) => warn!(%lane, %error, "lane cannot be opened, the attempt is repeated"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(VERIFIED_FOR) => {}
        }
    };
    info!(%lane, generation = %title.generation, "lane opened");
    let writer = format!("lane-{lane}-{}-{}", title.generation, title.owner_seq);
    let mut gather = Gather::new(writer, LANE_BYTES_MAX);
    let context = Arc::new(context);
    let mut running: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
    let mut verified = Instant::now();
    let mut verifying = false;
    loop {
        if verified.elapsed() < VERIFIED_FOR {
            while let Some(batch) = gather.next_batch() {
                running.push(send(context.clone(), batch, stop.clone()).boxed());
            }
        } else if gather.has_ready() && !verifying {
            verifying = true;
            running.push(verify(title.clone()).boxed());
        }
        if feed.is_none() && running.is_empty() && !gather.has_ready() {
            break;
        }
        tokio::select! {
            () = stop.cancelled(), if feed.is_some() => {
                // What the connection has handed over already is still taken.
                while let Some(Some(message)) = feed.as_mut().and_then(|feed| feed.next().now_or_never()) {
                    take(&context, &mut gather, message).await;
                }
                feed = None;
            }
            message = next(&mut feed) => {
                let Some(message) = message else { feed = None; continue };
                take(&context, &mut gather, message).await;
                for _ in 1..TAKEN_AT_ONCE_MAX {
                    let Some(Some(message)) = feed.as_mut().and_then(|feed| feed.next().now_or_never()) else { break };
                    take(&context, &mut gather, message).await;
                }
            }
            Some(done) = running.next() => match done {
                Done::Sent { segment, bytes, fate } => gather.done(segment, bytes, fate),
                Done::Verified(mine) => {
                    verifying = false;
                    match mine {
                        Some(true) => verified = Instant::now(),
                        Some(false) => break,
                        None => tokio::time::sleep(VERIFIED_FOR / 10).await,
                    }
                }
            },
        }
    }
    // What is on its way may arrive, so its producers are told.
    while running.next().await.is_some() {}
    for ask in gather.abandon() {
        refuse(&context.tenants, &ask, (503, NOT_READY), "the lane has another owner: publish again").await;
    }
    info!(%lane, generation = %title.generation, "lane closed");
}

async fn next(feed: &mut Option<bus::Lane>) -> Option<LaneMessage> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

/// Routes one message into the blocks that wait, or refuses it.
async fn take(context: &Context, gather: &mut Gather, message: LaneMessage) {
    metrics::LANE_MESSAGES.inc();
    let LaneMessage { index, routing_key, reply, message_id, payload } = message;
    let ask = Ask { reply, has_id: message_id.is_some() };
    if payload.len() > EVENT_BYTES_MAX {
        metrics::LANE_REFUSED.with("too-large").inc();
        let limit = ByteSize(u64::try_from(EVENT_BYTES_MAX).unwrap_or(u64::MAX));
        let text = format!("event of {} bytes exceeds {limit}", payload.len());
        return refuse(&context.tenants, &ask, (413, TOO_LARGE), &text).await;
    }
    let route = context.streams.get(&index).and_then(|stream| stream.route(routing_key.as_ref()));
    let Some(segment) = route else {
        metrics::LANE_REFUSED.with("unknown-index").inc();
        return refuse(&context.tenants, &ask, (404, NO_STREAM), &format!("log index {index} does not exist")).await;
    };
    let id = message_id.as_deref().map_or(0, block::message_id);
    let waiting = Waiting { payload, received: context.host.clock.now(), id, ask };
    if let Err(refused) = gather.push(&index, segment, waiting) {
        metrics::LANE_REFUSED.with("full").inc();
        let text = "the lane holds 32 MiB of events that are not durable yet: publish again later";
        refuse(&context.tenants, &refused.ask, (429, FULL), text).await;
    }
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

/// Appends a block, and answers everybody in it.
async fn send(context: Arc<Context>, batch: Batch, stop: CancellationToken) -> Done {
    let Batch { index, segment, append, asks, bytes } = batch;
    let count = u64::try_from(asks.len()).unwrap_or(u64::MAX);
    let result = persist(&context, segment.container, append, &stop).await;
    let fate = match &result {
        Ok(_) => Fate::Stored(count),
        Err(problem) if problem.outcome == Outcome::NotApplied => Fate::NotStored,
        Err(_) => Fate::Unknown,
    };
    match result {
        Ok(appended) => {
            for (place, ask) in (0u32..).zip(&asks) {
                let Some(reply) = &ask.reply else { continue };
                let offset = appended.offsets.get(place as usize).copied().flatten();
                // A repeat of our own is no duplicate of the producer's.
                let duplicate = ask.has_id && appended.duplicates.binary_search(&place).is_ok();
                context.tenants.ack(reply, index.as_str(), offset.map_or(0, |o| o + 1), duplicate).await;
            }
        }
        Err(problem) => {
            metrics::LANE_REFUSED.with("not-stored").add(count);
            warn!(%index, segment = %segment.segment, %problem, events = count, "block of a lane not stored");
            let code = code_of(&problem);
            for ask in &asks {
                refuse(&context.tenants, ask, code, &problem.message).await;
            }
        }
    }
    Done::Sent { segment: segment.segment, bytes, fate }
}

/// Appends through this replica's own container, else through its owner, until it is certain or the time is over.
async fn persist(
    context: &Context,
    container: ContainerId,
    append: Append,
    stop: &CancellationToken,
) -> Result<Appended, Problem> {
    let mut patience = Patience::new(APPEND_WITHIN);
    let mut hurried = false;
    loop {
        let tried = match context.owned.get(container) {
            Some(own) => {
                let deadline = context.host.clock.now() + patience.left().min(TRY_WITHIN);
                own.append(append.clone(), deadline).await.map_err(Problem::from)
            }
            None => {
                let within = patience.left().min(if hurried { DRAIN_WITHIN } else { TRY_WITHIN });
                let asked = context.host.bus.call_within::<AppendEvents>(&container, &append, within);
                asked.await
            }
        };
        let problem = match tried {
            Ok(appended) => return Ok(appended),
            Err(problem) => problem,
        };
        if stop.is_cancelled() && !hurried {
            hurried = true;
            patience.hurry(DRAIN_WITHIN);
        }
        match patience.pause_after(&problem) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(patience.conclude(problem)),
        }
    }
}

fn code_of(problem: &Problem) -> (u16, u32) {
    match problem.code {
        Code::NotFound => (404, NO_STREAM),
        Code::Throttled => (429, FULL),
        Code::BadRequest => (400, TOO_LARGE),
        _ => (503, NOT_READY),
    }
}

async fn refuse(tenants: &Bus, ask: &Ask, (code, err_code): (u16, u32), text: &str) {
    if let Some(reply) = &ask.reply {
        tenants.refuse(reply, code, err_code, text).await;
    }
}
