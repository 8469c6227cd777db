//! The audit: who wanted what changed and what became of it, on a stream that is only added to.
//!
//! Every request that would change something is told of twice. Its first entry is handed to the connection before anything is done, and
//! the journal follows on the same connection: whatever becomes of this process, a server that has heard of the change has heard before
//! of who wanted it. The second entry says how the request was answered. Parameters and credentials are in neither.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bus::Bus;
use host::Host;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use types::{BindingId, Clock, InstanceId, ReplicaId};
use wire::{
    Problem,
    broker::{AuditEntry, Stage},
    subjects,
};

use crate::{
    metrics,
    osb::{Answer, Identity, Method, REQUEST_IDENTITY, Request, Subject, route},
    state::{Event, State},
};

/// Entries on their way at once; one more is lost, which is said and counted.
const IN_FLIGHT_MAX: usize = 4096;
/// How long an answer that is ready waits for its first entry, which takes as long as the journal does unless JetStream is in trouble.
/// The entry itself is tried for about ten seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the last entries may take when the service ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(4);
/// Pause between two attempts to make the stream.
const ENSURE_PAUSE: Duration = Duration::from_secs(5);
/// Characters of an id as the request says it; longer ones cannot be ids of ours.
const ID_CHARS_MAX: usize = 255;
/// Characters of what the platform says of a user.
const USER_CHARS_MAX: usize = 2048;

/// Writes entries; clones share it.
#[derive(Clone)]
pub(crate) struct Audit {
    bus: Bus,
    replica: ReplicaId,
    clock: Arc<dyn Clock>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    /// The number of the next request in this process; its start tells it from those before.
    next: Arc<AtomicU64>,
    started: i64,
}

/// How a request was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) error: Option<String>,
    pub(crate) operation: Option<String>,
}

impl From<&Answer> for Told {
    fn from(answer: &Answer) -> Self {
        #[derive(Default, Deserialize)]
        struct Words {
            #[serde(default)]
            error: Option<String>,
            #[serde(default)]
            operation: Option<String>,
        }
        let words: Words = serde_json::from_str(&answer.body).unwrap_or_default();
        Self { status: answer.status, error: words.error, operation: words.operation }
    }
}

impl Told {
    /// How a call ended, in the numbers of HTTP.
    pub(crate) fn of<T>(result: &Result<T, Problem>) -> Self {
        match result {
            Ok(_) => Self { status: 200, error: None, operation: None },
            Err(problem) => Self { status: problem.code.status(), error: Some(problem.kind.clone()), operation: None },
        }
    }
}

impl Audit {
    pub(crate) fn new(host: &Host) -> Self {
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let (bus, replica, clock) = (host.bus.clone(), host.replica.clone(), host.clock.clone());
        let started = host.started().nanos();
        Self { bus, replica, clock, places, tasks: TaskTracker::new(), next: Arc::default(), started }
    }

    /// Makes the stream, and tries until it stands; entries of the meantime are lost if there is none at all.
    pub(crate) async fn ensure(&self, age_max: Duration, bytes_max: u64, replicas: u8) {
        while let Err(error) = self.bus.ensure_audit(replicas, age_max, bytes_max).await {
            tracing::error!(%error, "audit stream cannot be made; it is tried again");
            sleep(ENSURE_PAUSE).await;
        }
    }

    /// Waits until no entry is on its way; not longer than a service may take to drain.
    pub(crate) async fn drained(&self) {
        self.tasks.close();
        if timeout(DRAIN_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::error!(entries = self.tasks.len(), "audit entries are given up at the end of the service");
        }
    }

    /// Lets a platform's request be worked on between its two entries; one that changes nothing has none.
    pub(crate) async fn request(&self, request: &Request, work: impl Future<Output = Answer>) -> Answer {
        self.drafted(self.draft(request), work).await
    }

    /// The same for a request that was drafted before.
    pub(crate) async fn drafted(&self, draft: Option<AuditEntry>, work: impl Future<Output = Answer>) -> Answer {
        match draft {
            Some(draft) => self.around(draft, work, |answer| Told::from(answer)).await,
            None => work.await,
        }
    }

