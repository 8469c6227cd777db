//! Views, saved searches and lookups; results as files; results written into an index.

use super::*;

async fn events(world: &World) {
    let line = |i: i64| {
        let time = jiff::Timestamp::from_millisecond(NOW_MS - 60_000 + i * 1_000).unwrap();
        let (severity, host) = if i % 3 == 0 { ("error", "a1") } else { ("info", "b2") };
        format!(
            "{{\"time\":\"{time}\",\"severity\":\"{severity}\",\"host\":\"{host}\",\"took\":{i},\"msg\":\"item {i}\"}}\n"
        )
    };
    put_lines(world, &(0..10).map(line).collect::<String>()).await;
}

async fn put(world: &World, path: &str, body: &str) -> Answer {
    ask(world, request("PUT", &format!("/api/v1/indexes/shop/{path}"), "owner").set_payload(body.to_owned())).await
}

async fn view(world: &World, name: &str, language: &str, text: &str) -> Answer {
    put(world, &format!("views/{name}"), &json!({"text": text, "language": language}).to_string()).await
}

async fn query(world: &World, token: &str, language: &str, text: &str) -> Answer {
    let body = json!({"text": text, "language": language}).to_string();
    ask(world, request("POST", "/api/v1/query", token).set_payload(body)).await
}

async fn rows(world: &World, language: &str, text: &str) -> Value {
    let answer = query(world, "reader", language, text).await;
    assert_eq!(answer.status, 200, "{text}: {}", answer.text());
    answer.json()["rows"].clone()
}

#[actix_web::test]
async fn views_are_read_like_indexes() {
    let world = world();
    events(&world).await;
    assert_eq!(view(&world, "errors", "sql", "SELECT * FROM shop WHERE severity = 'error'").await.status, 200);
    assert_eq!(view(&world, "late", "pipe", "view:errors took>3").await.status, 200);
    assert_eq!(
        view(&world, "hosts_late", "sql", "SELECT host, count(*) AS n FROM shop.late GROUP BY host").await.status,
        200
    );
    for (language, text, expected) in [
        ("sql", "SELECT count(*) AS n FROM shop.errors", json!([{"n": 4}])),
        ("sql", "SELECT late.took FROM shop.late ORDER BY took", json!([{"took": 6}, {"took": 9}])),
        ("sql", "SELECT * FROM shop.hosts_late", json!([{"host": "a1", "n": 2}])),
        ("pipe", "view:late | sort took | keep took", json!([{"took": 6}, {"took": 9}])),
        ("pipe", "index:shop.errors item | head 1 | keep took", json!([{"took": 9}])),
        ("pipe", "view:hosts_late", json!([{"host": "a1", "n": 2}])),
        ("pipe", "took=1 | append [view:late] | stats count", json!([{"count": 3}])),
    ] {
        assert_eq!(rows(&world, language, text).await, expected, "{text}");
    }
    // Streamed, explained and written as a file it is the same.
    let explained = query(&world, "reader", "pipe", "view:late | explain").await;
    assert_eq!(explained.json()["columns"][0]["name"], "what", "{}", explained.text());
}

