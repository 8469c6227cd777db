use std::time::Duration;

use store::{Objects, Put};

use super::*;

fn open(server: &S3Server, bucket: &str, (key_id, secret): (&str, &str)) -> Objects {
    Objects::open_s3(&format!("s3://{bucket}"), server.options(key_id, secret)).unwrap()
}

/// A signature that another house's client made is the proof that ours is checked rightly.
#[tokio::test]
async fn a_foreign_client_reads_what_it_wrote_and_a_wrong_secret_is_refused() {
    let server = S3Server::serve("us-east-1").await.unwrap();
    server.change("logs", |_| {});
    let objects = open(&server, "logs", server.admin());
    for number in 0..5u8 {
        let stored = objects.put_if_absent(&format!("a b/{number}"), vec![number].into()).await.unwrap();
        assert_eq!(stored, Put::Stored);
    }
    assert_eq!(objects.put_if_absent("a b/0", vec![9].into()).await.unwrap(), Put::Exists);
    assert_eq!(&objects.get("a b/3").await.unwrap()[..], [3]);
    server.set(S3Faults { page: 2, ..S3Faults::default() });
    assert_eq!(objects.list("a b/", 100).await.unwrap().len(), 5);
    for key in ["a b/c/1", "a b/c/2", "a b/d/1", "a b/e/f/1", "z"] {
        server.change("logs", |bucket| bucket.put(key, b"x"));
    }
    assert_eq!(objects.folders("a b/").await.unwrap(), ["c", "d", "e"], "whatever the pages are");
    assert_eq!(objects.folders("").await.unwrap(), ["a b"]);
    assert_eq!(objects.largest("a b/", |key| Some(key.to_owned())).await.unwrap().as_deref(), Some("a b/e/f/1"));
    server.change("logs", |bucket| bucket.objects.retain(|key, _| key.len() == "a b/0".len()));
    objects.delete("a b/3").await.unwrap();
    assert_eq!(objects.head("a b/3").await.unwrap(), None);
    let stranger = open(&server, "logs", (server.admin().0, "wrong"));
    assert!(stranger.get("a b/1").await.unwrap_err().to_string().contains("a b/1"));
    let nobody = open(&server, "logs", ("AKIANOBODY", "x"));
    assert!(nobody.put_if_absent("x", vec![1].into()).await.is_err());
    assert_eq!(server.bucket("logs").unwrap().objects.len(), 4);
}

#[tokio::test]
async fn versions_stay_until_they_are_deleted_by_name() {
    let server = S3Server::serve("us-east-1").await.unwrap();
    server.change("logs", |bucket| {
        bucket.versioned = true;
        bucket.put("k", b"1");
        bucket.put("k", b"2");
    });
    let objects = open(&server, "logs", server.admin());
    objects.delete("k").await.unwrap();
    assert_eq!(objects.head("k").await.unwrap(), None);
    assert_eq!(server.bucket("logs").unwrap().version_count(), 3);
}

#[test]
fn a_policy_allows_what_it_names_until_it_ends_and_a_denial_wins() {
    let at = |text: &str| types::Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond());
    let request = Request::new("PUT", "/b/k");
    let call = Call::new(&request, false, false);
    let known = signature::Known { secret: String::new(), user: Some("u".into()) };
    let mut state = State::default();
    state.buckets.insert("b".into(), StoredBucket::default());
    let allow = r#"{"Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":"arn:aws:s3:::b/*",
        "Condition":{"DateLessThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}}}]}"#;
    let mut user = users::User::default();
    user.policies.insert("p".into(), allow.into());
    state.users.insert("u".into(), user);
    let (before, after) = (at("2025-12-31T23:59:59Z"), at("2026-01-01T00:00:00Z"));
    assert!(state.may(&call, &known, before).is_ok());
    assert!(state.may(&call, &known, after).is_err());
    let other = Request::new("GET", "/b/k");
    assert!(state.may(&Call::new(&other, false, false), &known, before).is_err());
    let deny = r#"{"Statement":[{"Effect":"Deny","Action":"s3:*","Resource":["arn:aws:s3:::b","arn:aws:s3:::b/*"],
        "Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}"#;
    state.buckets.get_mut("b").unwrap().policy = Some(deny.into());
    assert!(state.may(&call, &known, before).is_err());
    assert!(state.may(&Call::new(&request, false, true), &known, before).is_ok());
}

#[tokio::test]
async fn faults_come_when_they_are_told_to() {
    let server = S3Server::serve("us-east-1").await.unwrap();
    server.change("logs", |_| {});
    let objects = open(&server, "logs", server.admin());
    server.set(S3Faults { busy_every: 2, delay: Duration::from_millis(1), ..S3Faults::default() });
    for number in 0..4u8 {
        objects.put_if_absent(&number.to_string(), vec![number].into()).await.unwrap();
    }
    assert!(server.failed() > 0);
    server.set(S3Faults { ahead: Duration::from_secs(3_600), ..S3Faults::default() });
    assert!(objects.get("1").await.is_err());
    server.set(S3Faults { refuse: [("s3:GetObject", (403, "AccessDenied", "no"))].into(), ..S3Faults::default() });
    assert!(objects.get("1").await.is_err());
    server.set(S3Faults::default());
    assert_eq!(&objects.get("1").await.unwrap()[..], [1]);
}
