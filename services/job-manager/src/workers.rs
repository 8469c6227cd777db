//! The task workers as the leader sees them: who is there, and who is said to be there and does not answer.
//!
//! A member's entry outlives a killed process by its lease. So the workers are asked besides: a subject that nobody serves is told by
//! the broker at once. Whoever does not answer is left out until it answers again or is another process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bus::{Bucket, Bus};
use parking_lot::Mutex;
use tokio::time::{self, Instant};
use tracing::{info, warn};
use types::{ReplicaId, Timestamp};
use wire::{
    Problem, Service,
    task_worker::{AttemptName, CancelTasks},
    views::Member,
};

/// How often members are listed and asked.
const ROUND: Duration = Duration::from_millis(200);
/// How long an answer is waited for; within it a call for which nobody is there is repeated.
const ASK_WITHIN: Duration = Duration::from_millis(300);
/// After a round in which nobody at all answered it is the bus that was gone, and workers find back to it one after the other: for this
/// long only leases count.
const QUIET: Duration = Duration::from_secs(3);
/// The job by whose name workers are asked. Even if there is one: what would be ended is older than its first submission.
const NOBODY: &str = "ping";

/// A worker of an attempt, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is the process that was meant, or nothing is known against it.
    Here,
    /// Its entry among the members is gone.
    Gone,
    /// Another process has its name.
    Restarted,
    /// Nobody answers for it.
    Silent,
}

/// The task workers, for everybody who places or watches tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workers(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// Nothing before the first look.
    members: Option<BTreeMap<ReplicaId, Member>>,
    /// Processes for which nobody answers, by their start.
    silent: BTreeMap<ReplicaId, Timestamp>,
    /// Processes that owe an answer; they are taken only where others do not suffice.
    slow: BTreeSet<ReplicaId>,
}

/// What a worker said when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Here,
    Nobody,
    Late,
}

impl Seen {
    fn presence(&self, worker: &ReplicaId, started: Timestamp) -> Presence {
        let Some(members) = &self.members else { return Presence::Here };
        match members.get(worker) {
            None => Presence::Gone,
            Some(member) if member.started != started => Presence::Restarted,
            Some(_) if self.silent.get(worker) == Some(&started) => Presence::Silent,
            Some(_) => Presence::Here,
        }
    }

    /// Takes the answers of a round; returns who has fallen silent. One who does not answer is judged only if another one does.
    fn judge(&mut self, answers: &[(ReplicaId, Timestamp, Answer)], quiet: bool) -> Vec<ReplicaId> {
        let mut fallen = Vec::new();
        let anybody = answers.iter().any(|(_, _, answer)| *answer == Answer::Here);
        for (worker, started, answer) in answers {
            match answer {
                Answer::Here => {
                    self.silent.remove(worker);
                    self.slow.remove(worker);
                }
                Answer::Late => drop(self.slow.insert(worker.clone())),
                Answer::Nobody if anybody && !quiet => {
                    if self.silent.insert(worker.clone(), *started) != Some(*started) {
                        fallen.push(worker.clone());
                    }
                }
                Answer::Nobody => {}
            }
        }
        let members = &self.members;
        let is_member = |worker: &ReplicaId| members.as_ref().is_none_or(|m| m.contains_key(worker));
        self.silent.retain(|worker, _| is_member(worker));
        self.slow.retain(is_member);
        fallen
    }
}

impl Workers {
    /// The workers that can be given tasks, and those of them that owe an answer; nothing before the first look.
    pub(crate) fn usable(&self) -> Option<(BTreeMap<ReplicaId, Member>, BTreeSet<ReplicaId>)> {
        let seen = self.0.lock();
        let members = seen.members.as_ref()?;
        let usable = members.iter().filter(|(worker, m)| seen.silent.get(*worker) != Some(&m.started));
        Some((usable.map(|(worker, m)| (worker.clone(), m.clone())).collect(), seen.slow.clone()))
    }

    /// The first of some workers that is not the process that was meant, and how it is.
    pub(crate) fn missing(&self, meant: &BTreeMap<ReplicaId, Timestamp>) -> Option<(ReplicaId, Presence)> {
        let seen = self.0.lock();
        let mut all = meant.iter().map(|(worker, started)| (worker, seen.presence(worker, *started)));
        all.find(|(_, presence)| *presence != Presence::Here).map(|(worker, presence)| (worker.clone(), presence))
    }

    /// Takes what a call to a worker told of it. A refusal is an answer too.
    pub(crate) fn told(&self, worker: &ReplicaId, problem: &Problem) {
        let mut seen = self.0.lock();
        let Some(started) = seen.members.as_ref().and_then(|m| m.get(worker)).map(|m| m.started) else { return };
        match answer_of(problem) {
            Answer::Nobody => drop(seen.silent.insert(worker.clone(), started)),
            Answer::Late => drop(seen.slow.insert(worker.clone())),
            Answer::Here => {}
        }
    }

    /// Takes that a worker has not answered so far.
    pub(crate) fn owes_an_answer(&self, worker: &ReplicaId) {
        self.0.lock().slow.insert(worker.clone());
    }

