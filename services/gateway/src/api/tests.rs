//! The HTTP API as a caller sees it, on a platform in memory.

use std::{io::Write, sync::Arc};

use actix_web::{
    body::{MessageBody, to_bytes},
    dev::{Service, ServiceResponse},
    test::{TestRequest, init_service},
};
use futures::StreamExt;
use serde_json::{Value, json};

use super::*;
use crate::fake::{Fake, FakeGrants, NOW_MS, PATIENCE, door};

mod agents;
mod elastic;
mod explore;
mod flink;
mod fragments;
mod languages;
mod library;
mod loki;
mod quotas;
mod scaling;
mod streams;
mod tails;

struct World {
    fake: Arc<Fake>,
    grants: Arc<FakeGrants>,
    door: Door,
}

fn world() -> World {
    let (fake, grants) = (Arc::new(Fake::default()), Arc::new(FakeGrants::default()));
    let door = door(&fake, &grants);
    World { fake, grants, door }
}

struct Answer {
    status: u16,
    headers: actix_web::http::header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn kind(&self) -> String {
        self.json()["error"]["kind"].as_str().unwrap_or_default().to_owned()
    }
}

async fn open(world: &World, request: TestRequest) -> ServiceResponse<impl MessageBody + use<>> {
    let app = init_service(app(world.door.clone())).await;
    match app.call(request.to_request()).await {
        Ok(answer) => answer.map_into_boxed_body(),
        Err(error) => panic!("the door must turn every error into an answer: {error}"),
    }
}

async fn ask(world: &World, request: TestRequest) -> Answer {
    let answer = open(world, request).await;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = to_bytes(answer.into_body()).await.map_err(|_| "body").unwrap().to_vec();
    Answer { status, headers, body }
}

fn request(method: &str, path: &str, token: &str) -> TestRequest {
    let request = TestRequest::with_uri(path).method(method.parse().unwrap());
    if token.is_empty() { request } else { request.insert_header(("authorization", format!("Bearer {token}"))) }
}

