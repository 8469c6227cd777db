//! Places at a door, of which no index takes more than half: whoever floods one index leaves the other half to everybody else.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::IndexName;

/// The places of one door; clones share them.
#[derive(Clone)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    of_index_max: usize,
    /// As many entries as places are taken.
    taken: Arc<Mutex<HashMap<IndexName, usize>>>,
}

/// A place; given back by being dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    places: Places,
    index: Option<IndexName>,
}

impl Places {
    /// All free.
    pub(crate) fn new(count: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(count)), of_index_max: count / 2, taken: Arc::default() }
    }

    /// A place for a request about an index; `None` where all are taken, or half of them by this index.
    pub(crate) fn take(&self, index: Option<&IndexName>) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        if let Some(index) = index {
            let mut taken = self.taken.lock();
            let own = taken.entry(index.clone()).or_default();
            if *own >= self.of_index_max {
                return None;
            }
            *own += 1;
        }
        Some(Place { _permit: permit, places: self.clone(), index: index.cloned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(index) = &self.index else { return };
        let mut taken = self.places.taken.lock();
        if let Some(own) = taken.get_mut(index) {
            *own -= 1;
            if *own == 0 {
                taken.remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_index_takes_more_than_half() {
        let places = Places::new(4);
        let [loud, quiet] = ["loud", "quiet"].map(|name| name.parse::<IndexName>().unwrap());
        let mut held: Vec<Place> = (0..9).filter_map(|_| places.take(Some(&loud))).collect();
        assert_eq!(held.len(), 2);
        held.extend((0..9).filter_map(|_| places.take(Some(&quiet))));
        assert_eq!(held.len(), 4);
        assert!(places.take(None).is_none(), "all are taken");
        held.remove(0);
        assert!(places.take(Some(&quiet)).is_none(), "it has its half");
        assert!(places.take(Some(&loud)).is_some() && places.take(None).is_some());
        drop(held);
        assert!(places.taken.lock().is_empty(), "nobody is remembered");
    }
}
