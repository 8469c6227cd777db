//! The back-end `s3` through the provisioner's doors, on an account of AWS in memory that enforces signatures and policies.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[path = "s3/stage.rs"]
mod stage;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use stage::{Stage, binding, index, named, of, open};
use store::Put;
use testkit::{Certificates, S3Faults, S3Server, eventually};
use wire::{
    Code,
    index_provisioner::{
        CreateIndex, DeleteIndex, IndexChange, IndexesOf, IssueCredentials, ListIndexes, NewIndex, Reclaim,
        RevokeCredentials, UpdateIndex,
    },
    views::Role,
};

const SOON: Duration = Duration::from_secs(30);

fn reclaimed(instance: &str, name: &str, reclaim: Reclaim) -> NewIndex {
    let mut new = index(instance, name);
    new.options.reclaim = reclaim;
    new
}

#[actix_rt::test]
async fn a_bucket_is_made_shaped_changed_and_deleted() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    let made = stage.call::<CreateIndex>(&index("i", "shop")).await?;
    assert_eq!(stage.call::<CreateIndex>(&index("i", "shop")).await?, made);
    let bucket = server.bucket("logboom-shop").expect("the bucket is called after its index");
    assert_eq!(bucket.tags["osb-instance"], "i");
    assert!(bucket.configurations["publicAccessBlock"].contains("<RestrictPublicBuckets>true<"));
    assert!(bucket.configurations["encryption"].contains("AES256"));
    assert!(bucket.configurations["lifecycle"].contains("<Expiration><Days>7</Days>"));
    assert_eq!(bucket.policy, None, "a policy that wants TLS would lock everybody out of a server without");
    let change =
        IndexChange { instance: "i".parse()?, retention_days: Some(30), options: made.options.clone(), order: 0 };
    stage.call::<UpdateIndex>(&change).await?;
    assert!(server.bucket("logboom-shop").unwrap().configurations["lifecycle"].contains("<Days>30</Days>"));
    // What S3 can never do is refused before anything is made.
    let mut bounded = index("j", "other");
    bounded.options.bytes_max = Some(1);
    for refused in [bounded, index("j", "under_score")] {
        let problem = stage.call::<CreateIndex>(&refused).await.unwrap_err();
        assert_eq!((problem.code, problem.kind.as_str()), (Code::BadRequest, "BackendRefused"), "{problem}");
    }
    stage.call::<DeleteIndex>(&named("i")).await?;
    stage.call::<DeleteIndex>(&named("i")).await?;
    assert!(server.buckets().is_empty());
    stage.end().await
}

#[actix_rt::test]
async fn keys_do_what_their_role_says_in_their_bucket_until_they_are_revoked() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    for (instance, name) in [("i", "shop"), ("j", "other")] {
        stage.call::<CreateIndex>(&index(instance, name)).await?;
    }
    let mut keys = BTreeMap::new();
    for (name, role) in [("w", Role::Write), ("r", Role::Read), ("a", Role::Admin)] {
        let issued = stage.call::<IssueCredentials>(&binding("i", name, role)).await?;
        assert_eq!(
            stage.call::<IssueCredentials>(&binding("i", name, role)).await?,
            issued,
            "a repeat answers the same"
        );
        assert_eq!((&*issued.values["s3_bucket"], &*issued.values["s3_region"]), ("logboom-shop", "eu-central-1"));
        keys.insert(name, issued.values);
    }
    let objects = |name: &str| open(&keys[name], "logboom-shop");
    assert_eq!(objects("w").put_if_absent("a/1", vec![1].into()).await?, Put::Stored);
    assert!(objects("w").get("a/1").await.is_err() && objects("w").list("a/", 9).await.is_err());
    assert_eq!(&objects("r").get("a/1").await?[..], [1]);
    assert_eq!(objects("r").list("a/", 9).await?.len(), 1);
    assert!(objects("r").put_if_absent("a/2", vec![2].into()).await.is_err());
    assert!(objects("r").delete("a/1").await.is_err());
    assert_eq!(objects("a").put_if_absent("a/2", vec![2].into()).await?, Put::Stored);
    objects("a").delete("a/1").await?;
    for name in ["w", "r", "a"] {
        let foreign = open(&keys[name], "logboom-other");
        assert!(foreign.put_if_absent("x", vec![1].into()).await.is_err(), "{name} reaches a foreign bucket");
        assert!(foreign.get("x").await.is_err() && foreign.list("", 9).await.is_err(), "{name}");
    }
    // What is kept of a secret is sealed.
    let sealed = stage.host.bus.bucket("lb_sealed", None, 1).await?.list("").await?;
    assert_eq!(sealed.len(), 3);
    let secret = keys["w"]["s3_secret_access_key"].as_bytes();
    let shown = |value: &[u8]| value.windows(secret.len()).any(|part| part == secret);
    assert!(sealed.iter().all(|(_, entry)| !shown(&entry.value)));

    stage.call::<RevokeCredentials>(&of("r")).await?;
    assert!(objects("r").get("a/2").await.is_err(), "a revoked key opens nothing");
    assert_eq!(server.users().len(), 2);
    stage.call::<DeleteIndex>(&named("i")).await?;
    assert!(server.users().is_empty(), "the keys of a deleted index go with it: {:?}", server.users());
    assert_eq!(server.buckets(), ["logboom-other"]);
    assert!(stage.host.bus.bucket("lb_sealed", None, 1).await?.list("").await?.is_empty());
    stage.end().await
}

