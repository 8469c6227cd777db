//! Quotas and foreign indexes at every HTTP door.

use types::IndexName;
use wire::views::Quota;

use super::*;

const INGEST: &str = "/api/v1/indexes/shop/ingest";
const TAIL: &str = "/api/v1/indexes/shop/tail";
const HISTOGRAM: &str = "/api/v1/indexes/shop/histogram";
const JOB: &str = "INSERT INTO other SELECT _msg FROM shop";

fn limit(world: &World, quota: Quota) {
    let shop: IndexName = "shop".parse().unwrap();
    world.door.quotas.set(&shop, Some(quota));
    *world.fake.quota.lock() = quota;
}

async fn post(world: &World, lines: &str, token: &str) -> Answer {
    ask(world, request("POST", INGEST, token).set_payload(lines.to_owned())).await
}

async fn sql(world: &World, text: &str, token: &str) -> Answer {
    let asked = request("POST", "/api/v1/sql", token).insert_header(("content-type", "text/plain"));
    ask(world, asked.set_payload(text.to_owned())).await
}

#[track_caller]
fn assert_refused(answer: &Answer, kind: &str, seconds: &str) {
    assert_eq!((answer.status, answer.kind().as_str()), (429, kind), "{}", answer.text());
    assert_eq!(answer.headers.get("retry-after").unwrap(), seconds, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "Throttled");
}

#[actix_web::test]
async fn ingest_stops_at_the_quota_and_stores_nothing_of_what_it_refuses() {
    let world = world();
    limit(&world, Quota { events_per_second: Some(2), ..Quota::default() });
    assert_eq!(post(&world, "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n", "writer").await.status, 200);
    // One event is left of the burst; the clock of this platform stands still.
    assert_refused(&post(&world, "{\"a\":4}\n{\"a\":5}\n{\"a\":6}\n", "writer").await, "QuotaRate", "2");
    assert_eq!(post(&world, "{\"a\":4}\n", "writer").await.status, 200);
    assert_refused(&post(&world, "{\"a\":5}\n", "writer").await, "QuotaRate", "1");
    assert_eq!(world.fake.segments.events().into_values().flatten().count(), 4);
    // Whoever runs the platform is not bound, nor are lines counted that were refused for another reason.
    assert_eq!(post(&world, "{\"a\":5}\n", "root").await.status, 200);
    assert_eq!(post(&world, "nothing\n", "writer").await.status, 400);

    // 2026-01-02T03:04:05Z: 75,355 s until the next day.
    limit(&world, Quota { bytes_per_day: Some(45), ..Quota::default() });
    assert_eq!(post(&world, "{\"a\":7}\n", "writer").await.status, 200);
    let refused = post(&world, "{\"a\":\"eleven\"}\n", "writer").await;
    assert_refused(&refused, "QuotaBytes", "75356");
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "log index shop takes 45 bytes on a day of UTC: try again in 75356 s");
    limit(&world, Quota { bytes_per_day: Some(60), ..Quota::default() });
    assert_eq!(post(&world, "{\"a\":\"eleven\"}\n", "writer").await.status, 200, "a better plan helps at once");
}

#[actix_web::test]
async fn lines_that_were_not_stored_are_given_back() {
    let world = world();
    limit(&world, Quota { bytes_per_day: Some(10), ..Quota::default() });
    for _ in 0..3 {
        *world.fake.broken.lock() = Some(Problem::unavailable("ContainerUnavailable", "its owner is away"));
        assert_eq!(post(&world, "{\"a\":1}\n", "writer").await.status, 503);
    }
    *world.fake.broken.lock() = None;
    assert_eq!(post(&world, "{\"a\":1}\n", "writer").await.status, 200);
    assert_eq!(post(&world, "{\"a\":1}\n", "writer").await.status, 429);
}

