//! Who works on what.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Lets one at a time work on a thing, and nobody wait for it; clones share it.
///
/// Bounds: one name for each turn that is taken.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    taken: Mutex<BTreeSet<String>>,
    freed: Notify,
}

/// The right to work on a thing; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    thing: String,
}

impl Turns {
    /// The turn of a thing; `None` while somebody else has it.
    pub fn try_take(&self, thing: &str) -> Option<Turn> {
        let is_free = self.0.taken.lock().insert(thing.to_owned());
        is_free.then(|| Turn { turns: self.clone(), thing: thing.to_owned() })
    }

    pub(super) fn is_taken(&self, thing: &str) -> bool {
        self.0.taken.lock().contains(thing)
    }

    /// Returns when a turn has ended, here or since the last time.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.0.taken.lock().remove(&self.thing);
        self.turns.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thing_is_worked_on_by_one_and_its_end_is_told() {
        let turns = Turns::default();
        let held = turns.try_take("a").unwrap();
        assert!(turns.try_take("a").is_none() && turns.is_taken("a"), "nobody waits");
        drop(turns.try_take("b").unwrap());
        turns.freed().await;
        drop(held);
        turns.freed().await;
        assert!(turns.try_take("a").is_some());
    }
}
