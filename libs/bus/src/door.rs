//! Doors: where calls come in, bounded, decoded and answered.

mod keeper;
mod outer;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{debug, error, warn};
use types::{Clock, Generation, ReplicaId, Timestamp};
use wire::{
    Call, Code, Problem, Service,
    delegation::{Bearer, Right, outer_filter},
    filter_of, header, subject_of,
};

use crate::{
    Bus, BusError, CALL_DEADLINE, Origin, SystemClock,
    call::remaining,
    discovery::{self, Endpoint, Identity},
    door::outer::{Guard, Share},
    headers,
    origin::{fresh_id, with_origin},
};

pub use keeper::Gatekeeper;

/// Requests that one door holds at once; beyond it answers `Throttled` at once.
pub const DOOR_IN_FLIGHT_MAX: usize = 256;
/// How long a door that closes waits for what is in flight.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// How long a handler may go on after its caller stopped waiting; then it is dropped.
const OVERTIME_MAX: Duration = Duration::from_secs(60);

/// A request as it reaches its handler.
#[derive(Debug, Clone)]
pub struct Incoming<C: Call> {
    /// The request.
    pub request: C::Request,
    /// Where it comes from.
    pub origin: Origin,
    /// On behalf of which leader of the caller's service it is made, if it says so.
    pub leader: Option<Generation>,
    /// Which binding asks, if it comes from outside the platform; then the request is about its own index.
    pub bearer: Option<Bearer>,
}

impl<C: Call> actix::Message for Incoming<C> {
    type Result = Result<C::Reply, Problem>;
}

/// The doors of one replica; clones share them.
///
/// Announces them as an ADR-32 micro service: `nats micro ls`, `info` and `stats` see them.
#[derive(Clone)]
pub struct Doors {
    inner: Arc<Inner>,
    keeper: Option<Gatekeeper>,
}

struct Inner {
    bus: Bus,
    service: Service,
    identity: Arc<Identity>,
    gates: Mutex<Vec<Weak<Gate>>>,
    _discovery: DropGuard,
}

/// What a door shares with its tasks.
#[derive(Debug)]
struct Gate {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An open door: dropping it closes it, [`Door::close`] also waits for what is in flight.
#[must_use = "a door that is dropped is closed"]
pub struct Door {
    gate: Arc<Gate>,
    /// Keeps the door in the service's announcement: inside the platform, and outside.
    endpoints: Vec<Arc<Endpoint>>,
}

/// What a request holds while it is worked on.
type Held = (OwnedSemaphorePermit, Option<Share>);

type Handling<C> = Pin<Box<dyn Future<Output = Result<<C as Call>::Reply, Problem>> + Send>>;

impl Doors {
    /// Begins to announce a replica; it has no door yet. Needs a tokio runtime.
    pub fn new(bus: &Bus, service: Service, replica: &ReplicaId) -> Self {
        let identity = Arc::new(Identity::new(service, replica, SystemClock.now()));
        let stop = CancellationToken::new();
        tokio::spawn(discovery::answer(bus.clone(), identity.clone(), stop.clone()));
        let (bus, gates, _discovery) = (bus.clone(), Mutex::default(), stop.drop_guard());
        Self { inner: Arc::new(Inner { bus, service, identity, gates, _discovery }), keeper: None }
    }

    /// The same doors, also for programs outside the platform where a call is marked for them.
    #[must_use]
    pub fn with_outer(self, keeper: Gatekeeper) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// Opens a door to an actor; `None` takes every key.
    pub async fn open<C: Call>(
        &self,
        key: Option<&C::Key>,
        to: actix::Recipient<Incoming<C>>,
    ) -> Result<Door, BusError> {
        self.serve::<C, _, _>(key, move |incoming| {
            let answer = to.send(incoming);
            async move {
                answer.await.unwrap_or_else(|closed| {
                    // It may have ended in the middle of the request.
                    Err(Problem::unavailable("HandlerGone", format_args!("{} is not served here: {closed}", C::NAME))
                        .unknown())
                })
            }
        })
        .await
    }

