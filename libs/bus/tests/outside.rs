//! Calls by programs outside the platform: what a hostile tenant tries, on a real server in operator mode.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::HeaderMap;
use bus::{Bus, BusError, BusOptions, Door, Doors, Gatekeeper, SystemClock, as_leader, keys::Signer};
use bytes::Bytes;
use support::{
    eventually,
    installation::{Installation, application, bearer, hears},
    soon,
};
use tokio::sync::Semaphore;
use types::{Clock, ContainerId, Generation, LaneId, SegmentId};
use wire::{
    Outcome, Problem, Service,
    coordinator::{GrantDelegation, SealStream, StreamName},
    delegation::{Bearer, Delegation, Granted},
    header,
    segment_store::{Append, AppendEvents, Appended, ReadFrom, ReadSegment},
    views::Role,
};

const CONTAINER: ContainerId = ContainerId(3);
/// The streams of the indexes `shop` and `bank`.
const SHOP: u32 = 7;
const BANK: u32 = 8;

/// Who was let in: the binding, and what it called itself.
type Seen = Arc<Mutex<Vec<(Bearer, String, Option<Generation>)>>>;

/// A coordinator and a segment store that only say who asked.
struct Stage {
    place: Installation,
    platform: Bus,
    signer: Arc<Signer>,
    /// Granted before any other.
    prepared: Arc<Mutex<VecDeque<Granted>>>,
    seen: Seen,
    /// Appends wait for places here.
    places: Arc<Semaphore>,
    _doors: Vec<Door>,
}

impl Stage {
    async fn begin() -> Self {
        let place = Installation::begin();
        let (platform, front) = (place.platform().await, place.front_door().await);
        let signer = Arc::new(Signer::generate().unwrap());
        drop(platform.announce_signer(&signer, 1).await.unwrap());
        let keeper = Gatekeeper::open(&platform, &front, 1).await.unwrap();
        let store = Doors::new(&platform, Service::SegmentStore, &"s-0".parse().unwrap()).with_outer(keeper.clone());
        let coordinator = Doors::new(&platform, Service::Coordinator, &"c-0".parse().unwrap()).with_outer(keeper);
        let (seen, places) = (Seen::default(), Arc::new(Semaphore::new(1_000)));
        let prepared: Arc<Mutex<VecDeque<Granted>>> = Arc::default();
        let (noted, waiting) = (seen.clone(), places.clone());
        let append = store.serve::<AppendEvents, _, _>(Some(&CONTAINER), move |incoming| {
            let bearer = incoming.bearer.expect("it comes from outside");
            noted.lock().unwrap().push((bearer, incoming.origin.caller, incoming.leader));
            let waiting = waiting.clone();
            async move {
                drop(waiting.acquire().await);
                Ok(Appended { offsets: vec![Some(1)], duplicate_count: 0, duplicates: vec![] })
            }
        });
        let read = store.serve::<ReadSegment, _, _>(Some(&CONTAINER), |_| async { Err(Problem::internal("read")) });
        let (signing, first) = (signer.clone(), prepared.clone());
        let grant = coordinator.serve::<GrantDelegation, _, _>(None, move |incoming| {
            let granted = first.lock().unwrap().pop_front();
            let granted = granted.unwrap_or_else(|| granted_by(&signing, &incoming.bearer.unwrap(), 60));
            async move { Ok(granted) }
        });
        let seal = coordinator.serve::<SealStream, _, _>(None, |_| async { Err(Problem::internal("seal")) });
        let doors = vec![append.await.unwrap(), read.await.unwrap(), grant.await.unwrap(), seal.await.unwrap()];
        Self { place, platform, signer, prepared, seen, places, _doors: doors }
    }

    async fn connect(&self, bearer: &Bearer) -> Bus {
        let creds = Some(self.place.bind(bearer, bearer.binding.as_str()).0);
        let options = BusOptions { url: self.place.server.url(), creds, name: "app/1".to_owned(), ..<_>::default() };
        Bus::connect_with_binding(options, bearer.clone()).await.unwrap()
    }

    fn token(&self, bearer: &Bearer) -> String {
        granted_by(&self.signer, bearer, 60).token
    }

    fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// A delegation that ends so many seconds from now, which says of itself that it lives for a minute.
fn granted_by(signer: &Signer, bearer: &Bearer, seconds: i64) -> Granted {
    let stream = if bearer.index.as_str() == "shop" { SHOP } else { BANK };
    let now = SystemClock.now();
    let expires = types::Timestamp::from_nanos(now.nanos() + seconds * 1_000_000_000);
    let token = signer.sign(&Delegation { bearer: bearer.clone(), stream, expires }, now).unwrap();
    Granted { token, stream, lifetime_ms: 60_000 }
}

fn append(stream: u32) -> Append {
    let segment = SegmentId { stream, epoch: 0, number: 0x8000_0001 };
    let (writer, first_event_number, block) = ("w".parse().unwrap(), 1, Bytes::from_static(b"x"));
    Append { segment, writer, first_event_number, block, expected_end: None }
}

async fn refused(bus: &Bus, stream: u32) -> Problem {
    let problem = bus.call::<AppendEvents>(&CONTAINER, &append(stream)).await.unwrap_err();
    assert_eq!(problem.outcome, Outcome::NotApplied, "{problem}");
    problem
}

#[tokio::test]
async fn a_binding_calls_for_its_own_index_as_far_as_its_role_allows() {
    let stage = Stage::begin().await;
    let writer = bearer("shop", "b1", Role::Write);
    let bus = stage.connect(&writer).await;
    // What it says of itself is not believed: neither who it is, nor that it leads.
    as_leader(Generation(99), bus.call::<AppendEvents>(&CONTAINER, &append(SHOP))).await.unwrap();
    assert_eq!(*stage.seen.lock().unwrap(), [(writer, "binding/b1".to_owned(), None)]);

    assert_eq!(refused(&bus, BANK).await.kind, "DelegationForeign");
    let segment = append(SHOP).segment;
    let read = ReadFrom { segment, from: 0, bytes_max: 1, wait_ms: 0 };
    let problem = bus.call::<ReadSegment>(&CONTAINER, &read).await.unwrap_err();
    assert_eq!((problem.kind.as_str(), problem.outcome), ("DelegationTooWeak", Outcome::NotApplied));
    let name = StreamName { index: "shop".parse().unwrap() };
    assert_eq!(bus.call::<SealStream>(&(), &name).await.unwrap_err().kind, "NotDelegable");
    assert!(matches!(bus.join_bucket("lb_groups", 1).await, Err(BusError::Refused { .. })));
    assert_eq!(stage.seen(), 1);

    let reader = stage.connect(&bearer("shop", "b2", Role::Read)).await;
    assert_eq!(refused(&reader, SHOP).await.kind, "DelegationTooWeak");
    assert_eq!(reader.call::<ReadSegment>(&CONTAINER, &read).await.unwrap_err().message, "read");
}

#[tokio::test]
async fn a_delegation_that_a_door_does_not_take_is_replaced() {
    let stage = Stage::begin().await;
    let mine = bearer("shop", "b1", Role::Admin);
    let bus = stage.connect(&mine).await;
    // It has ended by the clock of the door, and its signer died before anybody heard of it.
    let stranger = Signer::generate().unwrap();
    let first = [granted_by(&stage.signer, &mine, -1), granted_by(&stranger, &mine, 60)];
    stage.prepared.lock().unwrap().extend(first);
    bus.call::<AppendEvents>(&CONTAINER, &append(SHOP)).await.unwrap();
    assert!(stage.prepared.lock().unwrap().is_empty());

    // A signer of whom the doors hear only now.
    let later = stage.connect(&mine).await;
    stage.prepared.lock().unwrap().extend((0..10).map(|_| granted_by(&stranger, &mine, 60)));
    let block = append(SHOP);
    let (call, announced) =
        tokio::join!(later.call::<AppendEvents>(&CONTAINER, &block), stage.platform.announce_signer(&stranger, 1));
    call.unwrap();
    drop(announced.unwrap());
    assert_eq!(stage.seen(), 2);
}

#[tokio::test]
async fn what_is_forged_or_anothers_is_refused_by_the_door_or_by_nats() {
    let stage = Stage::begin().await;
    let mine = bearer("shop", "b1", Role::Write);
    let (creds, _) = stage.place.bind(&mine, "b1");
    let (client, mut told) = application(&stage.place.server, &creds, "b1").await.unwrap();
    let subject = mine.subject_of::<AppendEvents>(&CONTAINER);
    let ask = async |token: Option<&str>, body: Vec<u8>| {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::DELEGATION, token);
        }
        let answer = client.request_with_headers(subject.clone(), headers, body.into()).await.unwrap();
        wire::decode::<Problem>(&answer.payload).map_err(drop)
    };
    let good = stage.token(&mine);
    let (text, signature) = good.rsplit_once('.').unwrap();
    let theirs = stage.token(&bearer("bank", "b9", Role::Write));
    let sibling = stage.token(&bearer("shop", "b2", Role::Write));
    let stronger = stage.token(&bearer("shop", "b1", Role::Admin));
    let stranger = granted_by(&Signer::generate().unwrap(), &mine, 60).token;
    let expired = granted_by(&stage.signer, &mine, 0).token;
    let mixed = format!("{text}.{}", theirs.rsplit_once('.').unwrap().1);
    let none = format!("{}.{}", "eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0", good.split_once('.').unwrap().1);
    let (own, foreign) = (wire::encode(&append(SHOP)), wire::encode(&append(BANK)));
    for (token, body, kind) in [
        (None, &own, "DelegationMissing"),
        (Some("token"), &own, "DelegationForged"),
        (Some(&*"x".repeat(200_000)), &own, "DelegationForged"),
        (Some(&*mixed), &own, "DelegationForged"),
        (Some(&*none), &own, "DelegationForged"),
        (Some(&*format!("{text}.{}", signature.to_lowercase())), &own, "DelegationForged"),
        (Some(&*stranger), &own, "DelegationSignerUnknown"),
        (Some(&*expired), &own, "DelegationExpired"),
        (Some(&*theirs), &foreign, "DelegationForeign"),
        (Some(&*sibling), &own, "DelegationForeign"),
        (Some(&*stronger), &own, "DelegationForeign"),
        (Some(&*good), &foreign, "DelegationForeign"),
        // What is not a request is found out only behind a good delegation.
        (Some("token"), &b"\xc1".to_vec(), "DelegationForged"),
        (Some(&*good), &b"\xc1".to_vec(), "MalformedBody"),
    ] {
        let problem = ask(token, body.clone()).await.unwrap();
        assert_eq!((problem.kind.as_str(), problem.outcome), (kind, Outcome::NotApplied), "{problem}");
    }
    assert_eq!(stage.seen(), 0);
    assert!(ask(Some(&good), own.clone()).await.is_err(), "this is an answer and no problem");
    assert_eq!(stage.seen(), 1);
    // A clock that stands at the epoch is no hindrance to who says how long it waits.
    for (within, seen) in [(None, 1), (Some("0"), 1), (Some("5000"), 2)] {
        let mut headers = HeaderMap::new();
        headers.insert(header::DELEGATION, good.as_str());
        headers.insert(header::DEADLINE, "1");
        within.into_iter().for_each(|millis| headers.insert(header::WITHIN, millis));
        let answer = client.request_with_headers(subject.clone(), headers, own.clone().into()).await.unwrap();
        let refused = wire::decode::<Problem>(&answer.payload).ok().map(|problem| problem.kind);
        assert_eq!((refused.as_deref(), stage.seen()), ((seen == 1).then_some("Deadline"), seen), "{within:?}");
    }

    // Under another's subject nothing arrives, whatever is shown.
    for subject in [
        bearer("bank", "b9", Role::Write).subject_of::<AppendEvents>(&CONTAINER),
        bearer("shop", "b2", Role::Write).subject_of::<AppendEvents>(&CONTAINER),
        bearer("shop", "b1", Role::Admin).subject_of::<AppendEvents>(&CONTAINER),
        bearer("shop", "b1", Role::Admin).subject_of::<GrantDelegation>(&()),
        wire::subject_of::<AppendEvents>(&CONTAINER),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::DELEGATION, theirs.as_str());
        client.publish_with_headers(subject.clone(), headers, own.clone().into()).await.unwrap();
        let complaint = hears(&mut told, "permissions violation for publish").await;
        assert!(complaint.contains(&subject.to_lowercase()), "{complaint}");
    }
    for subject in ["ext.v1.>", "ext.v1.shop.b1.write.>"] {
        let _forbidden = client.subscribe(subject).await.unwrap();
        hears(&mut told, "permissions violation for subscription").await;
    }
    assert_eq!(stage.seen(), 2);
}

