//! Elasticsearch's reading side, with the requests that Grafana and elasticsearch-py send.

use super::*;

/// 2026-01-02T03:04:05Z and a bit before: ten events, ten seconds apart, the last at the present second.
async fn events(world: &World) {
    let line = |i: i64| {
        let time = jiff::Timestamp::from_millisecond(NOW_MS - (9 - i) * 10_000).unwrap();
        let (level, service) = if i % 3 == 0 { ("ERROR", "cart") } else { ("INFO", "web shop") };
        format!(
            "{{\"@timestamp\":\"{time}\",\"log\":{{\"level\":\"{level}\"}},\"service\":{{\"name\":\"{service}\"}},\"took\":{i},\"ok\":{},\
             \"tags\":[\"a\",{i}],\"message\":\"User {i} has timed out\"}}\n",
            i % 2 == 0
        )
    };
    put_lines(world, &(0..10).map(line).collect::<String>()).await;
}

async fn post(world: &World, path: &str, token: &str, body: &Value) -> Answer {
    ask(world, request("POST", path, token).set_payload(body.to_string())).await
}

async fn found(world: &World, body: Value) -> Value {
    let answer = post(world, "/shop/_search", "reader", &body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    assert_eq!(answer.headers.get("x-elastic-product").unwrap(), "Elasticsearch");
    answer.json()
}

fn took(answer: &Value) -> Vec<i64> {
    let hits = answer["hits"]["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["_source"]["took"].as_i64().unwrap()).collect()
}

#[actix_web::test]
async fn hits_are_events_as_they_were_sent() {
    let world = world();
    events(&world).await;
    let answer = found(&world, json!({"query": {"term": {"took": 3}}})).await;
    assert_eq!((&answer["timed_out"], &answer["_shards"]["failed"]), (&json!(false), &json!(0)));
    assert_eq!(answer["hits"]["total"], json!({"value": 1, "relation": "eq"}));
    let hit = &answer["hits"]["hits"][0];
    let source = json!({
        "@timestamp": "2026-01-02T03:03:05.000Z", "message": "User 3 has timed out", "log": {"level": "error"},
        "service": {"name": "cart"}, "took": 3, "ok": false, "tags": ["a", 3],
    });
    assert_eq!(hit["_source"], source);
    assert_eq!((&hit["_index"], &hit["_score"]), (&json!("shop"), &json!(1.0)));
    // The id finds it again.
    let again = found(&world, json!({"query": {"ids": {"values": [hit["_id"]]}}})).await;
    assert_eq!(took(&again), [3]);
}

#[actix_web::test]
async fn queries_find_what_they_say() {
    let world = world();
    events(&world).await;
    for (query, expected) in [
        (json!({"match_all": {}}), vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (json!({"match_none": {}}), vec![]),
        (json!({"match": {"message": "user OUT"}}), vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (json!({"match": {"message": {"query": "user 7", "operator": "and"}}}), vec![7]),
        (json!({"match_phrase": {"message": "has timed"}}), vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (json!({"match_phrase": {"message": "timed has"}}), vec![]),
        (json!({"term": {"service.name": "web shop"}}), vec![8, 7, 5, 4, 2, 1]),
        (json!({"terms": {"service.name.keyword": ["cart", "x"]}}), vec![9, 6, 3, 0]),
        (json!({"term": {"log.level": "ERROR"}}), vec![9, 6, 3, 0]),
        (json!({"term": {"ok": "false"}}), vec![9, 7, 5, 3, 1]),
        (json!({"range": {"took": {"gte": 3, "lt": "5"}}}), vec![4, 3]),
        (json!({"range": {"@timestamp": {"gte": "now-25s"}}}), vec![9, 8, 7]),
        (
            json!({"range": {"@timestamp": {"gt": NOW_MS - 30_000, "lte": NOW_MS - 10_000, "format": "epoch_millis"}}}),
            vec![8, 7],
        ),
        (json!({"exists": {"field": "nothing"}}), vec![]),
        (json!({"prefix": {"service.name": "web"}}), vec![8, 7, 5, 4, 2, 1]),
        (json!({"wildcard": {"service.name": "w*p"}}), vec![8, 7, 5, 4, 2, 1]),
        (json!({"regexp": {"service.name": "c[a-z]+"}}), vec![9, 6, 3, 0]),
        (
            json!({"bool": {"must": [{"term": {"service.name": "cart"}}], "must_not": {"term": {"took": 9}}, "filter": {"exists": {"field": "took"}}}}),
            vec![6, 3, 0],
        ),
        (json!({"bool": {"should": [{"term": {"took": 1}}, {"term": {"took": 2}}]}}), vec![2, 1]),
        (
            json!({"bool": {"should": [{"term": {"took": 1}}, {"term": {"ok": false}}, {"term": {"log.level": "info"}}], "minimum_should_match": 2}}),
            vec![7, 5, 1],
        ),
        (
            json!({"query_string": {"query": "service.name:\"web shop\" AND took:>=5", "analyze_wildcard": true}}),
            vec![8, 7, 5],
        ),
        (json!({"query_string": {"query": "*"}}), vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (json!({"query_string": {"query": "time* AND NOT (took:[1 TO 8] OR level:info)"}}), vec![9, 0]),
        (json!({"simple_query_string": {"query": "user + -info + (8 | 9)", "fields": ["message"]}}), vec![9, 8]),
        (
            json!({"multi_match": {"query": "timed out", "type": "phrase", "lenient": true}}),
            vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        ),
        (json!({"term": {"_index": "shop"}}), vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ] {
        assert_eq!(took(&found(&world, json!({"query": query.clone()})).await), expected, "{query}");
    }
}

#[actix_web::test]
async fn pages_meet_without_a_gap() {
    let world = world();
    // All of one millisecond, so that only `_doc` tells them apart.
    let line = |i: i64| format!("{{\"@timestamp\":\"2026-01-02T03:04:04.5{:08}Z\",\"took\":{i}}}\n", i / 3);
    put_lines(&world, &(0..20).map(line).collect::<String>()).await;
    for (sort, exact) in [
        (json!([{"@timestamp": {"order": "desc", "unmapped_type": "boolean"}}, {"_doc": {"order": "desc"}}]), true),
        (json!([{"@timestamp": "asc"}, "_shard_doc"]), true),
        (json!([{"took": "asc"}]), true),
        (json!([{"nothing": {"order": "asc", "unmapped_type": "long"}}, "_doc"]), true),
        (json!([{"@timestamp": "asc"}]), false),
    ] {
        let (mut seen, mut after) = (Vec::new(), Value::Null);
        loop {
            let page =
                found(&world, json!({"size": 7, "sort": sort, "search_after": after, "track_total_hits": true})).await;
            assert_eq!(page["hits"]["total"]["value"], 20, "{sort}");
            let hits = page["hits"]["hits"].as_array().unwrap();
            let Some(last) = hits.last() else { break };
            assert_eq!(last["_score"], Value::Null);
            seen.extend(took(&page));
            after = last["sort"].clone();
        }
        seen.sort_unstable();
        let expected: Vec<i64> = if exact { (0..20).collect() } else { seen.clone() };
        assert_eq!(seen, expected, "{sort}");
        seen.dedup();
        assert!(
            exact || seen.len() >= 7,
            "{sort}: without a second key those of one millisecond are one, as in Elasticsearch"
        );
    }
    let from = found(&world, json!({"from": 18, "sort": "took"})).await;
    assert_eq!(took(&from), [18, 19]);
}

#[actix_web::test]
async fn totals_are_as_exact_as_asked() {
    let world = world();
    events(&world).await;
    for (track, total) in [
        (json!(true), json!({"value": 10, "relation": "eq"})),
        (json!(4), json!({"value": 4, "relation": "gte"})),
        (json!(10), json!({"value": 10, "relation": "eq"})),
        (json!(false), Value::Null),
    ] {
        let answer = found(&world, json!({"size": 2, "track_total_hits": track})).await;
        assert_eq!(answer["hits"]["total"], total, "{track}");
    }
    let plain =
        ask(&world, request("GET", "/shop/_search?q=took:3&rest_total_hits_as_int=true&size=0", "reader")).await;
    assert_eq!(plain.json()["hits"], json!({"total": 1, "max_score": null, "hits": []}));
    let count = post(&world, "/shop/_count", "reader", &json!({"query": {"term": {"ok": true}}})).await.json();
    assert_eq!(count["count"], 5);
    let count = ask(&world, request("GET", "/_count?q=ok:true+AND+took:4", "reader")).await.json();
    assert_eq!(count, json!({"count": 1, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0}}));
}

/// What Grafana sends for a panel, for logs, for annotations and for the values of a variable.
#[actix_web::test]
async fn grafana_asks_several_at_once() {
    let world = world();
    events(&world).await;
    let header = json!({"ignore_unavailable": true, "index": "shop*", "search_type": "query_then_fetch"});
    let range = json!({"range": {"@timestamp": {"format": "epoch_millis", "gte": NOW_MS - 90_000, "lte": NOW_MS}}});
    let query =
        |text: &str| json!({"bool": {"filter": [range, {"query_string": {"analyze_wildcard": true, "query": text}}]}});
    let dates = |aggs: Value| {
        json!({"2": {"aggs": aggs, "date_histogram": {
            "extended_bounds": {"max": NOW_MS, "min": NOW_MS - 90_000}, "field": "@timestamp", "fixed_interval": "30s",
            "format": "epoch_millis", "min_doc_count": 0,
        }}})
    };
    let panel = json!({
        "aggs": {"3": {
            "terms": {"field": "service.name", "min_doc_count": 1, "order": {"_count": "desc"}, "size": 10},
            "aggs": dates(json!({"1": {"avg": {"field": "took"}}, "4": {"percentiles": {"field": "took", "percents": ["50", "95"]}}})),
        }},
        "query": query("took:<9"), "size": 0,
    });
    let logs = json!({
        "fields": [{"field": "@timestamp", "format": "strict_date_optional_time_nanos"}], "docvalue_fields": ["@timestamp"],
        "highlight": {"fields": {"*": {}}, "fragment_size": 2_147_483_647, "post_tags": ["@/HIGHLIGHT@"], "pre_tags": ["@HIGHLIGHT@"]},
        "query": query("timed AND took:>7"), "script_fields": {}, "size": 2,
        "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "boolean"}}, {"_doc": {"order": "desc"}}],
    });
    let variable = json!({"aggs": {"1": {"terms": {"field": "log.level", "order": {"_key": "asc"}, "size": 500}}}, "query": range, "size": 0});
    let wrong = json!({"aggs": {"1": {"terms": {"field": "a"}, "aggs": {"2": {"derivative": {"buckets_path": "_count"}}}}}, "size": 0});
    let lines: String = [panel, logs, variable, wrong].iter().map(|body| format!("{header}\n{body}\n")).collect();
    let asked = request("POST", "/_msearch?max_concurrent_shard_requests=5", "reader")
        .insert_header(("content-type", "application/x-ndjson"))
        .set_payload(lines);
    let answer = ask(&world, asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answers = answer.json();
    let statuses: Vec<&Value> = answers["responses"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [200, 200, 200, 400], "{answers}");

    let panel = &answers["responses"][0]["aggregations"]["3"];
    assert_eq!((&panel["sum_other_doc_count"], &panel["buckets"][0]["key"]), (&json!(0), &json!("web shop")));
    assert_eq!((&panel["buckets"][0]["doc_count"], &panel["buckets"][1]["doc_count"]), (&json!(6), &json!(3)));
    let buckets = panel["buckets"][1]["2"]["buckets"].as_array().unwrap();
    // 03:02:30, :03:00, :03:30, :04:00; of the cart 0 at 03:02:35, 3 at 03:03:05, 6 at 03:03:35 and none in the last.
    let shown: Vec<_> =
        buckets.iter().map(|one| (one["doc_count"].as_u64().unwrap(), one["1"]["value"].as_f64())).collect();
    assert_eq!(shown, [(1, Some(0.0)), (1, Some(3.0)), (1, Some(6.0)), (0, None)]);
    assert_eq!(buckets[0]["key_as_string"], json!(buckets[0]["key"].to_string()));
    assert_eq!(buckets[0]["key"], json!(NOW_MS - 95_000));
    assert_eq!(buckets[1]["4"], json!({"values": {"50.0": 3.0, "95.0": 3.0}}));

    let hits = &answers["responses"][1]["hits"]["hits"];
    assert_eq!(hits[0]["highlight"], json!({"message": ["User 9 has @HIGHLIGHT@timed@/HIGHLIGHT@ out"]}));
    assert_eq!(hits[0]["fields"]["@timestamp"], json!(["2026-01-02T03:04:05.000Z"]));
    assert_eq!(hits[0]["sort"][0], json!(NOW_MS));
    assert!(hits[0]["sort"][1].is_string(), "{hits}");

    let variable = &answers["responses"][2]["aggregations"]["1"]["buckets"];
    assert_eq!(*variable, json!([{"key": "error", "doc_count": 4}, {"key": "info", "doc_count": 6}]));
    assert!(answers["responses"][3]["error"]["reason"].as_str().unwrap().contains("[derivative]"));
}

#[actix_web::test]
async fn aggregations_count_what_they_say() {
    let world = world();
    events(&world).await;
    let at = |ms: i64| ms;
    for (aggs, expected) in [
        (
            json!({"s": {"stats": {"field": "took"}}, "n": {"value_count": {"field": "service.name"}}, "c": {"cardinality": {"field": "service.name"}}, "x": {"max": {"field": "@timestamp"}}, "e": {"sum": {"field": "nothing"}}, "m": {"min": {"field": "nothing"}}}),
            json!({
                "s": {"count": 10, "min": 0.0, "max": 9.0, "avg": 4.5, "sum": 45.0}, "n": {"value": 10}, "c": {"value": 2},
                "x": {"value": at(NOW_MS) as f64, "value_as_string": "2026-01-02T03:04:05.000Z"}, "e": {"value": 0.0}, "m": {"value": null},
            }),
        ),
        (
            json!({"t": {"terms": {"field": "took", "size": 2, "order": {"_key": "desc"}}}, "b": {"terms": {"field": "ok"}}}),
            json!({
                "t": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 8, "buckets": [{"key": 9, "doc_count": 1}, {"key": 8, "doc_count": 1}]},
                "b": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
                    {"key": 0, "key_as_string": "false", "doc_count": 5}, {"key": 1, "key_as_string": "true", "doc_count": 5},
                ]},
            }),
        ),
        (
            json!({"t": {"terms": {"field": "service.name", "order": [{"m.max": "desc"}], "missing": "none", "exclude": ["x"]}, "aggs": {"m": {"stats": {"field": "took"}}}, "meta": {"a": 1}}}),
            json!({"t": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "meta": {"a": 1}, "buckets": [
                {"key": "cart", "doc_count": 4, "m": {"count": 4, "min": 0.0, "max": 9.0, "avg": 4.5, "sum": 18.0}},
                {"key": "web shop", "doc_count": 6, "m": {"count": 6, "min": 1.0, "max": 8.0, "avg": 4.5, "sum": 27.0}},
            ]}}),
        ),
        (
            json!({"n": {"terms": {"field": "nothing", "missing": "none"}}, "o": {"terms": {"field": "nothing"}}}),
            json!({
                "n": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [{"key": "none", "doc_count": 10}]},
                "o": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": []},
            }),
        ),
        (
            json!({"h": {"histogram": {"field": "took", "interval": 4, "extended_bounds": {"min": -4, "max": 12}}}}),
            json!({"h": {"buckets": [
                {"key": -4.0, "doc_count": 0}, {"key": 0.0, "doc_count": 4}, {"key": 4.0, "doc_count": 4}, {"key": 8.0, "doc_count": 2},
                {"key": 12.0, "doc_count": 0},
            ]}}),
        ),
        (
            json!({"r": {"range": {"field": "took", "ranges": [{"to": 2}, {"from": 2, "to": 5, "key": "mid"}, {"from": 5}]}}}),
            json!({"r": {"buckets": [
                {"key": "*-2.0", "to": 2.0, "doc_count": 2}, {"key": "mid", "from": 2.0, "to": 5.0, "doc_count": 3},
                {"key": "5.0-*", "from": 5.0, "doc_count": 5},
            ]}}),
        ),
        (
            json!({"f": {"filters": {"filters": {"e": {"term": {"log.level": "error"}}}, "other_bucket_key": "rest"}, "aggs": {"a": {"avg": {"field": "took"}}}},
                   "g": {"filter": {"term": {"ok": true}}, "aggs": {"t": {"terms": {"field": "log.level"}}}},
                   "m": {"missing": {"field": "nothing"}}}),
            json!({
                "f": {"buckets": {"e": {"doc_count": 4, "a": {"value": 4.5}}, "rest": {"doc_count": 6, "a": {"value": 4.5}}}},
                "g": {"doc_count": 5, "t": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
                    {"key": "info", "doc_count": 3}, {"key": "error", "doc_count": 2},
                ]}},
                "m": {"doc_count": 10},
            }),
        ),
        (
            json!({"d": {"date_histogram": {"field": "@timestamp", "calendar_interval": "minute", "time_zone": "+05:30", "keyed": true, "format": "HH:mm"}}}),
            json!({"d": {"buckets": {
                "08:32": {"key_as_string": "08:32", "key": NOW_MS - 125_000, "doc_count": 3},
                "08:33": {"key_as_string": "08:33", "key": NOW_MS - 65_000, "doc_count": 6},
                "08:34": {"key_as_string": "08:34", "key": NOW_MS - 5_000, "doc_count": 1},
            }}}),
        ),
        (
            json!({"d": {"date_histogram": {"field": "@timestamp", "fixed_interval": "1m", "min_doc_count": 1, "order": {"_count": "desc"}}, "aggs": {
                "t": {"terms": {"field": "service.name", "size": 1}}}}}),
            json!({"d": {"buckets": [
                {"key_as_string": "2026-01-02T03:03:00.000Z", "key": NOW_MS - 65_000, "doc_count": 6, "t": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 2, "buckets": [{"key": "web shop", "doc_count": 4}]}},
                {"key_as_string": "2026-01-02T03:02:00.000Z", "key": NOW_MS - 125_000, "doc_count": 3, "t": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 1, "buckets": [{"key": "web shop", "doc_count": 2}]}},
                {"key_as_string": "2026-01-02T03:04:00.000Z", "key": NOW_MS - 5_000, "doc_count": 1, "t": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [{"key": "cart", "doc_count": 1}]}},
            ]}}),
        ),
    ] {
        let answer = found(&world, json!({"size": 0, "aggs": aggs.clone()})).await;
        assert_eq!(answer["aggregations"], expected, "{aggs}");
    }
}

