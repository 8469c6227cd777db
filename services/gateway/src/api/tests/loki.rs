//! Loki's reading side, with the requests that Grafana and logcli send.

use actix_web::{dev::Payload, error::PayloadError};

use super::*;

/// What a client says while its answer is written.
type BoxedPayloadStream = std::pin::Pin<Box<dyn futures::Stream<Item = Result<web::Bytes, PayloadError>>>>;

/// The second in which the fake stands, and 35 seconds before, when the first line was written.
const NOW: i64 = NOW_MS / 1_000;
const FIRST: i64 = NOW - 35;

/// Six lines of two streams, five seconds apart; every other one is an error.
async fn lines(world: &World) {
    let value = |i: i64| {
        let (time, level) = ((FIRST + 5 * i) * 1_000_000_000 + i, if i % 2 == 0 { "error" } else { "info" });
        json!([time.to_string(), format!("{{\"level\":\"{level}\",\"took_ms\":{},\"msg\":\"user {i} in\"}}", 10 * i)])
    };
    let stream = |app: &str, numbers: [i64; 3]| json!({ "stream": { "app": app, "colour": "red" }, "values": numbers.map(value) });
    let body = json!({ "streams": [stream("a", [0, 2, 4]), stream("b", [1, 3, 5])] });
    let push = request("POST", "/loki/api/v1/push", "writer").insert_header(("content-type", "application/json"));
    assert_eq!(ask(world, push.set_payload(body.to_string())).await.status, 204);
}

fn path(call: &str, parameters: &[(&str, &str)]) -> String {
    let one = |(name, value): &(&str, &str)| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        format!("{name}={}", value.bytes().map(byte).collect::<String>())
    };
    format!("/loki/api/v1/{call}?{}", parameters.iter().map(one).collect::<Vec<_>>().join("&"))
}

async fn get(world: &World, call: &str, parameters: &[(&str, &str)]) -> Value {
    let answer = ask(world, request("GET", &path(call, parameters), "reader")).await;
    assert_eq!(answer.status, 200, "{call} {parameters:?}: {}", answer.text());
    answer.json()
}

/// The times and texts of an answer, whatever their streams.
fn texts(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let streams = answer["data"]["result"].as_array().unwrap();
    let values = streams.iter().flat_map(|stream| stream["values"].as_array().unwrap());
    values.map(|value| (text(&value[0]), text(&value[1]))).collect()
}

#[actix_web::test]
async fn lines_come_back_as_streams() {
    let world = world();
    lines(&world).await;
    let answer = get(&world, "query_range", &[("query", "{app=\"a\"} |= \"user\""), ("limit", "2")]).await;
    assert_eq!((&answer["status"], &answer["data"]["resultType"]), (&json!("success"), &json!("streams")));
    let stream = |i: i64| {
        let took = (10 * i).to_string();
        let labels =
            json!({ "app": "a", "colour": "red", "level": "error", "detected_level": "error", "took_ms": took });
        let time = ((FIRST + 5 * i) * 1_000_000_000 + i).to_string();
        json!({ "stream": labels, "values": [[time, format!("user {i} in")]] })
    };
    assert_eq!(answer["data"]["result"], json!([stream(4), stream(2)]), "newest first");
    assert_eq!(answer["data"]["stats"]["summary"]["totalEntriesReturned"], 2);

    // Grafana asks for labels apart from what else an event has.
    let asked = request("POST", "/loki/api/v1/query_range", "reader")
        .insert_header(("x-loki-response-encoding-flags", "categorize-labels"))
        .insert_header(("content-type", "application/x-www-form-urlencoded"))
        .set_payload("query=%7Bapp%3D~%22.%2B%22%7D+%7C+took_ms+%3E%3D+40&direction=forward");
    let answer = ask(&world, asked).await.json();
    assert_eq!(answer["data"]["encodingFlags"], json!(["categorize-labels"]));
    let streams = answer["data"]["result"].as_array().unwrap();
    let shown: Vec<_> = streams.iter().map(|stream| (&stream["stream"], &stream["values"][0][2])).collect();
    let metadata = |level: &str, took: &str| json!({ "structuredMetadata": { "colour": "red", "detected_level": level, "took_ms": took } });
    assert_eq!(
        shown,
        [
            (&json!({ "app": "a", "level": "error" }), &metadata("error", "40")),
            (&json!({ "app": "b", "level": "info" }), &metadata("info", "50")),
        ]
    );
}

