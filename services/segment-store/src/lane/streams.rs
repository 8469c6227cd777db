//! Which segments an index has, as the coordinator's views say.

use std::{collections::HashMap, sync::Arc};

use bus::{Bucket, Change};
use parking_lot::RwLock;
use tokio::sync::watch;
use tracing::warn;
use types::IndexName;
use wire::coordinator::StreamDescription;

/// The prefix of stream descriptions in the bucket of views.
const PREFIX: &str = "stream.";

/// The streams of the installation; clones share them.
///
/// Bounds: one description per log index.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<RwLock<HashMap<IndexName, Arc<StreamDescription>>>>);

impl Streams {
    /// The stream of an index.
    pub(crate) fn get(&self, index: &IndexName) -> Option<Arc<StreamDescription>> {
        self.0.read().get(index).cloned()
    }

    /// Follows the views for ever; says when all that there were at the beginning are known.
    pub(crate) async fn follow(self, views: Bucket, known: watch::Sender<bool>) {
        let mut watch = views.watch(PREFIX);
        loop {
            match watch.next().await {
                Change::Ready => drop(known.send_replace(true)),
                Change::Key { key, entry } => {
                    let Some(index) = key.strip_prefix(PREFIX).and_then(|name| name.parse::<IndexName>().ok()) else {
                        warn!(key, "view with a name that no index has");
                        continue;
                    };
                    self.set(index, entry.as_ref().map(|entry| &entry.value[..]));
                }
            }
        }
    }

    fn set(&self, index: IndexName, description: Option<&[u8]>) {
        match description.map(wire::decode::<StreamDescription>) {
            Some(Ok(stream)) => drop(self.0.write().insert(index, Arc::new(stream))),
            None => drop(self.0.write().remove(&index)),
            Some(Err(problem)) => warn!(%index, %problem, "view of a stream cannot be read, the last one stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, KeyRange, SegmentId, Timestamp};
    use wire::coordinator::SegmentRange;

    use super::*;

    #[test]
    fn a_view_that_cannot_be_read_changes_nothing() {
        let streams = Streams::default();
        let index: IndexName = "shop".parse().unwrap();
        let segment = SegmentId { stream: 1, epoch: 0, number: 0 };
        let range = KeyRange { first: 0, last: u64::MAX };
        let description = StreamDescription::new(
            (1, Timestamp::default()),
            "team".parse().unwrap(),
            index.clone(),
            vec![SegmentRange { segment, container: ContainerId(0), range }],
        );
        streams.set(index.clone(), Some(&wire::encode(&description)));
        streams.set(index.clone(), Some(b"rubbish"));
        assert_eq!(streams.get(&index).as_deref(), Some(&description));
        streams.set(index.clone(), None);
        assert_eq!(streams.get(&index), None);
    }
}