#[actix_web::test]
async fn what_is_wrong_with_views_is_told() {
    let world = world();
    events(&world).await;
    for (language, text, column, words) in [
        ("sql", "SELECT * FORM shop", 10, "FORM is not expected"),
        ("sql", "SELECT * FROM shop.nope", 15, "there is no view or lookup shop.nope"),
        ("sql", "SELECT * FROM shop.me", 15, "views read one another in a circle: shop.me → shop.me"),
    ] {
        let answer = view(&world, "me", language, text).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, "InvalidQuery"), "{text}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["column"], column, "{error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    }
    view(&world, "a", "sql", "SELECT * FROM shop").await;
    view(&world, "b", "sql", "SELECT * FROM shop.a").await;
    let circle = view(&world, "a", "pipe", "view:b").await;
    assert!(circle.text().contains("shop.a → shop.b → shop.a"), "{}", circle.text());
    view(&world, "bad", "sql", "SELECT host,\n  tok FROM shop").await;
    view(&world, "odd", "pipe", "index:shop tok=1").await;
    for (language, text, place, words) in [
        ("sql", "SELECT *\nFROM shop.bad", (2, 6), "in the view shop.bad, line 2, column 3: there is no column tok"),
        ("sql", "SELECT * FROM shop.odd", (1, 15), "in the view shop.odd, line 1, column 12: there is no field tok"),
        ("sql", "SELECT * FROM shop.gone", (1, 15), "there is no view or lookup shop.gone"),
        ("pipe", "view:gone error", (1, 6), "there is no view or lookup shop.gone"),
    ] {
        let answer = query(&world, "reader", language, text).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["line"], &error["column"]),
            (400, &json!(place.0), &json!(place.1)),
            "{error}"
        );
        assert_eq!(error["message"], words, "{text}");
    }
    let logql = view(&world, "x", "logql", "{}").await;
    assert_eq!(logql.kind(), "InvalidItem");
    // A view gives nobody what it reads.
    let foreign = json!({"text": "SELECT * FROM other"}).to_string();
    assert_eq!(put(&world, "views/foreign", &foreign).await.status, 200);
    assert_eq!(query(&world, "reader", "sql", "SELECT * FROM shop.foreign").await.kind(), "ForeignIndex");
    assert_eq!(query(&world, "root", "sql", "SELECT * FROM shop.foreign").await.status, 200);
}

#[actix_web::test]
async fn items_have_versions_and_pages() {
    let world = world();
    let path = "/api/v1/indexes/shop/saved/slow";
    let saved =
        json!({"text": "{host=\"a\"}", "language": "logql", "title": "Slow", "from": "-1h", "columns": ["_msg"]});
    let put = |tag: (&'static str, String), body: &Value| {
        request("PUT", path, "owner").insert_header(tag).set_payload(body.to_string())
    };
    let first = ask(&world, put(("if-none-match", "*".to_owned()), &saved)).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let tag = first.headers.get("etag").unwrap().to_str().unwrap().to_owned();
    let item = first.json();
    assert_eq!(tag, format!("\"{}\"", item["version"]));
    for (member, value) in [
        ("kind", json!("saved")),
        ("index", json!("shop")),
        ("name", json!("slow")),
        ("language", json!("logql")),
        ("from", json!("-1h")),
        ("to", Value::Null),
        ("columns", json!(["_msg"])),
        ("changed", json!("2026-01-02T03:04:05Z")),
    ] {
        assert_eq!(item[member], value, "{member}");
    }
    let other = json!({"text": "{}", "language": "logql"});
    assert_eq!(ask(&world, put(("if-none-match", "*".to_owned()), &other)).await.status, 412);
    assert_eq!(ask(&world, put(("if-match", tag.clone()), &other)).await.status, 200);
    let late = ask(&world, put(("if-match", tag.clone()), &saved)).await;
    assert_eq!((late.status, late.kind().as_str()), (412, "ItemChanged"));
    assert_eq!(ask(&world, put(("if-match", "3".to_owned()), &saved)).await.status, 400);
    assert_eq!(ask(&world, request("GET", path, "reader")).await.json()["text"], "{}");
    assert_eq!(ask(&world, request("GET", "/api/v1/indexes/shop/views/slow", "reader")).await.kind(), "UnknownItem");
    let two = request("PUT", "/api/v1/indexes/shop/saved/two", "owner").set_payload(other.to_string());
    assert_eq!(ask(&world, two).await.status, 200);
    let page = ask(&world, request("GET", "/api/v1/indexes/shop/saved?limit=1", "reader")).await.json();
    assert_eq!((&page["items"][0]["name"], &page["more"]), (&json!("slow"), &json!(true)));
    let page = ask(&world, request("GET", "/api/v1/indexes/shop/saved?limit=1&after=slow", "reader")).await.json();
    assert_eq!((&page["items"][0]["name"], &page["more"]), (&json!("two"), &json!(false)));
    let stale = request("DELETE", path, "owner").insert_header(("if-match", tag));
    assert_eq!(ask(&world, stale).await.status, 412);
    assert_eq!(ask(&world, request("DELETE", path, "owner")).await.status, 204);
    assert_eq!(ask(&world, request("GET", path, "reader")).await.status, 404);
    assert_eq!(
        query(&world, "reader", "sql", "SELECT * FROM shop.two").await.status,
        400,
        "a saved search is no table"
    );
}