/// As logcli pages: backward the end of the next page is behind the oldest line seen, forward it begins at the newest.
#[actix_web::test]
async fn pages_meet_without_a_gap() {
    let world = world();
    lines(&world).await;
    let all = texts(&get(&world, "query_range", &[("query", "{}"), ("direction", "FORWARD")]).await);
    assert_eq!(all.len(), 6);
    for direction in ["forward", "backward"] {
        let (mut seen, mut start, mut end) = (Vec::new(), "0".to_owned(), format!("{}", NOW + 1));
        for _ in 0..6 {
            let page = [("query", "{}"), ("limit", "2"), ("direction", direction), ("start", &start), ("end", &end)];
            let mut found = texts(&get(&world, "query_range", &page).await);
            found.sort();
            let (oldest, newest) = (found[0].0.clone(), found[found.len() - 1].0.clone());
            seen.extend(found);
            match direction {
                "forward" => start = newest,
                _ => end = (oldest.parse::<i64>().unwrap() + 1).to_string(),
            }
        }
        seen.sort();
        seen.dedup();
        let mut expected = all.clone();
        expected.sort();
        assert_eq!(seen, expected, "{direction}");
    }
    // The range holds its first instant and not its last.
    let (first, behind) = ((FIRST * 1_000_000_000).to_string(), ((FIRST + 5) * 1_000_000_000 + 1).to_string());
    let found = texts(&get(&world, "query_range", &[("query", "{}"), ("start", &first), ("end", &behind)]).await);
    assert_eq!(found, [(first, "user 0 in".to_owned())]);
}

#[actix_web::test]
async fn metrics_are_matrices_vectors_and_scalars() {
    let world = world();
    lines(&world).await;
    // What Grafana's "Save & test" sends.
    let health = get(&world, "query", &[("query", "vector(1)+vector(1)"), ("time", &format!("{NOW}000000000"))]).await;
    let vector = json!([{ "metric": {}, "value": [NOW, "2"] }]);
    assert_eq!((&health["data"]["resultType"], &health["data"]["result"]), (&json!("vector"), &vector));
    let scalar = get(&world, "query", &[("query", "2 * 3")]).await;
    assert_eq!(scalar["data"]["result"], json!([NOW, "6"]));

    // What Explore sends for its histogram.
    let explore = "sum by (level, detected_level) (count_over_time({app=~\".+\"} | drop __error__[15s]))";
    let (start, end) = (FIRST - 1, FIRST + 29);
    let range = [("start", &*start.to_string()), ("end", &end.to_string())];
    let answer = get(&world, "query_range", &[("query", explore), ("step", "15000ms"), range[0], range[1]]).await;
    let series = |level: &str, counts: [&str; 2]| {
        let values = [json!([FIRST + 14, counts[0]]), json!([FIRST + 29, counts[1]])];
        json!({ "metric": { "level": level, "detected_level": level }, "values": values })
    };
    assert_eq!(answer["data"]["resultType"], "matrix");
    assert_eq!(answer["data"]["result"], json!([series("error", ["2", "1"]), series("info", ["1", "2"])]));

    let streams = get(&world, "query", &[("query", "rate({colour=\"red\"}[1m])"), ("time", &NOW.to_string())]).await;
    let metrics: Vec<&Value> = streams["data"]["result"].as_array().unwrap().iter().map(|one| &one["metric"]).collect();
    let stream = |app: &str, level: &str| json!({ "app": app, "colour": "red", "level": level });
    assert_eq!(metrics, [&stream("a", "error"), &stream("b", "info")], "the line at the last instant counts too");
    let top = "topk(1, sum by (app) (sum_over_time({app!=\"\"} | unwrap took_ms [1m])))";
    let top = get(&world, "query", &[("query", top), ("time", &(NOW + 1).to_string())]).await;
    assert_eq!(top["data"]["result"], json!([{ "metric": { "app": "b" }, "value": [NOW + 1, "90"] }]));
}

