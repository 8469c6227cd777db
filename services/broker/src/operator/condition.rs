//! The condition `Ready`: a word for programs, a sentence that says what to do, and since when.

use kubernetes::Condition;
use types::Timestamp;

const READY: &str = "Ready";

/// What an object is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    is_ready: bool,
    reason: &'static str,
    message: String,
}

impl Word {
    pub(crate) fn ready(message: impl Into<String>) -> Self {
        Self { is_ready: true, reason: READY, message: message.into() }
    }

    pub(crate) fn not_ready(reason: &'static str, message: impl Into<String>) -> Self {
        Self { is_ready: false, reason, message: message.into() }
    }

    /// Says it; the time changes only when ready becomes not ready or the other way round.
    pub(crate) fn say(self, conditions: &mut Vec<Condition>, now: Timestamp) {
        let status = if self.is_ready { "True" } else { "False" };
        let before = conditions.iter().position(|condition| condition.kind == READY);
        let since = before.map(|at| conditions.remove(at)).filter(|before| before.status == status);
        conditions.push(Condition {
            kind: READY.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            last_transition_time: since.map_or_else(|| rfc3339(now), |before| before.last_transition_time),
        });
    }
}

/// The condition, if anything was said yet.
pub(crate) fn ready_of(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.kind == READY)
}

/// Whole seconds, as Kubernetes has them.
fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.millis().div_euclid(1_000)).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_reason_keeps_the_time() {
        let mut conditions = Vec::new();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000 + 500);
        Word::not_ready("Provisioning", "wait").say(&mut conditions, at(10));
        assert_eq!(conditions[0].last_transition_time, "1970-01-01T00:00:10Z");
        Word::not_ready("ProvisionFailed", "no").say(&mut conditions, at(20));
        assert_eq!((conditions.len(), conditions[0].reason.as_str()), (1, "ProvisionFailed"));
        assert_eq!(conditions[0].last_transition_time, "1970-01-01T00:00:10Z");
        Word::ready("yes").say(&mut conditions, at(30));
        assert_eq!(ready_of(&conditions).unwrap().last_transition_time, "1970-01-01T00:00:30Z");
        assert_eq!((conditions.len(), conditions[0].status.as_str()), (1, "True"));
    }
}