async fn put_lines(world: &World, lines: &str) {
    let request = request("POST", "/api/v1/indexes/shop/ingest", "writer").set_payload(lines.to_owned());
    let answer = ask(world, request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[actix_web::test]
async fn every_door_asks_for_the_right_token() {
    let world = world();
    let rule = json!({"query": "SELECT count(*) AS n FROM tumble(shop, INTERVAL '1 s') GROUP BY window_start", "condition": "n > 1"});
    let job = json!({"text": "INSERT INTO shop SELECT _msg FROM shop"});
    let sql = json!({"sql": "SELECT 1 AS x FROM shop"});
    let pipe = |text: &str| json!({"language": "pipe", "text": text});
    for (method, path, body, statuses) in [
        // No token, unknown, writer, reader, owner, root.
        ("POST", "/api/v1/indexes/shop/ingest", json!({"a": 1}), [401, 401, 200, 403, 200, 200]),
        ("POST", "/api/v1/indexes/other/ingest", json!({"a": 1}), [401, 401, 403, 403, 403, 200]),
        ("POST", "/api/v1/indexes/nope/ingest", json!({"a": 1}), [401, 401, 403, 403, 403, 404]),
        ("POST", "/api/v1/sql", sql, [401, 401, 403, 200, 200, 200]),
        ("POST", "/api/v1/sql", json!({"sql": "SELECT * FROM other"}), [401, 401, 403, 403, 403, 200]),
        ("POST", "/api/v1/sql", json!({"sql": "SELECT * FROM nope"}), [401, 401, 403, 403, 403, 404]),
        ("POST", "/api/v1/query", pipe("index:shop | stats count"), [401, 401, 403, 200, 200, 200]),
        ("POST", "/api/v1/query", pipe("index:shop | append [index:other]"), [401, 401, 403, 403, 403, 200]),
        ("POST", "/api/v1/query", pipe("index:nope"), [401, 401, 403, 403, 403, 404]),
        ("POST", "/api/v1/complete", json!({"text": "index:other ser"}), [401, 401, 403, 403, 403, 200]),
        ("POST", "/api/v1/complete", json!({"text": "index:shop ser"}), [401, 401, 403, 200, 200, 200]),
        ("GET", "/api/v1/indexes", Value::Null, [401, 401, 200, 200, 200, 200]),
        ("GET", "/api/v1/indexes/shop/histogram", Value::Null, [401, 401, 403, 200, 200, 200]),
        ("GET", "/api/v1/indexes/shop/usage", Value::Null, [401, 401, 200, 200, 200, 200]),
        ("GET", "/api/v1/indexes/other/usage", Value::Null, [401, 401, 403, 403, 403, 200]),
        ("GET", "/api/v1/indexes/nope/usage", Value::Null, [401, 401, 403, 403, 403, 404]),
        ("GET", "/api/v1/indexes/nope/tail", Value::Null, [401, 401, 403, 403, 403, 404]),
        ("GET", "/api/v1/indexes/shop/views", Value::Null, [401, 401, 403, 200, 200, 200]),
        ("GET", "/api/v1/indexes/other/saved/x", Value::Null, [401, 401, 403, 403, 403, 404]),
        (
            "PUT",
            "/api/v1/indexes/shop/saved/x",
            json!({"text": "{}", "language": "logql"}),
            [401, 401, 403, 403, 200, 200],
        ),
        ("PUT", "/api/v1/indexes/nope/lookups/x", json!({}), [401, 401, 403, 403, 403, 404]),
        ("DELETE", "/api/v1/indexes/shop/views/x", Value::Null, [401, 401, 403, 403, 204, 204]),
        ("POST", "/api/v1/query", json!({"text": "INSERT INTO shop SELECT 1 AS a"}), [401, 401, 200, 403, 200, 200]),
        (
            "POST",
            "/api/v1/query",
            json!({"text": "INSERT INTO shop SELECT * FROM shop"}),
            [401, 401, 403, 403, 200, 200],
        ),
        ("POST", "/api/v1/query", json!({"text": "SELECT * FROM other.x"}), [401, 401, 403, 403, 403, 400]),
        ("GET", "/api/v1/jobs", Value::Null, [401, 401, 200, 200, 200, 200]),
        ("POST", "/api/v1/jobs", job, [401, 401, 403, 403, 201, 201]),
        ("GET", "/api/v1/jobs/nope", Value::Null, [401, 401, 404, 404, 404, 404]),
        ("DELETE", "/api/v1/jobs/nope", Value::Null, [401, 401, 204, 204, 204, 204]),
        ("GET", "/api/v1/rules", Value::Null, [401, 401, 200, 200, 200, 200]),
        ("PUT", "/api/v1/rules/r", rule, [401, 401, 403, 403, 200, 200]),
        ("DELETE", "/api/v1/rules/r", Value::Null, [401, 401, 403, 403, 204, 204]),
        ("GET", "/api/v1/bindings", Value::Null, [401, 401, 403, 403, 403, 200]),
        ("GET", "/api/v1/placement", Value::Null, [401, 401, 403, 403, 403, 200]),
        ("GET", "/api/v1/status", Value::Null, [200, 200, 200, 200, 200, 200]),
        ("GET", "/api/v1/nothing", Value::Null, [404, 404, 404, 404, 404, 404]),
        ("GET", "/", Value::Null, [200, 200, 200, 200, 200, 200]),
        ("GET", "/console/../Cargo.toml", Value::Null, [404, 404, 404, 404, 404, 404]),
    ] {
        for (token, status) in ["", "unknown", "writer", "reader", "owner", "root"].into_iter().zip(statuses) {
            let mut asked = request(method, path, token);
            if !body.is_null() {
                asked = asked.set_payload(body.to_string());
            }
            let answer = ask(&world, asked).await;
            assert_eq!(answer.status, status, "{method} {path} as {token:?}: {}", answer.text());
            assert!(answer.headers.contains_key("x-request-id"), "{method} {path}");
            if status >= 400 {
                let error = &answer.json()["error"];
                assert!(
                    error["code"].is_string() && error["kind"].is_string() && error["message"].is_string(),
                    "{error}"
                );
            }
        }
    }
}

#[actix_web::test]
async fn request_ids_are_kept_or_given() {
    let world = world();
    let id = |answer: &Answer| answer.headers.get("x-request-id").unwrap().to_str().unwrap().to_owned();
    let given = ask(&world, request("GET", "/api/v1/status", "").insert_header(("x-request-id", "mine-1"))).await;
    assert_eq!(id(&given), "mine-1");
    let odd = ask(&world, request("GET", "/api/v1/status", "").insert_header(("x-request-id", "a b"))).await;
    assert_eq!(id(&odd).len(), 32);
}

#[actix_web::test]
async fn a_revoked_token_is_refused_within_a_second() {
    let world = world();
    let status = || async { ask(&world, request("GET", "/api/v1/indexes", "reader")).await.status };
    assert_eq!(status().await, 200);
    world.grants.0.lock().clear();
    let revoked = tokio::time::timeout(std::time::Duration::from_secs(1), async {
        while status().await != 401 {
            tokio::task::yield_now().await;
        }
    });
    assert!(revoked.await.is_ok());
}

#[actix_web::test]
async fn good_lines_are_stored_and_bad_ones_told() {
    let world = world();
    let lines = "{\"severity\":\"error\",\"msg\":\"one\"}\nnot json\n\n{\"severity\":\"info\",\"msg\":\"two\"}\n[3]\n";
    let answer = ask(&world, request("POST", "/api/v1/indexes/shop/ingest", "writer").set_payload(lines)).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["accepted"], &body["rejected_count"]), (200, &json!(2), &json!(2)), "{body}");
    assert_eq!((&body["rejected"][0]["line"], &body["rejected"][1]["line"]), (&json!(2), &json!(5)));
    let rows = ask(&world, request("POST", "/api/v1/sql", "reader").set_payload("SELECT _msg FROM shop ORDER BY _msg"))
        .await
        .json();
    assert_eq!(rows["rows"], json!([{"_msg": "one"}, {"_msg": "two"}]));
    // Without a routing key there is one order for all lines.
    assert_eq!(world.fake.segments.events().len(), 1);
}