    /// What is said of a platform's request before it is looked at; `None` if its method changes nothing.
    pub(crate) fn draft(&self, request: &Request) -> Option<AuditEntry> {
        if !["PUT", "PATCH", "DELETE"].contains(&request.method.as_str()) {
            return None;
        }
        let mut entry = self.entry("osb", "none", "");
        let known = route(&request.method, &request.path).ok();
        if let Some(known) = &known {
            entry.action = action(known.method, &known.subject).to_owned();
            let (instance, binding) = ids_of(&known.subject);
            (entry.instance, entry.binding) =
                (short(instance, ID_CHARS_MAX), binding.map(|id| short(id, ID_CHARS_MAX)));
        }
        (entry.service_id, entry.plan_id) = offering_of(request);
        entry.credential = short(&request.credential, ID_CHARS_MAX);
        entry.request_identity = short(request.header(REQUEST_IDENTITY).unwrap_or_default(), ID_CHARS_MAX);
        if let Ok(Some(identity)) = Identity::of(request) {
            entry.platform = short(&identity.platform, ID_CHARS_MAX);
            entry.user = short(&identity.user, USER_CHARS_MAX);
        }
        Some(entry)
    }

    /// An entry of something that no platform asked for.
    pub(crate) fn entry(&self, via: &str, action: &str, instance: &str) -> AuditEntry {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        AuditEntry {
            id: format!("{}-{:x}-{number}", self.replica, self.started),
            stage: Stage::Asked,
            at: self.clock.now(),
            replica: self.replica.clone(),
            via: via.to_owned(),
            credential: String::new(),
            platform: String::new(),
            user: String::new(),
            request_identity: String::new(),
            action: action.to_owned(),
            instance: instance.to_owned(),
            binding: None,
            service_id: None,
            plan_id: None,
            status: None,
            error: None,
            operation: None,
        }
    }

    /// Lets something be done between its two entries.
    pub(crate) async fn around<T>(
        &self,
        draft: AuditEntry,
        work: impl Future<Output = T>,
        told: impl FnOnce(&T) -> Told,
    ) -> T {
        let rest = self.begin(draft.clone()).await;
        let stored = async {
            if let Some(rest) = rest {
                // Longer than this the journal itself would hardly take; the entry goes on without the request.
                drop(timeout(PATIENCE, rest).await);
            }
        };
        let ((), done) = futures::join!(stored, work);
        self.end(draft, told(&done));
        done
    }

    /// Lets the broker do by itself what concerns several, each between its two entries.
    pub(crate) async fn around_each<T>(
        &self,
        drafts: Vec<AuditEntry>,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        for draft in &drafts {
            drop(self.begin(draft.clone()).await);
        }
        let done = work.await;
        let told = Told::of(&done);
        drafts.into_iter().for_each(|draft| self.end(draft, told.clone()));
        done
    }

    /// What is said of an event that nobody asked for; `None` if it changes nothing for anybody.
    pub(crate) fn swept(&self, state: &State, event: &Event) -> Option<AuditEntry> {
        let (action, instance, binding) = match event {
            Event::UnbindBegun { id, .. } | Event::BindingGivenUp { id, .. } => ("unbind", state.owner(id)?, Some(id)),
            Event::InstanceGivenUp { id, .. } => ("deprovision", id, None),
            Event::InstanceEnded { id, .. } => ("give up", id, None),
            _ => return None,
        };
        let binding = binding.map(ToString::to_string);
        Some(AuditEntry { binding, ..self.entry("reconciler", action, instance.as_str()) })
    }

    /// What is said of a binding that ends because its instance was to be deleted and was not.
    pub(crate) fn lost(&self, instance: &InstanceId, binding: &BindingId) -> AuditEntry {
        AuditEntry { binding: Some(binding.to_string()), ..self.entry("effects", "unbind", instance.as_str()) }
    }

    /// Polls the first entry here, so that it is handed to the connection before the work hands anything to it.
    async fn begin(&self, entry: AuditEntry) -> Option<JoinHandle<()>> {
        let mut first = Box::pin(self.clone().store(entry));
        match futures::poll!(first.as_mut()) {
            Poll::Ready(()) => None,
            Poll::Pending => Some(self.tasks.spawn(first)),
        }
    }

    fn end(&self, draft: AuditEntry, told: Told) {
        let Told { status, error, operation } = told;
        let (stage, at, status) = (Stage::Answered, self.clock.now(), Some(status));
        let answered = AuditEntry { stage, at, status, error, operation, ..draft };
        drop(self.tasks.spawn(self.clone().store(answered)));
    }

