//! Looking at an index without knowing what to ask, on rows in memory and in a chunk.

use std::collections::BTreeSet;

use super::{scaling::testing::*, *};

/// Lines of ten seconds each before [`NOW_MS`], newest last; `line(i)` is an object.
async fn put(world: &World, count: i64, line: impl Fn(i64) -> Value) {
    let lines = (0..count).map(|i| {
        let mut line = line(i);
        let at = jiff::Timestamp::from_millisecond(NOW_MS - (count - i) * 10_000).unwrap();
        line["time"] = json!(at.to_string());
        format!("{line}\n")
    });
    put_lines(world, &lines.collect::<String>()).await;
}

async fn explore(world: &World, what: &str, body: &Value) -> Answer {
    let path = format!("/api/v1/indexes/shop/{what}");
    let request = request("POST", &path, "reader").insert_header(("content-type", "application/json"));
    ask(world, request.set_payload(body.to_string())).await
}

async fn found(world: &World, what: &str, body: &Value) -> Value {
    let answer = explore(world, what, body).await;
    assert_eq!(answer.status, 200, "{what} {body}: {}", answer.text());
    answer.json()
}

/// A shop of 60 lines: in the second half another version, a new message, and slower.
async fn shop(world: &World) {
    put(world, 60, |i| {
        let late = i >= 30;
        let message = match i % 3 {
            0 => format!("user u{i} logged in"),
            1 if late => format!("disk {i} is full"),
            _ => format!("cart {i} has {} items", i % 7),
        };
        let mut line = json!({ "msg": message, "severity": if i % 5 == 0 { "error" } else { "info" } });
        line["version"] = json!(if late { "v2" } else { "v1" });
        line["took"] = json!(if late { i * 10 } else { i });
        if i % 2 == 0 {
            line["user"] = json!(format!("u{i}"));
        }
        line
    })
    .await;
}

