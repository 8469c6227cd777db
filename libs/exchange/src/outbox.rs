//! The sending end's half of a channel: its credit, and whether it still makes sense to wait for more.

use std::{
    future::poll_fn,
    task::{Poll, Waker},
};

use flow::SenderCredit;
use parking_lot::Mutex;

use crate::Error;

/// Shared by one [`crate::Sender`] and whoever brings it grants: the connection, or the inbox of the same process.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    ledger: SenderCredit,
    failed: Option<Error>,
    waker: Option<Waker>,
}

impl Outbox {
    /// Waits until that many bytes are covered by credit, and spends them; true if earlier grants did not suffice.
    pub(crate) async fn acquire(&self, bytes: u64) -> Result<bool, Error> {
        let mut waited = false;
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if let Some(error) = &state.failed {
                return Poll::Ready(Err(error.clone()));
            }
            if state.ledger.sent(bytes).is_ok() {
                return Poll::Ready(Ok(waited));
            }
            // The first grant is awaited by everyone and says nothing.
            waited |= state.ledger.granted_total() > 0;
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Whether that many bytes are covered now.
    pub(crate) fn covers(&self, bytes: u64) -> bool {
        self.0.lock().ledger.may_send(bytes)
    }

    /// Bytes that might be sent when the last grant came.
    pub(crate) fn room(&self) -> u64 {
        self.0.lock().ledger.room()
    }

    /// Takes a grant.
    pub(crate) fn granted(&self, total: u64) {
        let waker = {
            let mut state = self.0.lock();
            if state.ledger.granted(total) { state.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the channel; the first reason stays.
    pub(crate) fn fail(&self, error: Error) {
        let waker = {
            let mut state = self.0.lock();
            state.failed.get_or_insert(error);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        self.0.lock().failed.clone()
    }

    /// Bytes sent and granted in all.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.ledger.sent_total(), state.ledger.granted_total())
    }
}