    /// Opens a door to a function; `None` takes every key.
    ///
    /// Bounds: [`DOOR_IN_FLIGHT_MAX`] requests at once, beyond `Throttled` at once; a request whose deadline has passed
    /// is refused. At the deadline the caller is answered, the handler goes on and keeps its place.
    pub async fn serve<C, F, Fut>(&self, key: Option<&C::Key>, handler: F) -> Result<Door, BusError>
    where
        C: Call,
        F: Fn(Incoming<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C::Reply, Problem>> + Send + 'static,
    {
        let gate = Arc::new(Gate { stop: CancellationToken::new(), tasks: TaskTracker::new() });
        gate.tasks.close();
        let handler = Arc::new(handler);
        let mut endpoints = Vec::new();
        // Who asks for a delegation is known from outside only.
        if !matches!(&C::OUTER, Some(outer) if outer.right == Right::Grant) {
            let subject = key.map_or_else(|| filter_of(C::PATTERN), |key| subject_of::<C>(key));
            endpoints.push(self.stand::<C, F, Fut>(&subject, &self.inner.bus, None, &gate, handler.clone()).await?);
        }
        if let (Some(keeper), Some(outer)) = (&self.keeper, &C::OUTER) {
            let (subject, guard) = (outer_filter::<C>(key), Guard::new(keeper.clone(), outer.right));
            let guard = Some(Arc::new(guard));
            endpoints.push(self.stand::<C, F, Fut>(&subject, keeper.tenants(), guard, &gate, handler).await?);
        }
        let mut gates = self.inner.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|g| g.strong_count() > 0);
        gates.push(Arc::downgrade(&gate));
        drop(gates);
        Ok(Door { gate, endpoints })
    }

    /// Begins to take requests under one subject; inside and outside have places of their own.
    async fn stand<C, F, Fut>(
        &self,
        subject: &str,
        bus: &Bus,
        guard: Option<Arc<Guard>>,
        gate: &Gate,
        handler: Arc<F>,
    ) -> Result<Arc<Endpoint>, BusError>
    where
        C: Call,
        F: Fn(Incoming<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C::Reply, Problem>> + Send + 'static,
    {
        let group = self.inner.service.as_str();
        let messages = bus.queue_subscribe(subject, group).await?;
        let endpoint = self.inner.identity.add(C::NAME, subject, group);
        let porter = Porter::<C, F> {
            bus: bus.clone(),
            endpoint: endpoint.clone(),
            tasks: gate.tasks.clone(),
            permits: Arc::new(Semaphore::new(DOOR_IN_FLIGHT_MAX)),
            guard,
            handler,
            call: std::marker::PhantomData,
        };
        gate.tasks.spawn(porter.run(messages, gate.stop.clone()));
        Ok(endpoint)
    }

    /// Closes every door and waits for what is in flight, at most 10 s.
    pub async fn close_all(&self) {
        let gates: Vec<_> = {
            let gates = self.inner.gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.iter().filter_map(Weak::upgrade).collect()
        };
        for gate in &gates {
            gate.stop.cancel();
        }
        futures::future::join_all(gates.iter().map(|gate| gate.drained())).await;
    }
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors").field("service", &self.inner.service).finish_non_exhaustive()
    }
}

impl Gate {
    async fn drained(&self) {
        if timeout(DRAIN_WITHIN, self.tasks.wait()).await.is_err() {
            warn!(tasks = self.tasks.len(), "door closed with requests in flight");
        }
    }
}

impl Door {
    /// Takes no more requests and waits for those in flight, at most 10 s.
    pub async fn close(self) {
        self.gate.stop.cancel();
        self.gate.drained().await;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.gate.stop.cancel();
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects: Vec<&str> = self.endpoints.iter().map(|endpoint| endpoint.subject.as_str()).collect();
        f.debug_struct("Door").field("subjects", &subjects).finish_non_exhaustive()
    }
}

impl Bus {
    async fn queue_subscribe(&self, subject: &str, group: &str) -> Result<Subscriber, BusError> {
        let messages =
            self.client().queue_subscribe(subject.to_owned(), group.to_owned()).await.map_err(|error| {
                BusError::Unavailable { what: format!("door on {subject}"), reason: error.to_string() }
            })?;
        self.round_trip().await;
        Ok(messages)
    }

