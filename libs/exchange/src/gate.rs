//! All inputs of one subtask, read in turn.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use flow::{WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};

use crate::{Error, Message, Receiver};

/// What the channels of one gate may hold together, shared evenly; each keeps its smallest window.
pub const GATE_BYTES_MAX: u64 = 32 << 20;

/// Reads many channels in turn and can leave some unread, as the alignment of barriers asks.
///
/// A blocked input is not read, so its credit runs out and its sender waits; nothing is buffered beyond its window. If
/// its channel fails meanwhile, the gate says so at once.
#[derive(Debug)]
pub struct Gate {
    inputs: Vec<Input>,
    next: usize,
}

#[derive(Debug)]
struct Input {
    receiver: Receiver,
    blocked: bool,
    ended: bool,
}

impl Gate {
    /// Joins the receivers; an input's number is its place.
    pub fn new(receivers: Vec<Receiver>) -> Self {
        let share = GATE_BYTES_MAX / u64::try_from(receivers.len().max(1)).unwrap_or(u64::MAX);
        let inputs = receivers
            .into_iter()
            .map(|mut receiver| {
                receiver.set_window_max(share.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX));
                Input { receiver, blocked: false, ended: false }
            })
            .collect();
        Self { inputs, next: 0 }
    }

    /// Takes the next message of any input that is not blocked, in turn; `None` when all inputs have ended.
    ///
    /// Order: within an input as sent; between inputs none. Cancel safe.
    /// Errors: the first channel that failed; `AllBlocked` where nothing could ever come.
    pub async fn recv(&mut self) -> Result<Option<(usize, Message)>, Error> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Leaves an input unread until [`Gate::unblock_all`].
    pub fn block(&mut self, input: usize) {
        if let Some(input) = self.inputs.get_mut(input) {
            input.blocked = true;
        }
    }

    /// Reads all inputs again.
    pub fn unblock_all(&mut self) {
        self.inputs.iter_mut().for_each(|input| input.blocked = false);
    }

    /// Whether the input is blocked.
    pub fn is_blocked(&self, input: usize) -> bool {
        self.inputs.get(input).is_some_and(|input| input.blocked)
    }

    /// The number of inputs, ended ones included.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there are no inputs at all.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// One receiver, for its figures.
    pub fn receiver(&self, input: usize) -> Option<&Receiver> {
        self.inputs.get(input).map(|input| &input.receiver)
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Option<(usize, Message)>, Error>> {
        let count = self.inputs.len();
        let mut open = 0usize;
        let mut blocked = 0usize;
        for step in 0..count {
            let number = (self.next + step) % count;
            let input = &mut self.inputs[number];
            if input.ended {
                continue;
            }
            open += 1;
            if input.blocked {
                blocked += 1;
                if let Some(error) = input.receiver.watch(cx) {
                    return Poll::Ready(Err(error));
                }
                continue;
            }
            match input.receiver.poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(Some(message))) => {
                    input.ended = message == Message::Eos;
                    self.next = (number + 1) % count;
                    return Poll::Ready(Ok(Some((number, message))));
                }
                Poll::Ready(Ok(None)) => {
                    input.ended = true;
                    open -= 1;
                }
            }
        }
        match open {
            0 => Poll::Ready(Ok(None)),
            _ if open == blocked => Poll::Ready(Err(Error::AllBlocked)),
            _ => Poll::Pending,
        }
    }
}
