//! What a leading alerter does besides answering: it delivers the outbox and keeps the rules' jobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use actix::Addr;
use bus::Doors;
use host::{Host, Ledger};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use wire::{
    Problem, Service,
    alerter::{DeleteRule, ListRules, ObserveRows, PutRule},
};

use crate::{
    actor::Desk,
    config::Config,
    jobs::Jobs,
    metrics::{DELIVERED, GIVEN_UP, RULES, UNDELIVERED},
    notify::Notifier,
    state::{Command, Notification, State},
};

/// How often the jobs of rules are looked after.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts on their way at once.
const ATTEMPTS_AT_ONCE_MAX: usize = 64;
/// The longest pause between two attempts for one notification; the first is 200 ms and each doubles.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Everything that leading needs.
#[derive(Clone)]
pub(crate) struct Leader {
    pub(crate) host: Host,
    pub(crate) config: Config,
    pub(crate) ledger: Ledger<State>,
    pub(crate) jobs: Jobs,
    pub(crate) notifier: Notifier,
    pub(crate) desk: Addr<Desk>,
}

impl Leader {
    /// Leads until the token is cancelled.
    pub(crate) async fn lead(self, token: CancellationToken) {
        host::keep_serving(token, Service::Alerter, || self.serve()).await;
    }

    async fn serve(&self) -> Result<(), Problem> {
        let doors = Doors::new(&self.host.bus, Service::Alerter, &self.host.replica);
        let open = [
            doors.open::<PutRule>(None, self.desk.clone().recipient()).await?,
            doors.open::<DeleteRule>(None, self.desk.clone().recipient()).await?,
            doors.open::<ListRules>(None, self.desk.clone().recipient()).await?,
            doors.open::<ObserveRows>(None, self.desk.clone().recipient()).await?,
        ];
        tracing::info!("alerter leads");
        tokio::join!(self.look_after_jobs(), Outbox::new(self).deliver());
        drop(open);
        Ok(())
    }

    async fn look_after_jobs(&self) {
        loop {
            RULES.set(self.ledger.read(|state| state.rules.len()));
            self.jobs.settle_all().await;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// The outbox on its way out. Transitions of one rule to one receiver go in order: the next waits for the one before.
struct Outbox<'a> {
    leader: &'a Leader,
    running: JoinSet<(u64, Result<(), Problem>)>,
    busy: BTreeSet<String>,
    lanes: BTreeMap<u64, String>,
    tries: BTreeMap<u64, (u32, Instant)>,
}

/// Which notifications must keep their order.
fn lane(notification: &Notification) -> String {
    format!("{}/{:?}", notification.rule, notification.target)
}

impl<'a> Outbox<'a> {
    fn new(leader: &'a Leader) -> Self {
        Self { leader, running: JoinSet::new(), busy: BTreeSet::new(), lanes: BTreeMap::new(), tries: BTreeMap::new() }
    }

    /// Delivers for ever.
    async fn deliver(mut self) {
        let mut changes = self.leader.ledger.changes();
        loop {
            let next = self.start();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                Some(ended) = self.running.join_next() => if let Ok((number, result)) = ended {
                    self.ended(number, result).await;
                },
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Starts what may start now and says when to look again.
    fn start(&mut self) -> Instant {
        #[allow(clippy::disallowed_methods, reason = "pauses between attempts are counted in monotonic time")]
        let now = Instant::now();
        let mut next = now + LOOK_INTERVAL;
        let mut held = BTreeSet::new();
        let outbox = self.leader.ledger.read(|state| {
            UNDELIVERED.set(state.outbox.len());
            state.outbox.iter().take(4_096).map(|(n, x)| (*n, x.clone())).collect::<Vec<_>>()
        });
        for (number, notification) in outbox {
            let lane = lane(&notification);
            if self.busy.contains(&lane) || !held.insert(lane.clone()) {
                continue;
            }
            let due = self.tries.get(&number).map_or(now, |(_, due)| *due);
            if due > now {
                next = next.min(due);
                continue;
            }
            if self.running.len() >= ATTEMPTS_AT_ONCE_MAX {
                break;
            }
            self.busy.insert(lane.clone());
            self.lanes.insert(number, lane);
            let notifier = self.leader.notifier.clone();
            self.running.spawn(async move { (number, notifier.attempt(&notification).await) });
        }
        next
    }

    async fn ended(&mut self, number: u64, result: Result<(), Problem>) {
        let settled = match result {
            Ok(()) => {
                DELIVERED.inc();
                true
            }
            Err(problem) => self.failed(number, &problem),
        };
        if settled {
            self.tries.remove(&number);
            if let Err(problem) = self.leader.ledger.submit(Command::Settle(number)).await {
                warn!(number, %problem, "delivered notification not recorded; it is sent again with the same id");
            }
        }
        if let Some(lane) = self.lanes.remove(&number) {
            self.busy.remove(&lane);
        }
    }

    /// Plans the next attempt; true if there is none.
    fn failed(&mut self, number: u64, problem: &Problem) -> bool {
        let tried = self.tries.get(&number).map_or(0, |(n, _)| *n) + 1;
        if !problem.is_transient() || tried >= self.leader.config.webhook_attempts_max {
            error!(number, %problem, tried, "notification given up");
            GIVEN_UP.inc();
            return true;
        }
        let pause = Duration::from_millis(200).saturating_mul(1 << tried.min(12)).min(PAUSE_MAX);
        #[allow(clippy::disallowed_methods, reason = "pauses between attempts are counted in monotonic time")]
        let due = Instant::now() + pause;
        warn!(number, %problem, tried, "notification not delivered yet");
        self.tries.insert(number, (tried, due));
        false
    }
}