    /// Answers a request; an answer that the server does not take becomes a problem that says so.
    pub(crate) async fn reply(&self, to: &str, answer: Result<Bytes, &Problem>) {
        let (headers, body) = match answer {
            Ok(body) => (HeaderMap::new(), body),
            Err(problem) => (problem_headers(problem), wire::encode(problem).into()),
        };
        let result = self.client().publish_with_headers(to.to_owned(), headers, body).await;
        if let Err(error) = result {
            warn!(%error, "reply not sent");
            if error.kind() == async_nats::client::PublishErrorKind::MaxPayloadExceeded {
                let problem = Problem::internal("the reply is larger than the bus takes; ask for less");
                let sent = self
                    .client()
                    .publish_with_headers(to.to_owned(), problem_headers(&problem), wire::encode(&problem).into())
                    .await;
                if let Err(error) = sent {
                    warn!(%error, "reply not sent");
                }
            }
        }
    }
}

fn problem_headers(problem: &Problem) -> HeaderMap {
    let mut map = HeaderMap::new();
    headers::set(&mut map, header::SERVICE_ERROR_CODE, &problem.code.status().to_string());
    headers::set(&mut map, header::SERVICE_ERROR, &problem.to_string());
    map
}

/// Stands at one door.
struct Porter<C: Call, F> {
    bus: Bus,
    endpoint: Arc<Endpoint>,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    /// Set outside the platform.
    guard: Option<Arc<Guard>>,
    handler: Arc<F>,
    call: std::marker::PhantomData<fn() -> C>,
}

impl<C, F, Fut> Porter<C, F>
where
    C: Call,
    F: Fn(Incoming<C>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Reply, Problem>> + Send + 'static,
{
    async fn run(self, mut messages: Subscriber, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                message = messages.next() => match message {
                    Some(message) => self.admit(message).await,
                    None => return,
                },
            }
        }
        // What has arrived is still served. What the server sends before it hears of the end may be lost in the client,
        // which forgets a subscription without waiting for the server; its caller repeats or sees a time-out.
        if messages.drain().await.is_ok() {
            while let Ok(Some(message)) = timeout(Duration::from_secs(1), messages.next()).await {
                self.admit(message).await;
            }
        }
    }

    async fn admit(&self, message: Message) {
        let started = Instant::now();
        let reply = message.reply.as_ref().map(ToString::to_string);
        let bearer = match &self.guard {
            None => None,
            Some(_) => match Guard::bearer(&message) {
                Some(bearer) => Some(bearer),
                None => return,
            },
        };
        let incoming = self.let_in(&message, bearer);
        let (held, incoming) = match incoming {
            Ok(admitted) => admitted,
            Err(problem) => return self.answer(reply.as_deref(), Err(&problem), started).await,
        };
        let porter = Self {
            bus: self.bus.clone(),
            endpoint: self.endpoint.clone(),
            tasks: self.tasks.clone(),
            permits: self.permits.clone(),
            guard: self.guard.clone(),
            handler: self.handler.clone(),
            call: std::marker::PhantomData,
        };
        self.tasks.spawn(async move {
            porter.handle(incoming, reply, started).await;
            drop(held);
        });
    }

