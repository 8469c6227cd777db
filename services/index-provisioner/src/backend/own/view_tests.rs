use std::time::Duration;

use host::Host;
use testkit::{World, eventually};
use types::Timestamp;
use wire::{
    Service,
    index_provisioner::{IndexOptions, NewBinding, NewIndex},
    views::{Role, TOKENS},
};

use super::*;
use crate::state::Command;

const SOON: Duration = Duration::from_secs(5);

/// A leader with the index `i` and the binding `b`, which is being issued.
async fn leader(world: &World) -> (Host, View, Binding) {
    let host = Host::connect(Service::IndexProvisioner, world.common("a", &[]).unwrap()).await.unwrap();
    let ledger = Ledger::<State>::start(&host).await.unwrap();
    eventually(SOON, async || ledger.is_leader()).await;
    let instance: InstanceId = "i".parse().unwrap();
    let new = NewIndex {
        instance: instance.clone(),
        scope: "team".parse().unwrap(),
        index: None,
        backend: OWN.into(),
        segment_count: 1,
        retention_days: None,
        options: IndexOptions::default(),
        order: 0,
    };
    let new_binding =
        NewBinding { instance: instance.clone(), binding: "b".parse().unwrap(), role: Role::Read, ttl_seconds: None };
    for command in [
        Command::BeginIndex { new, index: "shop".parse().unwrap() },
        Command::EndIndex(instance),
        Command::BeginBinding { new: new_binding, issued: Timestamp::from_nanos(1), public_key: "U".into() },
    ] {
        ledger.submit(command).await.unwrap();
    }
    let binding = ledger.read(|state| state.bindings().next().cloned()).unwrap();
    let bucket = host.bus.bucket(TOKENS, None, 1).await.unwrap();
    (host, View { bucket, ledger }, binding)
}

/// The binding was journaled, the leader stood still, and another one has issued and revoked it since.
#[tokio::test]
async fn a_former_leader_does_not_bring_back_what_was_taken_away() {
    let world = World::start().await.unwrap();
    let (host, view, binding) = leader(&world).await;
    let journal = host.bus.journal(Service::IndexProvisioner, 1).await.unwrap();
    // What another leader does: its entries are in the journal, and the token is gone, whether it was ever shown or not.
    let payload = journal.read(0, 1).await.unwrap().remove(0).payload.to_vec();
    journal.append(3, "another", payload).await.unwrap();
    for (key, was_shown) in [("shown", true), ("never-shown", false)] {
        if was_shown {
            view.bucket.put(key, "grant").await.unwrap();
        }
        view.end(key).await.unwrap();
    }
    for key in ["shown", "never-shown"] {
        let refused = view.show_once(key, b"grant", is_bound(&binding)).await.unwrap_err();
        assert!(refused.is_transient(), "{refused}");
        assert_eq!(view.bucket.get(key).await.unwrap(), None);
    }
    let entries = |_: &State| Wanted { entries: [("shown".to_owned(), vec![1])].into(), ..Wanted::default() };
    eventually(SOON, async || !view.ledger.is_leader() || view.rewrite(entries).await.is_err()).await;
    assert_eq!(view.bucket.get("shown").await.unwrap(), None);
}

/// The same replica leads again when its old request goes on: the journal is whole then, and says that the binding is over.
#[tokio::test]
async fn a_request_of_a_former_term_meets_what_the_journal_says_now() {
    let world = World::start().await.unwrap();
    let (_host, view, binding) = leader(&world).await;
    view.show_once("k", b"grant", is_bound(&binding)).await.unwrap();
    view.show_once("k", b"grant", is_bound(&binding)).await.unwrap();
    assert_eq!(&view.bucket.get("k").await.unwrap().unwrap().value[..], b"grant");
    let id = binding.description.binding.clone();
    view.ledger.submit(Command::BeginRevocation(id.clone())).await.unwrap();
    view.end("k").await.unwrap();
    view.ledger.submit(Command::EndRevocations(vec![id])).await.unwrap();
    assert_eq!(view.show_once("k", b"grant", is_bound(&binding)).await.unwrap_err().kind, "NotReady");
    assert_eq!(view.bucket.get("k").await.unwrap(), None);
}

/// What was shown after the bucket was listed is not taken for something that nobody knows.
#[tokio::test]
async fn a_view_is_made_true_by_what_the_journal_says_after_it_was_listed() {
    let world = World::start().await.unwrap();
    let (_host, view, _) = leader(&world).await;
    for (key, value) in [("ghost", "x"), ("wrong", "x"), ("right", "1"), ("on-its-way", "x"), ("gone", "x")] {
        view.bucket.put(key, value).await.unwrap();
    }
    view.end("gone").await.unwrap();
    let wanted = |_: &State| Wanted {
        entries: ["wrong", "right", "gone", "new"].map(|key| (key.to_owned(), b"1".to_vec())).into(),
        left_alone: ["on-its-way".to_owned()].into(),
    };
    view.rewrite(wanted).await.unwrap();
    let shown: Vec<(String, Vec<u8>)> =
        view.bucket.list("").await.unwrap().into_iter().map(|(key, entry)| (key, entry.value.to_vec())).collect();
    let expected = [("gone", "1"), ("new", "1"), ("on-its-way", "x"), ("right", "1"), ("wrong", "1")];
    assert_eq!(shown, expected.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())));
}
