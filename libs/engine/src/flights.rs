//! Requests that are under way, shared by all who wait for the same.

use std::{collections::HashMap, hash::Hash};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use wire::Problem;

/// Requests of which the one or other may have been given up; beyond so many those are forgotten.
const FLIGHTS_MAX: usize = 1_024;

/// A request; it goes on while somebody waits for it, whoever began it.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, Result<T, Problem>>>;

/// Requests by what they are for.
pub(crate) struct Flights<K, T>(HashMap<K, WeakShared<BoxFuture<'static, Result<T, Problem>>>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone, T: Clone> Flights<K, T> {
    /// The request for this, where somebody waits for it.
    pub(crate) fn get(&self, key: &K) -> Option<Flight<T>> {
        self.0.get(key)?.upgrade()
    }

    /// The same, else the one that begins now.
    pub(crate) fn join(
        &mut self,
        key: &K,
        begin: impl FnOnce() -> BoxFuture<'static, Result<T, Problem>>,
    ) -> Flight<T> {
        if let Some(flight) = self.get(key) {
            return flight;
        }
        if self.0.len() >= FLIGHTS_MAX {
            self.0.retain(|_, flight| flight.upgrade().is_some());
        }
        let flight = begin().shared();
        self.0.extend(flight.downgrade().map(|weak| (key.clone(), weak)));
        flight
    }

    /// Forgets one that has ended.
    pub(crate) fn end(&mut self, key: &K) {
        self.0.remove(key);
    }
}