#[actix_web::test]
async fn the_best_hits_of_each_bucket() {
    let world = world();
    events(&world).await;
    let aggs = json!({"t": {"terms": {"field": "service.name"}, "aggs": {"h": {"top_hits": {"size": 2, "sort": [{"took": "desc"}], "_source": ["took"]}}}}});
    let answer = found(&world, json!({"size": 0, "aggs": aggs})).await;
    let hits = |bucket: usize| {
        let hits = &answer["aggregations"]["t"]["buckets"][bucket]["h"]["hits"];
        (hits["total"]["value"].as_u64().unwrap(), took(&json!({ "hits": hits })))
    };
    assert_eq!((hits(0), hits(1)), ((6, vec![8, 7]), (4, vec![9, 6])), "{answer}");
}

#[actix_web::test]
async fn what_there_is_is_told() {
    let world = world();
    events(&world).await;
    let mapping = ask(&world, request("GET", "/shop/_mapping", "reader")).await.json();
    let properties = &mapping["shop"]["mappings"]["properties"];
    assert_eq!(properties["service"]["properties"]["name"], json!({"type": "keyword"}));
    assert_eq!((&properties["@timestamp"]["type"], &properties["took"]["type"]), (&json!("date"), &json!("long")));
    let caps = ask(&world, request("GET", "/sh*/_field_caps?fields=@timestamp,service.*", "reader")).await.json();
    assert_eq!(caps["indices"], json!(["shop"]));
    assert_eq!(caps["fields"]["@timestamp"]["date"]["searchable"], true);
    assert_eq!(caps["fields"]["service.name"]["keyword"]["aggregatable"], true);
    let caps = post(&world, "/_field_caps", "reader", &json!({"fields": "took"})).await.json();
    assert_eq!(caps["fields"]["took"]["long"]["type"], "long");
    let resolved = ask(&world, request("GET", "/_resolve/index/*", "reader")).await.json();
    assert_eq!(resolved["indices"], json!([{"name": "shop", "attributes": ["open"]}]));
    for (index, token, status) in [
        ("shop", "reader", 200),
        ("other", "reader", 403),
        ("other", "root", 200),
        ("nope", "root", 404),
        ("shop", "", 401),
    ] {
        let there = ask(&world, request("HEAD", &format!("/{index}"), token)).await;
        assert_eq!((there.status, there.body.len()), (status, 0), "{index} {token}");
    }
}

