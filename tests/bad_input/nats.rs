//! Events over NATS.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use async_nats::{Event, HeaderMap};
use logboom_tests::eventually;
use parking_lot::Mutex;
use serde_json::Value;

use crate::row::{Row, Section, Seen, World};

pub(crate) fn section() -> Section {
    Section {
        title: "Events over NATS",
        words: "`js.publish()` to `logs.<index>` or `logs.<index>.<routing key>`: refusals are JetStream's error acknowledgements, \
                shown as code and `err_code`. What the credentials do not allow, the NATS server itself refuses.",
        rows: rows(),
    }
}

/// Publishes and reads the acknowledgement as the client's library would.
async fn publish(world: &World, headers: HeaderMap, payload: Vec<u8>) -> Result<Seen> {
    let before = world.kept().await?;
    let client = world.admin.connect().await?;
    let reply =
        client.request_with_headers("logs.mine", headers, payload.into()).await.context("no acknowledgement")?;
    let ack: Value = serde_json::from_slice(&reply.payload)?;
    ensure!(world.kept().await? == before, "an event was kept");
    let error = &ack["error"];
    let text = error["description"].as_str().unwrap_or_default().to_owned();
    Ok(Seen { answer: format!("{} ({})", error["code"], error["err_code"]), text })
}

/// What the server says to a client that oversteps.
async fn overstep(world: &World, subject: &'static str) -> Result<Seen> {
    let said = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&said);
    let options = world.admin.options()?.event_callback(move |event| {
        if let Event::ServerError(error) = event {
            *kept.lock() = error.to_string();
        }
        async {}
    });
    let client = options.connect(&world.admin.nats_url).await?;
    client.publish(subject, "intruder".into()).await?;
    client.flush().await?;
    let text = eventually("a refusal", Duration::from_secs(5), async || {
        let said = said.lock().clone();
        ensure!(!said.is_empty(), "the server says nothing");
        Ok(said)
    })
    .await?;
    Ok(Seen { answer: "-ERR".to_owned(), text })
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            input: "an event above 1 MiB",
            answer: "413 (10054)",
            says: &["event of 1048577 bytes exceeds 1MiB"],
            then: "nothing is kept",
            run: |w| Box::pin(publish(w, HeaderMap::new(), vec![b'x'; (1 << 20) + 1])),
        },
        Row {
            input: "a routing key of 600 characters in the header `Lb-Routing-Key`",
            answer: "400 (10003)",
            says: &["routing key", "1 to 512 bytes"],
            then: "nothing is kept",
            run: |w| {
                Box::pin(async {
                    let mut headers = HeaderMap::new();
                    headers.insert("Lb-Routing-Key", "k".repeat(600));
                    publish(w, headers, b"{}".to_vec()).await
                })
            },
        },
        Row {
            input: "the subject of another index",
            answer: "-ERR",
            says: &["Permissions Violation for Publish", ".theirs\""],
            then: "no acknowledgement comes; the connection stays (the server names the lane behind the subject)",
            run: |w| Box::pin(overstep(w, "logs.theirs")),
        },
        Row {
            input: "the lane of another index: `lane.0.theirs`",
            answer: "-ERR",
            says: &["Permissions Violation for Publish to \"lane.0.theirs\""],
            then: "no acknowledgement comes; the connection stays",
            run: |w| Box::pin(overstep(w, "lane.0.theirs")),
        },
        Row {
            input: "credentials whose binding was unbound",
            answer: "no connection",
            says: &["authorization violation"],
            then: "live connections are cut within a second",
            run: |w| {
                Box::pin(async {
                    let gone = w.api().bind("mine", "write").await?;
                    w.api().unbind(&gone).await?;
                    match gone.options()?.connect(&gone.nats_url).await {
                        Ok(_) => bail!("the server let it in"),
                        Err(error) => {
                            Ok(Seen { answer: "no connection".to_owned(), text: error.to_string().to_lowercase() })
                        }
                    }
                })
            },
        },
    ]
}
