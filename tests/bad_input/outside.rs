//! Calls of programs outside the platform, with a binding's credentials.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::{Client, HeaderMap};
use bus::{Bus, BusOptions};
use bytes::Bytes;
use logboom_tests::Binding;
use types::{ContainerId, SegmentId};
use wire::{
    Call, Empty, Problem,
    coordinator::{DescribeStream, GrantDelegation, SealStream, StreamName},
    decode,
    delegation::{Bearer, Granted},
    encode, header,
    segment_store::{ReadFrom, ReadSegment},
    views::Role,
};

use crate::row::{Row, Section, Seen};

pub(crate) fn section() -> Section {
    Section {
        title: "Programs outside the platform",
        words: "Calls under `ext.v1.<index>.<binding>.<role>.` with the credentials of a binding. A refusal comes before the request is \
                looked at, and applies nothing. The client asks for delegations and renews them by itself. Whoever calls under the subjects of \
                another binding is refused by the NATS server.",
        rows: rows(),
    }
}

fn bearer(binding: &Binding, role: Role) -> Result<Bearer> {
    Ok(Bearer { index: binding.index.parse()?, binding: binding.id.parse()?, role })
}

/// What the coordinator grants to a binding.
async fn granted(binding: &Binding, role: Role) -> Result<(Client, Granted)> {
    let client = binding.connect().await?;
    let subject = bearer(binding, role)?.subject_of::<GrantDelegation>(&());
    // A coordinator that has just begun to lead may not be heard yet.
    for _ in 0..100 {
        if let Ok(answer) = client.request(subject.clone(), encode(&Empty {}).into()).await {
            return Ok((client, decode(&answer.payload)?));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("nobody grants a delegation")
}

/// The refusal of a call that shows what it is told to.
async fn refused<C: Call>(
    (client, subject): (&Client, String),
    token: Option<&str>,
    request: &C::Request,
) -> Result<Seen> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(header::DELEGATION, token);
    }
    let answer = client.request_with_headers(subject, headers, Bytes::from(encode(request))).await?;
    let problem: Problem = decode(&answer.payload).with_context(|| format!("{} was answered", C::NAME))?;
    Ok(seen(&problem))
}

fn seen(problem: &Problem) -> Seen {
    let text = format!("{} ({:?})", problem.message, problem.outcome);
    Seen { answer: format!("{} {}", problem.code.status(), problem.kind), text }
}

fn index(name: &str) -> Result<StreamName> {
    Ok(StreamName { index: name.parse()? })
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            input: "a call without a delegation",
            answer: "403 DelegationMissing",
            says: &["Lb-Delegation", "NotApplied"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let (client, subject) =
                        (w.admin.connect().await?, bearer(&w.admin, Role::Admin)?.subject_of::<DescribeStream>(&()));
                    refused::<DescribeStream>((&client, subject), None, &index("mine")?).await
                })
            },
        },
        Row {
            input: "a delegation with another signature",
            answer: "403 DelegationForged",
            says: &["NotApplied"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let (client, granted) = granted(&w.admin, Role::Admin).await?;
                    let (text, signature) = granted.token.rsplit_once('.').context("a token has three parts")?;
                    let forged = format!("{text}.{}", signature.chars().rev().collect::<String>());
                    let subject = bearer(&w.admin, Role::Admin)?.subject_of::<DescribeStream>(&());
                    refused::<DescribeStream>((&client, subject), Some(&forged), &index("mine")?).await
                })
            },
        },
        Row {
            input: "the delegation of another binding",
            answer: "403 DelegationForeign",
            says: &["NotApplied"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let (_, leaked) = granted(&w.writer, Role::Write).await?;
                    let client = w.admin.connect().await?;
                    let subject = bearer(&w.admin, Role::Admin)?.subject_of::<DescribeStream>(&());
                    refused::<DescribeStream>((&client, subject), Some(&leaked.token), &index("mine")?).await
                })
            },
        },
        Row {
            input: "a call about an index that the binding is not bound to",
            answer: "403 DelegationForeign",
            says: &["another index", "NotApplied"],
            then: "bind that index",
            run: |w| {
                Box::pin(async {
                    let (client, granted) = granted(&w.admin, Role::Admin).await?;
                    let subject = bearer(&w.admin, Role::Admin)?.subject_of::<DescribeStream>(&());
                    refused::<DescribeStream>((&client, subject), Some(&granted.token), &index("theirs")?).await
                })
            },
        },
        Row {
            input: "a read with a binding of role `write`",
            answer: "403 DelegationTooWeak",
            says: &["write", "NotApplied"],
            then: "bind with role `read` or `admin`",
            run: |w| {
                Box::pin(async {
                    let (client, granted) = granted(&w.writer, Role::Write).await?;
                    let segment = SegmentId { stream: granted.stream, epoch: 0, number: 0 };
                    let request = ReadFrom { segment, from: 0, bytes_max: 1, wait_ms: 0 };
                    let subject = bearer(&w.writer, Role::Write)?.subject_of::<ReadSegment>(&ContainerId(0));
                    refused::<ReadSegment>((&client, subject), Some(&granted.token), &request).await
                })
            },
        },
        Row {
            input: "a call that is the platform's own",
            answer: "403 NotDelegable",
            says: &["SealStream", "NotApplied"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let (url, creds) = (w.admin.nats_url.clone(), Some(w.admin.creds.clone()));
                    let options = BusOptions { url, creds, name: "bad-input".to_owned(), ..BusOptions::default() };
                    let bus = Bus::connect_with_binding(options, bearer(&w.admin, Role::Admin)?).await?;
                    match bus.call::<SealStream>(&(), &index("mine")?).await {
                        Ok(_) => bail!("the stream was sealed"),
                        Err(problem) => Ok(seen(&problem)),
                    }
                })
            },
        },
    ]
}
