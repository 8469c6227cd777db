//! What the alerter knows, and how it decides. Pure: no clock, no socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use serde::{Deserialize, Serialize};
use types::{IndexName, JobId, RuleId, Timestamp};
use wire::{
    Problem,
    alerter::{AlertState, Observation, ObservedRow, Rule, RuleDescription, RuleInstance, RuleList, RuleName, RulesOf},
};

use crate::{condition::Condition, error::Error};

/// Most rules of an installation at this stage; beyond it `PutRule` is refused.
pub const RULES_MAX: usize = 10_000;
/// Most label sets of one rule; beyond it the longest resolved one is forgotten, and without one the new set is ignored.
pub const INSTANCES_MAX: usize = 10_000;
/// Most undelivered notifications; beyond it the oldest are given up, which is logged and counted.
pub const OUTBOX_MAX: usize = 100_000;
/// Bytes of instances in the description of a rule; the others are counted. 256 KiB: with its text a rule always fits in a page.
const SHOWN_BYTES_MAX: usize = 256 << 10;

/// The labels of an instance; ordered, so that two equal sets are one.
pub(crate) type Labels = BTreeMap<String, String>;

/// Everything durable of the alerter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    pub(crate) rules: BTreeMap<RuleId, RuleState>,
    /// Jobs of replaced or deleted rules that are still to be cancelled.
    pub(crate) orphans: BTreeSet<JobId>,
    /// Notifications not yet delivered, by number.
    pub(crate) outbox: BTreeMap<u64, Notification>,
    next_notification: u64,
    next_revision: u64,
}

/// One rule and its instances.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleState {
    pub(crate) rule: Rule,
    pub(crate) job: JobId,
    /// Whether the job manager has taken the job.
    pub(crate) submitted: bool,
    pub(crate) created: Timestamp,
    instances: Vec<(Labels, Instance)>,
}

/// One label set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Instance {
    firing: bool,
    /// The subtask that tells of this label set.
    subtask: u32,
    since: Timestamp,
    value: f64,
    transition: u64,
    /// End of the last window in which the condition held.
    held_until: Timestamp,
    /// Length of that window.
    window_nanos: i64,
    /// Rows of windows that end at or before this were decided already: a replay of them changes nothing.
    decided_until: Timestamp,
}

/// Where a notification goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The subject `alerts.<index>.<rule>`.
    Subject,
    /// The rule's webhook.
    Webhook,
}

/// A transition on its way to one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    pub(crate) target: Target,
    pub(crate) webhook: Option<String>,
    pub(crate) rule: RuleId,
    pub(crate) index: IndexName,
    pub(crate) condition: String,
    pub(crate) summary: String,
    pub(crate) change: Change,
    pub(crate) decided_at: Timestamp,
}

/// A decided transition of one label set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub(crate) labels: Labels,
    pub(crate) state: AlertState,
    pub(crate) transition: u64,
    pub(crate) value: f64,
    pub(crate) window_start: Timestamp,
    pub(crate) window_end: Timestamp,
}

/// What the alerter can be asked to do.
#[derive(Debug)]
pub enum Command {
    /// Create or replace a rule.
    Put(Rule),
    /// Delete a rule.
    Delete(RuleName),
    /// The job manager took the rule's job.
    JobTaken(RuleId, JobId),
    /// A replaced job is gone.
    JobGone(JobId),
    /// A sink task told rows.
    Observe(Observation),
    /// A receiver took a notification, or never will.
    Settle(u64),
}

/// One durable step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A rule exists from now on.
    RulePut {
        /// The rule.
        rule: Rule,
        /// Its job.
        job: JobId,
    },
    /// A rule is gone.
    RuleDeleted {
        /// The rule.
        rule: RuleId,
    },
    /// The job manager took the rule's job.
    JobTaken {
        /// The rule.
        rule: RuleId,
    },
    /// A replaced job is gone.
    JobGone {
        /// The job.
        job: JobId,
    },
    /// A label set began or ceased to fire.
    Changed {
        /// The rule.
        rule: RuleId,
        /// The subtask that told it.
        subtask: u32,
        /// The transition.
        change: Change,
    },
    /// A firing label set fires on.
    Held {
        /// The rule.
        rule: RuleId,
        /// The label set.
        labels: Labels,
        /// End of the window in which it holds.
        until: Timestamp,
        /// The value.
        value: f64,
    },
    /// A notification needs no more attempts.
    Settled {
        /// Its number.
        notification: u64,
    },
}

