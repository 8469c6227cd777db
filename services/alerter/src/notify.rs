//! Delivers notifications: to the subject by JetStream, to webhooks by POST, each with the transition's own id.

use jiff::Timestamp as Instant;
use ring::digest;
use types::Timestamp;
use wire::{Problem, alerter::Transition};

use crate::{
    state::{Notification, Target},
    webhook::Webhooks,
};

/// The id of a transition: the same for every attempt, every receiver and after every restart.
pub(crate) fn transition_id(notification: &Notification) -> String {
    let labels = serde_json::to_string(&notification.change.labels).unwrap_or_default();
    let text = format!("{}\n{labels}\n{}", notification.rule, notification.change.transition);
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    data_encoding::HEXLOWER.encode(&digest.as_ref()[..16])
}

fn rfc3339(at: Timestamp) -> String {
    Instant::from_nanosecond(i128::from(at.nanos())).map_or_else(|_| at.to_string(), |t| t.to_string())
}

/// The public form of a notification.
pub(crate) fn transition(notification: &Notification) -> Transition {
    let change = &notification.change;
    Transition {
        id: transition_id(notification),
        rule: notification.rule.clone(),
        index: notification.index.clone(),
        labels: change.labels.clone(),
        state: change.state,
        transition: change.transition,
        value: change.value,
        condition: notification.condition.clone(),
        window_start: rfc3339(change.window_start),
        window_end: rfc3339(change.window_end),
        decided_at: rfc3339(notification.decided_at),
        summary: notification.summary.clone(),
    }
}

/// Sends notifications; one attempt a call.
#[derive(Debug, Clone)]
pub(crate) struct Notifier {
    tenants: bus::Bus,
    webhooks: Webhooks,
}

impl Notifier {
    /// A notifier on the tenants' connection, where `alerts.>` is captured.
    pub(crate) fn new(tenants: bus::Bus, webhooks: Webhooks) -> Self {
        Self { tenants, webhooks }
    }

    /// Makes one attempt; an error says whether another one makes sense.
    pub(crate) async fn attempt(&self, notification: &Notification) -> Result<(), Problem> {
        let transition = transition(notification);
        let body = serde_json::to_vec(&transition).map_err(Problem::internal)?;
        match notification.target {
            Target::Subject => {
                let subject = wire::subjects::alerts(&notification.index, &notification.rule);
                self.tenants.publish_record(&subject, &transition.id, body.into()).await.map(drop)
            }
            Target::Webhook => {
                let Some(url) = &notification.webhook else { return Ok(()) };
                self.webhooks.post(&notification.rule, url, &transition.id, body).await
            }
        }
    }
}
