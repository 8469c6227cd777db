//! In which ways the account fails, and what it counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicU64,
    time::Duration,
};

use parking_lot::Mutex;

/// In which ways an account fails; all of it is off by default. Actions are named as permissions are, for example `iam:CreateUser`.
#[derive(Debug, Clone, Default)]
pub struct S3Faults {
    /// Of so many requests one is answered with 503; 0 is none.
    pub busy_every: u64,
    /// These actions are carried out, and the connection closed without an answer.
    pub silent: BTreeSet<&'static str>,
    /// These actions are refused with this status, code and text.
    pub refuse: BTreeMap<&'static str, (u16, &'static str, &'static str)>,
    /// How long each request waits.
    pub delay: Duration,
    /// How far the account's clock is ahead.
    pub ahead: Duration,
    /// So many uses of a new key are refused, and so many of a deleted one are not.
    pub settle: u64,
    /// Entries of one page of a listing; 0 is 1 000.
    pub page: usize,
}

/// What the account counts.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicU64,
    pub(super) failed: AtomicU64,
    done: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    pub(super) fn count(&self, action: &str) {
        *self.done.lock().entry(action.to_owned()).or_default() += 1;
    }

    pub(super) fn done(&self, action: &str) -> u64 {
        self.done.lock().get(action).copied().unwrap_or(0)
    }
}