#[actix_rt::test]
async fn a_key_that_the_server_learns_of_late_is_given_away_only_when_it_works() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    stage.call::<CreateIndex>(&index("i", "shop")).await?;
    server.set(S3Faults { settle: 4, ..S3Faults::default() });
    let issued = stage.call::<IssueCredentials>(&binding("i", "w", Role::Write)).await?.values;
    assert_eq!(open(&issued, "logboom-shop").put_if_absent("1", vec![1].into()).await?, Put::Stored);
    stage.call::<RevokeCredentials>(&of("w")).await?;
    assert!(open(&issued, "logboom-shop").put_if_absent("2", vec![1].into()).await.is_err(), "revoked means revoked");
    server.set(S3Faults::default());
    // Somebody takes the keys away behind our back: the binding gets another one, and it works.
    let first = stage.call::<IssueCredentials>(&binding("i", "a", Role::Admin)).await?.values;
    server.lose_keys(&server.users()[0].0);
    let second = stage.call::<IssueCredentials>(&binding("i", "a", Role::Admin)).await?.values;
    assert_ne!(first["s3_access_key_id"], second["s3_access_key_id"]);
    assert_eq!(open(&second, "logboom-shop").list("", 9).await?.len(), 1);
    stage.end().await
}

/// Whatever is lost at whatever step, the end is as it should be, and nothing is left over.
#[actix_rt::test]
async fn steps_whose_answers_are_lost_are_adopted() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    let silent =
        |actions: &[&'static str]| S3Faults { silent: actions.iter().copied().collect(), ..S3Faults::default() };
    for action in ["s3:CreateBucket", "s3:PutBucketTagging", "s3:PutLifecycleConfiguration"] {
        server.set(silent(&[action]));
        drop(stage.attempt::<CreateIndex>(&index("i", "shop")).await);
        assert!(server.failed() > 0, "{action} never happened");
        server.set(S3Faults::default());
        stage.call::<CreateIndex>(&index("i", "shop")).await?;
        assert_eq!(server.bucket("logboom-shop").unwrap().tags["osb-instance"], "i");
        stage.call::<DeleteIndex>(&named("i")).await?;
        assert!(server.buckets().is_empty(), "{action}");
    }
    stage.call::<CreateIndex>(&index("i", "shop")).await?;
    for action in ["iam:CreateUser", "iam:PutUserPolicy", "iam:CreateAccessKey"] {
        server.set(silent(&[action]));
        let before = server.failed();
        drop(stage.attempt::<IssueCredentials>(&binding("i", "w", Role::Write)).await);
        assert!(server.failed() > before, "{action} never happened");
        server.set(S3Faults::default());
        let issued = stage.call::<IssueCredentials>(&binding("i", "w", Role::Write)).await?.values;
        open(&issued, "logboom-shop").put_if_absent(action, vec![1].into()).await?;
        let keys: Vec<usize> = server.users().iter().map(|(_, keys)| *keys).collect();
        assert_eq!(keys, [1], "{action}: a key whose secret was lost does not stay");
        server.set(silent(&["iam:DeleteAccessKey", "iam:DeleteUser"]));
        drop(stage.attempt::<RevokeCredentials>(&of("w")).await);
        server.set(S3Faults::default());
        eventually(SOON, async || server.users().is_empty()).await;
    }
    // Deleted while it was made, before it bore its mark.
    let busy = [("s3:PutBucketTagging", (503, "SlowDown", "later"))].into();
    server.set(S3Faults { refuse: busy, ..S3Faults::default() });
    drop(stage.attempt::<CreateIndex>(&index("j", "late")).await);
    assert!(server.bucket("logboom-late").unwrap().tags.is_empty());
    stage.call::<DeleteIndex>(&named("j")).await?;
    assert!(server.bucket("logboom-late").is_none());
    server.set(silent(&["s3:DeleteBucket"]));
    drop(stage.attempt::<DeleteIndex>(&named("i")).await);
    server.set(S3Faults::default());
    eventually(SOON, async || server.buckets().is_empty()).await;
    stage.end().await
}