#[actix_web::test]
async fn what_is_taken_is_shown_beside_what_the_plan_allows() {
    let world = world();
    let usage = async || ask(&world, request("GET", "/api/v1/indexes/shop/usage", "writer")).await.json();
    let nothing = json!({"bytes_today": null, "queries": null, "streams": null});
    assert_eq!(usage().await, json!({"index": "shop", "quota": {}, "taken": nothing}));
    limit(&world, Quota { bytes_per_day: Some(45), queries: Some(4), streams: Some(3), ..Quota::default() });
    assert_eq!(post(&world, "{\"a\":7}\n", "writer").await.status, 200);
    let tail = open(&world, request("GET", TAIL, "reader")).await;
    let job = request("POST", "/api/v1/jobs", "root").set_payload(json!({"job": "sums", "text": JOB}).to_string());
    assert_eq!(ask(&world, job).await.status, 201);
    let expected = json!({
        "index": "shop",
        "quota": {"bytes_per_day": 45, "queries": 4, "streams": 3},
        "taken": {"bytes_today": 7, "queries": 2, "streams": 2},
    });
    assert_eq!(usage().await, expected);
    drop(tail);
}

#[actix_web::test]
async fn more_than_any_day_takes_is_refused_for_good() {
    let world = world();
    limit(&world, Quota { bytes_per_day: Some(10), ..Quota::default() });
    let refused = post(&world, "{\"a\":1}\n{\"a\":2}\n", "writer").await;
    assert_eq!((refused.status, refused.kind().as_str()), (429, "QuotaBytes"), "{}", refused.text());
    assert!(refused.headers.get("retry-after").is_none(), "no time of waiting helps");
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    let expected =
        "log index shop takes 10 bytes on a day of UTC, and these are 14: send less at once, or change the plan";
    assert_eq!(message, expected);
}

#[actix_web::test]
async fn a_part_that_was_not_stored_and_repeats_are_given_back() {
    let world = world();
    let shop = world.fake.segments.description("shop");
    // Two lines of 20 bytes, one for each segment.
    let mut keys: Vec<(usize, String)> =
        (10..99).map(|n| (route(&shop, n), format!("{{\"k\":\"{n}\",\"x\":12345}}\n"))).collect();
    keys.sort();
    let ((first, low), (second, high)) = (keys[0].clone(), keys[keys.len() - 1].clone());
    assert_ne!(first, second);
    limit(&world, Quota { bytes_per_day: Some(99), ..Quota::default() });
    let send = async |lines: String, key: &str| {
        let asked = request("POST", "/api/v1/indexes/shop/ingest?routing_key_field=k", "writer");
        ask(&world, asked.insert_header(("idempotency-key", key.to_owned())).set_payload(lines)).await
    };
    let broken = shop.segments[second].segment;
    world.fake.broken_segments.lock().insert(broken, Problem::unavailable("ContainerUnavailable", "its owner is away"));
    let answer = send(low.clone() + &high, "a").await;
    assert_eq!((answer.status, &answer.json()["error"]["stored"]), (503, &json!(1)), "{}", answer.text());
    assert_eq!(answer.json()["error"]["outcome"], "unknown", "a part of it is there");
    world.fake.broken_segments.lock().clear();
    // 20 bytes are taken. Each repeat takes 20 or 40 and gives back what was there.
    for round in 0..4 {
        let again = send(low.clone() + &high, "a").await;
        assert_eq!(again.status, 200, "repeat {round}: {}", again.text());
    }
    // 40 are taken: two lines more, and not a third.
    assert_eq!(send(low.clone() + &high, "b").await.status, 200);
    assert_refused(&send(low, "c").await, "QuotaBytes", "75356");
    assert_eq!(world.fake.segments.events().into_values().flatten().count(), 4);
}

/// The place of the segment that takes a key.
fn route(stream: &wire::coordinator::StreamDescription, key: u32) -> usize {
    let key = types::RoutingKey::new(&key.to_string()).unwrap();
    let segment = stream.route(Some(&key)).unwrap().segment;
    stream.segments.iter().position(|range| range.segment == segment).unwrap()
}

