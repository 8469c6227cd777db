//! Credentials on their way from the call that issued them to the request that waits for them.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use types::BindingId;
use wire::index_provisioner::Credentials;

/// What was issued, by binding: under which operation, once it is there.
type Waited = BTreeMap<BindingId, Option<(String, Credentials)>>;

/// In memory only, and only as long as somebody waits; clones share it. Whoever finds nothing here asks the provisioner, which answers
/// the same: a leader that was lost on the way, a second request for the same binding.
///
/// Bounds: one entry for each bind request that is being answered.
#[derive(Clone, Default)]
pub(crate) struct Handover(Arc<Mutex<Waited>>);

/// The place where a request waits; it is gone when this is dropped.
pub(crate) struct Awaited {
    handover: Handover,
    id: BindingId,
}

impl Handover {
    /// Waits for the credentials of a binding that may be about to be issued; `None` if another request does.
    pub(crate) fn wait_for(&self, id: &BindingId) -> Option<Awaited> {
        let mut waited = self.0.lock();
        if waited.contains_key(id) {
            return None;
        }
        waited.insert(id.clone(), None);
        Some(Awaited { handover: self.clone(), id: id.clone() })
    }

    /// Hands over what an operation has issued; without anybody who waits it is dropped.
    pub(crate) fn give(&self, id: &BindingId, token: &str, credentials: Credentials) {
        if let Some(place) = self.0.lock().get_mut(id) {
            *place = Some((token.to_owned(), credentials));
        }
    }
}

impl Awaited {
    /// What was issued by an operation, if it was issued here.
    pub(crate) fn take(self, token: &str) -> Option<Credentials> {
        let given = self.handover.0.lock().get_mut(&self.id).and_then(Option::take)?;
        (given.0 == token).then_some(given.1)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.handover.0.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_reach_the_one_who_waits_and_stay_nowhere() {
        let (handover, id) = (Handover::default(), "b".parse::<BindingId>().unwrap());
        let issued = Credentials { values: [("token".to_owned(), "t".to_owned())].into() };
        handover.give(&id, "bind-1", issued.clone());
        assert!(handover.0.lock().is_empty(), "nobody waits");
        let awaited = handover.wait_for(&id).unwrap();
        assert!(handover.wait_for(&id).is_none(), "somebody waits already");
        handover.give(&id, "bind-1", issued.clone());
        assert_eq!(awaited.take("bind-1"), Some(issued.clone()));
        assert!(handover.0.lock().is_empty());
        // Of another operation, or not issued at all.
        let awaited = handover.wait_for(&id).unwrap();
        handover.give(&id, "bind-1", issued.clone());
        assert_eq!(awaited.take("bind-2"), None);
        assert_eq!(handover.wait_for(&id).unwrap().take("bind-3"), None);
        let awaited = handover.wait_for(&id).unwrap();
        handover.give(&id, "bind-4", issued);
        drop(awaited);
        assert!(handover.0.lock().is_empty(), "a request that ended takes them along");
    }
}