/// Answers are published with the platform's rights, and the server does not check reply subjects.
#[tokio::test]
async fn nobody_lets_the_platform_publish_for_him() {
    let stage = Stage::begin().await;
    let front = stage.place.front_door().await;
    let mine = bearer("shop", "b1", Role::Admin);
    let (creds, _) = stage.place.bind(&mine, "b1");
    let (client, _told) = application(&stage.place.server, &creds, "b1").await.unwrap();
    let mut lanes: Vec<_> =
        futures::future::try_join_all((0..support::installation::LANES).map(|n| front.lane(LaneId(n)))).await.unwrap();
    let acking = front.clone();
    let lanes = tokio::spawn(async move {
        let mut indexes = Vec::new();
        loop {
            let next = futures::future::select_all(lanes.iter_mut().map(|lane| Box::pin(lane.next()))).await.0.unwrap();
            indexes.push(next.index.to_string());
            if let Some(reply) = &next.reply {
                acking.ack(reply, "shop", 1, false).await;
            }
            if next.payload == "last" {
                return indexes;
            }
        }
    });
    // Somebody who may look at everything in the tenants' account.
    let wide = |key| bus::keys::UserSpec { name: "wide".to_owned(), public_key: key, ..<_>::default() };
    let wide = bus::keys::issue_creds(wide, &stage.place.ring.tenants_seed, SystemClock.now()).unwrap();
    let (witness, _heard) = application(&stage.place.server, &wide, "w").await.unwrap();
    front.ensure_alerts(1).await.unwrap();
    front.publish_record("alerts.bank.fire", "t1", "fire".into()).await.unwrap();

    let mut headers = HeaderMap::new();
    headers.insert(header::DELEGATION, stage.token(&mine).as_str());
    let call = mine.subject_of::<AppendEvents>(&CONTAINER);
    let body = Bytes::from(wire::encode(&append(SHOP)));
    for reply in
        ["$JS.API.STREAM.PURGE.ALERTS", "alerts.bank.fire", "lane.0.bank", "logs.bank", "_INBOX.b9.x", "_INBOX.b1"]
    {
        client.publish_with_reply_and_headers(call.clone(), reply, headers.clone(), body.clone()).await.unwrap();
        let refused = mine.subject_of::<GrantDelegation>(&());
        client.publish_with_reply(refused, reply, Bytes::new()).await.unwrap();
        if reply != "_INBOX.b9.x" {
            client.publish_with_reply("logs.shop", reply, "event".into()).await.unwrap();
        }
    }
    client.publish_with_headers(call.clone(), headers.clone(), body.clone()).await.unwrap();
    // Behind all of that, on the same connection.
    client.request("logs.shop", "last".into()).await.unwrap();
    client.request_with_headers(call, headers, body).await.unwrap();
    assert_eq!(stage.seen(), 1, "only the request that is answered to its caller is carried out");
    assert!(soon("lanes", lanes).await.unwrap().iter().all(|index| index == "shop"));
    let mut alerts = async_nats::jetstream::new(witness).get_stream("ALERTS").await.unwrap();
    assert_eq!(alerts.info().await.unwrap().state.messages, 1, "neither purged nor forged");

    // What an acknowledgement does where the reply subject is not looked at: it is an alert of somebody else's.
    front.ack("alerts.bank.fire", "shop", 1, false).await;
    eventually("an alert is forged", async || alerts.info().await.unwrap().state.messages == 2).await;
}