#[actix_web::test]
async fn labels_values_streams_and_volumes_are_told() {
    let world = world();
    lines(&world).await;
    let later = (NOW + 1).to_string();
    let end = ("end", &*later);
    assert_eq!(
        get(&world, "labels", &[]).await,
        json!({ "status": "success", "data": ["app", "colour", "detected_level", "level", "took_ms"] })
    );
    for (name, query, values) in [
        ("app", "", json!(["a", "b"])),
        ("app", "{level=\"info\"}", json!(["b"])),
        ("detected_level", "", json!(["error", "info"])),
        ("took_ms", "{app=\"a\"}", json!(["0", "20", "40"])),
        ("nothing", "", json!([])),
    ] {
        let found = get(&world, &format!("label/{name}/values"), &[("query", query), end]).await;
        assert_eq!(found["data"], values, "{name} {query}");
    }
    let old = get(&world, "label/app/values", &[("start", "1"), ("end", "2")]).await;
    assert_eq!(old["data"], json!([]));
    for matching in ["match", "match[]"] {
        let found = get(&world, "series", &[(matching, "{app=\"a\"}"), (matching, "{app=\"b\"}"), end]).await;
        assert_eq!(found["data"], json!([{ "app": "a", "level": "error" }, { "app": "b", "level": "info" }]));
    }
    let stats = get(&world, "index/stats", &[("query", "{app=\"a\"}"), end]).await;
    assert_eq!(stats, json!({ "streams": 1, "chunks": 0, "entries": 3, "bytes": 27 }));
    let volume = get(&world, "index/volume", &[("query", "{}"), ("targetLabels", "app"), ("limit", "1"), end]).await;
    assert_eq!(volume["data"]["result"], json!([{ "metric": { "app": "a" }, "value": [NOW + 1, "27"] }]));
    let by_label = get(&world, "index/volume", &[("query", "{}"), ("aggregateBy", "labels"), end]).await;
    let metrics: Vec<&Value> =
        by_label["data"]["result"].as_array().unwrap().iter().map(|one| &one["metric"]).collect();
    assert_eq!(metrics, [&json!({ "app": "" }), &json!({ "level": "" })]);
    let steps = get(&world, "index/volume_range", &[("query", "{app=\"b\"}"), ("step", "3600"), end]).await;
    assert_eq!(steps["data"]["resultType"], "matrix");
    let labels = get(&world, "detected_labels", &[end]).await;
    let label = |name: &str| json!({ "label": name, "cardinality": 2 });
    assert_eq!(labels, json!({ "detectedLabels": [label("app"), label("level")] }));
}

#[actix_web::test]
async fn fields_and_patterns_are_found() {
    let world = world();
    lines(&world).await;
    let (end, query) = (("end", &*(NOW + 1).to_string()), ("query", "{app=~\".+\"}"));
    let fields = get(&world, "detected_fields", &[query, end, ("line_limit", "50")]).await;
    let field = |name: &str, kind: &str, values: u64| json!({ "label": name, "type": kind, "cardinality": values, "parsers": null });
    let expected = [field("colour", "string", 1), field("detected_level", "string", 2), field("took_ms", "int", 6)];
    assert_eq!(fields, json!({ "fields": expected, "limit": 1_000 }));
    let values = get(&world, "detected_field/took_ms/values", &[query, end, ("limit", "2")]).await;
    assert_eq!(values, json!({ "values": ["0", "10"], "limit": 2 }));
    let patterns = get(&world, "patterns", &[query, end, ("step", "10s")]).await;
    let (text, samples) = (&patterns["data"][0]["pattern"], &patterns["data"][0]["samples"]);
    assert_eq!((text, samples), (&json!("user <_> in"), &json!([[FIRST, 2], [FIRST + 10, 2], [FIRST + 20, 2]])));
    let build = get(&world, "status/buildinfo", &[]).await;
    assert!(build["version"].as_str().is_some_and(|version| version.starts_with("3.")), "{build}");
}

#[actix_web::test]
async fn refusals_are_in_plain_words() {
    let world = world();
    lines(&world).await;
    for (call, query, token, status, words) in [
        ("query_range", "{app=a}", "reader", 400, "parse error at line 1, col 6: "),
        ("query_range", "{app=~\"(\"}", "reader", 400, ""),
        ("query_range", "rate({}[1m]) unless rate({}[1m])", "reader", 400, "not yet here: unless"),
        ("query_range", "", "reader", 400, "the parameter query is missing"),
        ("query", "{app=\"a\"}", "reader", 400, "log queries are not supported as an instant query type"),
        ("patterns", "rate({}[1m])", "reader", 400, "only log queries are supported here"),
        ("tail", "{}", "reader", 400, "a tail is a websocket"),
        ("labels", "{}", "", 401, "Authorization"),
        ("labels", "{}", "root", 401, "no org id"),
        ("labels", "{}", "writer", 403, "does not allow to read"),
    ] {
        let answer = ask(&world, request("GET", &path(call, &[("query", query)]), token)).await;
        assert_eq!(answer.status, status, "{call} {query}: {}", answer.text());
        assert!(answer.text().contains(words), "{call} {query}: {}", answer.text());
        assert_eq!(answer.headers.get("content-type").unwrap(), "text/plain; charset=utf-8");
    }
    for (wrong, words) in [
        (("limit", "51"), "max entries limit"),
        (("start", "x"), "valid timestamp"),
        (("direction", "up"), "invalid direction"),
    ] {
        let answer = ask(&world, request("GET", &path("query_range", &[("query", "{}"), wrong]), "reader")).await;
        assert!(answer.status == 400 && answer.text().contains(words), "{}", answer.text());
    }
    for (count, status) in [(16, 200), (17, 400)] {
        let answer = ask(&world, request("GET", &path("series", &vec![("match[]", "{}"); count]), "reader")).await;
        assert_eq!(answer.status, status, "{count} selectors: {}", answer.text());
    }
    // The admin token names indexes as tenants.
    for (tenant, count, status) in [("shop", 6, 200), ("other|shop", 6, 200), ("other", 0, 200), ("nope", 0, 404)] {
        let asked = request("GET", &path("query_range", &[("query", "{}"), ("end", &(NOW + 1).to_string())]), "root");
        let answer = ask(&world, asked.insert_header(("x-scope-orgid", tenant))).await;
        assert_eq!(answer.status, status, "{tenant}: {}", answer.text());
        if status == 200 {
            assert_eq!(texts(&answer.json()).len(), count, "{tenant}");
        }
    }
}

