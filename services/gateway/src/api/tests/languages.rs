//! The same events asked in three languages, and what could come next.

use super::*;

async fn events(world: &World) {
    let line = |i: i64| {
        let time = jiff::Timestamp::from_millisecond(NOW_MS - 60_000 + i * 1_000).unwrap();
        let (severity, service) = if i % 3 == 0 { ("error", "cart") } else { ("info", "web shop") };
        format!(
            "{{\"time\":\"{time}\",\"severity\":\"{severity}\",\"service\":\"{service}\",\"took\":{i},\"msg\":\"item {i}\"}}\n"
        )
    };
    put_lines(world, &(0..10).map(line).collect::<String>()).await;
}

async fn query(world: &World, token: &str, body: Value) -> Answer {
    ask(world, request("POST", "/api/v1/query", token).set_payload(body.to_string())).await
}

#[actix_web::test]
async fn one_question_in_three_languages() {
    let world = world();
    events(&world).await;
    let expected = json!([{"service": "cart", "n": 4}, {"service": "web shop", "n": 6}]);
    for body in [
        json!({"text": "SELECT service, count(*) AS n FROM shop GROUP BY 1 ORDER BY 1"}),
        json!({"sql": "SELECT service, count(*) AS n FROM shop GROUP BY 1 ORDER BY 1", "language": "sql"}),
        json!({"text": "| stats count as n by service", "language": "pipe"}),
        json!({"text": "index:shop since:5m item | stats count as n by service", "language": "pipe", "index": "other"}),
    ] {
        let answer = query(&world, "reader", body.clone()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        assert_eq!(answer.json()["rows"], expected, "{body}");
    }
    let series = json!({"text": "sum by (service) (count_over_time({}[1h]))", "language": "logql", "step": "2h"});
    let rows = query(&world, "reader", series).await.json();
    assert_eq!(rows["rows"], json!([]), "no event is older than an hour: {rows}");
    let series = json!({"text": "sum by (service) (count_over_time({}[1h]))", "language": "logql", "step": "1h"});
    let rows = query(&world, "reader", series).await.json();
    assert_eq!(
        rows["rows"],
        json!([
            {"_time": "2026-01-02T03:04:05Z", "service": "cart", "value": 4.0},
            {"_time": "2026-01-02T03:04:05Z", "service": "web shop", "value": 6.0},
        ]),
    );
    let lines = r#"{service="cart"} |= "item 9""#;
    let plain = request("POST", "/api/v1/query?language=logql&index=shop", "root").set_payload(lines);
    let rows = ask(&world, plain).await.json();
    assert_eq!((&rows["row_count"], &rows["rows"][0]["_msg"]), (&json!(1), &json!("item 9")), "{rows}");
    let explained = json!({"text": "severity=error | explain", "language": "pipe"});
    let explained = query(&world, "reader", explained).await.json();
    assert_eq!(explained["columns"][0]["name"], "what", "{explained}");
    let csv = request("POST", "/api/v1/query?language=pipe", "reader").insert_header(("accept", "text/csv"));
    let csv = ask(&world, csv.set_payload("severity=error | sort took | head 2 | keep took, _msg")).await;
    assert_eq!(csv.text(), "took,_msg\n0,item 0\n3,item 3\n");
}

#[actix_web::test]
async fn a_search_without_a_time_has_the_one_beside_it() {
    let world = world();
    events(&world).await;
    let (from, to) = (NOW_MS - 60_000 + 2_000, NOW_MS - 60_000 + 5_000);
    for (text, from, to, count) in [
        ("item", Some(from), Some(to), 3),
        ("item", Some(from), None, 8),
        ("item since:5m", Some(from), Some(to), 10),
        ("item", None, None, 10),
    ] {
        let beside = |at: Option<i64>| at.map(|at| at.to_string());
        let body = json!({"text": text, "language": "pipe", "from": beside(from), "to": beside(to)});
        let answer = query(&world, "reader", body.clone()).await.json();
        assert_eq!(answer["row_count"], count, "{body}: {answer}");
    }
    let wrong = query(&world, "reader", json!({"text": "item", "language": "pipe", "from": "yesterday"})).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["kind"]), (400, &json!("BadTime")));
}

#[actix_web::test]
async fn answers_are_cut_and_say_so_in_every_language() {
    let world = world();
    put_lines(&world, &"{\"a\":1}\n".repeat(60)).await;
    let answer = query(&world, "reader", json!({"text": "*", "language": "pipe"})).await;
    assert_eq!((&answer.json()["row_count"], &answer.json()["truncated"]), (&json!(50), &json!(true)));
}

