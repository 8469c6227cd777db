//! Processes of one host.

use testkit::Certificates;
use tokio::net::UnixListener;

use super::*;
use crate::Secure;

async fn way_between(here: &Exchange, there: &Exchange) -> String {
    let mut receiver = there.receiver(id(0, 0)).unwrap();
    let mut sender = within(here.sender(there.local_addr(), id(0, 0))).await.unwrap();
    within(sender.send(Message::Data(batch(7, 1, 1)))).await.unwrap();
    within(sender.send(Message::Eos)).await.unwrap();
    assert_eq!(drain(&mut receiver).await.unwrap(), [7]);
    format!("{sender:?}")
}

fn tcp_alone() -> Options {
    Options { unix: false, ..Options::default() }
}

#[tokio::test]
async fn a_unix_socket_is_used_where_both_have_one() {
    let one = way_between(&exchange().await, &exchange().await).await;
    assert!(one.contains("Remote(unix"), "{one}");
    for (here, there) in [(tcp_alone(), Options::default()), (Options::default(), tcp_alone())] {
        let one = way_between(&with(here).await, &with(there).await).await;
        assert!(one.contains("Remote(tcp"), "{one}");
    }
}

#[tokio::test]
async fn the_advertised_address_is_the_name() {
    let advertised = "127.0.0.1:1".parse().unwrap();
    let there = with(Options { advertised: Some(advertised), ..Options::default() }).await;
    let one = way_between(&exchange().await, &there).await;
    assert!(one.contains("Remote(unix 127.0.0.1:1 "), "{one}");
}

/// Someone who took the name and does not know the secret, or is there for another address, is passed by.
#[tokio::test]
async fn an_impostor_is_passed_by() {
    let there = with(tcp_alone()).await;
    let name = format!("\0logboom-exchange/{}", there.local_addr());
    let impostor = UnixListener::bind(&name).unwrap();
    let silent = tokio::spawn(async move { impostor.accept().await.unwrap() });
    let one = way_between(&exchange().await, &there).await;
    assert!(one.contains("Remote(tcp"), "{one}");
    drop(within(silent).await.unwrap());

    let (elsewhere, name) = (exchange().await, name);
    let passing = UnixListener::bind(&name).unwrap();
    let to = format!("\0logboom-exchange/{}", elsewhere.local_addr());
    let passing = tokio::spawn(async move {
        let (mut near, _) = passing.accept().await.unwrap();
        let mut far = tokio::net::UnixStream::connect(to).await.unwrap();
        tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
    });
    let one = way_between(&exchange().await, &there).await;
    assert!(one.contains("Remote(tcp"), "{one}");
    within(passing).await.unwrap();
    assert_eq!(elsewhere.live_peers(), 0);
}

#[tokio::test]
async fn a_name_that_is_taken_leaves_tcp() {
    let free = tokio::net::TcpListener::bind(any()).await.unwrap().local_addr().unwrap();
    let _taken = UnixListener::bind(format!("\0logboom-exchange/{free}")).unwrap();
    let there = within(Exchange::bind(free, SECRET)).await.unwrap();
    let here = with(tcp_alone()).await;
    assert!(way_between(&here, &there).await.contains("Remote(tcp"));
}

#[tokio::test]
async fn with_tls_the_socket_of_the_host_serves_too_but_no_mixture() {
    let certificates = Certificates::make().unwrap();
    let peers = certificates.tls().unwrap().peers().unwrap();
    let secure = Secure { server: peers.server, client: peers.client };
    let options = Options { secure: Some(secure), ..Options::default() };
    let (here, there) = (with(options.clone()).await, with(options).await);
    assert!(way_between(&here, &there).await.contains("Remote(unix"));
    let plain = exchange().await;
    let found = within(here.sender(plain.local_addr(), id(1, 1))).await.unwrap_err();
    assert!(found.to_string().contains("does not speak TLS"), "{found}");
}
