//! Delivers notifications: to the subject by JetStream, to webhooks by POST, each with the transition's own id.

use std::time::Duration;

use jiff::Timestamp as Instant;
use ring::digest;
use types::Timestamp;
use wire::{Problem, alerter::Transition};

use crate::state::{Notification, Target};

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
    http: reqwest::Client,
}

impl Notifier {
    /// A notifier on the tenants' connection, where `alerts.>` is captured.
    pub(crate) fn new(tenants: bus::Bus, timeout: Duration) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { tenants, http })
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
            Target::Webhook => self.post(notification, &transition.id, body).await,
        }
    }

    async fn post(&self, notification: &Notification, id: &str, body: Vec<u8>) -> Result<(), Problem> {
        let Some(url) = &notification.webhook else { return Ok(()) };
        let sent = self
            .http
            .post(url)
            .header("Idempotency-Key", id)
            .header("Content-Type", "application/json")
            .body(body)
            .send()
            .await;
        match sent {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let status = response.status();
                // A receiver that is there and refuses this request will refuse it again.
                let final_refusal = status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429);
                let message = format!("webhook of rule {} answered {status}", notification.rule);
                Err(match final_refusal {
                    true => Problem::bad_request("WebhookRefused", message),
                    false => Problem::unavailable("WebhookFailed", message),
                })
            }
            Err(error) => Err(Problem::unavailable(
                "WebhookUnreachable",
                format_args!("webhook of rule {}: {}", notification.rule, error.without_url()),
            )),
        }
    }
}
