//! Whether this replica does its work: which of its containers are served, and what keeps the others.
//!
//! A replica is not ready until it has seen a placement and served everything that is assigned to it once. From then on
//! containers come and go, and one that is on its way is no reason: only what is not served for long, or has no room for
//! its log, which no waiting heals. Nobody waits for this to decide a placement, so that no start waits for itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use host::Host;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use types::ContainerId;

/// The condition under which it stands that the log of a container has no room.
pub const LOG_SPACE: &str = "log_space";
/// The condition under which it stands that containers are not served.
pub const CONTAINERS: &str = "containers";

/// How long a container may be on its way: an election in JetStream takes 10 s, a recovery as long.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether a container is on its way for too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Containers that a reason names.
const NAMED_MAX: usize = 8;

/// What keeps containers from being served; pure.
#[derive(Debug, Default)]
struct Progress {
    /// The containers of this replica that are not served, since when, and the reason if it will not pass.
    waiting: BTreeMap<ContainerId, (Instant, Option<String>)>,
    /// Those that are.
    served: BTreeSet<ContainerId>,
    /// A placement was seen.
    is_placed: bool,
    /// Everything assigned was served at the same time once.
    is_settled: bool,
}

impl Progress {
    /// These containers are this replica's now, and no others.
    fn assigned(&mut self, containers: impl IntoIterator<Item = ContainerId>, now: Instant) {
        let (waiting, served) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.served));
        for container in containers {
            if served.contains(&container) {
                self.served.insert(container);
            } else {
                let known = waiting.get(&container).cloned();
                self.waiting.insert(container, known.unwrap_or((now, None)));
            }
        }
        self.settle();
    }

    /// Some container is somebody's: one of an installation in which none is yet would find everything served.
    fn placed(&mut self) {
        self.is_placed = true;
        self.settle();
    }

    fn served(&mut self, container: ContainerId) {
        // One that was taken away meanwhile is not waited for.
        if self.waiting.remove(&container).is_some() {
            self.served.insert(container);
        }
        self.settle();
    }

    fn ended(&mut self, container: ContainerId, now: Instant) {
        if self.served.remove(&container) {
            self.waiting.insert(container, (now, None));
        }
    }

    fn no_room(&mut self, container: ContainerId, why: Option<String>) {
        if let Some((_, reason)) = self.waiting.get_mut(&container) {
            *reason = why;
        }
    }

    fn settle(&mut self) {
        self.is_settled |= self.is_placed && self.waiting.is_empty();
    }

    /// Why there is no room for a log, of the first container that says so.
    fn log_space(&self) -> Option<String> {
        let stuck: Vec<_> = self.waiting.iter().filter_map(|(c, (_, why))| Some((*c, why.as_deref()?))).collect();
        let (first, why) = stuck.first()?;
        let others = stuck.len() - 1;
        let more = if others > 0 { format!(", and {others} more") } else { String::new() };
        Some(format!("the log of container {first}{more} cannot be made: {why}"))
    }

    /// Which containers are not served and should be.
    fn containers(&self, now: Instant) -> Option<String> {
        if !self.is_placed {
            return Some("the coordinator has not placed containers yet".to_owned());
        }
        let late = |since: Instant| !self.is_settled || now.saturating_duration_since(since) >= ON_ITS_WAY_MAX;
        let late: Vec<_> = self.waiting.iter().filter(|(_, (since, _))| late(*since)).map(|(c, _)| c).collect();
        if late.is_empty() {
            return None;
        }
        let names: Vec<_> = late.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = if late.len() > NAMED_MAX { ", …" } else { "" };
        let all = self.waiting.len() + self.served.len();
        Some(format!("{} of {all} containers are not served: {}{more}", late.len(), names.join(", ")))
    }
}

/// The progress of this replica, shown by its probes; cheap to clone.
#[derive(Clone)]
pub(crate) struct Readiness {
    host: Host,
    progress: Arc<Mutex<Progress>>,
}