#[actix_web::test]
async fn one_segment_of_which_nobody_knows_makes_the_answer_unknown() {
    let stream = world().fake.segments.description("shop");
    let [first, second] = [0, 1].map(|place: usize| stream.segments[place].segment);
    let (sure, maybe) = (Problem::throttled("Throttled", "x"), Problem::unavailable("NoAnswer", "x").unknown());
    for (of_first, of_second, kind, outcome) in [
        (Some(sure.clone()), Some(maybe.clone()), "NoAnswer", json!("unknown")),
        (Some(maybe), Some(sure.clone()), "NoAnswer", json!("unknown")),
        (Some(sure.clone()), Some(sure.clone()), "Throttled", Value::Null),
        (Some(sure), None, "Throttled", json!("unknown")),
    ] {
        let world = world();
        let broken = [(first, of_first), (second, of_second)];
        world
            .fake
            .broken_segments
            .lock()
            .extend(broken.into_iter().filter_map(|(segment, problem)| Some((segment, problem?))));
        let lines: String = (0..40).map(|n| format!("{{\"user\":\"u{n}\"}}\n")).collect();
        let path = "/api/v1/indexes/shop/ingest?routing_key_field=user";
        let answer = ask(&world, request("POST", path, "writer").set_payload(lines)).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.kind().as_str(), &error["outcome"]), (kind, &outcome), "{error}");
    }
}

#[actix_web::test]
async fn jobs_and_rules_that_begin_together_are_counted_one_after_the_other() {
    let world = world();
    limit(&world, Quota { queries: Some(2), ..Quota::default() });
    let text = "INSERT INTO shop SELECT _msg FROM shop";
    let job = |id: String| {
        let body = json!({"job": id, "text": text}).to_string();
        ask(&world, request("POST", "/api/v1/jobs", "owner").set_payload(body))
    };
    let query = "SELECT count(*) AS n FROM tumble(shop, INTERVAL '1 s') GROUP BY window_start";
    let rule = |id: &str| {
        let body = json!({"query": query, "condition": "n > 1"}).to_string();
        ask(&world, request("PUT", &format!("/api/v1/rules/{id}"), "owner").set_payload(body))
    };
    let begun = futures::future::join_all((0..6).map(|n| job(format!("j-{n}")))).await;
    let statuses: Vec<u16> = begun.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 2, "{statuses:?}");
    assert_eq!((statuses.iter().filter(|status| **status == 429).count(), world.fake.jobs.lock().len()), (4, 2));
    // What runs under this id may be asked for again; what has ended under it would be one more.
    let running = world.fake.jobs.lock()[0].job.to_string();
    assert_eq!(job(running).await.status, 201);
    world.fake.jobs.lock().truncate(2);
    let mut ended = world.fake.jobs.lock()[0].clone();
    (ended.job, ended.status) = ("over".parse().unwrap(), wire::job_manager::JobStatus::Cancelled);
    world.fake.jobs.lock().push(ended);
    assert_refused(&job("over".to_owned()).await, "QuotaQueries", "2");

    // Rules have no jobs yet when they are put: they count all the same, and one that is there may be replaced.
    world.fake.jobs.lock().clear();
    let put = futures::future::join_all(["a", "b", "c", "d"].map(rule)).await;
    assert_eq!(put.iter().filter(|answer| answer.status == 200).count(), 2);
    assert_eq!(world.fake.rules.lock().len(), 2);
    let there = world.fake.rules.lock()[0].rule.rule.to_string();
    assert_eq!(rule(&there).await.status, 200);
    assert_refused(&job("one-more".to_owned()).await, "QuotaQueries", "2");
}

#[actix_web::test]
async fn searches_tails_and_continuous_queries_share_a_quota() {
    let world = world();
    put_lines(&world, "{\"a\":1}\n").await;
    limit(&world, Quota { queries: Some(2), ..Quota::default() });
    let count = "SELECT count(*) AS n FROM shop";
    for _ in 0..3 {
        assert_eq!(sql(&world, count, "reader").await.status, 200, "what has ended does not count");
    }
    let tail = open(&world, request("GET", TAIL, "reader")).await;
    assert_eq!(tail.status().as_u16(), 200);
    let submit =
        |job: &str| request("POST", "/api/v1/jobs", "root").set_payload(json!({"job": job, "text": JOB}).to_string());
    assert_eq!(ask(&world, submit("sums")).await.status, 201);
    assert_eq!(sql(&world, count, "reader").await.status, 429);
    // A tail and a continuous query: every door of the index is closed now, and every other index is not.
    let rule = json!({"query": "SELECT count(*) AS n FROM tumble(shop, INTERVAL '1 s') GROUP BY window_start", "condition": "n > 1"});
    let rule = request("PUT", "/api/v1/rules/many", "owner").set_payload(rule.to_string());
    let job = json!({"job": "more", "text": "INSERT INTO shop SELECT _msg FROM shop"}).to_string();
    for refused in [
        sql(&world, count, "reader").await,
        sql(&world, "SELECT count(*) AS n FROM shop AS a JOIN shop AS b ON a._msg = b._msg", "owner").await,
        ask(&world, request("GET", TAIL, "reader")).await,
        ask(&world, request("GET", HISTOGRAM, "reader")).await,
        ask(&world, request("POST", "/api/v1/jobs", "owner").set_payload(job)).await,
        ask(&world, rule).await,
    ] {
        assert_refused(&refused, "QuotaQueries", "2");
    }
    assert_eq!(sql(&world, count, "root").await.status, 200, "whoever runs the platform may look");
    assert_eq!(sql(&world, "SELECT count(*) AS n FROM other", "root").await.status, 200);
    assert_eq!(world.fake.jobs.lock().len(), 1);

    drop(tail);
    eventually(|| async { sql(&world, count, "reader").await.status == 200 }).await;
}

