//! Calls and doors on a real server.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bus::{CALL_DEADLINE, DOOR_IN_FLIGHT_MAX, Doors, Incoming, Origin, origin, with_origin};
use support::{Server, soon};
use tokio::sync::{Semaphore, mpsc};
use types::{Clock, ContainerId, SegmentId};
use wire::{
    Code, Empty, Outcome, Problem, Service,
    coordinator::{ContainerMoved, ListStreams, StreamList, StreamsOf},
    segment_store::{DeleteSegment, SegmentName},
    views::Placement,
};

fn segment(number: u32) -> SegmentName {
    SegmentName { segment: SegmentId { stream: 1, epoch: 0, number } }
}

#[tokio::test]
async fn a_call_is_answered_by_the_door_of_its_key() {
    let server = Server::open();
    let (caller, callee) = (server.bus("gateway/g-0").await, server.bus("segment-store/s-0").await);
    let doors = Doors::new(&callee, Service::SegmentStore, &"s-0".parse().unwrap());
    let seen = Arc::new(std::sync::Mutex::new(Vec::<Origin>::new()));
    let door = doors
        .serve::<DeleteSegment, _, _>(Some(&ContainerId(3)), {
            let seen = seen.clone();
            move |incoming| {
                let seen = seen.clone();
                async move {
                    assert_eq!(origin(), Some(incoming.origin.clone()));
                    seen.lock().unwrap().push(incoming.origin);
                    match incoming.request.segment.number {
                        0 => Ok(Empty {}),
                        _ => Err(Problem::not_found("UnknownSegment", "line\r\nbreak")),
                    }
                }
            }
        })
        .await
        .unwrap();

    caller.call::<DeleteSegment>(&ContainerId(3), &segment(0)).await.unwrap();
    let problem = caller.call::<DeleteSegment>(&ContainerId(3), &segment(1)).await.unwrap_err();
    assert_eq!((problem.code, problem.kind.as_str()), (Code::NotFound, "UnknownSegment"));
    assert_eq!(problem.message, "line\r\nbreak");

    // The ids of an outer request go along, and its deadline bounds the call.
    let outer = Origin {
        caller: "x".to_owned(),
        deadline: bus::SystemClock.now() + Duration::from_secs(1),
        request_id: "r-1".to_owned(),
        traceparent: Some("00-aa-bb-01".to_owned()),
    };
    with_origin(outer.clone(), caller.call::<DeleteSegment>(&ContainerId(3), &segment(0))).await.unwrap();
    let last = seen.lock().unwrap().pop().unwrap();
    assert_eq!((last.caller.as_str(), last.request_id.as_str()), ("gateway/g-0", "r-1"));
    assert_eq!(last.traceparent, outer.traceparent);
    assert!(last.deadline <= outer.deadline);

    // Nobody at another container; nobody any more at this one.
    let started = Instant::now();
    let within = Duration::from_millis(300);
    for (container, door) in [(4, None), (3, Some(door))] {
        if let Some(door) = door {
            door.close().await;
        }
        let problem =
            caller.call_within::<DeleteSegment>(&ContainerId(container), &segment(0), within).await.unwrap_err();
        assert_eq!((problem.code, problem.outcome), (Code::Unavailable, Outcome::NotApplied), "{problem}");
        assert_eq!(problem.kind, "NoResponders");
    }
    assert!(started.elapsed() < Duration::from_secs(3));
    callee.close().await;
}

