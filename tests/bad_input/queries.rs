//! Queries, continuous jobs and alert rules.

use anyhow::{Result, ensure};
use logboom_tests::Answer;
use reqwest::Method;
use serde_json::{Value, json};

use crate::row::{Row, Section, Seen, World};

pub(crate) fn section() -> Section {
    Section {
        title: "Queries",
        words: "`POST /api/v1/sql`. Errors carry `line`, `column`, often `help`, and `rendered`: the text with a caret.",
        rows: queries(),
    }
}

pub(crate) fn jobs_and_rules() -> Section {
    Section {
        title: "Jobs and rules",
        words: "`POST /api/v1/jobs`, `PUT /api/v1/rules/<rule>`.",
        rows: jobs().into_iter().chain(rules()).collect(),
    }
}

async fn sql(world: &World, text: &str) -> Result<Seen> {
    Ok(Seen::http(&world.api().try_sql(text).await?))
}

async fn sql_as(world: &World, token: &str, text: &str) -> Result<Seen> {
    let request = world.api().gateway(Method::POST, "/api/v1/sql", token).json(&json!({ "sql": text }));
    Ok(Seen::http(&Answer::of(request).await?))
}

fn queries() -> Vec<Row> {
    vec![
        Row {
            input: "`SELECT *` and `FORM mine` on the next line",
            answer: "400 InvalidQuery",
            says: &["line 2, column 1", "did you mean FROM?", "2 | FORM mine\n  | ^"],
            then: "",
            run: |w| Box::pin(sql(w, "SELECT *\nFORM mine")),
        },
        Row {
            input: "`SELECT severty FROM mine`",
            answer: "400 InvalidQuery",
            says: &[
                "line 1, column 8",
                "there is no column severty",
                "did you mean severity?",
                "1 | SELECT severty FROM mine\n  |        ^",
            ],
            then: "",
            run: |w| Box::pin(sql(w, "SELECT severty FROM mine")),
        },
        Row {
            input: "an index that does not exist",
            answer: "404 UnknownIndex",
            says: &["nowhere"],
            then: "",
            run: |w| Box::pin(sql(w, "SELECT count(*) FROM nowhere")),
        },
        Row {
            input: "`DELETE FROM mine`",
            answer: "400 InvalidQuery",
            says: &["line 1, column 1", "DELETE is not possible here: a query only reads", "begin with SELECT or WITH"],
            then: "nothing is changed",
            run: |w| {
                Box::pin(async {
                    let before = w.kept().await?;
                    let seen = sql(w, "DELETE FROM mine").await?;
                    ensure!(w.kept().await? == before, "events are gone");
                    Ok(seen)
                })
            },
        },
        Row {
            input: "`INSERT INTO sums SELECT …` with the token of `mine`",
            answer: "403 ForeignIndex",
            says: &["this token is for the index mine, not for sums"],
            then: "nothing is written",
            run: |w| {
                Box::pin(async {
                    let seen = sql_as(w, &w.admin.token, "INSERT INTO sums SELECT _msg FROM mine").await?;
                    ensure!(w.api().count("SELECT count(*) AS n FROM sums").await? == 0, "events were written");
                    Ok(seen)
                })
            },
        },
        Row {
            input: "two statements: `SELECT 1; DROP TABLE mine`",
            answer: "400 InvalidQuery",
            says: &["line 1, column 11", "there is a second statement", "send one statement at a time"],
            then: "none of them runs",
            run: |w| Box::pin(sql(w, "SELECT 1; DROP TABLE mine")),
        },
        Row {
            input: "a window of jobs: `FROM tumble(mine, …)`",
            answer: "400 InvalidQuery",
            says: &["tumble() belongs to a continuous job, not to a query", "date_bin"],
            then: "",
            run: |w| Box::pin(sql(w, "SELECT count(*) FROM tumble(mine, INTERVAL '10 seconds')")),
        },
        Row {
            input: "a function that does not exist",
            answer: "400 InvalidQuery",
            says: &["cuont"],
            then: "",
            run: |w| Box::pin(sql(w, "SELECT cuont(_msg) FROM mine")),
        },
        Row {
            input: "a body that is not JSON",
            answer: "400 MalformedRequest",
            says: &["column"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let request = w.api().gateway(Method::POST, "/api/v1/sql", &w.admin.token);
                    let request = request.header("Content-Type", "application/json").body("{\"sql\": ");
                    Ok(Seen::http(&Answer::of(request).await?))
                })
            },
        },
        Row {
            input: "the index of another tenant",
            answer: "403 ForeignIndex",
            says: &["this token is for the index mine, not for theirs"],
            then: "also in a join or a subquery",
            run: |w| {
                Box::pin(async {
                    let hidden = "SELECT count(*) FROM mine WHERE _msg IN (SELECT _msg FROM theirs)";
                    let seen = sql_as(w, &w.admin.token, hidden).await?;
                    ensure!(seen.answer.starts_with("403"), "a subquery was answered {}", seen.answer);
                    sql_as(w, &w.admin.token, "SELECT * FROM theirs").await
                })
            },
        },
        Row {
            input: "a token that may only write",
            answer: "403 RoleTooWeak",
            says: &["does not allow to read mine"],
            then: "",
            run: |w| Box::pin(sql_as(w, &w.writer.token, "SELECT * FROM mine")),
        },
    ]
}

const SUMS: &str = "INSERT INTO sums SELECT service, window_start, count(*) AS n FROM tumble(mine, INTERVAL '10 seconds') GROUP BY service, window_start";