#[actix_web::test]
async fn nobody_reads_what_is_not_theirs() {
    let world = world();
    events(&world).await;
    for (path, token, status, hits, kind) in [
        ("/shop/_search", "reader", 200, 10, ""),
        ("/_search", "reader", 200, 10, ""),
        ("/_all/_search", "reader", 200, 10, ""),
        ("/sh*,-shop/_search", "reader", 200, 0, ""),
        ("/logs-*/_search", "reader", 200, 0, ""),
        ("/other/_search", "reader", 403, 0, "security_exception"),
        ("/other/_search?ignore_unavailable=true", "reader", 403, 0, "security_exception"),
        ("/shop,other/_search", "reader", 403, 0, "security_exception"),
        ("/shop/_search", "writer", 403, 0, "security_exception"),
        ("/*/_search", "writer", 403, 0, "security_exception"),
        ("/shop/_search", "", 401, 0, "security_exception"),
        ("/shop,other/_search", "root", 200, 10, ""),
        ("/*/_search", "root", 200, 10, ""),
        ("/nope/_search", "root", 404, 0, "index_not_found_exception"),
        ("/nope,shop/_search?ignore_unavailable", "root", 200, 10, ""),
        ("/Shop/_search", "root", 404, 0, "index_not_found_exception"),
    ] {
        let answer = ask(&world, request("GET", path, token)).await;
        assert_eq!(answer.status, status, "{path} {token}: {}", answer.text());
        let body = answer.json();
        if status == 200 {
            assert_eq!(body["hits"]["hits"].as_array().unwrap().len(), hits, "{path} {token}");
        } else {
            assert_eq!(
                (&body["error"]["type"], &body["status"]),
                (&json!(kind), &json!(status)),
                "{path} {token}: {body}"
            );
            assert_eq!(body["error"]["root_cause"][0]["type"], kind);
        }
        assert_eq!(answer.headers.get("x-elastic-product").unwrap(), "Elasticsearch");
    }
    // Of several indexes each hit says where it is from.
    let both = post(&world, "/_search", "root", &json!({"size": 1, "aggs": {"i": {"terms": {"field": "_index"}}}}))
        .await
        .json();
    assert_eq!(both["hits"]["hits"][0]["_index"], "shop");
    assert_eq!(both["aggregations"]["i"]["buckets"], json!([{"key": "shop", "doc_count": 10}]));
}

