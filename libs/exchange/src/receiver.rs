//! The receiving end of a channel.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    ChannelId, Error, Message,
    codec::Decoder,
    inbox::{Inbox, Item},
    registry::Registry,
};

/// The receiving end of one channel. Dropped before the end of the stream, it tells the sender.
pub struct Receiver {
    inbox: Arc<Inbox>,
    decoder: Decoder,
    registry: Arc<Registry>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receiver({})", self.inbox.id)
    }
}

impl Receiver {
    pub(crate) fn new(inbox: Arc<Inbox>, registry: Arc<Registry>) -> Self {
        Self { inbox, decoder: Decoder::default(), registry }
    }

    /// Takes the next message; `None` after [`Message::Eos`]. Taking a batch grants its bytes to the sender again.
    ///
    /// Waits for a sender that has not opened yet; closing the job ends that. Cancel safe.
    /// Errors: the channel is lost; every later call says the same.
    pub async fn recv(&mut self) -> Result<Option<Message>, Error> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The channel.
    pub fn id(&self) -> &ChannelId {
        &self.inbox.id
    }

    /// Bytes of data that arrived and were not taken yet; never more than [`flow::WINDOW_BYTES_MAX`].
    pub fn waiting_bytes(&self) -> u64 {
        self.inbox.waiting_and_window().0
    }

    /// The present credit window, which follows the rate at which batches are taken.
    pub fn window_bytes(&self) -> u64 {
        self.inbox.waiting_and_window().1
    }

    /// Limits the window within [`flow::WINDOW_BYTES_MIN`] and [`flow::WINDOW_BYTES_MAX`].
    pub fn set_window_max(&mut self, bytes: u64) {
        self.inbox.set_window_max(bytes);
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        self.inbox.poll(cx).map(|item| {
            Ok(match item? {
                None => None,
                Some(Item::Frame { new_schema, body }) => {
                    let batch = self.decoder.decode(new_schema, body).map_err(|problem| {
                        let error = Error::Arrow { channel: self.inbox.id.clone(), problem };
                        self.inbox.abandon(error.clone());
                        error
                    })?;
                    Some(Message::Data(batch))
                }
                Some(Item::Batch(batch)) => Some(Message::Data(batch)),
                Some(Item::Watermark(watermark)) => Some(Message::Watermark(watermark)),
                Some(Item::Idle) => Some(Message::Idle),
                Some(Item::Barrier(epoch)) => Some(Message::Barrier(epoch)),
                Some(Item::Eos) => Some(Message::Eos),
            })
        })
    }

    /// The failure of the channel without taking anything, or a promise to wake.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> Option<Error> {
        self.inbox.watch(cx)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.registry.drop_inbox(&self.inbox);
        self.inbox.abandon(Error::Closed { channel: self.inbox.id.clone() });
    }
}
