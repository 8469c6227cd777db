//! Events over HTTP.

use std::{io::Write, time::Duration};

use anyhow::{Result, ensure};
use flate2::{Compression, write::GzEncoder};
use logboom_tests::{Answer, eventually};
use reqwest::Method;

use crate::row::{BODY_MAX, Row, Section, Seen, World};

/// A second is what a revocation may take to reach every door.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

pub(crate) fn section() -> Section {
    Section {
        title: "Events over HTTP",
        words: "`POST /api/v1/indexes/<index>/ingest`, one JSON object a line.",
        rows: lines().into_iter().chain(bodies()).chain(tokens()).collect(),
    }
}

/// Posts a body that must leave as many events as stated.
async fn post(world: &World, body: impl Into<reqwest::Body>, kept: i64) -> Result<Seen> {
    let before = world.kept().await?;
    let answer = world.api().ingest("mine", &world.admin.token, body).await?;
    let added = world.kept().await? - before;
    ensure!(added == kept, "{added} events were added instead of {kept}; the answer was {}", answer.text);
    Ok(Seen::http(&answer))
}

async fn not_utf8(world: &World) -> Result<Seen> {
    let seen = post(world, &b"{\"msg\":\"a caf\xe9\"}\n{\"a\":\xe9}\n"[..], 1).await?;
    let found = world.api().count("SELECT count(*) AS n FROM mine WHERE _msg = 'a caf' || chr(63465)").await?;
    ensure!(found == 1, "{found} events have the byte");
    Ok(seen)
}

async fn encoded(world: &World, encoding: &str, body: Vec<u8>) -> Result<Seen> {
    let request = world.api().gateway(Method::POST, "/api/v1/indexes/mine/ingest", &world.admin.token);
    Ok(Seen::http(&Answer::of(request.header("Content-Encoding", encoding).body(body)).await?))
}

async fn with_token(world: &World, index: &str, token: &str) -> Result<Seen> {
    Ok(Seen::http(&world.api().ingest(index, token, "{\"msg\":\"x\"}\n").await?))
}

fn lines() -> Vec<Row> {
    vec![
        Row {
            input: "good line, `{broken`, good line",
            answer: "200",
            says: &["line 2: ", "at column 2"],
            then: "`accepted` is 2; both good lines are kept",
            run: |w| Box::pin(post(w, "{\"msg\":\"a\"}\n{broken\n{\"msg\":\"b\"}\n", 2)),
        },
        Row {
            input: "`[1,2]`: JSON, but no object",
            answer: "400 NoLineAccepted",
            says: &["line 1: ", "one JSON object per line"],
            then: "nothing is kept",
            run: |w| Box::pin(post(w, "[1,2]\n", 0)),
        },
        Row {
            input: "a byte that is not UTF-8: in a text, and on the next line outside of one",
            answer: "200",
            says: &["line 2: ", "at column 6"],
            then: "the first line is kept with its byte `b` as the character U+F700 + `b`, which the console shows as `\\xNN`",
            run: |w| Box::pin(not_utf8(w)),
        },
        Row {
            input: "an object that does not end on its line",
            answer: "400 NoLineAccepted",
            says: &["line 1: EOF while parsing", "line 2: "],
            then: "nothing is kept; an event is one line here, several lines are one event over NATS",
            run: |w| Box::pin(post(w, "{\"msg\":\"a\",\n\"n\":1}\n", 0)),
        },
        Row {
            input: "an empty body",
            answer: "400 NoLineAccepted",
            says: &["the body holds no lines"],
            then: "",
            run: |w| Box::pin(post(w, "", 0)),
        },
        Row {
            input: "one good line, and one above 1 MiB",
            answer: "200",
            says: &["line 1: ", "are more than the 1048576 bytes of the largest event"],
            then: "the good line is kept",
            run: |w| {
                Box::pin(async {
                    post(w, format!("{{\"msg\":\"{}\"}}\n{{\"msg\":\"b\"}}\n", "x".repeat(1 << 20)), 1).await
                })
            },
        },
    ]
}

