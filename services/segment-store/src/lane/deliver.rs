//! One block from a lane to its segment, and the answers to everybody in it.

use std::sync::Arc;

use bus::Bus;
use bytes::Bytes;
use client::{Attempts, Patience};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::{ContainerId, Timestamp};
use wire::{
    Code, Outcome, Problem,
    block::Block,
    segment_store::{Append, Appended},
};

use crate::{
    lane::{
        APPEND_WITHIN, Context, DRAIN_WITHIN,
        gather::{Ask, Batch, Fate, reopen},
        to_u64,
    },
    metrics,
};

/// JetStream's number for a message above the maximum size.
pub(crate) const TOO_LARGE: u32 = 10_054;
/// JetStream's number for a stream that is not there.
pub(crate) const NO_STREAM: u32 = 10_059;
/// JetStream's number for a store at its limit.
pub(crate) const FULL: u32 = 10_077;
/// JetStream's number for an account that has used up what it may.
pub(crate) const OVER_QUOTA: u32 = 10_002;
/// JetStream's number for a sealed stream.
pub(crate) const SEALED: u32 = 10_109;
/// JetStream's number for a store that is not available for the moment.
pub(crate) const NOT_READY: u32 = 10_008;

/// Appends a block and answers everybody in it, unless its segment is sealed: then its events are given back.
pub(crate) async fn deliver(context: &Arc<Context>, batch: Batch, stop: &CancellationToken) -> Fate {
    let Batch { index, segment, append, sent, bytes: _ } = batch;
    let count = to_u64(sent.len());
    let block = append.block.clone();
    let problem = match persist(context, segment.container, append, stop).await {
        Ok((appended, certain)) => {
            if certain && !appended.duplicates.is_empty() {
                context.quotas.give_back(&index, repeats(&block, &appended));
            }
            for (place, sent) in (0u32..).zip(&sent) {
                let Some(reply) = &sent.ask.reply else { continue };
                let offset = appended.offsets.get(place as usize).copied().flatten();
                // A repeat of our own is no duplicate of the producer's.
                let duplicate = sent.ask.has_id && appended.duplicates.binary_search(&place).is_ok();
                context.tenants.ack(reply, index.as_str(), offset.map_or(0, |o| o + 1), duplicate).await;
            }
            return Fate::Stored(count);
        }
        Err(problem) => problem,
    };
    if takes_nothing(&problem) {
        info!(%index, segment = %segment.segment, events = count, "segment of a lane sealed, its successors are awaited");
        return Fate::Sealed(reopen(block, sent));
    }
    metrics::LANE_REFUSED.with("not-stored").add(count);
    warn!(%index, segment = %segment.segment, %problem, events = count, "block of a lane not stored");
    let code = code_of(&problem);
    for sent in &sent {
        refuse(&context.tenants, &sent.ask, code, &problem.message).await;
    }
    if problem.outcome != Outcome::NotApplied {
        return Fate::Unknown;
    }
    context.quotas.give_back(&index, let_in(&block).map(|(bytes, taken)| (1, bytes, taken)));
    Fate::NotStored
}

/// The bytes of each event of a block that was built here, and when the quota let it pass.
fn let_in(block: &Bytes) -> impl Iterator<Item = (u64, Timestamp)> {
    let block = Block::open(block.clone()).expect("a block that was built here");
    let events: Vec<_> = block.iter().map(|event| (to_u64(event.payload.len()), event.received)).collect();
    events.into_iter()
}

/// What is given back of events that were there before: their bytes, for the day is about what is kept. The rate is about what the
/// door has to do, and a repeat costs it as much as any event.
fn repeats(block: &Bytes, appended: &Appended) -> Vec<(u64, u64, Timestamp)> {
    let events = (0u32..).zip(let_in(block)).filter(|(place, _)| appended.duplicates.binary_search(place).is_ok());
    events.map(|(_, (bytes, taken))| (0, bytes, taken)).collect()
}

/// Whether the segment certainly has nothing of the block and never will.
///
/// A sealed segment recognises what it stored before; so its refusal also settles earlier attempts whose answers were lost.
/// A segment that is gone was sealed and truncated, but nobody can say what became of an earlier attempt.
fn takes_nothing(problem: &Problem) -> bool {
    match problem.kind.as_str() {
        "SegmentSealed" => true,
        "UnknownSegment" => problem.outcome == Outcome::NotApplied,
        _ => false,
    }
}

/// Appends through this replica's own container, else through its owner, until it is certain or the time is over.
///
/// A container of this replica always answers. Another owner may die with the block: how long he is waited for is the client's
/// rule, the same for every writer. Answers also whether no attempt before may have stored the block: then what was a duplicate
/// was there before.
async fn persist(
    context: &Context,
    container: ContainerId,
    append: Append,
    stop: &CancellationToken,
) -> Result<(Appended, bool), Problem> {
    let (mut patience, mut attempts) = (Patience::new(APPEND_WITHIN), Attempts::default());
    let (mut hurried, mut certain) = (false, true);
    loop {
        let tried = match context.owned.get(container) {
            Some(own) => {
                let deadline = context.host.clock.now() + patience.left();
                own.append(append.clone(), deadline).await.map_err(Problem::from)
            }
            None => {
                let within = patience.left().min(attempts.within());
                context.client.append_once(container, &append, within).await
            }
        };
        let problem = match tried {
            Ok(appended) => return Ok((appended, certain)),
            Err(problem) => problem,
        };
        certain &= problem.outcome == Outcome::NotApplied;
        attempts.note(&problem);
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

pub(crate) async fn refuse(tenants: &Bus, ask: &Ask, (code, err_code): (u16, u32), text: &str) {
    if let Some(reply) = &ask.reply {
        tenants.refuse(reply, code, err_code, text).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_take_no_bytes_of_the_day_on_which_they_came() {
        let mut block = wire::block::BlockBuilder::new();
        let events: [(i64, &[u8]); 3] = [(1, b"one"), (2, b"three"), (3, b"seven..")];
        for (at, payload) in events {
            assert!(block.push(Timestamp::from_millis(at), 7, payload));
        }
        let block = block.finish();
        let appended = |duplicates: &[u32]| Appended {
            offsets: vec![Some(0); 3],
            duplicate_count: u32::try_from(duplicates.len()).unwrap(),
            duplicates: duplicates.to_vec(),
        };
        assert_eq!(repeats(&block, &appended(&[])), []);
        let at = Timestamp::from_millis;
        assert_eq!(repeats(&block, &appended(&[0, 2])), [(0, 3, at(1)), (0, 7, at(3))]);
    }

    #[test]
    fn only_what_is_certain_goes_to_successors() {
        let sealed = Problem::conflict("SegmentSealed", "x");
        let gone = Problem::not_found("UnknownSegment", "x");
        for (problem, certain) in [
            (sealed.clone(), true),
            (sealed.unknown(), true),
            (gone.clone(), true),
            (gone.unknown(), false),
            (Problem::unavailable("NoResponders", "x"), false),
            (Problem::conflict("EventNumberGap", "x"), false),
        ] {
            assert_eq!(takes_nothing(&problem), certain, "{problem:?}");
        }
    }
}
