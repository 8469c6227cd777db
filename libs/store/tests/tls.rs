//! Object storage behind an authority that the system does not know: a real server on loopback.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

use std::{error::Error, fs};

use store::{Objects, Put, S3Options};
use testkit::{
    Certificates, S3Server,
    tls::{Files, Tls},
};

#[tokio::test]
async fn a_private_authority_is_believed_and_let_go_by_the_same_client() {
    let (ours, other) = (Certificates::make().unwrap(), Certificates::make().unwrap());
    let server = S3Server::serve_tls("eu-central-1", &ours).await.unwrap();
    let (key_id, secret) = server.admin();
    server.change("chunks", |_| {});
    let file = other.path("ca.pem");
    let tls = Tls::open(Files { ca: Some(file.clone()), ..Files::default() }).unwrap();
    let options = S3Options { tls: Some(tls.outward()), allow_http: false, ..server.options(key_id, secret) };
    let objects = Objects::open_s3("s3://chunks/below", options).unwrap();
    let refused = objects.head("a").await.unwrap_err();
    let mut words = refused.to_string();
    let mut cause = refused.source();
    while let Some(error) = cause {
        words += &format!(": {error}");
        cause = error.source();
    }
    assert!(words.contains("neither one of the system's nor in"), "{words}");
    fs::copy(ours.path("ca.pem"), &file).unwrap();
    assert!(tls.reload().unwrap());
    assert_eq!(objects.put_if_absent("a", b"one".as_slice().into()).await.unwrap(), Put::Stored);
    assert_eq!(&objects.get("a").await.unwrap()[..], b"one");
}
