//! Connections inside TLS: who gets through, who does not, and what changes while they are open.

use testkit::{
    Certificates,
    tls::{Files, Tls},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::Secure;

fn secure(tls: &Tls) -> Secure {
    let peers = tls.peers().unwrap();
    Secure { server: peers.server, client: peers.client }
}

async fn bound(secure: Option<Secure>) -> Exchange {
    with(Options { secure, unix: false, ..Options::default() }).await
}

async fn refused(here: &Exchange, there: &Exchange, from: u32) -> String {
    match within(here.sender(there.local_addr(), id(from, 0))).await {
        Ok(_) => panic!("a sender was opened"),
        Err(Error::Handshake { problem, .. }) => problem,
        Err(other) => panic!("{other}"),
    }
}

async fn rows_arrive(here: &Exchange, there: &Exchange, from: u32) {
    let mut receiver = there.receiver(id(from, 0)).unwrap();
    let mut sender = within(here.sender(there.local_addr(), id(from, 0))).await.unwrap();
    let sending = tokio::spawn(async move {
        for n in 0..50 {
            sender.send(Message::Data(batch(n * 100, 100, 1_000))).await?;
        }
        sender.send(Message::Eos).await
    });
    assert_eq!(drain(&mut receiver).await.unwrap(), (0..5_000).collect::<Vec<_>>());
    within(sending).await.unwrap().unwrap();
}

#[tokio::test]
async fn rows_arrive_both_ways_and_nothing_is_readable_on_the_wire() {
    let certificates = Certificates::make().unwrap();
    let tls = certificates.tls().unwrap();
    let (here, there) = (bound(Some(secure(&tls))).await, bound(Some(secure(&tls))).await);
    rows_arrive(&here, &there, 1).await;
    rows_arrive(&there, &here, 2).await;
    // A wire that remembers what went over it.
    let listener = TcpListener::bind(any()).await.unwrap();
    let (wire, to) = (listener.local_addr().unwrap(), there.local_addr());
    let seen = tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let (mut near_in, mut near_out) = near.into_split();
        let (mut far_in, mut far_out) = TcpStream::connect(to).await.unwrap().into_split();
        let back = tokio::spawn(async move { copy(&mut far_in, &mut near_out).await.ok() });
        let (mut seen, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(length @ 1..) = near_in.read(&mut piece).await {
            seen.extend_from_slice(&piece[..length]);
            far_out.write_all(&piece[..length]).await.unwrap();
        }
        drop(far_out);
        back.await.unwrap();
        seen
    });
    let mut receiver = there.receiver(id(3, 0)).unwrap();
    let mut sender = within(here.sender(wire, id(3, 0))).await.unwrap();
    within(sender.send(Message::Data(batch(0, 10, 1_000)))).await.unwrap();
    within(sender.send(Message::Eos)).await.unwrap();
    assert_eq!(drain(&mut receiver).await.unwrap().len(), 10);
    within(here.shutdown()).await;
    let seen = within(seen).await.unwrap();
    assert!(seen.len() > 10_000, "{}", seen.len());
    assert!(!seen.windows(20).any(|bytes| bytes == [b'x'; 20]), "rows went over the wire as they are");
}

#[tokio::test]
async fn a_shutdown_loses_nothing_that_was_sent() {
    let certificates = Certificates::make().unwrap();
    let tls = certificates.tls().unwrap();
    let (here, there) = (bound(Some(secure(&tls))).await, bound(Some(secure(&tls))).await);
    let mut receiver = there.receiver(id(0, 0)).unwrap();
    let mut sender = within(here.sender(there.local_addr(), id(0, 0))).await.unwrap();
    within(sender.send(Message::Data(batch(0, 10, 100)))).await.unwrap();
    within(sender.send(Message::Eos)).await.unwrap();
    within(here.shutdown()).await;
    assert_eq!(drain(&mut receiver).await.unwrap().len(), 10);
}