/// A tail as a websocket: the frames that it sends, its client's way of saying something, and what it has said so far.
async fn tail(
    world: &World,
    query: &str,
) -> (std::pin::Pin<Box<dyn futures::Stream<Item = Vec<u8>>>>, tokio::sync::mpsc::Sender<Vec<u8>>) {
    let (send, receive) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
    let said: BoxedPayloadStream = Box::pin(futures::stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|bytes| (Ok(web::Bytes::from(bytes)), receive))
    }));
    let asked = request("GET", &path("tail", &[("query", query), ("limit", "2")]), "reader")
        .insert_header(("upgrade", "websocket"))
        .insert_header(("connection", "Upgrade"))
        .insert_header(("sec-websocket-version", "13"))
        .insert_header(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="));
    let (asked, _) = asked.to_request().replace_payload(Payload::Stream { payload: said });
    let app = init_service(app(world.door.clone())).await;
    let answer = app.call(asked).await.unwrap();
    assert_eq!(answer.status().as_u16(), 101);
    assert_eq!(answer.headers().get("sec-websocket-accept").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let body = Box::pin(answer.into_body());
    let frames = futures::stream::unfold(body, |mut body| async move {
        let part = std::future::poll_fn(|context| body.as_mut().poll_next(context)).await?;
        Some((part.map_err(|_| "body").unwrap().to_vec(), body))
    });
    (Box::pin(frames), send)
}

async fn frame(frames: &mut (impl futures::Stream<Item = Vec<u8>> + Unpin)) -> Vec<u8> {
    tokio::time::timeout(PATIENCE, frames.next()).await.expect("a frame").expect("the tail goes on")
}

fn told(frame: &[u8]) -> Vec<(String, String)> {
    let begin = if frame[1] < 126 { 2 } else { 4 };
    assert_eq!(frame[0], 0x81, "a text");
    let value: Value = serde_json::from_slice(&frame[begin..]).unwrap();
    texts(&json!({ "data": { "result": value["streams"] } }))
}

#[actix_web::test]
async fn a_tail_tells_what_was_and_then_what_comes() {
    let world = world();
    // What it asks first counts against the quota before it does, and not beside it.
    let one = wire::views::Quota { queries: Some(1), ..Default::default() };
    world.door.quotas.set(&"shop".parse().unwrap(), Some(one));
    lines(&world).await;
    let (mut frames, say) = tail(&world, "{app=\"a\"} |= \"in\" | line_format \"{{.level}}: {{__line__}}\"").await;
    let words: Vec<String> = told(&frame(&mut frames).await).into_iter().map(|(_, text)| text).collect();
    assert_eq!(words, ["error: user 2 in", "error: user 4 in"], "the last two, oldest first");
    // Of what comes, what the query selects.
    let line = |app: &str, text: &str| json!({ "stream": { "app": app }, "values": [[(NOW * 1_000_000_000).to_string(), text]] });
    let body = json!({ "streams": [line("b", "not in"), line("a", "out"), line("a", "7 in")] }).to_string();
    let push = request("POST", "/loki/api/v1/push", "writer").insert_header(("content-type", "application/json"));
    assert_eq!(ask(&world, push.set_payload(body)).await.status, 204);
    assert_eq!(told(&frame(&mut frames).await), [((NOW * 1_000_000_000).to_string(), ": 7 in".to_owned())]);
    // A masked ping is answered, a close ends it.
    say.send(vec![0x89, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    assert_eq!(frame(&mut frames).await, [0x8a, 2, b'h', b'i']);
    say.send(vec![0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(frame(&mut frames).await, [0x88, 2, 3, 232]);
    assert_eq!(frames.next().await, None);
}