    /// Looks at the workers until it is dropped.
    pub(crate) async fn watch(self, bus: Bus, members: Bucket) {
        let mut quiet_until = Instant::now();
        let mut rounds = time::interval(ROUND);
        rounds.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let listed = match members.list(&format!("{}.", Service::TaskWorker)).await {
                Ok(listed) => listed,
                Err(error) => {
                    info!(%error, "task workers not listed");
                    quiet_until = Instant::now() + QUIET;
                    continue;
                }
            };
            let listed = listed.iter().filter_map(|(_, entry)| wire::decode::<Member>(&entry.value).ok());
            let listed: BTreeMap<ReplicaId, Member> = listed.map(|m| (m.replica.clone(), m)).collect();
            let asked: Vec<(ReplicaId, Timestamp)> = listed.values().map(|m| (m.replica.clone(), m.started)).collect();
            self.0.lock().members = Some(listed);
            let asking = asked.into_iter().map(|(worker, started)| {
                let bus = &bus;
                async move {
                    let answer = ask(bus, &worker).await;
                    (worker, started, answer)
                }
            });
            let answers = futures::future::join_all(asking).await;
            if !answers.iter().any(|(_, _, answer)| *answer == Answer::Here) {
                quiet_until = Instant::now() + QUIET;
            }
            for worker in self.0.lock().judge(&answers, Instant::now() < quiet_until) {
                warn!(%worker, "nobody answers for a task worker; it gets no tasks until somebody does");
            }
        }
    }
}

async fn ask(bus: &Bus, worker: &ReplicaId) -> Answer {
    let Ok(job) = NOBODY.parse() else { return Answer::Here };
    let nothing = AttemptName { job, attempt: 0, submission: 0 };
    match bus.call_within::<CancelTasks>(worker, &nothing, ASK_WITHIN).await {
        Ok(_) => Answer::Here,
        Err(problem) => answer_of(&problem),
    }
}

fn answer_of(problem: &Problem) -> Answer {
    match (problem.code, problem.kind.as_str()) {
        (_, "NoResponders") => Answer::Nobody,
        (wire::Code::Unavailable | wire::Code::Deadline, _) => Answer::Late,
        _ => Answer::Here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> ReplicaId {
        name.parse().unwrap()
    }

    fn seen(started: &[(&str, i64)]) -> Seen {
        let member = |(name, started): &(&str, i64)| Member {
            service: Service::TaskWorker,
            replica: worker(name),
            started: Timestamp::from_millis(*started),
            exchange_address: None,
            slots: 2,
            unready: <_>::default(),
        };
        let members = started.iter().map(|one| (worker(one.0), member(one))).collect();
        Seen { members: Some(members), ..Seen::default() }
    }

    #[test]
    fn a_worker_is_silent_until_it_answers_or_is_another_process() {
        let mut s = seen(&[("a", 1), ("b", 1)]);
        let at = Timestamp::from_millis;
        let round = |b: Answer| [(worker("a"), at(1), Answer::Here), (worker("b"), at(1), b)];
        assert_eq!(s.judge(&round(Answer::Nobody), false), [worker("b")]);
        assert!(s.judge(&round(Answer::Nobody), false).is_empty(), "it is told once");
        assert_eq!(s.presence(&worker("b"), at(1)), Presence::Silent);
        s.members = seen(&[("a", 1), ("b", 7)]).members;
        assert_eq!(s.presence(&worker("b"), at(1)), Presence::Restarted);
        assert_eq!(s.presence(&worker("b"), at(7)), Presence::Here, "another process is not the silent one");
        s.members = seen(&[("a", 1), ("b", 1)]).members;
        s.judge(&round(Answer::Here), false);
        assert_eq!(s.presence(&worker("b"), at(1)), Presence::Here);
        s.members = seen(&[("a", 1)]).members;
        assert_eq!(s.presence(&worker("b"), at(1)), Presence::Gone);
    }

    #[test]
    fn nobody_is_judged_while_the_bus_is_gone() {
        let mut s = seen(&[("a", 1), ("b", 1)]);
        let none = [
            (worker("a"), Timestamp::from_millis(1), Answer::Nobody),
            (worker("b"), Timestamp::from_millis(1), Answer::Nobody),
        ];
        assert!(s.judge(&none, false).is_empty(), "if nobody answers it is not the workers");
        let one = [(worker("a"), Timestamp::from_millis(1), Answer::Here), none[1].clone()];
        assert!(s.judge(&one, true).is_empty(), "they find back one after the other");
        assert_eq!(s.judge(&one, false), [worker("b")]);
    }

    #[test]
    fn who_is_only_late_is_not_given_up() {
        let mut s = seen(&[("a", 1), ("b", 1)]);
        let at = Timestamp::from_millis(1);
        s.judge(&[(worker("a"), at, Answer::Here), (worker("b"), at, Answer::Late)], false);
        assert_eq!(s.presence(&worker("b"), at), Presence::Here);
        assert!(s.slow.contains(&worker("b")));
    }
}