/// A tail notices that its reader is gone only when it is polled.
async fn eventually<F: Future<Output = bool>>(mut look: impl FnMut() -> F) {
    let until = std::time::Instant::now() + PATIENCE;
    while !look().await {
        assert!(std::time::Instant::now() < until, "it did not happen");
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn no_door_opens_the_index_of_another_tenant() {
    let world = world();
    let foreign_job = json!({"job": "theirs", "text": "INSERT INTO shop SELECT _msg FROM other"});
    assert_eq!(
        ask(&world, request("POST", "/api/v1/jobs", "root").set_payload(foreign_job.to_string())).await.status,
        201
    );
    let rule = |index: &str| {
        let query = format!("SELECT count(*) AS n FROM tumble({index}, INTERVAL '1 s') GROUP BY window_start");
        json!({"index": index, "query": query, "condition": "n > 1"})
    };
    let theirs = request("PUT", "/api/v1/rules/theirs", "root").set_payload(rule("other").to_string());
    assert_eq!(ask(&world, theirs).await.status, 200);
    let alerts_elsewhere = json!({"index": "other", "query": rule("shop")["query"], "condition": "n > 1"});
    let join = json!({"sql": "SELECT * FROM shop WHERE _msg IN (SELECT _msg FROM other)"});
    let (reads, writes) = (
        json!({"job": "j", "text": "INSERT INTO shop SELECT _msg FROM other"}),
        json!({"job": "j", "text": "INSERT INTO other SELECT _msg FROM shop"}),
    );
    for (method, path, body) in [
        ("POST", "/api/v1/indexes/other/ingest", json!({"a": 1})),
        ("GET", "/api/v1/indexes/other/tail", Value::Null),
        ("GET", "/api/v1/indexes/other/histogram", Value::Null),
        ("POST", "/api/v1/sql", json!({"sql": "SELECT * FROM other"})),
        ("POST", "/api/v1/sql", join),
        ("POST", "/api/v1/jobs", reads),
        ("POST", "/api/v1/jobs", writes),
        ("GET", "/api/v1/jobs/theirs", Value::Null),
        ("DELETE", "/api/v1/jobs/theirs", Value::Null),
        ("PUT", "/api/v1/rules/mine", rule("other")),
        ("PUT", "/api/v1/rules/mine", alerts_elsewhere),
        ("PUT", "/api/v1/rules/theirs", rule("shop")),
        ("DELETE", "/api/v1/rules/theirs", Value::Null),
    ] {
        let mut asked = request(method, path, "owner");
        if !body.is_null() {
            asked = asked.set_payload(body.to_string());
        }
        let answer = ask(&world, asked).await;
        assert_eq!((answer.status, answer.kind().as_str()), (403, "ForeignIndex"), "{method} {path} {body}");
    }
    // Lists show nothing of it.
    for (path, list) in [("/api/v1/jobs", "jobs"), ("/api/v1/rules", "rules"), ("/api/v1/indexes", "indexes")] {
        let shown = ask(&world, request("GET", path, "owner")).await.text();
        assert!(!shown.contains("theirs") && !shown.contains("\"other\""), "{list}: {shown}");
    }
    assert_eq!((world.fake.jobs.lock().len(), world.fake.rules.lock().len()), (1, 1), "nothing was changed");
}