    /// Lets a request in: proves from outside who asks, finds a place for it, and reads it.
    fn let_in(&self, message: &Message, bearer: Option<Bearer>) -> Result<(Held, Incoming<C>), Problem> {
        let visit = self.guard.as_ref().zip(bearer).map(|(guard, bearer)| guard.let_in(message, bearer)).transpose()?;
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| throttled::<C>())?;
        let now = SystemClock.now();
        let mut origin = origin_of(message, now);
        // Nobody outside leads a service, and who says so would shut out the one who does.
        let leader = match &visit {
            Some(visit) => {
                visit.confine(&mut origin, now);
                None
            }
            None => leader_of(message)?,
        };
        if remaining(origin.deadline).is_zero() {
            return Err(Problem::new(Code::Deadline, "Deadline", "the request came after its deadline"));
        }
        let request = wire::decode(&message.payload)?;
        let (bearer, share) = match visit {
            Some(visit) => {
                visit.covers::<C>(&request)?;
                (Some(visit.bearer), Some(visit.share))
            }
            None => (None, None),
        };
        Ok(((permit, share), Incoming { request, origin, leader, bearer }))
    }

    async fn handle(self, incoming: Incoming<C>, reply: Option<String>, started: Instant) {
        let origin = incoming.origin.clone();
        let left = remaining(origin.deadline);
        let mut handling: Handling<C> = Box::pin(with_origin(origin, (self.handler)(incoming)));
        match timeout(left, &mut handling).await {
            Ok(Ok(answer)) => self.answer(reply.as_deref(), Ok(wire::encode(&answer).into()), started).await,
            Ok(Err(problem)) => self.answer(reply.as_deref(), Err(&problem), started).await,
            Err(_) => {
                let problem =
                    Problem::new(Code::Deadline, "Deadline", format_args!("{} is not done in time", C::NAME)).unknown();
                self.answer(reply.as_deref(), Err(&problem), started).await;
                // Cut off in the middle it could leave half a change behind.
                if timeout(OVERTIME_MAX, handling).await.is_err() {
                    error!(call = C::NAME, "handler dropped long after its deadline");
                }
            }
        }
    }

    async fn answer(&self, reply: Option<&str>, answer: Result<Bytes, &Problem>, started: Instant) {
        self.endpoint.count(started.elapsed(), answer.as_ref().err().copied());
        match reply {
            Some(reply) => self.bus.reply(reply, answer).await,
            None => debug!(call = C::NAME, "request without a reply subject"),
        }
    }
}

fn throttled<C: Call>() -> Problem {
    Problem::throttled(
        "DoorFull",
        format_args!("{DOOR_IN_FLIGHT_MAX} {} requests are in flight; repeat later", C::NAME),
    )
}

/// A fence that cannot be read must not let anything pass.
fn leader_of(message: &Message) -> Result<Option<Generation>, Problem> {
    let Some(text) = headers::get(message.headers.as_ref(), header::LEADER) else { return Ok(None) };
    let number = text.parse().map_err(|_| {
        Problem::bad_request("MalformedBody", format_args!("header {} is no number: {text:?}", header::LEADER))
    })?;
    Ok(Some(Generation(number)))
}

fn origin_of(message: &Message, now: Timestamp) -> Origin {
    let get = |name| headers::get(message.headers.as_ref(), name).map(str::to_owned);
    let within =
        get(header::WITHIN).and_then(|millis| millis.parse().ok()).map(|millis| now + Duration::from_millis(millis));
    let until = || get(header::DEADLINE).and_then(|nanos| nanos.parse().ok()).map(Timestamp::from_nanos);
    Origin {
        caller: get(header::CALLER).unwrap_or_else(|| "unknown".to_owned()),
        deadline: within.or_else(until).unwrap_or(now + CALL_DEADLINE),
        request_id: get(header::REQUEST_ID).unwrap_or_else(fresh_id),
        traceparent: get(header::TRACEPARENT),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;

    use super::*;

    #[test]
    fn a_time_from_receipt_goes_before_an_instant_of_the_callers_clock() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let default = now + CALL_DEADLINE;
        let (past, second) = ("1000000000", now + Duration::from_secs(1));
        let instant = second.nanos().to_string();
        for (within, deadline, expected) in [
            (None, None, default),
            (None, Some(instant.as_str()), second),
            (None, Some(past), Timestamp::from_nanos(1_000_000_000)),
            (None, Some("soon"), default),
            (Some("1000"), None, second),
            // The caller's clock is behind, or ahead.
            (Some("1000"), Some(past), second),
            (Some("1000"), Some("9223372036854775807"), second),
            (Some("0"), Some(instant.as_str()), now),
            (Some("18446744073709551615"), None, Timestamp::MAX),
            (Some("-1"), Some(instant.as_str()), second),
            (Some("soon"), None, default),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::WITHIN, within), (header::DEADLINE, deadline)] {
                if let Some(value) = value {
                    headers::set(&mut headers, name, value);
                }
            }
            let message = Message {
                subject: "lb.v1.x".into(),
                reply: None,
                payload: Bytes::new(),
                headers: Some(headers),
                status: None,
                description: None,
                length: 0,
            };
            assert_eq!(origin_of(&message, now).deadline, expected, "{within:?} {deadline:?}");
        }
    }
}
