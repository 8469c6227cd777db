//! The examples of the client do what they say, on an installation in one process: as a newcomer runs them, with the addresses and
//! credentials that it prints.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "its command line is not used")]
#[path = "../libs/client/examples/read_group.rs"]
mod read_group;
#[allow(dead_code, reason = "its command line is not used")]
#[path = "../libs/client/examples/transaction.rs"]
mod transaction;
#[allow(dead_code, reason = "its command line is not used")]
#[path = "../libs/client/examples/write.rs"]
mod write;

use logboom_tests::Standalone;

/// Events of the writing example: some batches, and the single one before them.
const EVENTS: usize = 2_500;

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_do_what_they_say() {
    let up = Standalone::start().await.unwrap();
    up.api.provision("shop", 2).await.unwrap();
    let creds = up.data().join("keys/platform.creds").display().to_string();
    let objects = format!("file://{}", up.data().join("state/objects").display());
    let arguments = |last: &str| [&up.api.nats_url, &creds, &objects, "shop", last].map(str::to_owned);
    let count = async || usize::try_from(up.api.count("SELECT count(*) AS n FROM shop").await.unwrap()).unwrap();

    write::run(&arguments(&EVENTS.to_string())).await.unwrap();
    assert_eq!(count().await, EVENTS + 1);
    transaction::run(&arguments("abort")).await.unwrap();
    assert_eq!(count().await, EVENTS + 1, "nothing of it is visible");
    transaction::run(&arguments("commit")).await.unwrap();
    assert_eq!(count().await, EVENTS + 3);
    assert_eq!(read_group::run(&arguments("worker-1")).await.unwrap(), EVENTS + 3);
    // The next one goes on where that one was.
    transaction::run(&arguments("commit")).await.unwrap();
    assert_eq!(read_group::run(&arguments("worker-2")).await.unwrap(), 2);
}