#[actix_rt::test]
async fn a_busy_server_only_takes_longer() -> Result<()> {
    let server = S3Server::serve("us-east-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &["index_provisioner.s3.region=us-east-1"]).await?;
    server.set(S3Faults { busy_every: 3, delay: Duration::from_millis(2), ..S3Faults::default() });
    stage.call::<CreateIndex>(&index("i", "shop")).await?;
    let issued = stage.call::<IssueCredentials>(&binding("i", "w", Role::Write)).await?.values;
    open(&issued, "logboom-shop").put_if_absent("1", vec![1].into()).await?;
    stage.call::<DeleteIndex>(&named("i")).await?;
    assert!(server.failed() > 5 && server.buckets().is_empty() && server.users().is_empty());
    stage.end().await
}

#[actix_rt::test]
async fn what_belongs_to_others_is_left_alone() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    server.change("logboom-marked", |bucket| drop(bucket.tags.insert("osb-instance".into(), "somebody".into())));
    server.give_away("logboom-abroad");
    server.change("logboom-full", |bucket| bucket.put("theirs", b"1"));
    server.change("logboom-named", |bucket| drop(bucket.tags.insert("team".into(), "payments".into())));
    let adopt = |name: &str| {
        let mut new = index("i", name);
        new.options.adopt = true;
        new
    };
    for new in [
        index("i", "marked"),
        adopt("marked"),
        index("i", "abroad"),
        adopt("abroad"),
        index("i", "full"),
        index("i", "named"),
    ] {
        let problem = stage.call::<CreateIndex>(&new).await.unwrap_err();
        assert_eq!((problem.code, problem.kind.as_str()), (Code::Conflict, "ForeignResource"), "{problem}");
    }
    assert_eq!(server.count("s3:PutBucketTagging"), 0, "nothing was touched");
    assert_eq!(server.bucket("logboom-full").unwrap().version_count(), 1);
    // An attempt that was cut off leaves an empty bucket without tags; told to, it takes what bears no mark.
    server.change("logboom-begun", |_| {});
    stage.call::<CreateIndex>(&index("j", "begun")).await?;
    stage.call::<CreateIndex>(&adopt("named")).await?;
    let tags = server.bucket("logboom-named").unwrap().tags;
    assert_eq!((&*tags["osb-instance"], &*tags["team"]), ("i", "payments"));
    stage.end().await
}