#[actix_web::test]
async fn refusals_are_in_words_of_elasticsearch() {
    let world = world();
    events(&world).await;
    for (method, path, body, kind, words) in [
        ("POST", "/shop/_search", "{", "parsing_exception", "no JSON"),
        (
            "POST",
            "/shop/_search",
            r#"{"query":{"more_like_this":{}}}"#,
            "parsing_exception",
            "unknown query [more_like_this]",
        ),
        (
            "POST",
            "/shop/_search",
            r#"{"query":{"regexp":{"service.name":"(a"}}}"#,
            "illegal_argument_exception",
            "unclosed group",
        ),
        ("POST", "/shop/_search", r#"{"size":100}"#, "too_many_buckets_exception", "query_rows_max"),
        ("POST", "/shop/_search?scroll=1m", "", "illegal_argument_exception", "search_after"),
        ("POST", "/_search/scroll", "", "illegal_argument_exception", "[scroll]"),
        ("POST", "/shop/_pit?keep_alive=1m", "", "illegal_argument_exception", "point in time"),
        ("POST", "/_msearch", "{}\n", "illegal_argument_exception", "pairs"),
        ("POST", "/_msearch", "\n", "action_request_validation_exception", "no requests"),
        ("GET", "/shop/_field_caps", "", "illegal_argument_exception", "fields"),
        ("POST", "/shop/_count", r#"{"size":1}"#, "parsing_exception", "[size]"),
        (
            "POST",
            "/shop/_search",
            r#"{"size":0,"aggs":{"d":{"date_histogram":{"field":"@timestamp","fixed_interval":"1ms"}}}}"#,
            "too_many_buckets_exception",
            "65535",
        ),
    ] {
        let world_lines = if path.contains("_search") && body.contains("\"size\":100") { 60 } else { 0 };
        if world_lines > 0 {
            put_lines(&world, &"{\"a\":1}\n".repeat(world_lines)).await;
        }
        let answer = ask(&world, request(method, path, "reader").set_payload(body.to_owned())).await;
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["type"], kind, "{path} {body}: {error}");
        assert!(error["reason"].as_str().unwrap().contains(words), "{path} {body}: {error}");
    }
    let large = format!("{{\"query\":\"{}\"}}", "x".repeat(1 << 20));
    let answer = ask(&world, request("POST", "/shop/_search", "reader").set_payload(large)).await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (413, &json!("content_too_long_exception")));
    let packed = {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(br#"{"size":1}"#).unwrap();
        packer.finish().unwrap()
    };
    let asked =
        request("POST", "/shop/_search", "reader").insert_header(("content-encoding", "gzip")).set_payload(packed);
    assert_eq!(ask(&world, asked).await.json()["hits"]["hits"].as_array().unwrap().len(), 1);
}
