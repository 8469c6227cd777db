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