#[actix_web::test]
async fn bodies_without_a_good_line_are_refused() {
    let world = world();
    for (body, rejected) in [("", 0), ("\n\n", 0), ("x\ny", 2)] {
        let answer = ask(&world, request("POST", "/api/v1/indexes/shop/ingest", "writer").set_payload(body)).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, "NoLineAccepted"), "{body:?}");
        assert_eq!(answer.json()["error"]["rejected_count"], json!(rejected));
    }
    let many = "x\n".repeat(150);
    let error = ask(&world, request("POST", "/api/v1/indexes/shop/ingest", "writer").set_payload(many)).await.json();
    assert_eq!(error["error"]["rejected"].as_array().unwrap().len(), 100);
    assert_eq!(error["error"]["rejected_count"], json!(150));
}

#[actix_web::test]
async fn bodies_are_bounded_before_and_after_unpacking() {
    let world = world();
    let ingest = || request("POST", "/api/v1/indexes/shop/ingest", "writer");
    let line = format!("{{\"msg\":\"{}\"}}\n", "x".repeat(1_000));
    let gzip = |text: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    for (body, encoding, status) in [
        (line.repeat(60).into_bytes(), "identity", 200),
        (line.repeat(70).into_bytes(), "identity", 413),
        (gzip(&line.repeat(60)), "gzip", 200),
        (gzip(&line.repeat(70)), "gzip", 413),
        (line.clone().into_bytes(), "gzip", 400),
        (line.clone().into_bytes(), "br", 415),
    ] {
        let answer = ask(&world, ingest().insert_header(("content-encoding", encoding)).set_payload(body)).await;
        assert_eq!(answer.status, status, "{encoding}: {}", answer.text());
    }
}

#[actix_web::test]
async fn an_idempotency_key_makes_a_repeat_harmless() {
    let world = world();
    for key in ["k1", "k1", "k2"] {
        let request = request("POST", "/api/v1/indexes/shop/ingest", "writer").insert_header(("idempotency-key", key));
        assert_eq!(ask(&world, request.set_payload("{\"a\":1}\n{\"a\":1}")).await.status, 200);
    }
    let count: usize = world.fake.segments.events().values().map(Vec::len).sum();
    assert_eq!(count, 4);
}