    async fn store(self, entry: AuditEntry) {
        let Ok(_place) = self.places.clone().try_acquire_owned() else {
            return lost(&entry, "as many entries are on their way as may");
        };
        let subject = subjects::broker_audit(entry.instance.parse::<InstanceId>().ok().as_ref());
        let id = format!("{}.{:?}", entry.id, entry.stage);
        match self.bus.publish_record(&subject, &id, wire::encode(&entry).into()).await {
            Ok(_) => metrics::AUDIT.with("stored").inc(),
            Err(problem) => lost(&entry, &problem.to_string()),
        }
    }
}

/// What the stream has not, the log has.
fn lost(entry: &AuditEntry, reason: &str) {
    metrics::AUDIT.with("lost").inc();
    tracing::error!(
        request = entry.id, stage = ?entry.stage, action = entry.action, instance = entry.instance, binding = ?entry.binding,
        credential = entry.credential, platform = entry.platform, user = entry.user, status = ?entry.status, reason,
        "audit entry may be lost"
    );
}

fn action(method: Method, subject: &Subject) -> &'static str {
    match (method, matches!(subject, Subject::Binding { .. })) {
        (Method::Put, false) => "provision",
        (Method::Patch, _) => "update",
        (Method::Delete, false) => "deprovision",
        (Method::Put, true) => "bind",
        (Method::Delete, true) => "unbind",
        (Method::Get, _) => "none",
    }
}

fn ids_of(subject: &Subject) -> (&str, Option<&str>) {
    match subject {
        Subject::Instance { instance } | Subject::InstanceOperation { instance } => (instance, None),
        Subject::Binding { instance, binding } | Subject::BindingOperation { instance, binding } => {
            (instance, Some(binding))
        }
        _ => ("", None),
    }
}

/// Offering and plan as the body or the query says them, whether or not they are right.
pub(crate) fn offering_of(request: &Request) -> (Option<String>, Option<String>) {
    #[derive(Default, Deserialize)]
    struct Ids {
        #[serde(default)]
        service_id: Value,
        #[serde(default)]
        plan_id: Value,
    }
    let said = |value: &str| (!value.is_empty()).then(|| short(value, ID_CHARS_MAX));
    if request.method == "DELETE" {
        let asked = |key: &str| request.query(key).as_deref().and_then(said);
        return (asked("service_id"), asked("plan_id"));
    }
    let ids: Ids = serde_json::from_slice(&request.body).unwrap_or_default();
    (ids.service_id.as_str().and_then(said), ids.plan_id.as_str().and_then(said))
}

fn short(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_told_without_what_is_in_it() {
        let bound = Answer::of(201, &json!({ "credentials": { "token": "lbt_secret" }, "operation": "bind-7" }));
        let told = Told::from(&bound);
        assert_eq!(told, Told { status: 201, error: None, operation: Some("bind-7".into()) });
        let refused = Told::from(&Answer::bad_request("parameters/segments: 65 is too much"));
        assert_eq!((refused.status, refused.error.as_deref()), (400, Some("BadRequest")));
        assert_eq!(Told::from(&Answer::of(200, &json!({ "error": 7 }))).status, 200);
    }

    #[test]
    fn ids_are_told_as_they_were_said() {
        let request = |method: &str, query: &str, body: &str| Request {
            method: method.into(),
            query: query.into(),
            body: body.to_owned().into(),
            ..Request::default()
        };
        let some = |text: &str| Some(text.to_owned());
        for (asked, expected) in [
            (request("PUT", "", r#"{"service_id":"s","plan_id":"p","parameters":{"x":1}}"#), (some("s"), some("p"))),
            (request("PATCH", "", r#"{"service_id":"s"}"#), (some("s"), None)),
            (request("PUT", "", r#"{"service_id":7,"plan_id":""}"#), (None, None)),
            (request("PUT", "", "{"), (None, None)),
            (request("DELETE", "service_id=s&plan_id=p%2B", ""), (some("s"), some("p+"))),
        ] {
            assert_eq!(offering_of(&asked), expected);
        }
        let long = offering_of(&request("PUT", "", &json!({ "service_id": "x".repeat(1000) }).to_string())).0.unwrap();
        assert_eq!(long.len(), ID_CHARS_MAX);
    }
}