#[actix_web::test]
async fn lookups_are_tables_and_add_fields() {
    let world = world();
    events(&world).await;
    let wrong = put(&world, "lookups/hosts", "host,owner\na1,ann,x\n").await;
    assert_eq!((wrong.status, wrong.kind().as_str()), (400, "InvalidTable"));
    assert!(wrong.text().contains("row 2: it has 3 cells, the header has 2"), "{}", wrong.text());
    let stored = put(&world, "lookups/hosts?title=Who", "host,owner,rack\na1,ann,7\nc3,cid,\n").await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    let item = stored.json();
    assert_eq!((&item["rows"], &item["title"], &item["place"]), (&json!(2), &json!("Who"), &Value::Null));
    assert_eq!(item["columns"][2], json!({"name": "rack", "type": "integer"}));
    let again = put(&world, "lookups/hosts?title=Who", "host,owner,rack\r\na1,ann,7\r\nc3,cid,\r\n").await;
    assert_eq!(again.json()["version"], item["version"], "the same table is the same item");
    let renamed = put(&world, "lookups/hosts?title=Whose", "host,owner,rack\na1,ann,7\nc3,cid,\n").await;
    assert_eq!((renamed.status, &renamed.json()["title"]), (200, &json!("Whose")), "{}", renamed.text());
    for (language, text, expected) in [
        ("sql", "SELECT * FROM shop.hosts WHERE rack = 7", json!([{"host": "a1", "owner": "ann", "rack": 7}])),
        (
            "sql",
            "SELECT owner, count(*) AS n FROM shop LEFT JOIN shop.hosts h ON shop.host = h.host GROUP BY owner ORDER BY n",
            json!([{"owner": "ann", "n": 4}, {"owner": null, "n": 6}]),
        ),
        (
            "pipe",
            "| lookup hosts host -> owner | stats count by owner | sort count",
            json!([{"owner": "ann", "count": 4}, {"owner": null, "count": 6}]),
        ),
        (
            "pipe",
            "took<2 | sort took | keep host, took | lookup hosts host",
            json!([
            {"host": "a1", "took": 0, "owner": "ann", "rack": 7}, {"host": "b2", "took": 1, "owner": null, "rack": null}]),
        ),
        ("pipe", "view:hosts owner=cid | keep host", json!([{"host": "c3"}])),
    ] {
        assert_eq!(rows(&world, language, text).await, expected, "{text}");
    }
    // Inside a view too, and with a new table at once.
    assert_eq!(view(&world, "owned", "pipe", "index:shop | lookup hosts host -> owner").await.status, 200);
    assert_eq!(put(&world, "lookups/hosts", "host,owner\nb2,bob\n").await.status, 200);
    let owners = "SELECT owner, count(*) AS n FROM shop.owned WHERE owner IS NOT NULL GROUP BY owner";
    assert_eq!(rows(&world, "sql", owners).await, json!([{"owner": "bob", "n": 6}]));
    assert_eq!(ask(&world, request("DELETE", "/api/v1/indexes/shop/lookups/hosts", "owner")).await.status, 204);
    let gone = query(&world, "reader", "sql", owners).await;
    assert_eq!((gone.status, gone.kind().as_str()), (400, "InvalidQuery"), "{}", gone.text());
}

