//! Watching a bucket through reconnects without missing what vanished meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    Bucket, BucketError, Entry,
    jetstream::Stored,
    pull::{Pull, Step},
};

/// How long a watch waits before it begins again after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key has this entry now; `None` when it was deleted or expired.
    Key {
        /// The key.
        key: String,
        /// Its entry.
        entry: Option<Entry>,
    },
    /// Every entry that was there at the beginning has been told; said once.
    Ready,
}

/// The entries of a bucket as they change.
///
/// Bounds: remembers one revision for each key that exists under the prefix.
#[derive(Debug)]
pub struct Watch {
    bucket: Bucket,
    prefix: String,
    pull: Pull,
    told: Told,
}

/// What the reader knows, apart from any connection.
#[derive(Debug, Default)]
struct Told {
    revisions: BTreeMap<String, u64>,
    /// Keys seen since the watch began (again); `None` while it follows changes.
    seen: Option<BTreeSet<String>>,
    ready: bool,
    queue: VecDeque<Change>,
}

impl Watch {
    pub(crate) fn new(bucket: Bucket, prefix: &str) -> Self {
        let pull = bucket.pull(prefix);
        let told = Told { seen: Some(BTreeSet::new()), ..Told::default() };
        Self { bucket, prefix: prefix.to_owned(), pull, told }
    }

    /// The next change; waits for ever, also for a server that is gone. Cancel safe.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.told.queue.pop_front() {
                return change;
            }
            match self.pull.next(self.told.seen.is_none()).await {
                Step::Message(stored) => {
                    if let Some(key) = self.bucket.key_of(&stored.subject).filter(|k| k.starts_with(&self.prefix)) {
                        self.told.observe(key.to_owned(), &stored);
                    }
                }
                Step::End => match self.there().await {
                    Ok(there) => self.told.complete(&there),
                    Err(_) => self.restart().await,
                },
                Step::Broken(_) => self.restart().await,
            }
        }
    }

    /// From the beginning: what vanished meanwhile may have left no trace.
    async fn restart(&mut self) {
        self.pull.restart(0);
        self.told.seen = Some(BTreeSet::new());
        sleep(PAUSE).await;
    }

    /// Those of the missing keys that are there all the same: a key that changes in this moment has lost its former revision and
    /// comes with the next one, behind the end of what was there.
    async fn there(&self) -> Result<BTreeSet<String>, BucketError> {
        let mut there = BTreeSet::new();
        for key in self.told.missing() {
            if self.bucket.get(&key).await?.is_some() {
                there.insert(key);
            }
        }
        Ok(there)
    }
}

impl Told {
    fn observe(&mut self, key: String, stored: &Stored) {
        if stored.removed {
            if self.revisions.remove(&key).is_some() {
                self.queue.push_back(Change::Key { key, entry: None });
            }
            return;
        }
        if let Some(seen) = &mut self.seen {
            seen.insert(key.clone());
        }
        if self.revisions.insert(key.clone(), stored.seq) != Some(stored.seq) {
            let entry = Some(Entry { revision: stored.seq, value: stored.payload.clone() });
            self.queue.push_back(Change::Key { key, entry });
        }
    }

    /// What was told before and not seen since the watch began again.
    fn missing(&self) -> Vec<String> {
        let Some(seen) = &self.seen else { return Vec::new() };
        self.revisions.keys().filter(|k| !seen.contains(*k)).cloned().collect()
    }

    /// Everything that is there has been seen, but for `there`: what was told before and not seen again is gone.
    fn complete(&mut self, there: &BTreeSet<String>) {
        let gone = self.missing();
        if self.seen.take().is_none() {
            return;
        }
        for key in gone.into_iter().filter(|key| !there.contains(key)) {
            self.revisions.remove(&key);
            self.queue.push_back(Change::Key { key, entry: None });
        }
        if !std::mem::replace(&mut self.ready, true) {
            self.queue.push_back(Change::Ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn stored(seq: u64, removed: bool) -> Stored {
        Stored { subject: String::new(), seq, id: None, removed, payload: Bytes::new() }
    }

    fn drain(told: &mut Told) -> Vec<String> {
        told.queue
            .drain(..)
            .map(|change| match change {
                Change::Ready => "ready".to_owned(),
                Change::Key { key, entry } => format!("{key}={}", entry.map_or(0, |e| e.revision)),
            })
            .collect()
    }

    #[test]
    fn a_key_that_changes_while_the_watch_begins_again_is_not_gone() {
        let mut told = Told { seen: Some(BTreeSet::new()), ..Told::default() };
        told.observe("a".to_owned(), &stored(1, false));
        told.complete(&BTreeSet::new());
        assert_eq!(drain(&mut told), ["a=1", "ready"]);
        // Its revision 1 has made way for 2, which comes behind the end.
        told.seen = Some(BTreeSet::new());
        assert_eq!(told.missing(), ["a"]);
        told.complete(&["a".to_owned()].into());
        assert_eq!(drain(&mut told), [""; 0]);
        told.observe("a".to_owned(), &stored(2, false));
        assert_eq!(drain(&mut told), ["a=2"]);
    }

    #[test]
    fn what_vanished_during_an_outage_is_told_once() {
        let mut told = Told { seen: Some(BTreeSet::new()), ..Told::default() };
        told.observe("a".to_owned(), &stored(1, false));
        told.observe("b".to_owned(), &stored(2, false));
        told.complete(&BTreeSet::new());
        assert_eq!(drain(&mut told), ["a=1", "b=2", "ready"]);

        // The connection comes back: b is gone, a is as it was, c is new.
        told.seen = Some(BTreeSet::new());
        told.observe("a".to_owned(), &stored(1, false));
        told.observe("c".to_owned(), &stored(5, false));
        told.complete(&BTreeSet::new());
        assert_eq!(drain(&mut told), ["c=5", "b=0"]);

        told.observe("a".to_owned(), &stored(6, true));
        told.observe("a".to_owned(), &stored(7, true));
        assert_eq!(drain(&mut told), ["a=0"]);
    }
}