impl Readiness {
    /// Nothing is placed yet, and the probes say so.
    pub(crate) fn new(host: &Host) -> Self {
        let readiness = Self { host: host.clone(), progress: Arc::default() };
        readiness.change(|_| {});
        readiness
    }

    /// These containers are this replica's now; `is_placed` says whether any is anybody's.
    pub(crate) fn assigned(&self, containers: impl IntoIterator<Item = ContainerId>, is_placed: bool) {
        self.change(|progress| {
            progress.assigned(containers, Instant::now());
            if is_placed {
                progress.placed();
            }
        });
    }

    pub(crate) fn served(&self, container: ContainerId) {
        self.change(|progress| progress.served(container));
    }

    pub(crate) fn ended(&self, container: ContainerId) {
        self.change(|progress| progress.ended(container, Instant::now()));
    }

    /// Sets or clears why a container has no room for its log.
    pub(crate) fn no_room(&self, container: ContainerId, why: Option<String>) {
        self.change(|progress| progress.no_room(container, why));
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.lock();
        change(&mut progress);
        // Under the lock, so that an older look never overwrites a newer one.
        self.host.condition(LOG_SPACE, progress.log_space());
        self.host.condition(CONTAINERS, progress.containers(Instant::now()));
    }

    /// Looks again and again, for time alone makes a container late.
    pub(crate) async fn watch(self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.change(|_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ContainerId = ContainerId(1);
    const B: ContainerId = ContainerId(2);

    fn placed() -> Progress {
        Progress { is_placed: true, ..Progress::default() }
    }

    fn says(progress: &Progress, now: Instant) -> [Option<String>; 2] {
        [progress.containers(now), progress.log_space()]
    }

    #[test]
    fn a_start_waits_for_everything_once() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        assert!(progress.containers(now).is_some_and(|why| why.contains("not placed")));
        progress.assigned([], now);
        assert!(progress.containers(now).is_some(), "where nothing is placed at all, something is still to come");
        progress.assigned([A, B], now);
        progress.placed();
        progress.served(A);
        assert_eq!(says(&progress, now), [Some("1 of 2 containers are not served: 2".into()), None]);
        progress.served(B);
        assert_eq!(says(&progress, now), [None, None]);
    }

    #[test]
    fn a_replica_to_which_nothing_is_assigned_is_ready() {
        let (mut progress, now) = (placed(), Instant::now());
        progress.assigned([], now);
        assert_eq!(says(&progress, now), [None, None]);
    }

    #[test]
    fn a_move_is_no_reason_unless_it_lasts() {
        let (mut progress, now) = (placed(), Instant::now());
        progress.assigned([A], now);
        progress.served(A);
        progress.assigned([A, B], now);
        let late = now + ON_ITS_WAY_MAX;
        assert_eq!(says(&progress, late - Duration::from_millis(1)), [None, None]);
        progress.assigned([A, B], late);
        assert!(progress.containers(late).is_some_and(|why| why.contains("1 of 2")), "a new placement is no new start");
        progress.ended(A, late);
        progress.served(B);
        assert_eq!(says(&progress, late), [None, None], "A has its own time");
        progress.assigned([B], late);
        assert_eq!(says(&progress, late + ON_ITS_WAY_MAX), [None, None], "what is another's is not waited for");
    }

    #[test]
    fn a_log_without_room_is_said_at_once() {
        let (mut progress, now) = (placed(), Instant::now());
        progress.assigned([A], now);
        progress.served(A);
        progress.assigned([A, B], now);
        progress.no_room(B, Some("no room".into()));
        progress.no_room(A, Some("it has its log".into()));
        let [containers, log_space] = says(&progress, now);
        assert_eq!(containers, None);
        assert_eq!(log_space.as_deref(), Some("the log of container 2 cannot be made: no room"));
        progress.no_room(B, None);
        assert_eq!(says(&progress, now), [None, None]);
    }
}