#[actix_web::test]
async fn routing_keys_spread_lines_and_keep_their_order() {
    let world = world();
    let lines: String = (0..40).map(|i| format!("{{\"user\":\"u{}\",\"i\":{i}}}\n", i % 8)).collect();
    let request = request("POST", "/api/v1/indexes/shop/ingest?routing_key_field=user", "writer").set_payload(lines);
    assert_eq!(ask(&world, request).await.json()["accepted"], json!(40));
    let events = world.fake.segments.events();
    assert_eq!(events.len(), 2, "both segments are used");
    for events in events.values() {
        let numbers: Vec<i64> = events
            .iter()
            .map(|e| serde_json::from_slice::<Value>(&e.payload).unwrap()["i"].as_i64().unwrap())
            .collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

#[actix_web::test]
async fn a_store_that_is_away_is_told_as_such() {
    let world = world();
    *world.fake.broken.lock() = Some(Problem::unavailable("NoResponders", "nobody there").unknown());
    let answer = ask(&world, request("POST", "/api/v1/indexes/shop/ingest", "writer").set_payload("{}")).await;
    assert_eq!((answer.status, answer.kind().as_str()), (503, "NoResponders"));
    assert_eq!(answer.json()["error"]["outcome"], json!("unknown"));
    assert_eq!(answer.headers.get("retry-after").unwrap(), "1");
}

#[actix_web::test]
async fn results_come_in_three_forms() {
    let world = world();
    put_lines(&world, "{\"msg\":\"a\",\"n\":1}\n{\"msg\":\"b\",\"n\":2}").await;
    let sql = |accept: &'static str| {
        let request = request("POST", "/api/v1/sql", "reader").insert_header(("accept", accept));
        request.insert_header(("content-type", "text/plain")).set_payload("SELECT n, _msg FROM shop ORDER BY n")
    };
    let answer = ask(&world, sql("*/*")).await.json();
    assert_eq!(answer["columns"], json!([{"name": "n", "type": "integer"}, {"name": "_msg", "type": "text"}]));
    assert_eq!(
        (&answer["row_count"], &answer["truncated"], &answer["stats"]["rows_scanned"]),
        (&json!(2), &json!(false), &json!(2))
    );
    assert!(answer["elapsed_ms"].is_u64());
    assert_eq!(ask(&world, sql("text/csv")).await.text(), "n,_msg\n1,a\n2,b\n");
    let arrow = ask(&world, sql("application/vnd.apache.arrow.stream")).await;
    assert_eq!(arrow.headers.get("content-type").unwrap(), "application/vnd.apache.arrow.stream");
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.body.as_slice(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
}

#[actix_web::test]
async fn explain_tells_what_a_query_took() {
    let world = world();
    put_lines(&world, "{\"msg\":\"quarkbeacon seen\",\"n\":1}\n{\"msg\":\"b\",\"n\":2}").await;
    for (segment, events) in world.fake.segments.events() {
        world.fake.tier(segment, u64::try_from(events.len()).unwrap()).await;
    }
    let told = async |text: &'static str| {
        let answer = ask(&world, request("POST", "/api/v1/query", "reader").set_payload(text)).await;
        assert_eq!(answer.status, 200, "{text}: {}", answer.text());
        let rows = answer.json()["rows"].as_array().unwrap().clone();
        let of =
            |what: &str| rows.iter().filter(|row| row["what"] == what).map(|row| row["count"].as_u64().unwrap()).sum();
        ["chunks", "chunks left out", "row groups read", "rows looked at", "rows found"].map(of)
    };
    let [chunks, left_out, read, looked, found]: [u64; 5] = told("EXPLAIN SELECT * FROM shop").await;
    assert_eq!((left_out, read, looked, found), (0, chunks, 2, 2));
    assert_eq!(
        told("explain\nSELECT _msg FROM shop WHERE contains(_msg, 'absent word')").await,
        [chunks, chunks, 0, 0, 0]
    );
    let wrong =
        ask(&world, request("POST", "/api/v1/query", "reader").set_payload("EXPLAIN SELECT nn FROM shop")).await;
    assert_eq!((&wrong.json()["error"]["line"], &wrong.json()["error"]["column"]), (&json!(1), &json!(16)));
}

#[actix_web::test]
async fn a_cut_result_says_so() {
    let world = world();
    put_lines(&world, &"{\"a\":1}\n".repeat(60)).await;
    let answer = ask(&world, request("POST", "/api/v1/sql", "reader").set_payload("SELECT a FROM shop")).await;
    assert_eq!(answer.headers.get("x-truncated").unwrap(), "true");
    assert_eq!((&answer.json()["row_count"], &answer.json()["truncated"]), (&json!(50), &json!(true)));
}

#[actix_web::test]
async fn invalid_texts_are_shown_with_a_caret() {
    let world = world();
    put_lines(&world, "{\"latency\":1}").await;
    for (body, line, column, words) in [
        (json!({"sql": "SELECT *\nFORM shop"}), 2, 1, "did you mean FROM?"),
        (json!({"sql": "SELECT latensy FROM shop"}), 1, 8, "did you mean latency?"),
        (json!({"sql": "DROP TABLE shop"}), 1, 1, "only reads"),
        (json!({"sql": ""}), 1, 1, "empty"),
    ] {
        let answer = ask(&world, request("POST", "/api/v1/sql", "reader").set_payload(body.to_string())).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["line"], &error["column"]), (400, &json!(line), &json!(column)), "{error}");
        let rendered = error["rendered"].as_str().unwrap();
        assert!(rendered.contains(words) && rendered.contains('^'), "{rendered}");
    }
    for malformed in ["{\"sql\":1}", "{}", "{"] {
        let answer = ask(&world, request("POST", "/api/v1/sql", "reader").set_payload(malformed)).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, "MalformedRequest"), "{malformed}");
    }
}

