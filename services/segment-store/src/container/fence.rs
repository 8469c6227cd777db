//! Refuses what a coordinator has sent that was deposed meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use types::Generation;
use wire::{Code, Problem};

/// The newest leader of the coordinator that the owner of a container has heard of.
///
/// It is kept in memory. The next owner begins without it: what was sent before a change of owners and arrives behind it is past its
/// deadline by then, or finds the deletion that it contradicts among those that the container remembers.
#[derive(Debug, Default)]
pub(crate) struct Fence(AtomicU64);

impl Fence {
    /// Lets a call pass unless its leader was deposed; one that names no leader comes from elsewhere and passes.
    ///
    /// Errors: `Deposed`, not applied.
    pub(crate) fn admit(&self, leader: Option<Generation>) -> Result<(), Problem> {
        let Some(leader) = leader else { return Ok(()) };
        let newest = Generation(self.0.fetch_max(leader.0, Ordering::Relaxed));
        if leader >= newest {
            return Ok(());
        }
        let message =
            format_args!("leader {leader} of the coordinator sent this, and leader {newest} was heard of since");
        Err(Problem::new(Code::Fenced, "Deposed", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_deposed_is_heard_no_more() {
        let fence = Fence::default();
        for (leader, passes) in [
            (None, true),
            (Some(2), true),
            (Some(2), true),
            (Some(1), false),
            (Some(3), true),
            (Some(2), false),
            (None, true),
        ] {
            assert_eq!(fence.admit(leader.map(Generation)).is_ok(), passes, "{leader:?}");
        }
    }
}