#[tokio::test]
async fn an_index_does_not_fill_a_door() {
    let stage = Stage::begin().await;
    let (shop, bank) = (bearer("shop", "b1", Role::Write), bearer("bank", "b9", Role::Write));
    let (shop, bank) = (stage.connect(&shop).await, stage.connect(&bank).await);
    shop.call::<AppendEvents>(&CONTAINER, &append(SHOP)).await.unwrap();
    let held = stage.places.clone().acquire_many_owned(1_000).await.unwrap();
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let shop = shop.clone();
            tokio::spawn(async move { shop.call::<AppendEvents>(&CONTAINER, &append(SHOP)).await })
        })
        .collect();
    eventually("64 wait", async || stage.seen() == 65).await;
    let problem = refused(&shop, SHOP).await;
    assert!(problem.kind == "DoorFull" && problem.message.contains("shop"), "{problem}");
    let theirs = tokio::spawn(async move { bank.call::<AppendEvents>(&CONTAINER, &append(BANK)).await });
    eventually("another index is let in", async || stage.seen() == 66).await;
    drop(held);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    theirs.await.unwrap().unwrap();
    shop.call::<AppendEvents>(&CONTAINER, &append(SHOP)).await.unwrap();
}

#[tokio::test]
async fn a_revoked_binding_is_cut_off_whatever_it_was_granted() {
    let stage = Stage::begin().await;
    let mine = bearer("shop", "b1", Role::Write);
    let bus = stage.connect(&mine).await;
    bus.call::<AppendEvents>(&CONTAINER, &append(SHOP)).await.unwrap();
    let (_, key) = stage.place.bind(&mine, "b1");
    stage.place.revoke(&key, SystemClock.now()).await;
    eventually("cut off", async || !bus.is_connected()).await;
    let problem = bus.call_within::<AppendEvents>(&CONTAINER, &append(SHOP), Duration::from_millis(200)).await;
    assert_eq!(problem.unwrap_err().outcome, Outcome::NotApplied);
    assert_eq!(stage.seen(), 1);
}
