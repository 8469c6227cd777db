//! Which channels have an end in this process.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use types::JobId;

use crate::{ChannelId, Error, inbox::Inbox, outbox::Outbox};

/// The most channels that peers opened and nobody here has asked for yet; further openings are refused.
pub const PARKED_MAX: usize = 4_096;

/// The most channel ends in one process; a job of 256 x 256 subtasks on one worker fits.
const ENDS_MAX: usize = 131_072;

#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Ends>);

#[derive(Debug, Default)]
struct Ends {
    claimed: HashMap<ChannelId, Arc<Inbox>>,
    parked: HashMap<ChannelId, Arc<Inbox>>,
    outboxes: HashMap<ChannelId, Arc<Outbox>>,
}

impl Registry {
    /// The receiving end for a sender that opens; parked until someone asks for it.
    pub(crate) fn open(&self, id: &ChannelId) -> Result<Arc<Inbox>, Error> {
        let mut ends = self.0.lock();
        if let Some(inbox) = ends.claimed.get(id) {
            return Ok(Arc::clone(inbox));
        }
        // A parked channel whose connection broke makes room for the sender's next try.
        if let Some(inbox) = ends.parked.get(id).filter(|inbox| inbox.failure().is_none()) {
            return Ok(Arc::clone(inbox));
        }
        if ends.parked.len() >= PARKED_MAX {
            return Err(Error::TooMany { what: "channels wait for a receiver", limit: PARKED_MAX });
        }
        let inbox = Inbox::new(id.clone());
        ends.parked.insert(id.clone(), Arc::clone(&inbox));
        Ok(inbox)
    }

    /// The receiving end for its reader.
    pub(crate) fn claim(&self, id: &ChannelId) -> Result<Arc<Inbox>, Error> {
        let inbox = {
            let mut ends = self.0.lock();
            if ends.claimed.contains_key(id) {
                return Err(Error::AlreadyOpen { channel: id.clone() });
            }
            if ends.claimed.len() >= ENDS_MAX {
                return Err(Error::TooMany { what: "receivers are open", limit: ENDS_MAX });
            }
            let inbox = ends.parked.remove(id).unwrap_or_else(|| Inbox::new(id.clone()));
            ends.claimed.insert(id.clone(), Arc::clone(&inbox));
            inbox
        };
        inbox.claim();
        Ok(inbox)
    }

    /// Remembers a sending end, so that closing its job reaches it.
    pub(crate) fn add_outbox(&self, id: &ChannelId, outbox: &Arc<Outbox>) -> Result<(), Error> {
        let mut ends = self.0.lock();
        if ends.outboxes.contains_key(id) {
            return Err(Error::AlreadyOpen { channel: id.clone() });
        }
        if ends.outboxes.len() >= ENDS_MAX {
            return Err(Error::TooMany { what: "senders are open", limit: ENDS_MAX });
        }
        ends.outboxes.insert(id.clone(), Arc::clone(outbox));
        Ok(())
    }

    pub(crate) fn drop_outbox(&self, id: &ChannelId, outbox: &Arc<Outbox>) {
        let mut ends = self.0.lock();
        if ends.outboxes.get(id).is_some_and(|known| Arc::ptr_eq(known, outbox)) {
            ends.outboxes.remove(id);
        }
    }

    pub(crate) fn drop_inbox(&self, inbox: &Arc<Inbox>) {
        let mut ends = self.0.lock();
        if ends.claimed.get(&inbox.id).is_some_and(|known| Arc::ptr_eq(known, inbox)) {
            ends.claimed.remove(&inbox.id);
        }
    }

    /// Refuses the channels that nobody asked for in that time.
    pub(crate) fn sweep(&self, parked_for: Duration) {
        let old: Vec<Arc<Inbox>> = {
            let mut ends = self.0.lock();
            ends.parked.extract_if(|_, inbox| inbox.age() >= parked_for).map(|(_, inbox)| inbox).collect()
        };
        for inbox in old {
            let reason = format!("nobody asked for the channel within {} s", parked_for.as_secs_f32());
            inbox.abandon(Error::Peer { channel: inbox.id.clone(), reason });
        }
    }

    /// Closes every channel end for which that holds.
    pub(crate) fn close(&self, wanted: impl Fn(&ChannelId) -> bool) {
        let (inboxes, outboxes) = {
            let mut ends = self.0.lock();
            let mut inboxes: Vec<Arc<Inbox>> = ends.claimed.extract_if(|id, _| wanted(id)).map(|(_, i)| i).collect();
            inboxes.extend(ends.parked.extract_if(|id, _| wanted(id)).map(|(_, i)| i));
            let outboxes: Vec<(ChannelId, Arc<Outbox>)> = ends.outboxes.extract_if(|id, _| wanted(id)).collect();
            (inboxes, outboxes)
        };
        for inbox in inboxes {
            inbox.abandon(Error::Closed { channel: inbox.id.clone() });
        }
        for (channel, outbox) in outboxes {
            outbox.fail(Error::Closed { channel });
        }
    }

    pub(crate) fn close_job(&self, job: &JobId, attempt: u32) {
        self.close(|id| id.job == *job && id.attempt == attempt);
    }

    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        let ends = self.0.lock();
        (ends.claimed.len(), ends.parked.len(), ends.outboxes.len())
    }
}
