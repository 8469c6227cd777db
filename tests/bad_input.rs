//! What is refused, and how: each row is tried on real processes, and `docs/guide/bad-input.md` is written from the same rows.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it skips, and starts processes"
)]

#[path = "bad_input/broker.rs"]
mod broker;
#[path = "bad_input/disk.rs"]
mod disk;
#[path = "bad_input/events.rs"]
mod events;
#[path = "bad_input/guide.rs"]
mod guide;
#[path = "bad_input/nats.rs"]
mod nats;
#[path = "bad_input/outside.rs"]
mod outside;
#[path = "bad_input/processes.rs"]
mod processes;
#[path = "bad_input/queries.rs"]
mod queries;
#[path = "bad_input/quotas.rs"]
mod quotas;
#[path = "bad_input/row.rs"]
mod row;
#[path = "bad_input/segments.rs"]
mod segments;

use logboom_tests::root;

use crate::row::{Section, World};

/// Everything that the guide lists, in its order.
fn sections() -> Vec<Section> {
    vec![
        events::section(),
        nats::section(),
        segments::section(),
        outside::section(),
        queries::section(),
        queries::jobs_and_rules(),
        quotas::section(),
        broker::section(),
        processes::section(),
        disk::section(),
    ]
}

#[tokio::test]
async fn every_row_is_answered_as_the_guide_says() {
    let world = World::start().await.unwrap();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for section in sections() {
        for row in section.rows {
            tried += 1;
            match (row.run)(&world).await {
                Ok(seen) => {
                    wrong.extend(row.differs(&seen).map(|how| format!("{}: {}\n    {how}", section.title, row.input)))
                }
                Err(error) => wrong.push(format!("{}: {}\n    {error:#}", section.title, row.input)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried} rows are not as the guide says:\n  {}", wrong.len(), wrong.join("\n  "));
    println!("{tried} rows are as the guide says");
}

#[test]
fn the_guide_is_written_from_these_rows() {
    let path = root().join("docs/guide/bad-input.md");
    let wanted = guide::write(&sections());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == wanted,
        "docs/guide/bad-input.md is not what the rows say: UPDATE=1 cargo test --test bad_input guide writes it again"
    );
}
