//! The newest description of a stream, asked for once for all writers of a client.
//!
//! Writers ask only when a segment says that it is sealed, which it must before anything else changes for them. A watch of the
//! views would tell them a little earlier, but it costs a consumer per client on one JetStream stream, of which a server
//! takes about a thousand, and it needs rights to JetStream that a client otherwise does without.

use std::sync::Arc;

use moka::sync::Cache;
use tokio::{sync::Mutex, time::Instant};
use types::IndexName;
use wire::{
    Problem,
    coordinator::{DescribeStream, StreamDescription, StreamName},
};

use crate::{Client, STREAMS_MAX};

/// The last answer about a stream, and when it was asked for.
type Answer = Arc<Mutex<Option<(Instant, Arc<StreamDescription>)>>>;

/// Answers by index; clones share them.
#[derive(Clone)]
pub(crate) struct Views(Cache<IndexName, Answer>);

impl Default for Views {
    fn default() -> Self {
        Self(Cache::new(STREAMS_MAX))
    }
}

/// By what two descriptions of an index are compared: a stream that was created again has a higher number.
pub(crate) fn version(stream: &StreamDescription) -> (u32, u32) {
    (stream.stream, stream.epoch)
}

impl Client {
    /// Describes a stream as it is now or later; whoever asks while an answer is awaited shares the next one.
    pub(crate) async fn stream_now(&self, index: &IndexName) -> Result<Arc<StreamDescription>, Problem> {
        let begun = Instant::now();
        let answer = self.views.0.get_with_by_ref(index, Answer::default);
        let mut last = answer.lock().await;
        if let Some((asked, stream)) = &*last
            && *asked > begun
        {
            return Ok(stream.clone());
        }
        let asked = Instant::now();
        let stream = Arc::new(self.bus.call::<DescribeStream>(&(), &StreamName { index: index.clone() }).await?);
        self.streams.insert(index.clone(), stream.clone());
        *last = Some((asked, stream.clone()));
        Ok(stream)
    }
}
