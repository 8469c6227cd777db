//! The receiving end's half of a channel: what arrived and was not yet taken.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use arrow::{array::RecordBatch, buffer::Buffer};
use flow::ReceiverCredit;
use parking_lot::Mutex;
use tokio::time::Instant;
use types::Timestamp;

use crate::{ChannelId, Error, connection::Connection, outbox::Outbox};

/// The most watermarks, idle marks and barriers that wait in one channel; repeated ones are merged, so that only a
/// peer that ignores back-pressure gets there, and then the channel fails.
pub const CONTROLS_MAX: usize = 4_096;

/// What waits in a channel.
#[derive(Debug)]
pub(crate) enum Item {
    /// A data frame as it came.
    Frame {
        new_schema: bool,
        body: Buffer,
    },
    /// A batch of the same process.
    Batch(RecordBatch),
    Watermark(Timestamp),
    Idle,
    Barrier(u64),
    Eos,
}

/// Where grants and refusals go.
#[derive(Debug, Clone)]
pub(crate) enum Upstream {
    Local(Arc<Outbox>),
    Remote { connection: Arc<Connection>, channel: u16, opening: u32 },
}

impl Upstream {
    fn grant(&self, total: u64) {
        match self {
            Self::Local(outbox) => outbox.granted(total),
            Self::Remote { connection, channel, opening } => connection.grant(*channel, *opening, total),
        }
    }

    /// Tells the sending end that nobody listens any more.
    pub(crate) fn refuse(&self, id: &ChannelId, reason: &str) {
        match self {
            Self::Local(outbox) => outbox.fail(Error::Peer { channel: id.clone(), reason: reason.to_owned() }),
            Self::Remote { connection, channel, opening } => connection.refuse(*channel, *opening, reason),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) id: ChannelId,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Item, u64)>,
    controls: usize,
    ledger: ReceiverCredit,
    upstream: Option<Upstream>,
    /// Someone reads here; before, nothing is granted.
    claimed: bool,
    /// The reader found nothing when it last looked.
    hungry: bool,
    ended: bool,
    failed: Option<Error>,
    waker: Option<Waker>,
}

impl Inbox {
    pub(crate) fn new(id: ChannelId) -> Arc<Self> {
        Arc::new(Self { id, began: Instant::now(), state: Mutex::default() })
    }

    /// How long it has existed.
    pub(crate) fn age(&self) -> std::time::Duration {
        self.began.elapsed()
    }

    /// Takes the reading end; false if there was one already.
    pub(crate) fn claim(&self) -> bool {
        self.changed(|state| !std::mem::replace(&mut state.claimed, true))
    }

    /// Takes the sending end; false if there was one already, or the channel has failed.
    pub(crate) fn attach(&self, upstream: Upstream) -> bool {
        self.changed(|state| {
            let free = state.upstream.is_none() && state.failed.is_none();
            if free {
                state.upstream = Some(upstream);
            }
            free
        })
    }

    pub(crate) fn set_window_max(&self, bytes: u64) {
        self.state.lock().ledger.set_window_max(bytes);
    }

    /// The sender's next frame is that large.
    pub(crate) fn needs(&self, bytes: u64) {
        self.changed(|state| state.ledger.needs(bytes));
    }

    /// Books a data frame before it is read; the sender must have had the credit.
    pub(crate) fn book(&self, bytes: u64) -> Result<(), String> {
        self.state.lock().ledger.received(bytes).map_err(|e| e.to_string())
    }

    /// Queues data that was booked, and says whether it had to wait for credit.
    pub(crate) fn push_data(&self, item: Item, bytes: u64, waited: bool) {
        self.wake(|state| {
            if std::mem::take(&mut state.hungry) && waited {
                state.ledger.starved();
            }
            if state.failed.is_none() {
                state.queue.push_back((item, bytes));
            }
        });
    }

    /// Queues anything else; says what rule it breaks, if any.
    pub(crate) fn push_control(&self, item: Item) -> Result<(), String> {
        self.wake(|state| {
            if state.ended {
                return Err("something follows the end of the stream".to_owned());
            }
            state.ended = matches!(item, Item::Eos);
            match (state.queue.back_mut().map(|(last, _)| last), &item) {
                // Only the newest of several watermarks says something.
                (Some(Item::Watermark(last)), Item::Watermark(new)) => *last = *new,
                (Some(Item::Idle), Item::Idle) => {}
                _ if state.controls >= CONTROLS_MAX => {
                    return Err(format!("more than {CONTROLS_MAX} control messages wait in one channel"));
                }
                _ => {
                    state.controls += 1;
                    state.queue.push_back((item, 0));
                }
            }
            Ok(())
        })
    }