impl host::ControlState for State {
    const SERVICE: wire::Service = wire::Service::Alerter;
    type Command = Command;
    type Event = Event;
    type Error = Error;

    fn decide(&self, command: Command, _now: Timestamp) -> Result<Vec<Event>, Error> {
        match command {
            Command::Put(rule) => self.put(rule),
            Command::Delete(RuleName { rule, index }) => match self.rules.get(&rule) {
                Some(known) if index.is_none_or(|index| index == known.rule.index) => {
                    Ok(vec![Event::RuleDeleted { rule }])
                }
                _ => Ok(Vec::new()),
            },
            Command::JobTaken(rule, job) => match self.rules.get(&rule) {
                Some(state) if state.job == job && !state.submitted => Ok(vec![Event::JobTaken { rule }]),
                _ => Ok(Vec::new()),
            },
            Command::JobGone(job) => match self.orphans.contains(&job) {
                true => Ok(vec![Event::JobGone { job }]),
                false => Ok(Vec::new()),
            },
            Command::Observe(observation) => self.observe(&observation),
            Command::Settle(notification) => match self.outbox.contains_key(&notification) {
                true => Ok(vec![Event::Settled { notification }]),
                false => Ok(Vec::new()),
            },
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::RulePut { rule, job } => {
                self.next_revision += 1;
                if let Some(old) = self.rules.remove(&rule.rule) {
                    self.orphans.insert(old.job);
                }
                let state = RuleState {
                    rule: rule.clone(),
                    job: job.clone(),
                    submitted: false,
                    created: at,
                    instances: Vec::new(),
                };
                self.rules.insert(rule.rule.clone(), state);
            }
            Event::RuleDeleted { rule } => {
                if let Some(old) = self.rules.remove(rule) {
                    self.orphans.insert(old.job);
                }
            }
            Event::JobTaken { rule } => {
                if let Some(state) = self.rules.get_mut(rule) {
                    state.submitted = true;
                }
            }
            Event::JobGone { job } => {
                self.orphans.remove(job);
            }
            Event::Changed { rule, subtask, change } => self.changed(rule, *subtask, change, at),
            Event::Held { rule, labels, until, value } => {
                if let Some(state) = self.rules.get_mut(rule) {
                    state.held(labels, *until, *value);
                }
            }
            Event::Settled { notification } => {
                self.outbox.remove(notification);
            }
        }
    }
}

impl State {
    fn put(&self, rule: Rule) -> Result<Vec<Event>, Error> {
        Condition::of(&rule)?;
        match self.rules.get(&rule.rule) {
            Some(known) if known.rule == rule => return Ok(Vec::new()),
            // Who may manage the one index need not be who made the rule on the other.
            Some(known) if known.rule.index != rule.index => return Err(Error::RuleTaken(rule.rule)),
            None if self.rules.len() >= RULES_MAX => return Err(Error::TooManyRules),
            _ => {}
        }
        let name = format!("rule-{}-{}", rule.rule, self.next_revision);
        let job = name.parse().map_err(|_| Error::NameTooLong(rule.rule.clone()))?;
        Ok(vec![Event::RulePut { rule, job }])
    }

    fn observe(&self, told: &Observation) -> Result<Vec<Event>, Error> {
        // A rule that was deleted while its job still runs: nothing to tell, and the job ends soon.
        let Some(state) = self.rules.get(&told.rule) else { return Ok(Vec::new()) };
        let condition = Condition::of(&state.rule)?;
        let mut draft = Draft { rule: &told.rule, subtask: told.subtask, state: state.clone(), events: Vec::new() };
        for row in &told.rows {
            let value = condition.value(row);
            draft.row(row, value.unwrap_or_default(), value.is_some_and(|value| condition.holds(value)));
        }
        draft.close(told.watermark);
        Ok(draft.events)
    }