#[actix_web::test]
async fn complaints_about_a_plan_point_into_its_text() {
    let world = world();
    events(&world).await;
    for (token, body, column, words) in [
        ("reader", json!({"text": "item | stat count", "language": "pipe"}), 8, "did you mean stats?"),
        ("reader", json!({"text": "item servce=cart", "language": "pipe"}), 6, "did you mean service?"),
        ("reader", json!({"text": "item | follow", "language": "pipe"}), 8, "not yet here: follow"),
        ("root", json!({"text": "item", "language": "pipe"}), 1, "begin with index:name"),
        ("root", json!({"text": "{}", "language": "logql"}), 1, "names no index"),
        ("reader", json!({"text": "{service=cart}", "language": "logql"}), 10, "^"),
        ("reader", json!({"text": "~\"(\"", "language": "pipe"}), 1, "unclosed group"),
    ] {
        let answer = query(&world, token, body.clone()).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["kind"], &error["column"]),
            (400, &json!("InvalidQuery"), &json!(column)),
            "{body}: {error}"
        );
        let rendered = error["rendered"].as_str().unwrap();
        assert!(rendered.contains(words) && rendered.contains('^'), "{rendered}");
    }
    let many = (0..40).map(|i| format!("i{i}")).collect::<Vec<_>>().join(",");
    for (body, kind) in [
        (json!({"text": "*", "language": "spl"}), "MalformedRequest"),
        (json!({"text": "{}", "language": "logql", "step": "soon"}), "BadTime"),
        (json!({"text": format!("index:{many}"), "language": "pipe"}), "InvalidQuery"),
    ] {
        let answer = query(&world, "reader", body.clone()).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, kind), "{body}");
    }
}

#[actix_web::test]
async fn what_could_come_next() {
    let world = world();
    events(&world).await;
    for (token, body, wanted) in [
        ("reader", json!({"text": "item | sta"}), "7 command stats"),
        ("reader", json!({"text": "item | stats avg(to"}), "17 field took"),
        ("reader", json!({"text": "item service=we"}), "13 value \"web shop\""),
        ("reader", json!({"text": "ä service=c and more", "cursor": 11}), "10 value cart"),
        ("reader", json!({"text": "index:"}), "6 word shop"),
        ("root", json!({"text": "index:o"}), "6 word other"),
        ("root", json!({"text": "index:shop sever"}), "11 field severity"),
        ("root", json!({"text": "sev", "index": "shop"}), "0 field severity"),
    ] {
        let asked = request("POST", "/api/v1/complete", token).set_payload(body.to_string());
        let answer = ask(&world, asked).await.json();
        let found: Vec<String> = answer["completions"]
            .as_array()
            .unwrap_or_else(|| panic!("{answer}"))
            .iter()
            .map(|one| format!("{} {} {}", one["from"], one["kind"].as_str().unwrap(), one["text"].as_str().unwrap()))
            .collect();
        assert!(found.contains(&wanted.to_owned()), "{body}: {found:?}");
    }
}

#[actix_web::test]
async fn jobs_and_rules_are_written_in_the_pipe_language_too() {
    let world = world();
    events(&world).await;
    let job = json!({"job": "slow", "language": "pipe", "text": "took>3 | keep _msg, took | into index shop"});
    let answer = ask(&world, request("POST", "/api/v1/jobs", "owner").set_payload(job.to_string())).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let text = "INSERT INTO \"shop\" SELECT \"_msg\", \"took\" FROM \"shop\" WHERE \"took\" > 3";
    assert_eq!(answer.json()["text"], json!(text));
    let query = "severity=error | chart count by service every 10s | alert when count > 2";
    let rule = |more: Value| {
        let mut rule = json!({"language": "pipe", "query": query});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request("PUT", "/api/v1/rules/many", "owner").set_payload(rule.to_string())
    };
    let answer = ask(&world, rule(json!({}))).await;
    let condition = &answer.json()["rule"]["condition"];
    assert_eq!((answer.status, condition), (200, &json!("count > 2")), "{}", answer.text());
    for (method, path, body, words) in [
        ("POST", "/api/v1/jobs", json!({"language": "pipe", "text": "took>3"}), "| into index"),
        (
            "POST",
            "/api/v1/jobs",
            json!({"language": "pipe", "text": "since:1h | into index shop"}),
            "take since: and until: away",
        ),
        ("POST", "/api/v1/jobs", json!({"language": "pipe", "text": "tok>3 | into index shop"}), "did you mean took?"),
        ("POST", "/api/v1/jobs", json!({"language": "logql", "text": "{}"}), "past only"),
        ("PUT", "/api/v1/rules/r", json!({"language": "pipe", "query": query, "condition": "count > 1"}), "said twice"),
        ("PUT", "/api/v1/rules/r", json!({"language": "pipe", "query": "| chart count every 1m"}), "has no condition"),
        ("PUT", "/api/v1/rules/r", json!({"language": "pipe", "query": "error", "condition": "n > 1"}), "window"),
    ] {
        let answer = ask(&world, request(method, path, "owner").set_payload(body.to_string())).await;
        assert!(answer.status == 400 && answer.text().contains(words), "{body}: {}", answer.text());
    }
    let foreign = json!({"language": "pipe", "text": "index:other | into index shop"});
    let answer = ask(&world, request("POST", "/api/v1/jobs", "owner").set_payload(foreign.to_string())).await;
    assert_eq!((answer.status, answer.kind().as_str()), (403, "ForeignIndex"));
}