#[actix_web::test]
async fn a_histogram_counts_by_severity() {
    let world = world();
    let at = |seconds: i64, severity: &str| {
        let time = jiff::Timestamp::from_millisecond(NOW_MS - 60_000 + seconds * 1_000).unwrap();
        format!("{{\"time\":\"{time}\",\"severity\":\"{severity}\",\"msg\":\"x\"}}\n")
    };
    put_lines(&world, &[at(0, "info"), at(5, "error"), at(5, "info"), at(59, "error"), at(60, "error")].concat()).await;
    let path = format!("/api/v1/indexes/shop/histogram?from={}&to={NOW_MS}&buckets=6", NOW_MS - 60_000);
    let answer = ask(&world, request("GET", &path, "reader")).await.json();
    let buckets = answer["buckets"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let counts: Vec<u64> = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [3, 0, 0, 0, 0, 1], "{answer}");
    assert_eq!(buckets[0]["severities"], json!({"info": 2, "error": 1}));
    assert_eq!(buckets[1]["start"], json!("2026-01-02T03:03:15Z"));
    let wrong = ask(&world, request("GET", "/api/v1/indexes/shop/histogram?buckets=0", "reader")).await;
    assert_eq!((wrong.status, wrong.kind().as_str()), (400, "BadTimeRange"));
}

#[actix_web::test]
async fn jobs_and_rules_are_checked_before_they_are_handed_on() {
    let world = world();
    let window = "FROM tumble(shop, INTERVAL '1 s') GROUP BY window_start";
    for (text, words) in [
        (format!("SELECT count(*) AS n {window}"), "where its rows go"),
        (format!("INSERT INTO shop SELECT count(*) AS n, frobnicate(a) AS x {window}, x"), "frobnicate"),
        (format!("INSERT INTO shop SELECT cont(*) AS n {window}"), "cont"),
    ] {
        let answer =
            ask(&world, request("POST", "/api/v1/jobs", "owner").set_payload(json!({ "text": text }).to_string()))
                .await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, "InvalidQuery"), "{text}: {}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    let foreign = json!({ "text": "INSERT INTO other SELECT _msg FROM shop" });
    assert_eq!(
        ask(&world, request("POST", "/api/v1/jobs", "owner").set_payload(foreign.to_string())).await.kind(),
        "ForeignIndex"
    );
    for (query, condition, kind) in [
        (format!("SELECT count(*) AS n {window}"), "m > 1", "InvalidCondition"),
        (format!("SELECT count(*) AS n {window}"), "n > ", "InvalidCondition"),
        ("SELECT _msg FROM shop".to_owned(), "n > 1", "InvalidQuery"),
        (format!("INSERT INTO shop SELECT count(*) AS n {window}"), "n > 1", "InvalidQuery"),
    ] {
        let body = json!({ "query": query, "condition": condition });
        let answer = ask(&world, request("PUT", "/api/v1/rules/r", "owner").set_payload(body.to_string())).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, kind), "{query}: {}", answer.text());
    }
}