    fn changed(&mut self, rule: &RuleId, subtask: u32, change: &Change, at: Timestamp) {
        let Some(state) = self.rules.get_mut(rule) else { return };
        state.changed(subtask, change);
        let targets = [Some(Target::Subject), state.rule.webhook.as_ref().map(|_| Target::Webhook)];
        for target in targets.into_iter().flatten() {
            let notification = Notification {
                target,
                webhook: state.rule.webhook.clone(),
                rule: rule.clone(),
                index: state.rule.index.clone(),
                condition: state.rule.condition.clone(),
                summary: state.rule.summary.clone(),
                change: change.clone(),
                decided_at: at,
            };
            self.outbox.insert(self.next_notification, notification);
            self.next_notification += 1;
        }
        while self.outbox.len() > OUTBOX_MAX {
            self.outbox.pop_first();
        }
    }

    /// A page of rules as people see them, by id.
    pub(crate) fn page(&self, wanted: &RulesOf) -> Result<RuleList, Problem> {
        let pending = self.pending();
        let after = wanted.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.rules.range::<RuleId, _>((after, Bound::Unbounded));
        let watches = |state: &RuleState| wanted.index.as_ref().is_none_or(|index| *index == state.rule.index);
        let described = behind
            .filter(|(_, state)| watches(state))
            .map(|(rule, state)| state.describe(pending.get(rule).copied().unwrap_or(0)));
        let (rules, more) = wanted.limit.fill(described)?;
        Ok(RuleList { rules, more })
    }

    /// One rule as people see it.
    pub(crate) fn describe(&self, rule: &RuleId) -> Option<RuleDescription> {
        self.rules.get(rule).map(|state| state.describe(self.pending().get(rule).copied().unwrap_or(0)))
    }

    /// How many notifications of each rule are not delivered yet.
    fn pending(&self) -> BTreeMap<&RuleId, u32> {
        let mut pending = BTreeMap::new();
        for notification in self.outbox.values() {
            *pending.entry(&notification.rule).or_default() += 1;
        }
        pending
    }
}

/// A rule while rows are weighed: the state moves on with each decided event, exactly as a replay would move it.
struct Draft<'a> {
    rule: &'a RuleId,
    subtask: u32,
    state: RuleState,
    events: Vec<Event>,
}

impl Draft<'_> {
    fn row(&mut self, row: &ObservedRow, value: f64, holds: bool) {
        let known = self.state.instance(&row.labels);
        if known.is_some_and(|i| row.window_end <= i.decided_until) {
            return; // a replay of what was decided before
        }
        let firing = known.is_some_and(|i| i.firing);
        match (firing, holds) {
            (false, true) => self.change(row, AlertState::Firing, value),
            (true, true) if known.is_some_and(|i| row.window_end > i.held_until) => {
                self.state.held(&row.labels, row.window_end, value);
                let event =
                    Event::Held { rule: self.rule.clone(), labels: row.labels.clone(), until: row.window_end, value };
                self.events.push(event);
            }
            // An early row can only say that a condition holds; what does not hold yet may still.
            (true, false) if !row.early && known.is_some_and(|i| row.window_end > i.held_until) => {
                self.change(row, AlertState::Resolved, value);
            }
            _ => {}
        }
    }

    fn change(&mut self, row: &ObservedRow, state: AlertState, value: f64) {
        let transition = self.state.instance(&row.labels).map_or(0, |i| i.transition) + 1;
        let change = Change {
            labels: row.labels.clone(),
            state,
            transition,
            value,
            window_start: row.window_start,
            window_end: row.window_end,
        };
        if !self.state.changed(self.subtask, &change) {
            return; // no room for another label set
        }
        self.events.push(Event::Changed { rule: self.rule.clone(), subtask: self.subtask, change });
    }

    /// Resolves what fired and has had a complete window since without holding.
    fn close(&mut self, watermark: Timestamp) {
        let over: Vec<ObservedRow> = self
            .state
            .instances
            .iter()
            .filter(|(_, i)| i.firing && i.subtask == self.subtask && i.next_window_end() <= watermark)
            .map(|(labels, i)| ObservedRow {
                window_start: i.held_until,
                window_end: i.next_window_end(),
                labels: labels.clone(),
                values: BTreeMap::new(),
                early: false,
            })
            .collect();
        for row in over {
            self.change(&row, AlertState::Resolved, 0.0);
        }
    }
}