fn bodies() -> Vec<Row> {
    vec![
        Row {
            input: "a body above `gateway.ingest_body_max`",
            answer: "413 BodyTooLarge",
            says: &["the body is larger than 4194304 bytes; send it in parts"],
            then: "nothing is kept",
            run: |w| Box::pin(async { post(w, "{\"msg\":\"a\"}\n".repeat(BODY_MAX / 12 + 1), 0).await }),
        },
        Row {
            input: "64 MiB that gzip makes 64 KiB of",
            answer: "413 BodyTooLarge",
            says: &["the body is larger than 4194304 bytes; send it in parts"],
            then: "unpacking stops at the bound",
            run: |w| {
                Box::pin(async {
                    // Beside the client, which else would not see that the gateway closes what lies idle meanwhile.
                    let packed = tokio::task::spawn_blocking(|| {
                        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
                        let lines = "{\"msg\":\"aaaaaaaaaaaaaaaa\"}\n".repeat(1 << 15);
                        for _ in 0..80 {
                            packer.write_all(lines.as_bytes())?;
                        }
                        packer.finish()
                    });
                    encoded(w, "gzip", packed.await??).await
                })
            },
        },
        Row {
            input: "`Content-Encoding: gzip` before something else",
            answer: "400 BodyUnreadable",
            says: &["the body is not gzip"],
            then: "nothing is kept",
            run: |w| Box::pin(encoded(w, "gzip", b"{\"msg\":\"a\"}\n".to_vec())),
        },
        Row {
            input: "`Content-Encoding: br`",
            answer: "415 Unsupported",
            says: &["\"br\" is not supported; use gzip, deflate, zstd, snappy or none"],
            then: "nothing is kept",
            run: |w| Box::pin(encoded(w, "br", b"{}\n".to_vec())),
        },
        Row {
            input: "an `Idempotency-Key` of 300 characters",
            answer: "400 BadIdempotencyKey",
            says: &["Idempotency-Key must be 1 to 256 visible characters"],
            then: "nothing is kept",
            run: |w| {
                Box::pin(async {
                    let request = w.api().gateway(Method::POST, "/api/v1/indexes/mine/ingest", &w.admin.token);
                    let request = request.header("Idempotency-Key", "k".repeat(300)).body("{}\n");
                    Ok(Seen::http(&Answer::of(request).await?))
                })
            },
        },
    ]
}

fn tokens() -> Vec<Row> {
    vec![
        Row {
            input: "an index that does not exist",
            answer: "404 UnknownIndex",
            says: &["nowhere"],
            then: "",
            run: |w| Box::pin(async { with_token(w, "nowhere", &w.api().admin_token).await }),
        },
        Row {
            input: "an index name that cannot be one: `Shop`",
            answer: "400 MalformedRequest",
            says: &["Shop", "1 to 63 of a-z 0-9 - _"],
            then: "",
            run: |w| Box::pin(async { with_token(w, "Shop", &w.api().admin_token).await }),
        },
        Row {
            input: "no token",
            answer: "401 Unauthorized",
            says: &["Authorization: Bearer <token>"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let url = format!("{}/api/v1/indexes/mine/ingest", w.api().gateway);
                    Ok(Seen::http(&Answer::of(w.api().bare(Method::POST, &url).body("{}\n")).await?))
                })
            },
        },
        Row {
            input: "a token that nobody issued",
            answer: "401 Unauthorized",
            says: &["the token is not known, was revoked or has expired"],
            then: "",
            run: |w| Box::pin(with_token(w, "mine", "lbt_made-up")),
        },
        Row {
            input: "a token whose binding was unbound",
            answer: "401 Unauthorized",
            says: &["the token is not known, was revoked or has expired"],
            then: "within a second of the unbind",
            run: |w| {
                Box::pin(async {
                    let gone = w.api().bind("mine", "write").await?;
                    with_token(w, "mine", &gone.token).await?;
                    w.api().unbind(&gone).await?;
                    eventually("the token ends", REVOKED_WITHIN, async || {
                        let seen = with_token(w, "mine", &gone.token).await?;
                        ensure!(seen.answer != "200", "it still opens the door");
                        Ok(seen)
                    })
                    .await
                })
            },
        },
        Row {
            input: "the token of another index",
            answer: "403 ForeignIndex",
            says: &["this token is for the index mine, not for theirs"],
            then: "",
            run: |w| Box::pin(with_token(w, "theirs", &w.admin.token)),
        },
        Row {
            input: "a token that may only read",
            answer: "403 RoleTooWeak",
            says: &["does not allow to write to mine"],
            then: "",
            run: |w| Box::pin(with_token(w, "mine", &w.reader.token)),
        },
        Row {
            input: "a path that does not exist",
            answer: "404 UnknownPath",
            says: &["there is no POST /api/v1/indices"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let request = w.api().gateway(Method::POST, "/api/v1/indices", &w.admin.token);
                    Ok(Seen::http(&Answer::of(request).await?))
                })
            },
        },
    ]
}