    /// Ends the channel unless its stream had ended; the first reason stays. What was queued is dropped.
    pub(crate) fn fail(&self, error: Error) {
        self.wake(|state| {
            if !state.ended {
                state.queue.clear();
                state.failed.get_or_insert(error);
            }
        });
    }

    /// Fails the channel here and at the sending end, and lets go of that.
    pub(crate) fn abandon(&self, error: Error) {
        let upstream = self.wake(|state| {
            let open = !state.ended && state.failed.is_none();
            state.queue.clear();
            state.failed.get_or_insert_with(|| error.clone());
            state.upstream.take().filter(|_| open)
        });
        if let Some(upstream) = upstream {
            upstream.refuse(&self.id, &error.to_string());
        }
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        self.state.lock().failed.clone()
    }

    /// The failure, if there is one, or a promise to wake when anything changes.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> Option<Error> {
        let mut state = self.state.lock();
        state.waker = Some(cx.waker().clone());
        state.failed.clone()
    }

    /// Takes the next item and grants what that makes free; `None` after the end of the stream.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Result<Option<Item>, Error>> {
        self.changed(|state| {
            if let Some(error) = &state.failed {
                return Poll::Ready(Err(error.clone()));
            }
            let Some((item, bytes)) = state.queue.pop_front() else {
                if state.ended {
                    return Poll::Ready(Ok(None));
                }
                state.hungry = true;
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if bytes > 0 {
                state.ledger.consumed(bytes, self.now());
            } else {
                state.controls -= 1;
            }
            Poll::Ready(Ok(Some(item)))
        })
    }

    /// Bytes that arrived and were not yet taken, and the present window.
    pub(crate) fn waiting_and_window(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.ledger.waiting(), state.ledger.window())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(0) + self.began.elapsed()
    }

    /// Changes the state, then announces credit outside the lock.
    fn changed<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (out, news) = {
            let mut state = self.state.lock();
            let out = change(&mut state);
            let open = state.claimed && !state.ended && state.failed.is_none();
            let news = match state.upstream.clone().filter(|_| open) {
                Some(upstream) => state.ledger.grant().map(|total| (upstream, total)),
                None => None,
            };
            (out, news)
        };
        if let Some((upstream, total)) = news {
            upstream.grant(total);
        }
        out
    }

    /// Changes the state, then wakes the reader outside the lock.
    fn wake<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (out, waker) = {
            let mut state = self.state.lock();
            (change(&mut state), state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> Arc<Inbox> {
        let inbox = Inbox::new(ChannelId { job: "j".parse().unwrap(), attempt: 0, edge: 0, from: 0, to: 0 });
        inbox.claim();
        inbox
    }

    #[test]
    fn controls_are_merged_and_bounded() {
        let inbox = inbox();
        for i in 0..100_000 {
            inbox.push_control(Item::Watermark(Timestamp::from_nanos(i))).unwrap();
        }
        inbox.push_control(Item::Idle).unwrap();
        inbox.push_control(Item::Idle).unwrap();
        assert_eq!(inbox.state.lock().queue.len(), 2);
        let mut epoch = 0;
        let refused = loop {
            if let Err(problem) = inbox.push_control(Item::Barrier(epoch)) {
                break problem;
            }
            epoch += 1;
        };
        assert!(refused.contains("control messages"), "{refused}");
        assert_eq!(inbox.state.lock().queue.len(), CONTROLS_MAX);
    }

    #[test]
    fn nothing_follows_the_end() {
        let inbox = inbox();
        inbox.push_control(Item::Eos).unwrap();
        assert!(inbox.push_control(Item::Idle).is_err());
        inbox.fail(Error::AllBlocked);
        assert!(inbox.failure().is_none(), "a complete stream cannot fail any more");
    }

    #[test]
    fn unbooked_data_is_refused() {
        let inbox = inbox();
        assert!(inbox.book(1).is_err(), "nothing was granted");
        let outbox = Arc::new(Outbox::default());
        assert!(inbox.attach(Upstream::Local(Arc::clone(&outbox))));
        assert!(!inbox.attach(Upstream::Local(Arc::clone(&outbox))));
        let (_, granted) = outbox.totals();
        assert_eq!(granted, flow::WINDOW_BYTES_MIN);
        inbox.book(granted).unwrap();
        assert!(inbox.book(1).is_err());
    }
}
