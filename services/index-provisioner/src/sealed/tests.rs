use data_encoding::BASE64;
use proptest::prelude::*;
use testkit::World;
use wire::views::Role;

use super::*;

/// Keys of the given ids, each with bytes of its own; the same id always has the same.
fn keys(ids: &[&str]) -> SealingKeys {
    let line = |id: &&str| format!("{id}:{}\n", BASE64.encode(&[id.as_bytes()[0]; 32]));
    SealingKeys::parse(&ids.iter().map(line).collect::<String>()).unwrap()
}

#[test]
fn what_was_sealed_opens_and_shows_nothing() {
    let keys = keys(&["a"]);
    let sealed = keys.seal("x", b"top secret").unwrap();
    assert_eq!(keys.open("x", &sealed), Ok(Opened { plain: b"top secret".to_vec(), is_old: false }));
    assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
    assert_ne!(keys.seal("x", b"top secret").unwrap(), sealed, "each time with a nonce of its own");
    assert_eq!(format!("{keys:?}"), r#"["a"]"#);
}

/// Sealed with AES-256-GCM by another implementation, under the head `1, 1, "a", nonce` and the label; must open for ever.
#[test]
fn golden_secrets_open_for_ever() {
    let golden = "010161000102030405060708090a0bc37594c023ea21e7babdfe3558df0437f43541465a5805279c0b";
    let golden = data_encoding::HEXLOWER.decode(golden.as_bytes()).unwrap();
    let label = label(&"b-1".parse().unwrap(), Timestamp::from_nanos(7));
    assert_eq!(keys(&["b", "a"]).open(&label, &golden), Ok(Opened { plain: b"top secret".to_vec(), is_old: true }));
}

#[test]
fn only_the_right_key_for_the_right_binding_opens() {
    let sealed = keys(&["a"]).seal("x", b"secret").unwrap();
    assert_eq!(keys(&["b"]).open("x", &sealed), Err(SealedError::UnknownKey("a".into())));
    assert_eq!(keys(&["a"]).open("y", &sealed), Err(SealedError::Broken), "another binding's");
    let other = SealingKeys::parse(&format!("a:{}", BASE64.encode(&[9; 32]))).unwrap();
    assert_eq!(other.open("x", &sealed), Err(SealedError::Broken), "another key of the same id");
    // Two keys that both exist: a value that names the other one does not open.
    let both = keys(&["a", "b"]);
    let mut swapped = sealed.clone();
    swapped[2] = b'b';
    assert_eq!(both.open("x", &swapped), Err(SealedError::Broken));
    assert_eq!(both.open("x", &sealed).unwrap().plain, b"secret");
}

#[test]
fn a_rotated_key_still_opens_and_is_known_to_be_old() {
    let sealed = keys(&["a"]).seal("x", b"secret").unwrap();
    let rotated = keys(&["b", "a"]);
    assert!(rotated.open("x", &sealed).unwrap().is_old);
    let again = rotated.seal("x", b"secret").unwrap();
    assert!(!rotated.open("x", &again).unwrap().is_old);
    assert_eq!(keys(&["a"]).open("x", &again), Err(SealedError::UnknownKey("b".into())));
}

#[test]
fn without_a_key_nothing_is_sealed() {
    assert_eq!(SealingKeys::parse("# none\n").unwrap_err(), SealedError::NoKey);
    assert!(SealingKeys::parse("k1").unwrap_err().to_string().starts_with("line 1: a key is written as"));
}

proptest! {
    #[test]
    fn nothing_that_was_changed_opens(at in 0usize..80, bit in 0u8..8, length in 0usize..80) {
        let keys = keys(&["a", "b"]);
        let sealed = keys.seal("x", b"forty bytes of something that is secret").unwrap();
        let mut changed = sealed.clone();
        if let Some(byte) = changed.get_mut(at) {
            *byte ^= 1 << bit;
            prop_assert!(keys.open("x", &changed).is_err());
        }
        let length = length.min(sealed.len() - 1);
        prop_assert!(keys.open("x", &sealed[..length]).is_err());
    }

    #[test]
    fn whatever_is_there_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(keys(&["a"]).open("x", &bytes).is_err());
    }
}

fn binding(id: &str, issued: i64) -> BindingDescription {
    BindingDescription {
        binding: id.parse().unwrap(),
        instance: "i".parse().unwrap(),
        index: "shop".parse().unwrap(),
        role: Role::Write,
        created: Timestamp::from_nanos(issued),
        expires: None,
    }
}

fn named(all: &[&BindingDescription]) -> BTreeSet<(BindingId, Timestamp)> {
    all.iter().map(|b| (b.binding.clone(), b.created)).collect()
}

#[tokio::test]
async fn a_leader_seals_again_what_an_old_key_sealed_and_forgets_what_is_gone() {
    let world = World::start().await.unwrap();
    let host = host::Host::connect(wire::Service::Gateway, world.common("test", &[]).unwrap()).await.unwrap();
    let bucket = host.bus.bucket(SEALED, None, 1).await.unwrap();
    let (here, gone) = (binding("here", 1), binding("gone", 2));
    let values: BTreeMap<String, String> = [("secret_key".to_owned(), "s3cr3t".to_owned())].into();
    let old = Sealed::new(bucket.clone(), keys(&["a"]));
    for binding in [&here, &gone] {
        old.put(binding, &values).await.unwrap();
    }
    assert_eq!(old.get(&here).await.unwrap().as_ref(), Some(&values));
    assert_eq!(old.get(&binding("nowhere", 1)).await.unwrap(), None);
    // The same id issued later is another binding; the values of one moved to another do not open.
    assert!(old.get(&binding("here", 9)).await.is_err());
    let stolen = bucket.get("here").await.unwrap().unwrap().value;
    bucket.put("gone", stolen).await.unwrap();
    assert!(old.get(&gone).await.unwrap_err().message.contains("not what was sealed"));

    let new = Sealed::new(bucket.clone(), keys(&["b", "a"]));
    new.rewrite(async || Ok(named(&[&here]))).await.unwrap();
    assert_eq!(bucket.get("gone").await.unwrap(), None);
    let only_new = Sealed::new(bucket.clone(), keys(&["b"]));
    assert_eq!(only_new.get(&here).await.unwrap(), Some(values));
    let lost = old.get(&here).await.unwrap_err();
    assert!(lost.is_transient() && lost.message.contains("\"b\""), "{lost}");
    // A key that is missing must not lose anything.
    old.rewrite(async || Ok(named(&[&here]))).await.unwrap();
    assert!(only_new.get(&here).await.unwrap().is_some());
    new.delete(&binding("here", 9)).await.unwrap();
    assert!(bucket.get("here").await.unwrap().is_some(), "another binding's, which had the same id");
    // What is sealed while the bucket is looked through is known to whoever is asked afterwards.
    let late = binding("late", 3);
    let known = async || {
        new.put(&late, &[].into()).await.unwrap();
        Ok(named(&[&here]))
    };
    new.rewrite(known).await.unwrap();
    assert!(bucket.get("late").await.unwrap().is_some());
    new.delete(&here).await.unwrap();
    new.delete(&here).await.unwrap();
    assert_eq!(new.get(&here).await.unwrap(), None);
}
