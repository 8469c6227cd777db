//! What to do next for a LogIndex. Pure.

use kubernetes::{Applied, LogIndex, LogIndexStatus, OperationRef};
use serde_json::Value;
use types::Timestamp;

use super::{
    FINALIZER,
    ask::{self, Ask, Place, Progress, Question, Said},
    condition::Word,
    step::{LATER, REFUSED, RESYNC, SOON, Step},
};

/// A hint that a DELETE must carry, for an object whose plan nobody knows any more.
const UNKNOWN: &str = "unknown";

/// What is known of a LogIndex.
pub(crate) struct IndexCase<'a> {
    pub(crate) object: &'a LogIndex,
    /// As the broker shows it.
    pub(crate) catalog: &'a Value,
    pub(crate) place: Option<&'a Place>,
    /// The name of its log index, where the broker has it.
    pub(crate) index: Option<&'a str>,
    pub(crate) now: Timestamp,
}

type Next = Step<LogIndexStatus>;

impl IndexCase<'_> {
    /// Decides; `last` is the answer to what was asked in the step before, if that was a question.
    pub(crate) fn next(&self, last: Option<&(Question, Said)>) -> Next {
        let meta = &self.object.metadata;
        let status = self.object.status.clone().unwrap_or_default();
        let is_held = meta.finalizers.iter().flatten().any(|known| known == FINALIZER);
        match (meta.deletion_timestamp.is_some(), is_held) {
            (true, false) => Step::Rest(status, RESYNC),
            (true, true) => self.leave(status, last),
            (false, false) => Step::Finalizer(true),
            (false, true) => self.keep(status, last),
        }
    }

    fn id(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    fn say(&self, status: &mut LogIndexStatus, word: Word) {
        word.say(&mut status.conditions, self.now);
        status.observed_generation = self.object.metadata.generation;
    }

    fn rest(
        &self,
        mut status: LogIndexStatus,
        reason: &'static str,
        message: &str,
        after: std::time::Duration,
    ) -> Next {
        self.say(&mut status, Word::not_ready(reason, message));
        Step::Rest(status, after)
    }

    fn pause(&self, mut status: LogIndexStatus, reason: &'static str, message: &str) -> Next {
        self.say(&mut status, Word::not_ready(reason, message));
        Step::Pause(status, REFUSED)
    }

    /// The broker does not answer: what was said before stays true.
    fn later(&self, status: LogIndexStatus, why: &str) -> Next {
        if status.conditions.is_empty() {
            self.rest(status, "BrokerUnavailable", why, LATER)
        } else {
            Step::Rest(status, LATER)
        }
    }

    fn ask_operation(&self, operation: &OperationRef) -> Next {
        Step::Ask(Question::Operation, Ask::operation(self.id(), &operation.token))
    }

    fn leave(&self, mut status: LogIndexStatus, last: Option<&(Question, Said)>) -> Next {
        let awaited = status.operation.clone().filter(|operation| operation.verb == "deprovision");
        if let Some(operation) = awaited {
            let Some((Question::Operation, said)) = last else { return self.ask_operation(&operation) };
            return match said.progress() {
                Progress::Begun => Step::Rest(status, SOON),
                Progress::Ended => Step::Finalizer(false),
                Progress::Unknown => Step::Rest(status, LATER),
                Progress::Failed(why) => {
                    status.operation = None;
                    self.pause(status, "DeprovisionFailed", &format!("{why}; it is tried again every minute"))
                }
            };
        }
        match last {
            Some((Question::Deprovision, said)) => match said {
                Said::Done { .. } | Said::Absent => Step::Finalizer(false),
                Said::Accepted(token) => {
                    status.operation = Some(OperationRef { verb: "deprovision".to_owned(), token: token.clone() });
                    self.rest(status, "Deprovisioning", "the log index is being deleted", SOON)
                }
                Said::Refused(why) | Said::Differs(why) => {
                    self.pause(status, "DeprovisionRefused", &format!("{why}; it is tried again every minute"))
                }
                Said::Later(why) => self.later(status, why),
            },
            _ => {
                let (service_id, plan_id) = match &status.applied {
                    Some(applied) => (applied.service_id.clone(), applied.plan_id.clone()),
                    None => self.chosen().unwrap_or_else(|_| (UNKNOWN.to_owned(), UNKNOWN.to_owned())),
                };
                Step::Ask(Question::Deprovision, Ask::deprovision(self.id(), &service_id, &plan_id))
            }
        }
    }

    fn chosen(&self) -> Result<(String, String), String> {
        ask::chosen(self.catalog, &self.object.spec.offering, &self.object.spec.plan)
    }

    fn keep(&self, mut status: LogIndexStatus, last: Option<&(Question, Said)>) -> Next {
        if let Some(operation) = status.operation.clone() {
            let Some((Question::Operation, said)) = last else { return self.ask_operation(&operation) };
            return match said.progress() {
                Progress::Begun => Step::Rest(status, SOON),
                Progress::Unknown => Step::Rest(status, LATER),
                Progress::Ended => {
                    status.operation = None;
                    Step::Save(status)
                }
                Progress::Failed(why) => {
                    // What it is now is not known for sure: it is asked for from the beginning.
                    (status.operation, status.applied) = (None, None);
                    let reason = if operation.verb == "update" { "UpdateFailed" } else { "ProvisionFailed" };
                    self.pause(status, reason, &format!("{why}; change the spec, or it is tried again every minute"))
                }
            };
        }
        let wanted = match self.chosen() {
            Ok((service_id, plan_id)) => {
                Applied { service_id, plan_id, parameters: self.object.spec.parameters.clone() }
            }
            Err(why) => return self.rest(status, "UnknownPlan", &why, REFUSED),
        };
        match last {
            Some((Question::Provision, said)) => self.provisioned(status, wanted, said),
            Some((Question::Update, said)) => self.updated(status, wanted, said),
            Some((Question::Fetch, said)) => self.fetched(status, said),
            _ => match &status.applied {
                Some(applied) if *applied == wanted => Step::Ask(Question::Fetch, Ask::fetch(self.id())),
                Some(_) => self.update(&wanted),
                None => {
                    let Some(place) = self.place else { return Step::Locate };
                    let ids = (wanted.service_id.as_str(), wanted.plan_id.as_str());
                    Step::Ask(Question::Provision, Ask::provision(self.id(), ids, &wanted.parameters, place))
                }
            },
        }
    }

    fn update(&self, wanted: &Applied) -> Next {
        let ids = (wanted.service_id.as_str(), wanted.plan_id.as_str());
        Step::Ask(Question::Update, Ask::update(self.id(), ids, &wanted.parameters))
    }

    fn provisioned(&self, mut status: LogIndexStatus, wanted: Applied, said: &Said) -> Next {
        match said {
            Said::Done { is_new: true, .. } => {
                status.applied = Some(wanted);
                Step::Save(status)
            }
            // It is there, as it was first asked for; what became of it since is made sure of.
            Said::Done { .. } | Said::Differs(_) => self.update(&wanted),
            Said::Accepted(token) => {
                status.applied = Some(wanted);
                status.operation = Some(OperationRef { verb: "provision".to_owned(), token: token.clone() });
                self.rest(status, "Provisioning", "the log index is being made", SOON)
            }
            Said::Refused(why) => self.pause(status, "ProvisionRefused", why),
            Said::Absent => self.later(status, "the broker did not take the request"),
            Said::Later(why) => self.later(status, why),
        }
    }

    fn updated(&self, mut status: LogIndexStatus, wanted: Applied, said: &Said) -> Next {
        match said {
            Said::Done { .. } => {
                status.applied = Some(wanted);
                Step::Save(status)
            }
            Said::Accepted(token) => {
                status.applied = Some(wanted);
                status.operation = Some(OperationRef { verb: "update".to_owned(), token: token.clone() });
                self.rest(status, "Updating", "the log index is being changed", SOON)
            }
            Said::Absent => {
                status.applied = None;
                Step::Save(status)
            }
            Said::Refused(why) | Said::Differs(why) => self.pause(status, "UpdateRefused", why),
            Said::Later(why) => self.later(status, why),
        }
    }

    fn fetched(&self, mut status: LogIndexStatus, said: &Said) -> Next {
        match said {
            Said::Done { body, .. } => {
                let url = body.get("dashboard_url").and_then(Value::as_str);
                status.dashboard_url = url.map(str::to_owned).or(status.dashboard_url);
                status.index = self.index.map(str::to_owned).or(status.index);
                self.say(&mut status, Word::ready("the log index can be used"));
                Step::Rest(status, RESYNC)
            }
            Said::Absent => {
                status.applied = None;
                Step::Save(status)
            }
            Said::Later(why) | Said::Refused(why) | Said::Differs(why) => self.later(status, why),
            Said::Accepted(_) => self.later(status, "the broker is at work"),
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
