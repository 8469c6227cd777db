//! The doors of other log stores, with the requests that their clients send.

use data_encoding::BASE64;

use super::*;
use crate::doors::http::testing::{otlp_request, push_request};

fn post(path: &str, authorization: &str) -> TestRequest {
    let post = TestRequest::post().uri(path);
    if authorization.is_empty() { post } else { post.insert_header(("authorization", authorization.to_owned())) }
}

fn basic(password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("anybody:{password}").as_bytes()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// The texts of all events of an index, sorted.
async fn texts(world: &World, index: &str) -> Vec<String> {
    let sql = format!("SELECT _msg FROM {index} ORDER BY _msg");
    let answer = ask(world, request("POST", "/api/v1/sql", "root").set_payload(sql)).await.json();
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{answer}"));
    rows.iter().map(|row| row["_msg"].as_str().unwrap_or_default().to_owned()).collect()
}

fn stored(world: &World) -> usize {
    world.fake.segments.events().values().map(Vec::len).sum()
}

const LOKI: &str = "/loki/api/v1/push";
const HEC: &str = "/services/collector/event";
const OTLP: &str = "/v1/logs";
const BULK: &str = "/_bulk";

/// Of each door: a path, and bodies with one event.
fn bodies() -> [(&'static str, Vec<u8>); 5] {
    [
        (LOKI, snappy(&push_request("{app=\"a\"}", 7, "one"))),
        (HEC, br#"{"event":"one","time":1767323045.5}"#.to_vec()),
        ("/services/collector/raw", b"one\n".to_vec()),
        (BULK, b"{\"create\":{}}\n{\"message\":\"one\"}\n".to_vec()),
        (OTLP, otlp_request(7, "one")),
    ]
}

#[actix_web::test]
async fn the_token_leads_to_the_index_in_every_scheme() {
    for (path, body) in bodies() {
        let world = world();
        let schemes =
            ["Bearer writer".to_owned(), "Splunk writer".to_owned(), basic("writer"), "ApiKey writer".to_owned()];
        for authorization in &schemes {
            let answer = ask(&world, post(path, authorization).set_payload(body.clone())).await;
            assert!((200..=204).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        }
        let found = texts(&world, "shop").await;
        assert!(!found.is_empty() && found.iter().all(|text| text == "one"), "{path}: {found:?}");
        assert!(texts(&world, "other").await.is_empty());
    }
}

#[actix_web::test]
async fn refusals_are_those_of_each_api() {
    let unpacked = push_request("{}", 7, "x");
    for (path, wrong, statuses) in [
        // No token, an unknown one, one that may only read, a body that never will be one.
        (LOKI, unpacked, [401, 401, 403, 400]),
        (HEC, b"{\"event\"".to_vec(), [401, 403, 403, 400]),
        (BULK, b"{\"create\":{}}".to_vec(), [401, 401, 403, 400]),
        (OTLP, b"{".to_vec(), [401, 401, 403, 400]),
    ] {
        let world = world();
        for (authorization, status) in ["", "Bearer nobody", "Bearer reader", "Bearer writer"].into_iter().zip(statuses)
        {
            let answer = ask(&world, post(path, authorization).set_payload(wrong.clone())).await;
            assert_eq!(answer.status, status, "{path} as {authorization}: {}", answer.text());
        }
        assert_eq!(stored(&world), 0, "{path}");
    }
}

#[actix_web::test]
async fn what_may_pass_later_is_said_so_that_agents_repeat() {
    let away = Problem::unavailable("NoResponders", "nobody there").unknown();
    let late = Problem::new(wire::Code::Deadline, "AppendUnknown", "no answer").unknown();
    for (path, body) in bodies() {
        for problem in [away.clone(), late.clone(), Problem::internal("a defect")] {
            let world = world();
            *world.fake.broken.lock() = Some(problem.clone());
            let answer = ask(&world, post(path, "Bearer writer").set_payload(body.clone())).await;
            assert_eq!(answer.status, 503, "{path} {problem}: {}", answer.text());
            assert_eq!(answer.headers.get("retry-after").unwrap(), "1", "{path}");
        }
        let world = world();
        let places: Vec<_> = std::iter::from_fn(|| world.door.ingests.take(None)).collect();
        let answer = ask(&world, post(path, "Bearer writer").set_payload(body.clone())).await;
        let busy = if path.contains("collector") { 503 } else { 429 };
        assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (busy, true), "{path}");
        drop(places);
        let large = vec![b'{'; 70 << 10];
        let answer = ask(&world, post(path, "Bearer writer").set_payload(large)).await;
        assert_eq!(answer.status, 413, "{path}: {}", answer.text());
        assert!(answer.text().contains("65536 bytes"), "the limit is told: {}", answer.text());
    }
}

#[actix_web::test]
async fn bodies_that_cannot_be_unpacked_are_refused_for_good() {
    let bomb = vec![b' '; 1 << 20];
    let packs: [(&str, Vec<u8>); 3] =
        [("gzip", gzip(&bomb)), ("zstd", zstd::encode_all(&bomb[..], 3).unwrap()), ("snappy", snappy(&bomb))];
    for (path, _) in bodies() {
        let world = world();
        let send = async |encoding: &'static str, body: Vec<u8>| {
            let sent = post(path, "Bearer writer").insert_header(("content-encoding", encoding));
            // Otherwise Loki's door takes everything for a block of snappy.
            let kind = if path == LOKI { "application/json" } else { "application/octet-stream" };
            let answer = ask(&world, sent.insert_header(("content-type", kind)).set_payload(body)).await;
            (answer.status, answer.text())
        };
        for (encoding, packed) in packs.clone() {
            let (status, said) = send(encoding, packed.clone()).await;
            assert!(status == 413 && said.contains("larger than 65536 bytes"), "{path} {encoding}: {status} {said}");
            let (status, said) = send(encoding, packed[..packed.len() / 2].to_vec()).await;
            // A part of a bomb may be one already.
            assert!(matches!(status, 400 | 413), "{path} {encoding}: {status} {said}");
            let (status, said) = send(encoding, b"plain text".to_vec()).await;
            assert!(
                status == 400 && said.contains(&format!("is not {encoding}")),
                "{path} {encoding}: {status} {said}"
            );
        }
        let (status, said) = send("br", b"x".to_vec()).await;
        let unsupported = if path.contains("collector") { 400 } else { 415 };
        assert!(
            status == unsupported && said.contains("use gzip, deflate, zstd, snappy or none"),
            "{path}: {status} {said}"
        );
        assert_eq!(stored(&world), 0, "{path}");
    }
}

#[actix_web::test]
async fn lines_of_json_are_taken_as_victorialogs_does() {
    let world = world();
    let path = "/insert/jsonline?_stream_fields=app&_time_field=ts&_msg_field=log.text&debug=1";
    let line = r#"{"app":"a","ts":"2026-01-02T03:04:05.25Z","log.text":"one"}"#;
    for _ in 0..2 {
        let answer = ask(&world, post(path, "Bearer writer").set_payload(format!("{line}\n\n"))).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    }
    assert_eq!(texts(&world, "shop").await, ["one"], "what is sent again is stored once");
    let sent = post("/insert/jsonline", &basic("writer")).insert_header(("vl-msg-field", "text"));
    let answer = ask(&world, sent.set_payload(gzip(b"{\"text\":\"two\"}\nno json\n"))).await;
    assert_eq!(answer.status, 400, "it is not said to be packed");
    let sent = post("/insert/jsonline", &basic("writer")).insert_header(("vl-msg-field", "text"));
    let answer = ask(&world, sent.set_payload("{\"text\":\"two\"}\nno json\n")).await;
    assert!(answer.status == 400 && answer.text().contains("1 lines were refused"), "{}", answer.text());
    assert_eq!(texts(&world, "shop").await, ["one", "two"], "the others are stored");
    assert_eq!(ask(&world, post("/insert/jsonline", "Bearer reader").set_payload(line)).await.status, 403);
    assert_eq!(ask(&world, post("/insert/jsonline", "Bearer writer")).await.status, 200, "nothing is no mistake");
}

#[actix_web::test]
async fn a_body_that_is_sent_again_is_stored_once() {
    let bulk = b"{\"create\":{}}\n{\"@timestamp\":\"2026-01-02T03:04:05.25Z\",\"message\":\"one\"}\n".to_vec();
    for (path, body) in bodies().into_iter().filter(|(path, _)| [LOKI, HEC, OTLP].contains(path)).chain([(BULK, bulk)])
    {
        let world = world();
        for token in ["writer", "writer", "owner"] {
            let answer = ask(&world, post(path, &format!("Bearer {token}")).set_payload(body.clone())).await;
            assert!(answer.status < 300, "{path}: {}", answer.text());
        }
        assert_eq!(stored(&world), 2, "{path}: another binding's event is another event");
    }
    // Without a time of the sender nobody can tell.
    let world = world();
    for _ in 0..2 {
        ask(&world, post(HEC, "Splunk writer").set_payload(r#"{"event":"one"}"#)).await;
    }
    assert_eq!(stored(&world), 2);
}

#[actix_web::test]
async fn loki_is_answered_204_with_nothing() {
    let world = world();
    let json = r#"{"streams":[{"stream":{"app":"a"},"values":[["1767323045000000000","json"]]}]}"#;
    for (body, kind, encoding) in [
        (json.as_bytes().to_vec(), "application/json; charset=utf-8", ""),
        (gzip(json.replace("json", "gzip").as_bytes()), "application/json", "gzip"),
        (snappy(&push_request("{}", 1, "promtail")), "application/x-protobuf", "snappy"),
        (snappy(&push_request("{}", 2, "winston")), "", ""),
    ] {
        let mut sent = post(LOKI, &basic("writer")).set_payload(body);
        for (name, value) in [("content-type", kind), ("content-encoding", encoding)] {
            if !value.is_empty() {
                sent = sent.insert_header((name, value));
            }
        }
        let answer = ask(&world, sent).await;
        assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{kind} {encoding}");
    }
    assert_eq!(texts(&world, "shop").await, ["gzip", "json", "promtail", "winston"]);
    let part = r#"{"streams":[{"stream":{},"values":[["soon","x"],["1767323045000000000","kept"]]}]}"#;
    let answer = ask(
        &world,
        post("/api/prom/push", "Bearer writer").insert_header(("content-type", "application/json")).set_payload(part),
    )
    .await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("1 lines were refused") && texts(&world, "shop").await.contains(&"kept".to_owned()));
    let root = |tenant: &'static str| {
        let sent = post(LOKI, "Bearer root").insert_header(("content-type", "application/json"));
        sent.insert_header(("x-scope-orgid", tenant)).set_payload(json)
    };
    assert_eq!(ask(&world, root("other")).await.status, 204, "the admin token says where");
    assert_eq!(texts(&world, "other").await, ["json"]);
    assert_eq!(ask(&world, root("nope")).await.status, 404);
    assert_eq!(ask(&world, request("GET", "/ready", "")).await.status, 200);
}

#[actix_web::test]
async fn elasticsearch_is_answered_in_its_own_words() {
    let world = world();
    let body = "{\"index\":{\"_index\":\"filebeat-9\",\"_id\":\"a\"}}\n{\"message\":\"one\"}\n{\"create\":{\"_type\":\"events\"}}\nplain\n\n";
    for (method, path) in [("PUT", "/_bulk"), ("POST", "/logs-app/_bulk")] {
        let sent = request(method, path, "").insert_header(("authorization", "ApiKey writer")).set_payload(body);
        let answer = ask(&world, sent).await;
        assert_eq!(answer.headers.get("x-elastic-product").unwrap(), "Elasticsearch");
        let (text, json) = (answer.text(), answer.json());
        assert!(text.contains(r#","errors":false,"items":[{"index":{"_index":"filebeat-9","_id":"a","status":201}},{"create":{"_index":""#), "{text}");
        let named = if method == "PUT" { "shop" } else { "logs-app" };
        assert_eq!(json["items"][1]["create"]["_index"], json!(named));
        assert_eq!(json["items"][1]["create"]["_id"].as_str().unwrap().len(), 20);
    }
    assert_eq!(texts(&world, "shop").await, ["one", "plain", "plain"], "an id is stored once");
    let long = format!("/{}/_bulk", "x".repeat(256));
    let refused = ask(&world, post(&long, "Bearer writer").set_payload(body)).await;
    assert_eq!((refused.status, refused.text().len() < 1_000), (404, true), "a long name is not said again and again");
    let refused = ask(&world, post(BULK, "Bearer writer").set_payload("x\n")).await;
    assert_eq!(refused.headers.get("x-elastic-product").unwrap(), "Elasticsearch");
    let error = refused.json();
    assert_eq!((&error["status"], &error["error"]["type"]), (&json!(400), &json!("illegal_argument_exception")));
    let gone = ask(&world, post("/nope/_bulk", "Bearer root").set_payload("{\"create\":{}}\n{}\n")).await;
    assert_eq!((gone.status, &gone.json()["error"]["type"]), (404, &json!("index_not_found_exception")));
    let root = post("/_bulk", "Bearer root").set_payload("{\"create\":{\"_index\":\"other\"}}\n{\"message\":\"x\"}\n");
    assert_eq!(ask(&world, root).await.status, 200);
    assert_eq!(texts(&world, "other").await, ["x"]);
}

#[actix_web::test]
async fn clients_of_elasticsearch_find_what_they_ask_for() {
    let world = world();
    for (method, path, status, holds) in [
        ("HEAD", "/", 200, ""),
        ("GET", "/", 200, "\"number\":\"8."),
        ("HEAD", "/_cat/health", 200, ""),
        ("GET", "/_cluster/health?wait_for_status=yellow", 200, "\"status\":\"green\""),
        ("GET", "/_license", 200, "\"status\":\"active\""),
        ("GET", "/_xpack", 200, "\"features\""),
        ("GET", "/_ilm/policy/filebeat", 200, "{}"),
        ("PUT", "/_index_template/filebeat", 200, "{}"),
        ("HEAD", "/_template/x", 200, ""),
        ("GET", "/_ingest/pipeline/x", 200, "{}"),
        ("GET", "/_nodes/http", 200, "{}"),
        ("GET", "/_aliases", 200, "{\"shop\":{\"aliases\":{}}}"),
        ("GET", "/_cat/indices", 200, "\"index\":\"shop\""),
        ("GET", "/_nothing", 400, "no handler found"),
    ] {
        let answer = ask(&world, request(method, path, "reader")).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.headers.get("x-elastic-product").unwrap(), "Elasticsearch", "{method} {path}");
        assert!(answer.text().contains(holds), "{method} {path}: {}", answer.text());
    }
    assert_eq!(ask(&world, request("GET", "/_aliases", "")).await.status, 401);
    world.fake.elsewhere.lock().push("archive");
    let all = ask(&world, request("GET", "/_cat/indices", "root")).await.json();
    let names: Vec<&Value> = all.as_array().unwrap().iter().map(|one| &one["index"]).collect();
    assert_eq!(names, ["other", "shop"], "what lies elsewhere cannot be asked here");
    let browser = request("GET", "/", "").insert_header(("accept", "text/html,application/xhtml+xml,*/*;q=0.8"));
    assert!(ask(&world, browser).await.text().contains("<!doctype html>"));
}

#[actix_web::test]
async fn splunk_is_answered_by_its_numbers() {
    let world = world();
    let code = |answer: &Answer| answer.json()["code"].clone();
    let good = r#"{"event":"one","time":"1767323045.5"}"#;
    for (path, authorization, body, status, number) in [
        (HEC, "Splunk writer", good, 200, 0),
        ("/services/collector", "Splunk writer", good, 200, 0),
        ("/services/collector/event/1.0?token=writer", "", good, 200, 0),
        (HEC, "", good, 401, 2),
        (HEC, "Digest x", good, 401, 3),
        (HEC, "Splunk nobody", good, 403, 4),
        (HEC, "Splunk writer", "", 400, 5),
        (HEC, "Splunk writer", "{", 400, 6),
        (HEC, "Bearer root", good, 400, 7),
        (HEC, "Bearer root", r#"{"event":"x","index":"nope"}"#, 400, 7),
        ("/services/collector/ack", "Splunk writer", "{\"acks\":[1]}", 400, 10),
        ("/services/collector/ack?channel=", "Splunk writer", "{\"acks\":[1]}", 400, 11),
        ("/services/collector/ack?channel=c", "Splunk writer", "{}", 400, 6),
        (HEC, "Splunk writer", r#"{"host":"h"}"#, 400, 12),
        (HEC, "Splunk writer", r#"{"event":""}"#, 400, 13),
    ] {
        let answer = ask(&world, post(path, authorization).set_payload(body)).await;
        assert_eq!((answer.status, code(&answer)), (status, json!(number)), "{path} {body}: {}", answer.text());
    }
    let answer =
        ask(&world, post(HEC, "Splunk writer").set_payload(format!("{good}{{\"event\":\"two\"}}nonsense"))).await;
    assert_eq!((code(&answer), &answer.json()["invalid-event-number"]), (json!(6), &json!(2)));
    assert_eq!(texts(&world, "shop").await.last().unwrap(), "two", "what stood before it is stored");
    for (token, status, number) in [("", 200, 17), ("writer", 200, 17), ("nobody", 400, 4)] {
        let answer = ask(&world, request("GET", "/services/collector/health/1.0", token)).await;
        assert_eq!((answer.status, code(&answer)), (status, json!(number)), "{token}");
    }
}

#[actix_web::test]
async fn splunk_acknowledges_what_is_durable() {
    let world = world();
    let send = || {
        post(HEC, "Splunk writer").insert_header(("x-splunk-request-channel", "7f2c")).set_payload(r#"{"event":"one"}"#)
    };
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = ask(&world, send()).await;
        assert_eq!((answer.status, &answer.json()["text"]), (200, &json!("Success")));
        ids.push(answer.json()["ackId"].as_u64().unwrap());
    }
    assert!(ids[0] != ids[1] && ids.iter().all(|id| *id < 1 << 53));
    let asked =
        post("/services/collector/ack?channel=7f2c", "Splunk writer").set_payload(json!({ "acks": ids }).to_string());
    let expected = json!({"acks": {ids[0].to_string(): true, ids[1].to_string(): true}});
    assert_eq!(ask(&world, asked).await.json(), expected);
    *world.fake.broken.lock() = Some(Problem::unavailable("NoResponders", "nobody there").unknown());
    assert!(ask(&world, send()).await.json().get("ackId").is_none(), "what is not durable has no number");
}

#[actix_web::test]
async fn opentelemetry_is_answered_in_its_own_form() {
    let world = world();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    for (at, (body, encoding)) in [
        (otlp_request(1, "plain"), "identity"),
        (gzip(&otlp_request(2, "gzip")), "gzip"),
        (zstd(&otlp_request(3, "zstd")), "zstd"),
        (snappy(&otlp_request(4, "snappy")), "snappy"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = if at == 0 { "/otlp/v1/logs" } else { OTLP };
        let sent = post(path, "Bearer writer").insert_header(("content-type", "application/x-protobuf"));
        let answer = ask(&world, sent.insert_header(("content-encoding", encoding)).set_payload(body)).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{encoding}: {}", answer.text());
        assert_eq!(answer.headers.get("content-type").unwrap(), "application/x-protobuf");
    }
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"json"}}]}]}]}"#;
    let sent = || post(OTLP, "Bearer writer").insert_header(("content-type", "application/json"));
    let answer = ask(&world, sent().set_payload(json)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    let refused = ask(&world, sent().set_payload("[]")).await;
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!(3)));
    assert_eq!(texts(&world, "shop").await, ["gzip", "json", "plain", "snappy", "zstd"]);
}