#[actix_web::test]
async fn patterns_are_counted_and_compared() {
    let world = world();
    shop(&world).await;
    let all = found(&world, "patterns", &json!({ "from": "-1h", "buckets": 4 })).await;
    assert_eq!(all["rows"], json!(60));
    let told = |answer: &Value| -> Vec<(String, u64)> {
        let patterns = answer["patterns"].as_array().unwrap();
        patterns
            .iter()
            .map(|one| (one["template"].as_str().unwrap().to_owned(), one["count"].as_u64().unwrap()))
            .collect()
    };
    let of = |template: &str, count| (template.to_owned(), count);
    assert_eq!(
        told(&all),
        [of("cart <*> has <*> items", 30), of("user <*> logged in", 20), of("disk <*> is full", 10)]
    );
    let first = &all["patterns"][0];
    assert_eq!(first["share"], json!(0.5));
    let buckets: u64 = first["buckets"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!((first["buckets"].as_array().unwrap().len(), buckets), (4, 30));
    let severities: u64 = first["severities"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(severities, 30);
    // The example is where it is said to be.
    let example = &first["example"];
    let row =
        context(&world, example["segment"].as_str().unwrap(), example["offset"].as_u64().unwrap(), "&before=0&after=0")
            .await;
    assert_eq!(row.json()["rows"][0]["row"]["_msg"], example["message"]);
    // What has changed since the five minutes before stands first.
    let body = json!({ "from": "-5m", "compare_from": "before", "limit": 2 });
    let changed = found(&world, "patterns", &body).await;
    assert_eq!((&changed["rows"], &changed["compare"]["rows"]), (&json!(30), &json!(30)));
    let change = &changed["patterns"][0];
    assert_eq!(
        (&change["template"], &change["change"]["kind"]),
        (&json!("disk <*> is full"), &json!("new")),
        "{change}"
    );
    assert_eq!(changed["patterns"][1]["before"], json!({ "count": 20, "share": 0.666_667 }), "{changed}");
    assert_eq!(changed["other"], json!({ "patterns": 1, "count": 10 }));
    // A query chooses whose.
    let few = found(&world, "patterns", &json!({ "query": "disk", "from": "-1h" })).await;
    assert_eq!(told(&few), [of("disk <*> is full", 10)]);
}

#[actix_web::test]
async fn facets_tell_which_fields_there_are() {
    let world = world();
    shop(&world).await;
    let all = found(&world, "facets", &json!({ "from": "-1h", "limit": 2 })).await;
    assert_eq!((&all["rows"], &all["sampled"], &all["fields_left_out"]), (&json!(60), &json!(null), &json!(0)));
    let names: Vec<&str> =
        all["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
    assert!(
        names.ends_with(&["user"]) && ["severity", "took", "version"].iter().all(|name| names.contains(name)),
        "{names:?}"
    );
    let field = |name: &str| {
        all["fields"].as_array().unwrap().iter().find(|field| field["name"] == json!(name)).unwrap().clone()
    };
    let version = field("version");
    assert_eq!(
        (&version["coverage"], &version["distinct"], &version["at_least"]),
        (&json!(1.0), &json!(2), &json!(false))
    );
    let half = |value: &str| json!({ "value": value, "count": 30, "share": 0.5 });
    assert_eq!(version["values"], json!([half("v1"), half("v2")]));
    let user = field("user");
    assert_eq!((&user["rows"], &user["coverage"], &user["distinct"]), (&json!(30), &json!(0.5), &json!(30)));
    let took = field("took");
    assert_eq!((&took["type"], &took["min"], &took["max"]), (&json!("integer"), &json!(0), &json!(590)), "{took}");
    let p50 = took["p50"].as_f64().unwrap();
    assert!((29.0..=300.0).contains(&p50) && took["p99"].as_f64().unwrap() > 500.0, "{took}");
    let one =
        found(&world, "facets", &json!({ "query": "version=v1 | sample 2", "fields": ["_msg"], "from": "-1h" })).await;
    assert_eq!((&one["rows"], &one["sampled"]), (&json!(15), &json!({ "one_in": 2 })));
    assert_eq!(one["fields"][0]["distinct"], json!(15));
}

#[actix_web::test]
async fn a_comparison_tells_what_is_different() {
    let world = world();
    shop(&world).await;
    let body = json!({ "a": { "from": "-10m", "to": "-5m" }, "b": { "from": "-5m" } });
    let differing = found(&world, "compare", &body).await;
    assert_eq!((&differing["a"]["rows"], &differing["b"]["rows"]), (&json!(30), &json!(30)));
    let told: BTreeSet<(String, String, String)> = differing["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["field"].to_string(), one["value"].to_string(), one["direction"].to_string()))
        .collect();
    let of = |value: &str, direction: &str| ("\"version\"".to_owned(), format!("{value:?}"), format!("{direction:?}"));
    assert_eq!(told, BTreeSet::from([of("v1", "under"), of("v2", "over")]), "{differing}");
    assert_eq!(differing["values"][0]["significance"], json!(83.178));
    assert_eq!(differing["fields"].as_array().unwrap().iter().filter(|name| **name == json!("severity")).count(), 1);
}

#[actix_web::test]
async fn what_is_no_look_at_events_is_refused() {
    let world = world();
    shop(&world).await;
    for (what, body, words) in [
        ("patterns", json!({ "query": "error | stats count" }), "looks at more than one"),
        ("patterns", json!({ "query": "| keep user" }), "_msg is needed"),
        ("patterns", json!({ "limit": 501 }), "limit must be"),
        ("facets", json!({ "fields": ["vrsion"] }), "no field vrsion"),
        ("facets", json!({ "query": "index:other x" }), "not of other"),
        ("facets", json!({ "query": "vrsion=v1" }), "no field vrsion"),
        ("compare", json!({ "a": { "from": "-1m", "to": "-2m" }, "b": {} }), "from must lie before to"),
        ("compare", json!({ "a": {} }), "missing field"),
    ] {
        let answer = explore(&world, what, &body).await;
        assert_eq!(answer.status, 400, "{what} {body}: {}", answer.text());
        assert!(answer.text().contains(words), "{what} {body}: {}", answer.text());
    }
    for (token, status) in [("", 401), ("writer", 403)] {
        for what in ["patterns", "facets", "compare"] {
            let path = format!("/api/v1/indexes/shop/{what}");
            let body = json!({ "a": {}, "b": {} });
            let answer = ask(&world, request("POST", &path, token).set_payload(body.to_string())).await;
            assert_eq!(answer.status, status, "{what} as {token:?}");
        }
        assert_eq!(
            ask(&world, request("GET", "/api/v1/indexes/shop/context?segment=1-0-0&offset=0", token)).await.status,
            status
        );
    }
}

async fn context(world: &World, segment: &str, offset: u64, more: &str) -> Answer {
    let path = format!("/api/v1/indexes/shop/context?segment={segment}&offset={offset}{more}");
    ask(world, request("GET", &path, "reader")).await
}

fn numbers(answer: &Value) -> Vec<u64> {
    answer["rows"].as_array().unwrap().iter().map(|row| row["row"]["i"].as_u64().unwrap()).collect()
}

/// Around every event of a key, its neighbours of the key, whatever lies in chunks and however the stream was scaled.
#[actix_web::test]
async fn context_goes_across_chunks_and_epochs() {
    let world = world();
    send(&world, 0, 40).await;
    let old = present(&world);
    let new = world.fake.segments.scale("shop", &old[..1], &[range(0, HALF / 3), range(HALF / 3 + 1, HALF)]);
    send(&world, 40, 80).await;
    world.fake.segments.scale("shop", &[new[1], old[1]], &[range(HALF / 3 + 1, u64::MAX)]);
    send(&world, 80, 120).await;
    // A part of the first segments lies in chunks.
    for segment in &old {
        let count = u64::try_from(world.fake.segments.events()[segment].len()).unwrap();
        world.fake.tier(*segment, count / 2).await;
    }
    for (segment, events) in world.fake.segments.events() {
        for (offset, event) in (0..).zip(events) {
            let line: Value = serde_json::from_slice(&event.payload).unwrap();
            let at = line["i"].as_u64().unwrap();
            // Those beside an edge, and some between.
            if at % 40 > 1 && at % 40 < 38 && !at.is_multiple_of(13) {
                continue;
            }
            let answer = context(&world, &segment.to_string(), offset, "&before=3&after=2&same=user").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let answer = answer.json();
            let of_key = |i: &u64| i % 8 == at % 8 && *i + 3 * 8 >= at && *i <= at + 2 * 8;
            assert_eq!(numbers(&answer), (0..120).filter(of_key).collect::<Vec<_>>(), "around {at}");
            assert_eq!(answer["more_before"], json!(at >= 4 * 8), "before {at}");
            assert_eq!(answer["more_after"], json!(at + 3 * 8 < 120), "after {at}");
            let hits: Vec<&Value> =
                answer["rows"].as_array().unwrap().iter().filter(|row| row["hit"] == json!(true)).collect();
            assert_eq!((hits.len(), &hits[0]["row"]["i"]), (1, &json!(at)));
        }
    }
    // Without a condition: the rows of the segment, then those of what follows it.
    let first = world.fake.segments.events()[&old[1]].len();
    let last = u64::try_from(first - 1).unwrap();
    let answer = context(&world, &old[1].to_string(), last, "&before=2&after=1").await.json();
    let places: Vec<String> = answer["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| format!("{}:{}", row["segment"].as_str().unwrap(), row["offset"]))
        .collect();
    let merged = present(&world).into_iter().max().unwrap();
    assert_eq!(
        places,
        [
            format!("{}:{}", old[1], last - 2),
            format!("{}:{}", old[1], last - 1),
            format!("{}:{last}", old[1]),
            format!("{merged}:0")
        ]
    );
    assert_eq!(
        (&answer["more_before"], &answer["more_after"], &answer["scanned"]),
        (&json!(true), &json!(true), &json!(6))
    );
}

#[actix_web::test]
async fn context_of_what_is_not_there_is_refused() {
    let world = world();
    send(&world, 0, 40).await;
    let segment = present(&world)[0];
    world.fake.segments.change(segment, |known| known.start = 3);
    for (at, offset, more, status, kind) in [
        (segment.to_string(), 2, "", 404, "Truncated"),
        (segment.to_string(), 4_000, "", 404, "UnknownOffset"),
        ("1-9-9".to_owned(), 0, "", 404, "UnknownSegment"),
        // One of another index.
        ("2-0-0".to_owned(), 0, "", 404, "UnknownSegment"),
        ("x".to_owned(), 0, "", 400, "MalformedRequest"),
        (segment.to_string(), 3, "&before=501", 400, "MalformedRequest"),
        (segment.to_string(), 3, "&same=a,b,c,d,e,f,g,h,i", 400, "MalformedRequest"),
    ] {
        let answer = context(&world, &at, offset, more).await;
        assert_eq!((answer.status, answer.kind().as_str()), (status, kind), "{at}:{offset}{more}");
    }
    let answer = context(&world, &segment.to_string(), 3, "&after=1").await.json();
    assert_eq!((numbers(&answer).len(), &answer["more_before"]), (2, &json!(false)), "what was truncated is gone");
}

#[actix_web::test]
async fn a_histogram_comes_from_counters_unless_a_query_chooses() {
    let world = world();
    shop(&world).await;
    let segment = *world.fake.segments.events().keys().next().unwrap();
    world.fake.tier(segment, 60).await;
    let of = async |more: &str| {
        let path = format!("/api/v1/indexes/shop/histogram?from=-2h{more}");
        let answer = ask(&world, request("GET", &path, "reader")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let count = |answer: &Value| {
        answer["buckets"].as_array().unwrap().iter().map(|one| one["count"].as_u64().unwrap()).sum::<u64>()
    };
    let whole = of("").await;
    assert_eq!((count(&whole), &whole["bucket_ms"]), (60, &json!(120_000)));
    assert_eq!(
        (&whole["stats"]["chunks_counted"], &whole["stats"]["rows_scanned"]),
        (&json!(1), &json!(0)),
        "{}",
        whole["stats"]
    );
    let errors: u64 =
        whole["buckets"].as_array().unwrap().iter().filter_map(|one| one["severities"]["error"].as_u64()).sum();
    assert_eq!(errors, 12);
    let some = of("&query=version%3Dv2").await;
    assert_eq!((count(&some), &some["stats"]["chunks_counted"]), (30, &json!(0)));
}
