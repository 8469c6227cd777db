//! NATS micro services (ADR-32): a replica answers who it is, which doors it has and how they do.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::{ReplicaId, Timestamp};
use wire::{Problem, Service};

use crate::Bus;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a replica says about itself.
#[derive(Debug)]
pub(crate) struct Identity {
    name: &'static str,
    id: String,
    started: Timestamp,
    endpoints: Mutex<Vec<Weak<Endpoint>>>,
}

/// One door and what went through it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    name: &'static str,
    pub(crate) subject: String,
    group: &'static str,
    request_count: AtomicU64,
    error_count: AtomicU64,
    nanos: AtomicU64,
    last_error: Mutex<String>,
}

impl Identity {
    pub(crate) fn new(service: Service, replica: &ReplicaId, started: Timestamp) -> Self {
        Self { name: service.as_str(), id: replica.to_string(), started, endpoints: Mutex::default() }
    }

    pub(crate) fn add(&self, name: &'static str, subject: &str, group: &'static str) -> Arc<Endpoint> {
        let endpoint = Arc::new(Endpoint {
            name,
            subject: subject.to_owned(),
            group,
            request_count: AtomicU64::new(0),
            error_count: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            last_error: Mutex::default(),
        });
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.retain(|e| e.strong_count() > 0);
        endpoints.push(Arc::downgrade(&endpoint));
        endpoint
    }

    fn open(&self) -> Vec<Arc<Endpoint>> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.iter().filter_map(Weak::upgrade).collect()
    }

    fn answer_to(&self, verb: &str) -> Option<Value> {
        let mut answer = json!({ "name": self.name, "id": self.id, "version": VERSION, "metadata": {} });
        let endpoints: Vec<Value>;
        match verb {
            "PING" => {
                answer["type"] = json!("io.nats.micro.v1.ping_response");
                return Some(answer);
            }
            "INFO" => {
                answer["type"] = json!("io.nats.micro.v1.info_response");
                answer["description"] = json!(format!("Logboom {}", self.name));
                endpoints = self.open().iter().map(|e| e.info()).collect();
            }
            "STATS" => {
                answer["type"] = json!("io.nats.micro.v1.stats_response");
                answer["started"] = json!(rfc3339(self.started));
                endpoints = self.open().iter().map(|e| e.stats()).collect();
            }
            _ => return None,
        }
        answer["endpoints"] = Value::Array(endpoints);
        Some(answer)
    }
}

impl Endpoint {
    pub(crate) fn count(&self, took: Duration, problem: Option<&Problem>) {
        self.request_count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(problem) = problem {
            self.error_count.fetch_add(1, Ordering::Relaxed);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) =
                format!("{}:{problem}", problem.code.status());
        }
    }

    fn info(&self) -> Value {
        json!({ "name": self.name, "subject": self.subject, "queue_group": self.group, "metadata": {} })
    }

    fn stats(&self) -> Value {
        let (count, nanos) = (self.request_count.load(Ordering::Relaxed), self.nanos.load(Ordering::Relaxed));
        let mut stats = json!({
            "name": self.name,
            "subject": self.subject,
            "queue_group": self.group,
            "num_requests": count,
            "num_errors": self.error_count.load(Ordering::Relaxed),
            "processing_time": nanos,
            "average_processing_time": nanos / count.max(1),
        });
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if !last.is_empty() {
            stats["last_error"] = json!(*last);
        }
        stats
    }
}

fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.nanos())).map_or_else(|_| String::new(), |t| t.to_string())
}

/// Answers discovery until it is stopped or the bus is closed.
pub(crate) async fn answer(bus: Bus, identity: Arc<Identity>, stop: CancellationToken) {
    let (name, id) = (identity.name, &identity.id);
    let mut subjects = Vec::new();
    for filter in ["$SRV.*".to_owned(), format!("$SRV.*.{name}"), format!("$SRV.*.{name}.{id}")] {
        match bus.client().subscribe(filter.clone()).await {
            Ok(messages) => subjects.push(messages),
            Err(error) => warn!(%filter, %error, "service not discoverable"),
        }
    }
    let mut questions = futures::stream::select_all(subjects);
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
            message = questions.next() => match message { Some(message) => message, None => return },
        };
        let answer = message.subject.split('.').nth(1).and_then(|verb| identity.answer_to(verb));
        if let (Some(reply), Some(answer)) = (message.reply, answer)
            && let Err(error) = bus.client().publish(reply, answer.to_string().into()).await
        {
            warn!(%error, "discovery not answered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_door_leaves_the_announcement() {
        let identity = Identity::new(Service::Coordinator, &"c-0".parse().unwrap(), Timestamp::from_millis(0));
        let endpoint = identity.add("CreateStream", "lb.v1.coordinator.streams.create", "coordinator");
        endpoint.count(Duration::from_micros(30), Some(&Problem::bad_request("Wrong", "x")));
        let stats = identity.answer_to("STATS").unwrap();
        assert_eq!(stats["started"], "1970-01-01T00:00:00Z");
        assert_eq!(stats["endpoints"][0]["num_errors"], 1);
        assert_eq!(stats["endpoints"][0]["last_error"], "400:Wrong: x");
        drop(endpoint);
        assert_eq!(identity.answer_to("INFO").unwrap()["endpoints"], json!([]));
        assert!(identity.answer_to("DANCE").is_none());
    }
}