impl RuleState {
    /// The rule as people see it: what fires comes first, and what is too much for a page is only counted.
    fn describe(&self, pending_count: u32) -> RuleDescription {
        let mut bytes = 0;
        let (firing, resolved): (Vec<_>, Vec<_>) = self.instances.iter().partition(|(_, i)| i.firing);
        let shown = firing.into_iter().chain(resolved).map(|(labels, i)| i.describe(labels));
        let fits = |instance: &RuleInstance| {
            bytes += wire::encode(instance).len();
            bytes <= SHOWN_BYTES_MAX
        };
        RuleDescription {
            rule: self.rule.clone(),
            instances: shown.take_while(fits).collect(),
            instance_count: u32::try_from(self.instances.len()).unwrap_or(u32::MAX),
            pending_count,
            created: self.created,
        }
    }

    fn instance(&self, labels: &Labels) -> Option<&Instance> {
        let place = self.instances.binary_search_by(|(l, _)| l.cmp(labels)).ok()?;
        self.instances.get(place).map(|(_, instance)| instance)
    }

    fn held(&mut self, labels: &Labels, until: Timestamp, value: f64) {
        if let Ok(place) = self.instances.binary_search_by(|(l, _)| l.cmp(labels)) {
            let instance = &mut self.instances[place].1;
            instance.held_until = instance.held_until.max(until);
            instance.value = value;
        }
    }

    /// Moves an instance; false if there is no room for a new one.
    fn changed(&mut self, subtask: u32, change: &Change) -> bool {
        let mut place = self.instances.binary_search_by(|(l, _)| l.cmp(&change.labels));
        if place.is_err() && self.instances.len() >= INSTANCES_MAX {
            let oldest = (0..self.instances.len())
                .filter(|&i| !self.instances[i].1.firing)
                .min_by_key(|&i| self.instances[i].1.decided_until);
            let Some(oldest) = oldest else { return false };
            self.instances.remove(oldest);
            place = self.instances.binary_search_by(|(l, _)| l.cmp(&change.labels));
        }
        let place = match place {
            Ok(place) => place,
            Err(place) => {
                self.instances.insert(place, (change.labels.clone(), Instance::new(subtask)));
                place
            }
        };
        self.instances[place].1.turn(subtask, change);
        true
    }
}

impl Instance {
    fn new(subtask: u32) -> Self {
        Self {
            firing: false,
            subtask,
            since: Timestamp::MIN,
            value: 0.0,
            transition: 0,
            held_until: Timestamp::MIN,
            window_nanos: 0,
            decided_until: Timestamp::MIN,
        }
    }

    fn turn(&mut self, subtask: u32, change: &Change) {
        self.subtask = subtask;
        self.since = change.window_start;
        self.value = change.value;
        self.transition = change.transition;
        match change.state {
            AlertState::Firing => {
                self.firing = true;
                self.held_until = change.window_end;
                self.window_nanos = change.window_end.nanos() - change.window_start.nanos();
            }
            AlertState::Resolved => {
                self.firing = false;
                self.decided_until = change.window_end;
            }
        }
    }

    fn next_window_end(&self) -> Timestamp {
        Timestamp::from_nanos(self.held_until.nanos().saturating_add(self.window_nanos))
    }

    fn describe(&self, labels: &Labels) -> RuleInstance {
        RuleInstance {
            labels: labels.clone(),
            state: if self.firing { AlertState::Firing } else { AlertState::Resolved },
            since: self.since,
            value: self.value,
            transition: self.transition,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