#[actix_rt::test]
async fn a_refusal_for_good_leaves_nothing() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    server.change("logboom-old", |bucket| bucket.put("theirs", b"1"));
    let refuse = |action: &'static str, code: &'static str| S3Faults {
        refuse: [(action, (403, code, "not for you"))].into(),
        ..S3Faults::default()
    };
    for action in ["s3:PutBucketTagging", "s3:PutEncryptionConfiguration", "s3:PutLifecycleConfiguration"] {
        server.set(refuse(action, "AccessDenied"));
        let problem = stage.call::<CreateIndex>(&index("i", "shop")).await.unwrap_err();
        assert_eq!((problem.code, problem.kind.as_str()), (Code::BadRequest, "BackendRefused"), "{problem}");
        assert!(problem.message.contains("not for you"), "{problem}");
        assert_eq!(server.buckets(), ["logboom-old"], "{action}");
    }
    let mut old = index("i", "old");
    old.options.adopt = true;
    stage.call::<CreateIndex>(&old).await.unwrap_err();
    assert!(server.bucket("logboom-old").unwrap().tags.is_empty(), "what was adopted in vain is given back");
    assert!(stage.call::<ListIndexes>(&IndexesOf::default()).await?.indexes.is_empty());
    // A server that has no encryption of its own is no reason to have no bucket.
    server.set(S3Faults {
        refuse: [("s3:PutEncryptionConfiguration", (501, "NotImplemented", ""))].into(),
        ..S3Faults::default()
    });
    stage.call::<CreateIndex>(&index("i", "shop")).await?;
    server.set(refuse("iam:CreateUser", "AccessDenied"));
    let problem = stage.call::<IssueCredentials>(&binding("i", "w", Role::Write)).await.unwrap_err();
    assert_eq!(problem.kind, "BackendRefused", "{problem}");
    server.set(S3Faults::default());
    eventually(SOON, async || stage.call::<IssueCredentials>(&binding("i", "w", Role::Write)).await.is_ok()).await;
    stage.end().await
}

#[actix_rt::test]
async fn a_bucket_ends_as_its_reclaim_policy_says() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    let policies = [("d", Reclaim::Delete), ("r", Reclaim::Retain), ("f", Reclaim::Fail)];
    for (instance, reclaim) in policies {
        stage.call::<CreateIndex>(&reclaimed(instance, &format!("ix-{instance}"), reclaim)).await?;
        server.change(&format!("logboom-ix-{instance}"), |bucket| {
            bucket.versioned = true;
            bucket.put("odd/<&>\u{1} key+ü", b"1");
        });
    }
    server.change("logboom-ix-d", |bucket| {
        for number in 0..1_500 {
            bucket.put(&format!("k/{number}"), b"old");
            bucket.put(&format!("k/{number}"), b"new");
        }
        bucket.uploads.insert("u1".into(), "half done".into());
        bucket.locked.insert("k/7".into());
    });
    // One object that cannot be deleted yet: everything else goes, and the rest goes later.
    let stuck = stage.attempt::<DeleteIndex>(&named("d")).await.unwrap_err();
    assert!(stuck.is_transient(), "{stuck}");
    eventually(SOON, async || server.bucket("logboom-ix-d").unwrap().version_count() == 2).await;
    assert!(server.bucket("logboom-ix-d").unwrap().uploads.is_empty());
    server.change("logboom-ix-d", |bucket| bucket.locked.clear());
    eventually(SOON, async || server.bucket("logboom-ix-d").is_none()).await;

    stage.call::<DeleteIndex>(&named("r")).await?;
    let kept = server.bucket("logboom-ix-r").unwrap();
    assert_eq!((kept.version_count(), kept.tags.get("osb-retained").map(String::as_str)), (1, Some("r")));
    let mut heir = index("heir", "ix-r");
    stage.call::<CreateIndex>(&heir).await.unwrap_err();
    heir.options.adopt = true;
    let stranger = NewIndex { scope: "other-team".parse()?, ..heir.clone() };
    assert_eq!(stage.call::<CreateIndex>(&stranger).await.unwrap_err().kind, "ForeignResource");
    stage.call::<CreateIndex>(&heir).await?;
    let tags = server.bucket("logboom-ix-r").unwrap().tags;
    let wanted = [("osb-instance", "heir"), ("osb-scope", "team")];
    assert_eq!(tags, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into());

    let full = stage.call::<DeleteIndex>(&named("f")).await.unwrap_err();
    assert_eq!((full.code, full.kind.as_str()), (Code::Conflict, "NotEmpty"));
    assert_eq!(server.bucket("logboom-ix-f").unwrap().version_count(), 1);
    stage.call::<IssueCredentials>(&binding("f", "w", Role::Write)).await?;
    server.change("logboom-ix-f", |bucket| bucket.objects.clear());
    stage.call::<DeleteIndex>(&named("f")).await?;
    assert!(server.bucket("logboom-ix-f").is_none());
    stage.end().await
}