#[actix_web::test]
async fn results_are_files_of_every_form() {
    let world = world();
    events(&world).await;
    let export = |more: &str, accept: &'static str| {
        let asked = request("POST", &format!("/api/v1/query?{more}"), "reader").insert_header(("accept", accept));
        asked.set_payload("SELECT took, host FROM shop WHERE took < 2 ORDER BY took")
    };
    for (more, accept, kind, begin) in [
        ("format=csv", "", "text/csv; charset=utf-8", "took,host\n0,a1\n1,b2\n"),
        (
            "format=jsonl",
            "text/csv",
            "application/jsonl",
            "{\"took\":0,\"host\":\"a1\"}\n{\"took\":1,\"host\":\"b2\"}\n",
        ),
        ("", "application/jsonl", "application/jsonl", "{\"took\":0"),
        ("format=parquet", "", "application/vnd.apache.parquet", "PAR1"),
        ("", "application/vnd.apache.parquet", "application/vnd.apache.parquet", "PAR1"),
        ("format=arrow", "", "application/vnd.apache.arrow.stream", ""),
        ("format=json", "text/csv", "application/json", "{\"columns\":"),
    ] {
        let answer = ask(&world, export(more, accept)).await;
        assert_eq!(answer.status, 200, "{more}: {}", answer.text());
        assert_eq!(answer.headers.get("content-type").unwrap(), kind, "{more}");
        assert_eq!(answer.headers.get("x-truncated").unwrap(), "false");
        assert!(answer.text().starts_with(begin), "{more}: {}", answer.text());
    }
    let parquet = ask(&world, export("format=parquet&download=my+rows", "")).await;
    assert_eq!(parquet.headers.get("content-disposition").unwrap(), "attachment; filename=\"my rows.parquet\"");
    let table = engine::from_parquet(parquet.body.into()).unwrap();
    assert_eq!((table.num_rows(), table.schema().field(0).name().as_str()), (2, "took"));
    assert_eq!(ask(&world, export("format=xml", "")).await.kind(), "MalformedRequest");
    put_lines(&world, &"{\"took\":1}\n".repeat(60)).await;
    let cut = request("POST", "/api/v1/query?format=jsonl", "reader").set_payload("SELECT * FROM shop");
    let cut = ask(&world, cut).await;
    assert_eq!((cut.headers.get("x-truncated").unwrap().to_str().unwrap(), cut.text().lines().count()), ("true", 50));
}

#[actix_web::test]
async fn a_query_writes_its_rows_into_an_index_once() {
    let world = world();
    events(&world).await;
    let count = async |of: &str| {
        rows(&world, "sql", &format!("SELECT count(*) AS n FROM shop WHERE {of}")).await[0]["n"].clone()
    };
    let run = |id: &str, language: &str, text: &str| {
        let body = json!({"text": text, "language": language}).to_string();
        ask(&world, request("POST", &format!("/api/v1/query?run={id}"), "owner").set_payload(body))
    };
    let insert = "INSERT INTO shop SELECT _time, host, 'copy' AS severity2, took FROM shop WHERE severity = 'error'";
    let first = run("r-1", "sql", insert).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(first.json()["rows"], json!([{"index": "shop", "run": "r-1", "rows": 4}]));
    assert_eq!(count("severity2 = 'copy'").await, 4);
    assert_eq!(run("r-1", "sql", insert).await.json()["rows"][0]["rows"], 4);
    assert_eq!(count("severity2 = 'copy'").await, 4, "a repeat of the run adds nothing");
    let stats = "severity=error | stats count by host | into index shop";
    assert_eq!(run("r-2", "pipe", stats).await.json()["rows"][0]["rows"], 1);
    assert_eq!(rows(&world, "pipe", "count=4 | keep host").await, json!([{"host": "a1"}]));
    let many = "INSERT INTO shop SELECT a.took FROM shop a, shop b";
    let before = count("true").await;
    let refused = run("r-3", "sql", many).await;
    assert_eq!((refused.status, refused.kind().as_str()), (400, "IntoTooLarge"), "{}", refused.text());
    assert_eq!(count("true").await, before, "nothing was written");
    assert_eq!(run("r.4", "sql", insert).await.kind(), "MalformedRequest");
    assert_eq!(run("r-5", "pipe", "error | into index other").await.kind(), "ForeignIndex");
    let made_up = query(&world, "owner", "sql", insert).await.json()["rows"][0]["run"].clone();
    assert_eq!(made_up.as_str().unwrap().len(), 32);
}
