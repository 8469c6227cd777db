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
/// Order: an index never goes back to an earlier epoch of its stream. Bounds: one description per log index.
#[derive(Clone)]
pub(crate) struct Streams {
    known: Arc<RwLock<HashMap<IndexName, Arc<StreamDescription>>>>,
    changes: watch::Sender<()>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { known: Arc::default(), changes: watch::Sender::new(()) }
    }
}

impl Streams {
    /// The stream of an index.
    pub(crate) fn get(&self, index: &IndexName) -> Option<Arc<StreamDescription>> {
        self.known.read().get(index).cloned()
    }

    /// Tells that something changed after it was asked for last.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
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
            Some(Ok(stream)) => {
                let mut known = self.known.write();
                let last = known.get(&index).filter(|last| last.stream == stream.stream);
                if let Some(last) = last.filter(|last| last.epoch > stream.epoch) {
                    warn!(%index, epoch = stream.epoch, known = last.epoch, "view of an earlier epoch ignored");
                    return;
                }
                known.insert(index, Arc::new(stream));
            }
            None => drop(self.known.write().remove(&index)),
            Some(Err(problem)) => warn!(%index, %problem, "view of a stream cannot be read, the last one stays"),
        }
        self.changes.send_modify(|()| {});
    }
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, KeyRange, SegmentId, Timestamp};
    use wire::coordinator::SegmentRange;

    use super::*;

    fn description(stream: u32, epoch: u32) -> StreamDescription {
        let segment = SegmentId { stream, epoch, number: epoch };
        let range = KeyRange { first: 0, last: u64::MAX };
        let segments = vec![SegmentRange { segment, container: ContainerId(0), range }];
        let (scope, index) = ("team".parse().unwrap(), "shop".parse().unwrap());
        let mut description = StreamDescription::new((stream, Timestamp::default()), scope, index, segments);
        description.epoch = epoch;
        description
    }

    #[test]
    fn a_view_that_cannot_be_read_changes_nothing() {
        let streams = Streams::default();
        let index: IndexName = "shop".parse().unwrap();
        let description = description(1, 0);
        streams.set(index.clone(), Some(&wire::encode(&description)));
        streams.set(index.clone(), Some(b"rubbish"));
        assert_eq!(streams.get(&index).as_deref(), Some(&description));
        streams.set(index.clone(), None);
        assert_eq!(streams.get(&index), None);
    }

    #[test]
    fn epochs_go_forward_and_every_change_is_told() {
        let streams = Streams::default();
        let index: IndexName = "shop".parse().unwrap();
        let mut changes = streams.changes();
        for ((stream, epoch), known) in [((1, 3), (1, 3)), ((1, 2), (1, 3)), ((1, 4), (1, 4)), ((2, 0), (2, 0))] {
            streams.set(index.clone(), Some(&wire::encode(&description(stream, epoch))));
            let now = streams.get(&index).unwrap();
            assert_eq!((now.stream, now.epoch), known);
            assert_eq!(changes.has_changed().unwrap(), (stream, epoch) == known);
            changes.borrow_and_update();
        }
    }
}