#[tokio::test]
async fn a_transient_refusal_is_repeated_until_it_passes() {
    let server = Server::open();
    let bus = server.bus("coordinator/c-0").await;
    let doors = Doors::new(&bus, Service::Coordinator, &"c-0".parse().unwrap());
    let count = Arc::new(AtomicU32::new(0));
    let _door = doors
        .serve::<ListStreams, _, _>(None, {
            let count = count.clone();
            move |_| {
                let attempt = count.fetch_add(1, Ordering::SeqCst);
                async move {
                    if attempt < 3 {
                        Err(Problem::unavailable("NotLeader", "ask another"))
                    } else {
                        Ok(StreamList::default())
                    }
                }
            }
        })
        .await
        .unwrap();
    bus.call::<ListStreams>(&(), &StreamsOf::default()).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_full_door_refuses_at_once_and_a_closing_one_finishes() {
    let server = Server::open();
    let bus = server.bus("coordinator/c-0").await;
    let doors = Doors::new(&bus, Service::Coordinator, &"c-0".parse().unwrap());
    let gate = Arc::new(Semaphore::new(0));
    let door = doors
        .serve::<ListStreams, _, _>(None, {
            let gate = gate.clone();
            move |_| {
                let gate = gate.clone();
                async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(StreamList::default())
                }
            }
        })
        .await
        .unwrap();
    let waiting: Vec<_> = (0..DOOR_IN_FLIGHT_MAX)
        .map(|_| {
            let bus = bus.clone();
            tokio::spawn(async move { bus.call::<ListStreams>(&(), &StreamsOf::default()).await })
        })
        .collect();
    // One of these comes after the door is full.
    let refused = soon("a refusal", async {
        loop {
            let answer = bus.call_within::<ListStreams>(&(), &StreamsOf::default(), Duration::from_millis(200)).await;
            match answer {
                Err(problem) if problem.code == Code::Throttled && problem.outcome == Outcome::NotApplied => {
                    return problem;
                }
                // It took a place itself, then waited in vain.
                Err(problem) => assert_eq!(problem.outcome, Outcome::Unknown),
                Ok(_) => panic!("nobody opened the gate"),
            }
        }
    })
    .await;
    assert_eq!((refused.kind.as_str(), refused.retry_after_ms.is_some()), ("DoorFull", true));

    let closing = tokio::spawn(door.close());
    gate.add_permits(4 * DOOR_IN_FLIGHT_MAX);
    soon("the door to close", closing).await.unwrap();
    let mut answered = 0;
    for call in waiting {
        match call.await.unwrap() {
            Ok(_) => answered += 1,
            Err(problem) => assert_eq!(problem.code, Code::Throttled, "{problem}"),
        }
    }
    // The polls above may have taken a place or two of the first.
    assert!(answered >= DOOR_IN_FLIGHT_MAX - 60, "{answered}");
}

#[tokio::test]
async fn the_deadline_answers_but_does_not_cut_the_handler() {
    let server = Server::open();
    let bus = server.bus("segment-store/s-0").await;
    let doors = Doors::new(&bus, Service::SegmentStore, &"s-0".parse().unwrap());
    let (done, mut finished) = mpsc::channel(4);
    let _door = doors
        .serve::<DeleteSegment, _, _>(None, move |_| {
            let done = done.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(400)).await;
                done.send(()).await.unwrap();
                Ok(Empty {})
            }
        })
        .await
        .unwrap();
    let problem =
        bus.call_within::<DeleteSegment>(&ContainerId(0), &segment(0), Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((problem.code, problem.outcome), (Code::Deadline, Outcome::Unknown));
    soon("the handler to finish", finished.recv()).await.unwrap();

    // A caller whose time is over asks nobody.
    let over = Origin {
        caller: String::new(),
        deadline: bus::SystemClock.now(),
        request_id: String::new(),
        traceparent: None,
    };
    let problem = with_origin(over, bus.call::<DeleteSegment>(&ContainerId(0), &segment(0))).await.unwrap_err();
    assert_eq!(problem.code, Code::Deadline);
    assert!(CALL_DEADLINE > Duration::from_secs(1));
}

#[tokio::test]
async fn what_is_too_large_or_malformed_is_said_to_be() {
    let server = Server::with("max_payload: 4096\n", "");
    let bus = server.bus("coordinator/c-0").await;
    let doors = Doors::new(&bus, Service::Coordinator, &"c-0".parse().unwrap());
    let _door = doors.serve::<wire::alerter::ObserveRows, _, _>(None, |_| async { Ok(Empty {}) }).await.unwrap();
    let _list = doors
        .serve::<wire::alerter::ListRules, _, _>(None, |_| async {
            Ok(wire::alerter::RuleList { rules: vec![large_rule()], more: false })
        })
        .await
        .unwrap();
    let problem = bus.call::<wire::alerter::ListRules>(&(), &Default::default()).await.unwrap_err();
    assert_eq!(problem.code, Code::Internal);
    assert!(problem.message.contains("larger"), "{problem}");

    let client = async_nats::connect(server.url()).await.unwrap();
    let answer = client.request("lb.v1.alerter.rows.observe", "\u{1}garbage".into()).await.unwrap();
    let headers = answer.headers.unwrap();
    assert_eq!(headers.get("Nats-Service-Error-Code").unwrap().as_str(), "400");
    let problem: Problem = wire::decode(&answer.payload).unwrap();
    assert_eq!(problem.kind, "MalformedBody");
}

