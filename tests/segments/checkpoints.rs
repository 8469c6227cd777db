//! Checkpoints that nobody who reads has asked for.

use std::collections::{BTreeMap, BTreeSet};

use logboom_tests::Seen;
use tokio::{runtime::Handle, task::spawn_blocking};
use wire::coordinator::CutKind;

use crate::{
    groups::{Given, Readers, assert_shared, config, events},
    numbered::{Background, LONG, assert_exact, witness},
    shared::Stage,
};

/// What came to each reader before it passed a checkpoint.
fn before(given: &[Vec<Given>], name: &str) -> BTreeSet<Seen> {
    let passed = Given::Checkpoint(name.to_owned());
    assert!(given.iter().all(|of_one| of_one.contains(&passed)), "every reader passes {name}");
    let first = given.iter().flat_map(|of_one| of_one.iter().take_while(|one| **one != passed));
    first.filter_map(|one| if let Given::Event(seen) = one { Some(seen.clone()) } else { None }).collect()
}

/// As many as may be under way at once, asked for by threads that read nothing, while readers read and a stream is written: each is
/// a place from which a group goes on, without gap or repeat.
#[tokio::test]
async fn s16_checkpoints_asked_for_at_once_by_threads_that_read_nothing() {
    let stage = Stage::new("pooled", 4).await;
    let index = &stage.streams.index;
    let background = Background::start(&stage.client, &stage.streams, 2, 6).await;
    let group = stage.client.create_group(&config(&stage.streams, "pooled", CutKind::Unbounded)).await.unwrap();
    let readers = Readers::start(&group, 3).await;
    readers.have(100).await;
    let names = ["one", "two", "three"];
    let asked = names.map(|name| {
        let (group, runtime) = (group.clone(), Handle::current());
        spawn_blocking(move || runtime.block_on(group.initiate_checkpoint(name, LONG)))
    });
    let mut cuts = BTreeMap::new();
    for (name, asked) in names.into_iter().zip(asked) {
        cuts.insert(name, asked.await.unwrap().unwrap());
    }
    readers.have(400).await;
    let counts = background.finish().await;
    let total: u64 = counts.values().sum();
    readers.have(total).await;
    let given = readers.finish().await;
    let all = witness(&stage.client, &stage.streams).await;
    assert_exact(&all, &counts);
    assert_shared(&given, &all);
    for (name, cut) in cuts {
        let before = before(&given, name);
        let again = config(&stage.streams, &format!("after-{name}"), CutKind::At(cut[index].clone()));
        let readers = Readers::start(&stage.client.create_group(&again).await.unwrap(), 2).await;
        readers.have(total - before.len() as u64).await;
        let rest: BTreeSet<Seen> = events(&readers.finish().await).into_iter().collect();
        assert!(rest.is_disjoint(&before), "{name}: something came again");
        assert_eq!(rest.len() + before.len(), all.len(), "{name}: something is missing");
        stage.client.delete_group(&again.group).await.unwrap();
    }
    stage.client.delete_group(&"pooled".parse().unwrap()).await.unwrap();
}
