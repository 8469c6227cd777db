//! What a panic does to the process.

use std::{backtrace::Backtrace, panic};

/// Panics raised inside of this crate do not end the process: its guard in `store` catches them and rebuilds the local state.
const GUARDED: &str = "/sled-";

/// Makes every panic log itself and abort the process.
///
/// A panic ends one actor or task and nothing else; its callers would wait on a process that is half dead. Kubernetes restarts an
/// aborted one and the journal restores it.
pub fn abort_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("no message");
        if guarded(&place) {
            tracing::warn!(place, panic = message, "local store panicked");
            return;
        }
        let backtrace = Backtrace::force_capture();
        tracing::error!(place, panic = message, %backtrace, "process aborts after a panic");
        before(info);
        std::process::abort();
    }));
}

fn guarded(place: &str) -> bool {
    place.contains(GUARDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guarded_crate_may_panic() {
        assert!(guarded("registry/src/index/sled-0.34.7/src/pagecache/mod.rs:12:3"));
        assert!(!guarded("libs/store/src/sled_guard.rs:12:3"));
    }
}