#[actix_web::test]
async fn labels_do_not_make_a_small_body_a_large_one() {
    let world = world();
    let line = r#"["1767323045000000000","x"],"#.repeat(999) + r#"["1767323045000000000","x"]"#;
    let body = format!(r#"{{"streams":[{{"stream":{{"a":"{}"}},"values":[{line}]}}]}}"#, "x".repeat(1_000));
    let sent = post(LOKI, "Bearer writer").insert_header(("content-type", "application/json")).set_payload(body);
    let answer = ask(&world, sent).await;
    assert_eq!((answer.status, stored(&world)), (413, 0), "{}", answer.text());
}

#[actix_web::test]
async fn streams_keep_their_order_and_use_all_segments() {
    let world = world();
    let streams: Vec<_> = (0..8)
        .map(|stream| {
            let values: Vec<_> = (0..5).map(|n| json!([format!("176732304500000000{n}"), n.to_string()])).collect();
            json!({"stream": {"pod": format!("p{stream}")}, "values": values})
        })
        .collect();
    let body = json!({ "streams": streams }).to_string();
    let sent = post(LOKI, "Bearer writer").insert_header(("content-type", "application/json")).set_payload(body);
    assert_eq!(ask(&world, sent).await.status, 204);
    let events = world.fake.segments.events();
    assert_eq!(events.len(), 2, "both segments are used");
    for stream in 0..8 {
        let pod = json!(format!("p{stream}"));
        let of_stream = |events: &Vec<wire::block::BlockEvent>| -> Vec<Value> {
            let read = events.iter().map(|event| serde_json::from_slice::<Value>(&event.payload).unwrap());
            read.filter(|event| event["pod"] == pod).map(|event| event["_msg"].clone()).collect()
        };
        let found: Vec<_> = events.values().map(of_stream).filter(|found| !found.is_empty()).collect();
        assert_eq!(json!(found), json!([["0", "1", "2", "3", "4"]]), "{pod}");
    }
}
