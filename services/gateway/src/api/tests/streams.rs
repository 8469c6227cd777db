//! Answers of which each line is shown when it is there.

use super::*;

fn streamed(text: &str) -> TestRequest {
    let request = request("POST", "/api/v1/query", "reader").insert_header(("accept", "application/x-ndjson"));
    request.set_payload(json!({ "text": text }).to_string()).insert_header(("content-type", "application/json"))
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[actix_web::test]
async fn an_answer_comes_line_by_line() {
    let world = world();
    put_lines(&world, &(0..60).map(|i| format!("{{\"n\":{i},\"msg\":\"m{i}\"}}\n")).collect::<String>()).await;
    let answer = ask(&world, streamed("SELECT n FROM shop WHERE n < 40 ORDER BY n")).await;
    assert_eq!(
        (answer.status, answer.headers.get("content-type").unwrap().to_str().unwrap()),
        (200, "application/x-ndjson")
    );
    let all = lines(&answer);
    assert_eq!(all[0], json!({"columns": [{"name": "n", "type": "integer"}]}));
    let rows: Vec<&Value> =
        all.iter().filter_map(|line| line["rows"].as_array()).flatten().map(|row| &row["n"]).collect();
    assert_eq!(rows, (0..40).map(|n| json!(n)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    assert!(all.iter().all(|line| line.as_object().is_some_and(|line| line.len() == 1)), "one member each");
    let end = &all.last().unwrap()["end"];
    assert_eq!((&end["row_count"], &end["truncated"]), (&json!(40), &json!(false)), "{end}");
    assert!(end["elapsed_ms"].is_u64() && end["stats"]["rows_scanned"] == json!(60), "{end}");

    let cut = lines(&ask(&world, streamed("SELECT n FROM shop")).await);
    let end = &cut.last().unwrap()["end"];
    assert_eq!((&end["row_count"], &end["truncated"]), (&json!(50), &json!(true)));
    let counted = lines(&ask(&world, streamed("SELECT count(*) AS c FROM shop")).await);
    assert_eq!(counted[1], json!({"rows": [{"c": 60}]}));
    let explained = lines(&ask(&world, streamed("EXPLAIN SELECT n FROM shop WHERE n = 3")).await);
    let told = explained.iter().filter_map(|line| line["rows"].as_array()).flatten();
    assert!(told.clone().any(|row| row["what"] == "rows found" && row["count"] == 1), "{explained:?}");
    assert!(told.count() > 5 && explained.last().unwrap()["end"].is_object());
    let pipe = json!({ "text": "n>57 | keep n", "language": "pipe" });
    let pipe = lines(&ask(&world, streamed("").set_payload(pipe.to_string())).await);
    let rows: Vec<&Value> = pipe.iter().filter_map(|line| line["rows"].as_array()).flatten().collect();
    assert_eq!(rows.len(), 2, "{pipe:?}");
}

#[actix_web::test]
async fn what_is_wrong_at_the_begin_is_an_answer_and_later_the_last_line() {
    let world = world();
    put_lines(&world, "{\"n\":1}\n{\"n\":\"x\"}").await;
    let refused = ask(&world, streamed("SELECT nn FROM shop")).await;
    assert_eq!((refused.status, &refused.json()["error"]["column"]), (400, &json!(8)), "{}", refused.text());
    assert_eq!(ask(&world, streamed("SELECT * FROM other")).await.status, 403);
    let answer = ask(&world, streamed("SELECT CAST(n AS INT) AS i FROM shop")).await;
    assert_eq!(answer.status, 200, "its columns were known");
    let all = lines(&answer);
    let error = &all.last().unwrap()["error"];
    assert_eq!((&error["kind"], error["line"].is_u64()), (&json!("InvalidQuery"), true), "{all:?}");
    assert!(error["rendered"].as_str().is_some_and(|text| text.contains('^')), "{error}");
    assert!(all[0]["columns"].is_array() && all.iter().filter(|line| line["error"].is_object()).count() == 1);
}

#[actix_web::test]
async fn who_goes_away_ends_the_query_and_leaves_its_place() {
    let world = world();
    put_lines(&world, &"{\"n\":1}\n".repeat(60)).await;
    let endless = "SELECT count(*) FROM shop a, shop b, shop c, shop d, shop e, shop f WHERE a.n + b.n <> c.n";
    // One more than an index has places.
    for _ in 0..9 {
        let answer = open(&world, streamed(endless)).await;
        assert_eq!(answer.status().as_u16(), 200);
        let mut parts = Box::pin(stream_of(answer.into_body()));
        assert!(next(&mut parts).await.unwrap().starts_with("{\"columns\":"));
    }
}
