//! Who works on which instance, and when what failed is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex as Cell;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};
use types::InstanceId;

/// Pause after the first failure of what is resumed; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Locks that are kept before those that nobody holds are thrown away.
const LOCKS_SWEPT_AT: usize = 1_024;

/// When something is tried again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    count: u32,
    at: Instant,
}

/// The turns; clones share them. Instances never wait for each other, only requests for one instance do.
///
/// Bounds: one lock for each instance with a request in flight, one retry for each with unfinished work.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    locks: Arc<Cell<BTreeMap<InstanceId, Weak<Mutex<()>>>>>,
    /// By back-end.
    retries: Arc<Cell<BTreeMap<String, BTreeMap<InstanceId, Retry>>>>,
}

impl Turns {
    /// Waits until nobody else works on the instance.
    pub(super) async fn take(&self, instance: &InstanceId) -> OwnedMutexGuard<()> {
        self.lock(instance).lock_owned().await
    }

    /// The turn, if nobody works on the instance.
    pub(super) fn try_take(&self, instance: &InstanceId) -> Option<OwnedMutexGuard<()>> {
        self.lock(instance).try_lock_owned().ok()
    }

    fn lock(&self, instance: &InstanceId) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(instance).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() >= LOCKS_SWEPT_AT {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(Mutex::new(()));
        locks.insert(instance.clone(), Arc::downgrade(&lock));
        lock
    }

    /// Of the pending instances of a back-end those whose pause is over; forgets those that are pending no more.
    pub(super) fn due(&self, backend: &str, pending: &BTreeSet<InstanceId>) -> Vec<InstanceId> {
        let mut retries = self.retries.lock();
        let known = retries.entry(backend.to_owned()).or_default();
        known.retain(|instance, _| pending.contains(instance));
        let now = Instant::now();
        pending.iter().filter(|id| known.get(*id).is_none_or(|retry| retry.at <= now)).cloned().collect()
    }

    /// Forgets what failed: it gets on, and is due again at once.
    pub(super) fn got_on(&self, backend: &str, instance: &InstanceId) {
        if let Some(known) = self.retries.lock().get_mut(backend) {
            known.remove(instance);
        }
    }

    /// Remembers a failure, and answers how long the pause is.
    pub(super) fn failed(&self, backend: &str, instance: &InstanceId) -> Duration {
        let mut retries = self.retries.lock();
        let known = retries.entry(backend.to_owned()).or_default();
        let count = known.get(instance).map_or(0, |retry| retry.count);
        let pause = RETRY_FIRST.saturating_mul(1 << count.min(16)).min(RETRY_MAX);
        known.insert(instance.clone(), Retry { count: count + 1, at: Instant::now() + pause });
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_works_on_an_instance_and_others_on_others() {
        let turns = Turns::default();
        let held = turns.take(&id("a")).await;
        assert!(turns.try_take(&id("a")).is_none());
        assert!(turns.try_take(&id("b")).is_some());
        drop(held);
        assert!(turns.try_take(&id("a")).is_some());
        for number in 0..5_000 {
            drop(turns.take(&id(&format!("i{number}"))).await);
        }
        assert!(turns.locks.lock().len() <= LOCKS_SWEPT_AT);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end_with_the_work() {
        let (turns, pending) = (Turns::default(), BTreeSet::from([id("a"), id("b")]));
        assert_eq!(turns.due("own", &pending).len(), 2);
        let pauses: Vec<_> = (0..8).map(|_| turns.failed("own", &id("a"))).collect();
        assert!(pauses.windows(2).all(|w| w[0] < w[1] || w[1] == RETRY_MAX), "{pauses:?}");
        assert_eq!(turns.due("own", &pending), [id("b")]);
        assert_eq!(turns.due("splunk", &pending).len(), 2, "another back-end");
        tokio::time::advance(RETRY_MAX).await;
        assert_eq!(turns.due("own", &pending).len(), 2);
        turns.failed("own", &id("a"));
        turns.got_on("own", &id("a"));
        assert_eq!(turns.due("own", &pending).len(), 2, "what gets on has no pause");
        assert_eq!(turns.failed("own", &id("a")), RETRY_FIRST);
        turns.due("own", &BTreeSet::new());
        assert_eq!(turns.failed("own", &id("a")), RETRY_FIRST, "what is done is forgotten");
    }
}