#[actix_web::test]
async fn jobs_and_rules_live_and_end() {
    let world = world();
    let body =
        json!({ "job": "j1", "text": "INSERT INTO shop SELECT upper(_msg) AS m FROM shop", "start": "earliest" });
    let started = ask(&world, request("POST", "/api/v1/jobs", "owner").set_payload(body.to_string())).await;
    assert_eq!((started.status, &started.json()["status"]), (201, &json!("running")));
    assert_eq!(ask(&world, request("GET", "/api/v1/jobs", "reader")).await.json()["jobs"][0]["job"], json!("j1"));
    assert_eq!(ask(&world, request("DELETE", "/api/v1/jobs/j1", "reader")).await.status, 403);
    assert_eq!(ask(&world, request("DELETE", "/api/v1/jobs/j1", "owner")).await.status, 204);
    assert_eq!(ask(&world, request("GET", "/api/v1/jobs/j1", "owner")).await.kind(), "UnknownJob");

    let query = "SELECT count(*) AS n FROM tumble(other, INTERVAL '1 s') GROUP BY window_start";
    let body = json!({ "query": query, "condition": "n > 1" });
    assert_eq!(ask(&world, request("PUT", "/api/v1/rules/r", "root").set_payload(body.to_string())).await.status, 200);
    assert_eq!(ask(&world, request("GET", "/api/v1/rules", "reader")).await.json()["rules"], json!([]));
    let own = json!({ "query": query.replace("other", "shop"), "condition": "n > 1" });
    let taken = ask(&world, request("PUT", "/api/v1/rules/r", "owner").set_payload(own.to_string())).await;
    assert_eq!((taken.status, taken.kind().as_str()), (403, "ForeignIndex"), "a rule of another index is not replaced");
}

#[actix_web::test]
async fn a_tail_gives_rows_with_positions_and_ends_with_its_token() {
    let world = world();
    put_lines(&world, "{\"msg\":\"one\"}\n{\"msg\":\"two\"}").await;
    let path = "/api/v1/indexes/shop/tail?from=earliest&token=reader";
    let answer = open(&world, request("GET", path, "")).await;
    assert_eq!(answer.headers().get("content-type").unwrap(), "text/event-stream");
    let mut parts = Box::pin(stream_of(answer.into_body()));
    let mut text = String::new();
    while text.matches("event: row").count() < 2 {
        text.push_str(&next(&mut parts).await.unwrap());
    }
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let [id] = ids[..] else { panic!("{text}") };
    assert!(id.split(',').any(|place| place.ends_with(":2")), "{id}");
    assert!(text.contains("\"_msg\":\"one\"") && text.contains("\"_msg\":\"two\""), "{text}");

    // Going on after the id gives nothing again.
    let again =
        open(&world, request("GET", "/api/v1/indexes/shop/tail", "reader").insert_header(("last-event-id", id))).await;
    let mut again = Box::pin(stream_of(again.into_body()));
    assert!(next(&mut again).await.unwrap().starts_with(": tail of shop"));
    world.grants.0.lock().clear();
    let mut end = String::new();
    while let Some(part) = next(&mut again).await {
        end.push_str(&part);
    }
    assert!(end.ends_with("\n\n") && !end.contains("event: row"), "{end}");
    assert!(
        end.rsplit("\n\n").nth(1).is_some_and(|last| last.starts_with("event: end") && last.contains("TokenEnded")),
        "{end}"
    );
}

fn stream_of(body: impl MessageBody) -> impl futures::Stream<Item = String> {
    let mut body = Box::pin(body);
    futures::stream::poll_fn(move |context| {
        body.as_mut().poll_next(context).map(|part| Some(String::from_utf8(part?.ok()?.to_vec()).unwrap()))
    })
}

async fn next(parts: &mut (impl futures::Stream<Item = String> + Unpin)) -> Option<String> {
    tokio::time::timeout(PATIENCE, parts.next()).await.expect("the tail says something")
}

#[actix_web::test]
async fn the_console_may_load_nothing_from_elsewhere() {
    let world = world();
    for file in ["/", "/console/console.css", "/console/console.js"] {
        let answer = ask(&world, request("GET", file, "").insert_header(("accept", "text/html"))).await;
        assert_eq!(answer.status, 200, "{file}");
        let policy = answer.headers.get("content-security-policy").unwrap().to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = answer.text();
        for outside in ["http://", "https://", "style=", "onclick=", "innerHTML", "eval("] {
            let allowed = text.replace("http://www.w3.org/", "");
            assert!(!allowed.contains(outside), "{file} holds {outside}");
        }
    }
}