async fn job(world: &World, name: &str, text: &str) -> Result<Seen> {
    let body = json!({ "job": name, "sql": text });
    Ok(Seen::http(&world.api().ask(Method::POST, "/api/v1/jobs", Some(&body)).await?))
}

fn jobs() -> Vec<Row> {
    vec![
        Row {
            input: "a job that aggregates without a window",
            answer: "400 InvalidQuery",
            says: &["this result changes with every row", "let windows close it: FROM tumble(…)", "^"],
            then: "",
            run: |w| Box::pin(job(w, "bad", "INSERT INTO sums SELECT count(*) AS n FROM mine")),
        },
        Row {
            input: "a window that lacks a part: `hop(…)`",
            answer: "400 InvalidQuery",
            says: &["hop needs the window's size", "write hop(<index>, INTERVAL '2 seconds', INTERVAL '10 seconds')"],
            then: "",
            run: |w| Box::pin(async { job(w, "bad", &SUMS.replace("tumble", "hop")).await }),
        },
        Row {
            input: "a job that does not say where its rows go",
            answer: "400 InvalidQuery",
            says: &["the job does not say where its rows go", "begin with INSERT INTO <index>"],
            then: "",
            run: |w| Box::pin(job(w, "bad", SUMS.trim_start_matches("INSERT INTO sums "))),
        },
        Row {
            input: "a job that reads what it writes",
            answer: "400 FeedsItself",
            says: &["the job reads and writes mine: it would feed itself for ever"],
            then: "",
            run: |w| Box::pin(async { job(w, "bad", &SUMS.replace("INTO sums", "INTO mine")).await }),
        },
        Row {
            input: "a job that calls a function that does not exist",
            answer: "400 InvalidQuery",
            says: &["cuont"],
            then: "",
            run: |w| Box::pin(job(w, "bad", "INSERT INTO sums SELECT cuont(_msg) AS n FROM mine")),
        },
        Row {
            input: "a job that reads an index that does not exist",
            answer: "404 UnknownIndex",
            says: &["nowhere"],
            then: "",
            run: |w| Box::pin(async { job(w, "bad", &SUMS.replace("tumble(mine", "tumble(nowhere")).await }),
        },
        Row {
            input: "the id of a running job with another text",
            answer: "409 JobDiffers",
            says: &["job taken exists with another text; cancel it first, or choose another id"],
            then: "the running job goes on",
            run: |w| {
                Box::pin(async {
                    let first = job(w, "taken", SUMS).await?;
                    ensure!(
                        first.answer.starts_with("20"),
                        "the first one was answered {}: {}",
                        first.answer,
                        first.text
                    );
                    let seen = job(w, "taken", &SUMS.replace("10 seconds", "20 seconds")).await?;
                    ensure!(w.api().job("taken").await?["text"] == SUMS, "the running job was changed");
                    w.api().ask(Method::DELETE, "/api/v1/jobs/taken", None).await?.ok()?;
                    Ok(seen)
                })
            },
        },
        Row {
            input: "a job that does not exist",
            answer: "404 UnknownJob",
            says: &["there is no job nothing"],
            then: "cancelling it succeeds",
            run: |w| {
                Box::pin(async {
                    w.api().ask(Method::DELETE, "/api/v1/jobs/nothing", None).await?.ok()?;
                    Ok(Seen::http(&w.api().ask(Method::GET, "/api/v1/jobs/nothing", None).await?))
                })
            },
        },
    ]
}

async fn rule(world: &World, change: Value) -> Result<Seen> {
    let query =
        "SELECT service, count(*) AS errors FROM tumble(mine, INTERVAL '10 seconds') GROUP BY service, window_start";
    let mut body = json!({ "index": "mine", "query": query, "condition": "errors > 5" });
    if let (Some(body), Value::Object(change)) = (body.as_object_mut(), change) {
        body.extend(change);
    }
    let answer = world.api().ask(Method::PUT, "/api/v1/rules/bad", Some(&body)).await?;
    let list = world.api().ask(Method::GET, "/api/v1/rules", None).await?.ok()?;
    ensure!(list["rules"] == json!([]), "a rule was created: {list}");
    Ok(Seen::http(&answer))
}

fn rules() -> Vec<Row> {
    vec![
        Row {
            input: "a rule's condition that is none: `errors > many`",
            answer: "400 InvalidCondition",
            says: &["line 1, column 10", "expected a number, found many", "1 | errors > many\n  |          ^"],
            then: "no rule is created",
            run: |w| Box::pin(rule(w, json!({ "condition": "errors > many" }))),
        },
        Row {
            input: "a condition about a column that the query does not have",
            answer: "400 InvalidCondition",
            says: &["the query has no aggregate error", "did you mean errors?"],
            then: "no rule is created",
            run: |w| Box::pin(rule(w, json!({ "condition": "error > 5" }))),
        },
        Row {
            input: "a rule whose query has no window",
            answer: "400 InvalidQuery",
            says: &["a rule needs a query with windows"],
            then: "no rule is created",
            run: |w| Box::pin(rule(w, json!({ "query": "SELECT _msg FROM mine" }))),
        },
        Row {
            input: "a rule with a member that is not known",
            answer: "400 MalformedRequest",
            says: &["unknown field `treshold`"],
            then: "no rule is created",
            run: |w| Box::pin(rule(w, json!({ "treshold": 5 }))),
        },
    ]
}
