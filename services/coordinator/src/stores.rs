//! What a leader sends to segment-store, marked with whose it is.
//!
//! A call that a leader has sent may arrive after it was deposed, and after the next leader has decided otherwise: the creation of a
//! segment after its deletion, say. So every leader has a generation from the journal, every call carries it, and a store that has
//! heard of a later one refuses it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bus::Bus;
use types::{ContainerId, Generation};
use wire::{Call, Problem};

/// The way to segment-store; clones share the generation of this replica's leadership.
#[derive(Clone)]
pub(crate) struct Stores {
    bus: Bus,
    generation: Arc<AtomicU64>,
}

/// The same during one piece of work: what was begun under one leadership is not sent under a later one of the same replica.
#[derive(Clone)]
pub(crate) struct Led {
    bus: Bus,
    generation: Generation,
}

impl Stores {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus, generation: Arc::default() }
    }

    /// Takes note of the generation that the journal gave to this leadership.
    pub(crate) fn lead(&self, generation: Generation) {
        self.generation.fetch_max(generation.0, Ordering::Relaxed);
    }

    /// To be asked before the state is looked at from which the work follows.
    pub(crate) fn led(&self) -> Led {
        Led { bus: self.bus.clone(), generation: Generation(self.generation.load(Ordering::Relaxed)) }
    }
}

impl Led {
    /// Calls the owner of a container. Errors: also `Deposed`, not applied.
    pub(crate) async fn call<C>(&self, container: ContainerId, request: &C::Request) -> Result<C::Reply, Problem>
    where
        C: Call<Key = ContainerId>,
    {
        bus::as_leader(self.generation, self.bus.call::<C>(&container, request)).await
    }
}