fn large_rule() -> wire::alerter::RuleDescription {
    wire::alerter::RuleDescription {
        rule: wire::alerter::Rule {
            rule: "r".parse().unwrap(),
            index: "i".parse().unwrap(),
            query: "x".repeat(5000),
            condition: String::new(),
            webhook: None,
            summary: String::new(),
        },
        instances: Vec::new(),
        instance_count: 0,
        pending_count: 0,
        created: types::Timestamp::from_millis(0),
    }
}

struct Lister(u32);

impl actix::Actor for Lister {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Incoming<ListStreams>> for Lister {
    type Result = Result<StreamList, Problem>;
    fn handle(&mut self, incoming: Incoming<ListStreams>, _: &mut Self::Context) -> Self::Result {
        self.0 += 1;
        Err(Problem::conflict("Seen", format_args!("{} from {}", self.0, incoming.origin.caller)))
    }
}

#[actix::test]
async fn an_actor_stands_behind_a_door_and_is_discovered() {
    use actix::Actor;
    let server = Server::open();
    let bus = server.bus("coordinator/c-0").await;
    let doors = Doors::new(&bus, Service::Coordinator, &"c-0".parse().unwrap());
    let door = doors.open::<ListStreams>(None, Lister(0).start().recipient()).await.unwrap();
    let problem = bus.call::<ListStreams>(&(), &StreamsOf::default()).await.unwrap_err();
    assert_eq!(problem.message, "1 from coordinator/c-0");

    let client = async_nats::connect(server.url()).await.unwrap();
    for (subject, kind) in [
        ("$SRV.PING", "io.nats.micro.v1.ping_response"),
        ("$SRV.INFO.coordinator", "io.nats.micro.v1.info_response"),
        ("$SRV.STATS.coordinator.c-0", "io.nats.micro.v1.stats_response"),
    ] {
        let answer = client.request(subject, "".into()).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["type"], kind);
        assert_eq!((answer["name"].as_str(), answer["id"].as_str()), (Some("coordinator"), Some("c-0")));
        if kind.contains("stats") {
            assert_eq!(answer["endpoints"][0]["num_requests"], 1);
            assert_eq!(answer["endpoints"][0]["subject"], "lb.v1.coordinator.streams.list");
        }
    }
    doors.close_all().await;
    let gone = bus.call_within::<ListStreams>(&(), &StreamsOf::default(), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(gone.kind, "NoResponders");
    drop(door);
}

#[tokio::test]
async fn a_notice_reaches_every_listener() {
    let server = Server::open();
    let (teller, hearer) = (server.bus("coordinator/c-0").await, server.bus("gateway/g-0").await);
    let (mut one, mut two) =
        (hearer.listen::<ContainerMoved>().await.unwrap(), teller.listen::<ContainerMoved>().await.unwrap());
    let placement = Placement { version: 7, ..Placement::default() };
    teller.tell::<ContainerMoved>(&ContainerId(1), &placement).await;
    assert_eq!(soon("notice", one.next()).await, Some(placement.clone()));
    assert_eq!(soon("notice", two.next()).await, Some(placement));
    teller.close().await;
    assert_eq!(soon("the end", two.next()).await, None);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let options = bus::BusOptions { url: "nats://127.0.0.1:1".to_owned(), name: "x".to_owned(), ..Default::default() };
    let connecting = tokio::time::timeout(Duration::from_millis(300), bus::Bus::connect(options)).await;
    assert!(connecting.is_err(), "it waits for a server that comes late");
    let bad = bus::BusOptions { url: "http://x y".to_owned(), ..Default::default() };
    assert!(bus::Bus::connect(bad).await.unwrap_err().to_string().contains("http://x y"));
}