/// Steps between slashes are part of a key; a client that takes them would meet another object, and sign what nobody asks for.
#[actix_rt::test]
async fn a_bucket_whose_keys_look_like_paths_is_emptied() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    stage.call::<CreateIndex>(&reclaimed("i", "odd", Reclaim::Delete)).await?;
    // The last of the uploads cannot be named in a path at all: it is left to the lifecycle, and holds up nothing.
    let uploads = ["a/../b", "./x", "..", "a/.", "../../d"];
    server.change("logboom-odd", |bucket| {
        for (number, key) in uploads.iter().enumerate() {
            bucket.uploads.insert(format!("u{number}"), (*key).to_owned());
        }
        // With characters that XML cannot say, so that they are named in a path; and without.
        for key in ["a/../b\u{1}", "./\u{1}", "a/../b", "../../d", "b\u{1}"] {
            bucket.put(key, b"1");
        }
    });
    server.change("logboom-b", |bucket| bucket.put("b\u{1}", b"theirs"));
    stage.call::<DeleteIndex>(&named("i")).await?;
    assert_eq!(server.buckets(), ["logboom-b"]);
    assert_eq!(server.bucket("logboom-b").unwrap().version_count(), 1);
    assert_eq!(server.count("s3:AbortMultipartUpload"), 4);
    stage.end().await
}

/// Every lot of them is journaled: what was revoked once is not asked for again.
#[actix_rt::test]
async fn an_index_with_many_bindings_ends() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &[]).await?;
    stage.call::<CreateIndex>(&index("i", "shop")).await?;
    for number in 0..20 {
        stage.call::<IssueCredentials>(&binding("i", &format!("b{number}"), Role::Write)).await?;
    }
    stage.call::<DeleteIndex>(&named("i")).await?;
    assert!(server.users().is_empty() && server.buckets().is_empty());
    assert_eq!(server.count("iam:DeleteUser"), 20);
    stage.end().await
}

#[actix_rt::test]
async fn over_tls_the_bucket_wants_tls_and_applications_get_the_authority() -> Result<()> {
    let certificates = Certificates::make()?;
    let server = S3Server::serve_tls("eu-central-1", &certificates).await?;
    let ca = format!("index_provisioner.s3.ca={}", certificates.path("ca.pem").display());
    let stage = Stage::begin(server.endpoint(), server.admin(), &[&ca]).await?;
    stage.call::<CreateIndex>(&index("i", "shop")).await?;
    let policy = server.bucket("logboom-shop").unwrap().policy.unwrap();
    assert!(policy.contains("aws:SecureTransport") && policy.contains("arn:aws:s3:::logboom-shop/*"), "{policy}");
    let issued = stage.call::<IssueCredentials>(&binding("i", "w", Role::Write)).await?.values;
    assert_eq!(issued["ca_cert"], std::fs::read_to_string(certificates.path("ca.pem"))?);
    stage.call::<DeleteIndex>(&named("i")).await?;
    assert!(server.buckets().is_empty() && server.users().is_empty());
    stage.end().await
}

#[actix_rt::test]
async fn what_is_wrong_with_the_server_is_said_and_secrets_are_not() -> Result<()> {
    let server = S3Server::serve("eu-central-1").await?;
    let stage = Stage::begin(server.endpoint(), server.admin(), &["index_provisioner.s3.iam=false"]).await?;
    server.set(S3Faults { ahead: Duration::from_secs(7_200), ..S3Faults::default() });
    let problem = stage.refused::<CreateIndex>(&index("i", "shop")).await;
    assert!(problem.message.contains("the clock of this host is"), "{problem}");
    server.set(S3Faults::default());
    stage.call::<CreateIndex>(&index("i", "shop")).await?;
    let problem = stage.call::<IssueCredentials>(&binding("i", "w", Role::Write)).await.unwrap_err();
    assert_eq!((problem.code, problem.kind.as_str()), (Code::BadRequest, "BackendRefused"));
    assert!(problem.message.contains("index_provisioner.s3.iam"), "{problem}");
    stage.end().await?;
    // A key with a wrong secret: the message says so, and holds neither secret.
    let wrong = (server.admin().0, "a-wrong-secret");
    let stage = Stage::begin(server.endpoint(), wrong, &[]).await?;
    let problem = stage.refused::<CreateIndex>(&index("k", "late")).await;
    assert!(problem.is_transient() && problem.message.contains("SignatureDoesNotMatch"), "{problem}");
    assert!(!problem.message.contains("a-wrong-secret") && !problem.message.contains(server.admin().1));
    stage.end().await
}