#[tokio::test]
async fn only_certificates_of_our_authority_get_in() {
    let (ours, theirs) = (Certificates::make().unwrap(), Certificates::make().unwrap());
    let (tls, other) = (ours.tls().unwrap(), theirs.tls().unwrap());
    let there = bound(Some(secure(&tls))).await;
    // It trusts whom it should not and is itself not trusted: the dialler looks first.
    let foreign = bound(Some(secure(&other))).await;
    let text = refused(&foreign, &there, 1).await;
    assert!(text.contains("is not accepted") && text.contains("common.tls_ca"), "{text}");
    // It trusts us, but shows a certificate of another authority, or none.
    let mut mixed = secure(&tls);
    mixed.client = {
        let path = |name| Some(theirs.path(name));
        let files = Files { certificate: path("certificate.pem"), key: path("key.pem"), ca: Some(ours.path("ca.pem")) };
        Tls::open(files).unwrap().peers().unwrap().client
    };
    let text = refused(&bound(Some(mixed.clone())).await, &there, 2).await;
    assert!(text.contains("does not accept our certificate"), "{text}");
    let bare = Tls::open(Files { ca: Some(ours.path("ca.pem")), ..Default::default() }).unwrap();
    // Under a name it would even be who it says it is.
    mixed.client = bare.client().unwrap();
    let text = refused(&bound(Some(mixed)).await, &there, 3).await;
    assert!(text.contains("does not accept our certificate"), "{text}");
    assert_eq!(there.live_peers(), 0);
    rows_arrive(&bound(Some(secure(&tls))).await, &there, 4).await;
}

#[tokio::test]
async fn a_certificate_without_the_secret_is_not_enough_even_in_the_middle() {
    let certificates = Certificates::make().unwrap();
    let tls = certificates.tls().unwrap();
    let (here, there) = (bound(Some(secure(&tls))).await, bound(Some(secure(&tls))).await);
    let options = Options { secure: Some(secure(&tls)), unix: false, ..Options::default() };
    let stranger = Exchange::bind_with(any(), "another secret, long enough", options).await.unwrap();
    let text = refused(&stranger, &there, 1).await;
    assert!(text.contains("secret"), "{text}");
    // Somebody with a certificate of the same authority passes every byte on, proofs included.
    let listener = TcpListener::bind(any()).await.unwrap();
    let (middle, to, own) = (listener.local_addr().unwrap(), there.local_addr(), secure(&tls));
    let passing = tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let mut near = TlsAcceptor::from(own.server).accept(near).await.unwrap();
        let name = rustls::pki_types::ServerName::IpAddress(to.ip().into());
        let mut far =
            TlsConnector::from(own.client).connect(name, TcpStream::connect(to).await.unwrap()).await.unwrap();
        copy_bidirectional(&mut near, &mut far).await.ok();
    });
    match within(here.sender(middle, id(2, 0))).await {
        Err(Error::Handshake { problem, .. }) => assert!(problem.contains("secret"), "{problem}"),
        other => panic!("{other:?}"),
    }
    within(passing).await.unwrap();
    assert_eq!(there.live_peers(), 0);
}

#[tokio::test]
async fn a_plain_listener_is_told_apart_at_once() {
    let certificates = Certificates::make().unwrap();
    let tls = certificates.tls().unwrap();
    let (here, there) = (bound(Some(secure(&tls))).await, bound(None).await);
    let text = refused(&here, &there, 1).await;
    assert!(text.contains("does not speak TLS"), "{text}");
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_while_old_ones_go_on() {
    let certificates = Certificates::make().unwrap();
    let tls = certificates.tls().unwrap();
    let (here, there) = (bound(Some(secure(&tls))).await, bound(Some(secure(&tls))).await);
    let mut receiver = there.receiver(id(1, 0)).unwrap();
    let mut sender = within(here.sender(there.local_addr(), id(1, 0))).await.unwrap();
    within(sender.send(Message::Data(batch(0, 10, 1)))).await.unwrap();
    certificates.renew().unwrap();
    assert!(tls.reload().unwrap());
    rows_arrive(&bound(Some(secure(&tls))).await, &there, 2).await;
    within(sender.send(Message::Data(batch(10, 10, 1)))).await.unwrap();
    within(sender.send(Message::Eos)).await.unwrap();
    assert_eq!(drain(&mut receiver).await.unwrap().len(), 20, "the open connection was not touched");
}
