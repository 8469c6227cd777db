//! Does what was decided: watches the objects, asks the desk, writes status, Secrets and events.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{FutureExt, join_all};
use host::{Host, StartError};
use kubernetes::{
    Cluster, Condition, Custom, KubernetesError, LogBinding, LogBindingStatus, LogIndex, LogIndexStatus, Notice,
    ObjectName, SecretOwner,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OnceCell;
use types::{Clock, InstanceId};

use super::{
    FINALIZER,
    ask::{Ask, Place, Said, identity},
    binding::{BindingCase, Held, Next, secret_name},
    condition::ready_of,
    index::IndexCase,
    step::{LATER, RESYNC, SOON, Step},
};
use crate::{
    api,
    config::Config,
    desk::Desk,
    metrics,
    osb::{API_VERSION, ORIGINATING_IDENTITY, Request},
};

/// Steps for one object in a row; what is not done by then goes on a second later, and others have their turn.
const STEPS_MAX: usize = 32;
/// Objects that were refused something and wait; beyond it they do not wait, they are only asked for more often.
const PAUSES_MAX: usize = 10_000;
/// Pause after the API server refused something or did not answer.
const CLUSTER_PAUSE: Duration = Duration::from_secs(15);
/// The namespace whose uid names a cluster; every cluster has it from its first day.
const FIRST_NAMESPACE: &str = "kube-system";

/// Serves the objects of a cluster while its broker leads.
pub(crate) struct Operator {
    cluster: Cluster,
    desk: Desk,
    /// None is all of them.
    namespaces: Vec<String>,
    ttl_min: Duration,
    grace: Duration,
    cluster_uid: OnceCell<String>,
    pauses: Mutex<BTreeMap<String, Pause>>,
}

/// An object that is not looked at before a time, unless its wish changes.
struct Pause {
    wish: (Option<i64>, bool),
    until: Instant,
}

/// One of our two kinds, as far as both are handled alike.
trait Kept: Custom {
    type Status: Clone + Default + PartialEq;
    const KIND: &'static str;
    fn status_mut(&mut self) -> &mut Option<Self::Status>;
    fn conditions(status: &Self::Status) -> &[Condition];
}

impl Kept for LogIndex {
    type Status = LogIndexStatus;
    const KIND: &'static str = "LogIndex";
    fn status_mut(&mut self) -> &mut Option<LogIndexStatus> {
        &mut self.status
    }
    fn conditions(status: &LogIndexStatus) -> &[Condition] {
        &status.conditions
    }
}

impl Kept for LogBinding {
    type Status = LogBindingStatus;
    const KIND: &'static str = "LogBinding";
    fn status_mut(&mut self) -> &mut Option<LogBindingStatus> {
        &mut self.status
    }
    fn conditions(status: &LogBindingStatus) -> &[Condition] {
        &status.conditions
    }
}

impl Operator {
    /// The operator that the settings ask for; nothing is sent to the API server yet.
    pub(crate) async fn new(config: &Config, host: &Host, desk: &Desk) -> Result<Option<Arc<Self>>, StartError> {
        if !config.operator {
            return Ok(None);
        }
        let kubeconfig = Some(config.operator_kubeconfig.as_str()).filter(|path| !path.is_empty()).map(Path::new);
        let replica = host.replica.to_string();
        let cluster = Cluster::connect(kubeconfig, "logboom-broker", &replica).await.map_err(StartError::other)?;
        Ok(Some(Arc::new(Self {
            cluster,
            desk: desk.clone(),
            namespaces: config.operated(),
            ttl_min: config.operator_ttl_min.0,
            grace: config.operator_grace.0,
            cluster_uid: OnceCell::new(),
            pauses: Mutex::default(),
        })))
    }

    /// Serves until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        tracing::info!(namespaces = ?self.namespaces, "operator serves LogIndex and LogBinding objects");
        let namespaces: Vec<Option<&str>> = match self.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
        };
        let serve = namespaces.into_iter().flat_map(|namespace| {
            let (for_index, for_binding) = (Arc::clone(&self), Arc::clone(&self));
            let indexes = self.cluster.reconcile_indexes(namespace, move |object| {
                let operator = Arc::clone(&for_index);
                async move { Box::pin(operator.look(&*object, operator.index(LogIndex::clone(&object)))).await }
            });
            let bindings = self.cluster.reconcile_bindings(namespace, move |object| {
                let operator = Arc::clone(&for_binding);
                async move { Box::pin(operator.look(&*object, operator.binding(LogBinding::clone(&object)))).await }
            });
            [indexes.boxed_local(), bindings.boxed_local()]
        });
        join_all(serve).await;
    }

    /// Looks at one object, unless it waits; answers when to look again.
    async fn look<K: Kept>(
        &self,
        object: &K,
        looking: impl Future<Output = Result<Duration, KubernetesError>>,
    ) -> Duration {
        let name = ObjectName::of(object);
        if let Some(rest) = self.paused(&name) {
            return rest;
        }
        let (outcome, again) = match looking.await {
            Ok(again) => ("done", again),
            // Somebody else changed it, of which the watch tells.
            Err(KubernetesError::Changed(_)) => ("changed", SOON),
            Err(error) => {
                tracing::warn!(kind = K::KIND, %name, %error, "object not served; it is tried again");
                let message = error.to_string();
                let notice = Notice { is_warning: true, reason: "ClusterRefused", message: &message };
                self.cluster.notify(object, &notice).await;
                ("failed", CLUSTER_PAUSE)
            }
        };
        metrics::OPERATOR_LOOKS.with(outcome).inc();
        again
    }

    async fn index(&self, mut object: LogIndex) -> Result<Duration, KubernetesError> {
        let (mut place, mut last) = (None, None);
        let catalog = match self.ask(&Ask::catalog(), &object).await {
            Said::Done { body, .. } => body,
            _ => return Ok(LATER),
        };
        for _ in 0..STEPS_MAX {
            let index = self.index_name(object.metadata.uid.as_deref().unwrap_or_default());
            let step = IndexCase {
                object: &object,
                catalog: &catalog,
                place: place.as_ref(),
                index: index.as_deref(),
                now: bus::SystemClock.now(),
            }
            .next(last.as_ref());
            last = None;
            match step {
                Step::Locate => match self.place(&object).await? {
                    Some(found) => place = Some(found),
                    // It goes together with its namespace.
                    None => return Ok(LATER),
                },
                Step::Ask(question, ask) => last = Some((question, self.ask(&ask, &object).await)),
                step => {
                    if let Some(again) = self.write(&mut object, step).await? {
                        return Ok(again);
                    }
                }
            }
        }
        Ok(SOON)
    }

    async fn binding(&self, mut object: LogBinding) -> Result<Duration, KubernetesError> {
        let namespace = ObjectName::of(&object).namespace;
        let index = self.cluster.get::<LogIndex>(&namespace, &object.spec.index_ref.name).await?;
        let name = secret_name(&object);
        let (mut secret, forbidden) = match self.cluster.secret(&namespace, &name).await {
            Ok(secret) => (secret, None),
            Err(KubernetesError::Forbidden(why)) => (None, Some(why)),
            Err(error) => return Err(error),
        };
        let (mut last, begun) = (None, object.status.as_ref().map_or(0, |status| status.begun));
        for _ in 0..STEPS_MAX {
            let held = match (&secret, &forbidden) {
                (_, Some(why)) => Held::Forbidden(why.clone()),
                (None, None) => Held::Nothing,
                (Some(secret), None) if secret.owner(&object) == SecretOwner::This => {
                    Held::Ours { holds: secret.holds(), values: secret.values() }
                }
                (Some(_), None) => Held::Foreign,
            };
            let may_exchange = object.status.as_ref().map_or(0, |status| status.begun) == begun;
            let now = bus::SystemClock.now();
            let (ttl_min, grace) = (self.ttl_min, self.grace);
            let case =
                BindingCase { object: &object, index: index.as_ref(), held: &held, may_exchange, ttl_min, grace, now };
            let next = case.next(last.as_ref());
            let answered = last.take();
            match next {
                Next::PutSecret { holds, values } => {
                    // The same answer says what comes after that.
                    last = answered;
                    self.cluster.put_secret(&object, &name, secret.as_ref(), &holds, &values).await?;
                    secret = self.cluster.secret(&namespace, &name).await?;
                }
                Next::DeleteSecret => {
                    if let Some(secret) = secret.take() {
                        self.cluster.delete_secret(&secret).await?;
                    }
                }
                Next::Step(Step::Ask(question, ask)) => last = Some((question, self.ask(&ask, &object).await)),
                Next::Step(step) => {
                    if let Some(again) = self.write(&mut object, step).await? {
                        return Ok(again);
                    }
                }
            }
        }
        Ok(SOON)
    }

    /// Writes what a step says to the object; answers when to look again if that was the last one.
    async fn write<K: Kept>(&self, object: &mut K, step: Step<K::Status>) -> Result<Option<Duration>, KubernetesError> {
        match step {
            Step::Finalizer(wanted) => {
                *object = self.cluster.finalize(object, FINALIZER, wanted).await?;
                Ok((!wanted).then_some(RESYNC))
            }
            Step::Save(status) => self.put_status(object, status).await.map(|()| None),
            Step::Rest(status, again) => self.put_status(object, status).await.map(|()| Some(again)),
            Step::Pause(status, again) => {
                // Before it is written: the write is a change, of which the watch tells at once.
                self.pause(&ObjectName::of(object), again);
                self.put_status(object, status).await.map(|()| Some(again))
            }
            // Both are asked for where the case is made.
            Step::Locate | Step::Ask(..) => Ok(Some(SOON)),
        }
    }

    async fn put_status<K: Kept>(&self, object: &mut K, status: K::Status) -> Result<(), KubernetesError> {
        let before = object.status_mut().replace(status.clone()).unwrap_or_default();
        if before == status {
            return Ok(());
        }
        *object = self.cluster.put_status(object).await?;
        let word = |status: &K::Status| {
            let ready = ready_of(K::conditions(status));
            ready.map(|ready| (ready.status == "True", ready.reason.clone(), ready.message.clone()))
        };
        if let Some((is_ready, reason, message)) = word(&status).filter(|now| Some(now) != word(&before).as_ref()) {
            let notice = Notice { is_warning: !is_ready, reason: &reason, message: &message };
            self.cluster.notify(object, &notice).await;
        }
        Ok(())
    }

    /// Asks the desk as any platform does, but for the credentials.
    async fn ask<K: Kept>(&self, ask: &Ask, object: &K) -> Said {
        let name = ObjectName::of(object);
        let who = identity(K::KIND, &name.namespace, &name.name, &name.uid);
        let headers = [(API_VERSION.to_owned(), "2.17".to_owned()), (ORIGINATING_IDENTITY.to_owned(), who)];
        let request = Request {
            method: ask.method.to_owned(),
            path: ask.path.clone(),
            query: ask.query.clone(),
            headers: headers.into(),
            body: ask.body.as_ref().map(Value::to_string).unwrap_or_default().into(),
            credential: "operator".to_owned(),
        };
        match api::forwarded(&self.desk, request).await {
            Ok(answer) => Said::of(answer.status, serde_json::from_str(&answer.body).unwrap_or_default()),
            Err(problem) => Said::Later(problem.message),
        }
    }

    fn index_name(&self, instance: &str) -> Option<String> {
        let id: InstanceId = instance.parse().ok()?;
        self.desk.ledger.read(|state| state.instance(&id).map(|there| there.wanted.index.to_string()))
    }

    async fn place(&self, object: &LogIndex) -> Result<Option<Place>, KubernetesError> {
        let organization = self.cluster_uid.get_or_try_init(|| async {
            let uid = self.cluster.namespace_uid(FIRST_NAMESPACE).await?;
            uid.ok_or_else(|| KubernetesError::Unavailable(format!("namespace {FIRST_NAMESPACE} is not there yet")))
        });
        let organization = organization.await?.clone();
        let ObjectName { namespace, name, .. } = ObjectName::of(object);
        let space = self.cluster.namespace_uid(&namespace).await?;
        Ok(space.map(|space| Place { organization, space, namespace, name }))
    }

    fn paused(&self, name: &ObjectName) -> Option<Duration> {
        let mut pauses = self.pauses.lock();
        let pause = pauses.get(&name.uid)?;
        let rest = pause.until.saturating_duration_since(Instant::now());
        if rest.is_zero() || pause.wish != wish(name) {
            pauses.remove(&name.uid);
            return None;
        }
        Some(rest)
    }

    fn pause(&self, name: &ObjectName, rest: Duration) {
        let mut pauses = self.pauses.lock();
        let now = Instant::now();
        if pauses.len() >= PAUSES_MAX {
            pauses.retain(|_, pause| pause.until > now);
        }
        if pauses.len() < PAUSES_MAX {
            pauses.insert(name.uid.clone(), Pause { wish: wish(name), until: now + rest });
        }
    }
}

/// What a person can change of an object.
fn wish(name: &ObjectName) -> (Option<i64>, bool) {
    (name.generation, name.is_deleted)
}
