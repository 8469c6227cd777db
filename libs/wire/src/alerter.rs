//! Rules, what they observe and how they change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{IndexName, RuleId, Timestamp};

use crate::{Empty, page::Page};

calls! {
    /// Creates or replaces a rule; repeating it with the same content changes nothing. Kinds: `InvalidQuery`, `InvalidCondition`, `UnknownIndex`, `RuleTaken`.
    PutRule(Rule) -> RuleDescription; "lb.v1.alerter.rules.put" [()] @ Alerter, Idempotent
    /// Deletes a rule and its job; deleting what is not there succeeds.
    DeleteRule(RuleName) -> Empty; "lb.v1.alerter.rules.delete" [()] @ Alerter, Idempotent
    /// Lists rules with their instances by id, in pages. Kinds: `InvalidPage`.
    ListRules(RulesOf) -> RuleList; "lb.v1.alerter.rules.list" [()] @ Alerter, Idempotent
    /// A sink task tells what a rule's query gave; durable in the alerter's journal when it returns.
    ObserveRows(Observation) -> Empty; "lb.v1.alerter.rows.observe" [()] @ Alerter, Deduplicated
}

/// A threshold rule on a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    pub rule: RuleId,
    /// The index that it watches; names the subject of its alerts.
    pub index: IndexName,
    /// A windowed continuous query.
    pub query: String,
    /// The condition over a column of the query, for example `n > 100`.
    pub condition: String,
    /// Where to send transitions besides NATS.
    #[serde(default)]
    pub webhook: Option<String>,
    /// For people.
    #[serde(default)]
    pub summary: String,
}

/// Names a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleName {
    /// The rule.
    pub rule: RuleId,
    /// Only if it watches this index; whatever it watches without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexName>,
}

/// The state of one instance of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The condition holds.
    Firing,
    /// It held, and holds no more.
    Resolved,
}

/// One label set of a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleInstance {
    /// The labels: the query's group keys.
    pub labels: BTreeMap<String, String>,
    /// Its state.
    pub state: AlertState,
    /// Since which window's start.
    pub since: Timestamp,
    /// The value that decided.
    pub value: f64,
    /// Grows with every transition.
    pub transition: u64,
}

/// A rule as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleDescription {
    /// The rule.
    pub rule: Rule,
    /// Its instances that have ever fired, those that fire first; as many as fit in a page.
    pub instances: Vec<RuleInstance>,
    /// How many there are.
    #[serde(default)]
    pub instance_count: u32,
    /// Notifications not yet delivered.
    pub pending_count: u32,
    /// When it was created.
    pub created: Timestamp,
}

/// Which rules to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesOf {
    /// Behind this one; from the first without it.
    #[serde(default)]
    pub after: Option<RuleId>,
    /// Only those that watch this index; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexName>,
    /// How many at most.
    #[serde(default)]
    pub limit: Page,
}

/// Rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleList {
    /// In the order of their ids.
    pub rules: Vec<RuleDescription>,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
}

/// One row of a rule's query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedRow {
    /// Start of the window.
    pub window_start: Timestamp,
    /// End of the window.
    pub window_end: Timestamp,
    /// The group keys.
    pub labels: BTreeMap<String, String>,
    /// The aggregates by output name.
    pub values: BTreeMap<String, f64>,
    /// Told before the window closed.
    pub early: bool,
}

/// What a sink task tells an alert rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The rule.
    pub rule: RuleId,
    /// The attempt of its job.
    pub attempt: u32,
    /// The subtask; a label set always belongs to one subtask.
    pub subtask: u32,
    /// All windows up to here are complete in this subtask.
    pub watermark: Timestamp,
    /// Rows in (window end, labels) order; early rows first.
    pub rows: Vec<ObservedRow>,
}

/// A transition as it is published (JSON) to `alerts.<index>.<rule>` and to webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The same for every delivery of this transition: hash of rule, labels and transition number.
    pub id: String,
    /// The rule.
    pub rule: RuleId,
    /// The index.
    pub index: IndexName,
    /// The label set.
    pub labels: BTreeMap<String, String>,
    /// The new state.
    pub state: AlertState,
    /// The transition's number in its label set, from 1.
    pub transition: u64,
    /// The value that decided.
    pub value: f64,
    /// The condition's text.
    pub condition: String,
    /// Start of the window that decided, RFC 3339.
    pub window_start: String,
    /// End of the window that decided, RFC 3339.
    pub window_end: String,
    /// When it was decided, RFC 3339.
    pub decided_at: String,
    /// For people.
    pub summary: String,
}
