//! One channel: order, credit, ends, time.

use flow::{WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use tokio::task::JoinHandle;
use types::Timestamp;

use super::*;
use crate::Sender;

/// A channel of that way; the exchanges are to be kept.
async fn pair(way: Way) -> (Vec<Exchange>, Sender, Receiver) {
    let (here, there) = way.ends(Options::default()).await;
    let receiver = there.receiver(id(0, 0)).unwrap();
    let sender = within(here.sender(there.local_addr(), id(0, 0))).await.unwrap();
    (vec![here, there], sender, receiver)
}

#[tokio::test]
async fn every_message_arrives_in_order() {
    for way in WAYS {
        let (_exchanges, mut sender, mut receiver) = pair(way).await;
        let sent = [
            Message::Watermark(Timestamp::from_nanos(-5)),
            Message::Data(batch(0, 10, 3)),
            Message::Watermark(Timestamp::MAX),
            Message::Barrier(u64::MAX),
            Message::Data(batch(10, 1, 0)),
            Message::Idle,
            Message::Data(batch(11, 2, 1)),
            Message::Eos,
        ];
        for message in &sent {
            within(sender.send(message.clone())).await.unwrap();
        }
        assert!(matches!(within(sender.send(Message::Idle)).await, Err(Error::Ended { .. })));
        for message in sent {
            assert_eq!(within(receiver.recv()).await.unwrap(), Some(message));
        }
        assert_eq!(within(receiver.recv()).await.unwrap(), None);
        assert_eq!(within(receiver.recv()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn one_connection_serves_both_directions_and_many_channels() {
    let (a, b) = (exchange().await, exchange().await);
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    // The first sender dials; all others find its connection.
    drop(within(a.sender(b.local_addr(), id(99, 99))).await.unwrap());
    eventually(|| a.live_peers() == 1 && b.live_peers() == 1).await;
    for (from, to, n) in [(&a, &b, 0u32), (&b, &a, 1), (&a, &b, 2), (&b, &a, 3), (&a, &b, 4)] {
        let mut receiver = to.receiver(id(n, n)).unwrap();
        let mut sender = within(from.sender(to.local_addr(), id(n, n))).await.unwrap();
        assert!(format!("{sender:?}").contains("Remote"));
        tasks.push(tokio::spawn(async move {
            for i in 0..200 {
                sender.send(Message::Data(batch(i * 50, 50, 100))).await.unwrap();
                sender.send(Message::Watermark(Timestamp::from_nanos(i))).await.unwrap();
            }
            sender.send(Message::Eos).await.unwrap();
        }));
        tasks.push(tokio::spawn(async move {
            assert_eq!(drain(&mut receiver).await.unwrap(), (0..10_000).collect::<Vec<_>>());
        }));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
    assert_eq!((a.live_peers(), b.live_peers()), (1, 1));
}

/// Fills the channel until nothing more goes, and returns how many bytes wait at the receiver.
async fn fill(mut sender: Sender, receiver: &Receiver, batches: i64) -> (JoinHandle<Result<(), Error>>, u64) {
    let started = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let counter = Arc::clone(&started);
    let task = tokio::spawn(async move {
        for i in 0..batches {
            counter.store(i, std::sync::atomic::Ordering::SeqCst);
            sender.send(Message::Data(batch(i * 10, 10, 1_000))).await?;
        }
        sender.send(Message::Eos).await
    });
    // A batch takes about 10 KB, so a sender that still has room for one is not waiting yet.
    eventually(|| receiver.waiting_bytes() + 12_000 > WINDOW_BYTES_MIN).await;
    (task, receiver.waiting_bytes())
}

#[tokio::test]
async fn a_slow_consumer_holds_its_sender_back() {
    for way in WAYS {
        let (_exchanges, sender, mut receiver) = pair(way).await;
        let (task, waiting) = fill(sender, &receiver, 1_000).await;
        assert!(waiting <= WINDOW_BYTES_MIN, "{waiting}");
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished());
        assert!(receiver.waiting_bytes() <= WINDOW_BYTES_MIN, "{way:?}: {}", receiver.waiting_bytes());
        let mut rows = Vec::new();
        while let Some(message) = within(receiver.recv()).await.unwrap() {
            assert!(receiver.waiting_bytes() <= WINDOW_BYTES_MAX);
            if let Message::Data(batch) = message {
                rows.extend(numbers(&batch));
            }
        }
        assert_eq!(rows, (0..10_000).collect::<Vec<_>>());
        within(task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn controls_need_no_credit() {
    for way in WAYS {
        let (_exchanges, mut sender, mut receiver) = pair(way).await;
        // Spend nearly all credit, then send what needs none.
        within(sender.send(Message::Data(batch(0, 46, 1_000)))).await.unwrap();
        eventually(|| sender.credit_bytes() < WINDOW_BYTES_MIN / 2).await;
        for epoch in 0..100 {
            within(sender.send(Message::Barrier(epoch))).await.unwrap();
        }
        assert!(matches!(within(receiver.recv()).await.unwrap(), Some(Message::Data(_))));
        for epoch in 0..100 {
            assert_eq!(within(receiver.recv()).await.unwrap(), Some(Message::Barrier(epoch)));
        }
    }
}

#[tokio::test]
async fn large_batches_go_in_pieces_and_large_rows_get_a_larger_window() {
    for way in WAYS {
        let (_exchanges, mut sender, mut receiver) = pair(way).await;
        let task = tokio::spawn(async move {
            sender.send(Message::Data(batch(0, 20_000, 500))).await.unwrap(); // 10 MB
            sender.send(Message::Data(batch(20_000, 1, 1 << 20))).await.unwrap();
            sender.send(Message::Data(batch(20_001, 3, 3 << 20))).await.unwrap(); // 9 MB in three rows
            sender.send(Message::Eos).await.unwrap();
        });
        assert_eq!(drain(&mut receiver).await.unwrap(), (0..20_004).collect::<Vec<_>>());
        within(task).await.unwrap();
    }
}

#[tokio::test]
async fn a_row_that_fits_no_frame_is_named() {
    let (_exchanges, mut sender, mut receiver) = pair(Way::Tcp).await;
    let found = within(sender.send(Message::Data(batch(0, 1, 5 << 20)))).await;
    assert!(matches!(found, Err(Error::FrameTooLarge { bytes }) if bytes > 5 << 20), "{found:?}");
    assert!(matches!(within(sender.send(Message::Eos)).await, Err(Error::FrameTooLarge { .. })));
    drop(sender);
    assert!(matches!(within(receiver.recv()).await, Err(Error::Peer { .. })));
}

#[tokio::test]
async fn a_local_batch_is_not_copied() {
    let (_exchanges, mut sender, mut receiver) = pair(Way::Local).await;
    let sent = batch(0, 10, 10);
    within(sender.send(Message::Data(sent.clone()))).await.unwrap();
    let Some(Message::Data(found)) = within(receiver.recv()).await.unwrap() else { panic!("data") };
    assert!(Arc::ptr_eq(found.column(0), sent.column(0)));
}

#[tokio::test]
async fn the_receiver_may_come_later() {
    for way in WAYS {
        let (here, there) = way.ends(Options::default()).await;
        let mut sender = within(here.sender(there.local_addr(), id(0, 0))).await.unwrap();
        within(sender.send(Message::Barrier(1))).await.unwrap();
        eventually(|| there.registry().sizes().1 == 1).await;
        assert_eq!(sender.credit_bytes(), 0, "nobody reads yet");
        let mut receiver = there.receiver(id(0, 0)).unwrap();
        assert!(matches!(there.receiver(id(0, 0)), Err(Error::AlreadyOpen { .. })));
        assert!(matches!(within(here.sender(there.local_addr(), id(0, 0))).await, Err(Error::AlreadyOpen { .. })));
        within(sender.send(Message::Data(batch(0, 1, 1)))).await.unwrap();
        within(sender.send(Message::Eos)).await.unwrap();
        assert_eq!(drain(&mut receiver).await.unwrap(), [0]);
        drop((sender, receiver));
        assert_eq!(there.registry().sizes(), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_channel_that_nobody_asks_for_is_refused() {
    for way in WAYS {
        let options = Options { parked_for: Duration::from_millis(50), ..Options::default() };
        let (here, there) = way.ends(options).await;
        let mut sender = within(here.sender(there.local_addr(), id(0, 0))).await.unwrap();
        let found = within(sender.send(Message::Data(batch(0, 1, 1)))).await.unwrap_err();
        assert!(found.to_string().contains("nobody asked"), "{found}");
        assert_eq!(there.registry().sizes().1, 0);
    }
}

#[tokio::test]
async fn an_end_that_goes_away_is_an_error_at_the_other() {
    for way in WAYS {
        let (_exchanges, mut sender, mut receiver) = pair(way).await;
        within(sender.send(Message::Barrier(1))).await.unwrap();
        assert!(within(receiver.recv()).await.unwrap().is_some());
        drop(sender);
        for _ in 0..2 {
            assert!(matches!(within(receiver.recv()).await, Err(Error::Peer { .. })));
        }

        let (_exchanges, sender, receiver) = pair(way).await;
        let (task, _) = fill(sender, &receiver, 1_000).await;
        drop(receiver);
        assert!(matches!(within(task).await.unwrap(), Err(Error::Peer { .. })));
    }
}

#[tokio::test]
async fn closing_a_job_ends_its_channels_and_no_others() {
    for way in WAYS {
        let (exchanges, sender, mut receiver) = pair(way).await;
        let (here, there) = (&exchanges[0], &exchanges[1]);
        let other = ChannelId { attempt: 2, ..id(0, 0) };
        let mut other_receiver = there.receiver(other.clone()).unwrap();
        let mut other_sender = within(here.sender(there.local_addr(), other.clone())).await.unwrap();
        let (task, _) = fill(sender, &receiver, 1_000).await;
        here.close_job(&id(0, 0).job, 1);
        assert!(matches!(within(task).await.unwrap(), Err(Error::Closed { .. } | Error::Peer { .. })));
        there.close_job(&id(0, 0).job, 1);
        let waiting = async {
            while within(receiver.recv()).await?.is_some() {}
            Ok::<(), Error>(())
        };
        assert!(matches!(waiting.await, Err(Error::Closed { .. } | Error::Peer { .. })));
        within(other_sender.send(Message::Data(batch(0, 3, 1)))).await.unwrap();
        within(other_sender.send(Message::Eos)).await.unwrap();
        assert_eq!(drain(&mut other_receiver).await.unwrap(), [0, 1, 2]);
    }
}

#[tokio::test]
async fn a_cancelled_send_leaves_no_silent_hole() {
    let (_exchanges, mut sender, receiver) = pair(Way::Tcp).await;
    {
        let mut send = Box::pin(sender.send(Message::Data(batch(0, 1_000, 1_000))));
        tokio::select! {
            biased;
            _ = &mut send => panic!("1 MB does not fit the window"),
            () = eventually(|| receiver.waiting_bytes() > 0) => {}
        }
    }
    assert!(matches!(within(sender.send(Message::Eos)).await, Err(Error::Cancelled { .. })));
}

#[tokio::test]
async fn shutdown_writes_what_was_sent() {
    let (mut exchanges, mut sender, mut receiver) = pair(Way::Tcp).await;
    eventually(|| sender.credit_bytes() > 0).await;
    within(sender.send(Message::Data(batch(0, 40, 1_000)))).await.unwrap();
    within(sender.send(Message::Eos)).await.unwrap();
    within(exchanges.remove(0).shutdown()).await;
    assert_eq!(drain(&mut receiver).await.unwrap().len(), 40, "a complete stream survives its connection");
}

#[tokio::test]
async fn dropping_the_exchange_ends_its_channels() {
    let (exchanges, sender, mut receiver) = pair(Way::Tcp).await;
    let (task, _) = fill(sender, &receiver, 1_000).await;
    drop(exchanges);
    assert!(within(task).await.unwrap().is_err());
    assert!(matches!(within(receiver.recv()).await, Err(Error::Closed { .. } | Error::ConnectionLost { .. })));
}

#[tokio::test]
async fn an_idle_connection_stays_and_a_new_one_replaces_a_lost_one() {
    let options = Options { silence_max: Duration::from_millis(200), ..Options::default() };
    let (here, there) = (with(options.clone()).await, with(options).await);
    let mut receiver = there.receiver(id(0, 0)).unwrap();
    let mut sender = within(here.sender(there.local_addr(), id(0, 0))).await.unwrap();
    // Time itself is what is tested: three silences long, only heartbeats.
    tokio::time::sleep(Duration::from_millis(600)).await;
    within(sender.send(Message::Data(batch(0, 1, 1)))).await.unwrap();
    within(sender.send(Message::Eos)).await.unwrap();
    assert_eq!(drain(&mut receiver).await.unwrap(), [0]);

    let address = there.local_addr();
    drop((receiver, there));
    eventually(|| here.live_peers() == 0).await;
    within(async {
        // Its threads close the listener a little later.
        while !matches!(here.sender(address, id(0, 1)).await, Err(Error::Connect { .. })) {}
    })
    .await;
    let again = within(async {
        loop {
            // The port may be held for a moment by the closing listener.
            match Exchange::bind(address, SECRET).await {
                Ok(exchange) => break exchange,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let mut receiver = again.receiver(id(0, 1)).unwrap();
    let mut sender = within(here.sender(address, id(0, 1))).await.unwrap();
    within(sender.send(Message::Eos)).await.unwrap();
    assert_eq!(drain(&mut receiver).await.unwrap(), [0i64; 0]);
}

#[tokio::test]
async fn workers_may_dial_each_other_at_once() {
    let (a, b) = (exchange().await, exchange().await);
    let (mut ra, mut rb) = (a.receiver(id(1, 0)).unwrap(), b.receiver(id(0, 1)).unwrap());
    let (sa, sb) = tokio::join!(a.sender(b.local_addr(), id(0, 1)), b.sender(a.local_addr(), id(1, 0)));
    for mut sender in [sa.unwrap(), sb.unwrap()] {
        within(sender.send(Message::Data(batch(7, 1, 1)))).await.unwrap();
        within(sender.send(Message::Eos)).await.unwrap();
    }
    assert_eq!((drain(&mut ra).await.unwrap(), drain(&mut rb).await.unwrap()), (vec![7], vec![7]));
}
