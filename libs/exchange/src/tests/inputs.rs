//! Many inputs of one subtask.

use flow::{Aligner, Alignment, WINDOW_BYTES_MAX};
use tokio::task::JoinHandle;
use types::Timestamp;

use super::*;
use crate::{Gate, Sender};

/// A gate over `n` channels from another process, and their senders.
async fn gate(n: u32) -> (Vec<Exchange>, Vec<Sender>, Gate) {
    let (here, there) = (exchange().await, exchange().await);
    let receivers = (0..n).map(|from| there.receiver(id(from, 0)).unwrap()).collect();
    let mut senders = Vec::new();
    for from in 0..n {
        senders.push(within(here.sender(there.local_addr(), id(from, 0))).await.unwrap());
    }
    (vec![here, there], senders, Gate::new(receivers))
}

/// Sends `batches` batches of ten rows with a barrier behind every fifth.
fn stream(mut sender: Sender, batches: i64) -> JoinHandle<()> {
    tokio::spawn(async move {
        for i in 0..batches {
            sender.send(Message::Data(batch(i * 10, 10, 500))).await.unwrap();
            if i % 5 == 4 {
                sender.send(Message::Barrier(u64::try_from(i / 5).unwrap() + 1)).await.unwrap();
            }
        }
        sender.send(Message::Eos).await.unwrap();
    })
}

#[tokio::test]
async fn aligned_barriers_cut_all_inputs_at_the_same_place() {
    let (_exchanges, senders, mut gate) = gate(3).await;
    let tasks: Vec<JoinHandle<()>> = senders.into_iter().map(|sender| stream(sender, 100)).collect();
    let mut aligner = Aligner::new(3, 0);
    let mut rows = [0usize; 3];
    let mut completed = 0;
    while let Some((input, message)) = within(gate.recv()).await.unwrap() {
        assert!(!gate.is_blocked(input));
        let step = match message {
            Message::Data(batch) => {
                rows[input] += batch.num_rows();
                Alignment::Unchanged
            }
            Message::Barrier(epoch) => aligner.barrier(input, epoch),
            Message::Eos => aligner.end(input),
            other => panic!("{other:?}"),
        };
        match step {
            Alignment::Block => gate.block(input),
            Alignment::Complete(epoch) => {
                completed += 1;
                assert_eq!(epoch, completed);
                assert!(rows.iter().all(|n| *n == usize::try_from(epoch).unwrap() * 50), "{rows:?} at {epoch}");
                gate.unblock_all();
            }
            Alignment::Unchanged => {}
            Alignment::Restart { .. } => panic!("no epoch is skipped here"),
        }
    }
    assert_eq!((completed, rows), (20, [1_000; 3]));
    for task in tasks {
        within(task).await.unwrap();
    }
}

#[tokio::test]
async fn a_blocked_input_runs_out_of_credit_while_the_other_goes_on() {
    let (_exchanges, mut senders, mut gate) = gate(2).await;
    let fast = stream(senders.remove(1), 2_000);
    let stuck = stream(senders.remove(0), 2_000);
    gate.block(0);
    let mut rows = 0;
    while rows < 20_000 {
        match within(gate.recv()).await.unwrap() {
            Some((1, Message::Data(batch))) => rows += batch.num_rows(),
            Some((1, _)) => {}
            other => panic!("{other:?}"),
        }
        assert!(gate.receiver(0).unwrap().waiting_bytes() <= WINDOW_BYTES_MAX);
    }
    within(fast).await.unwrap();
    assert!(!stuck.is_finished(), "11 MB cannot have left through a window of 64 KiB");
    assert!(gate.receiver(0).unwrap().waiting_bytes() <= flow::WINDOW_BYTES_MIN);
    gate.unblock_all();
    let mut rows = 0;
    while let Some((_, message)) = within(gate.recv()).await.unwrap() {
        if let Message::Data(batch) = message {
            rows += batch.num_rows();
        }
    }
    assert_eq!(rows, 20_000);
    within(stuck).await.unwrap();
}

#[tokio::test]
async fn a_gate_never_waits_for_nothing() {
    let (_exchanges, mut senders, mut gate) = gate(2).await;
    gate.block(0);
    within(senders[1].send(Message::Eos)).await.unwrap();
    assert_eq!(within(gate.recv()).await.unwrap(), Some((1, Message::Eos)));
    assert!(matches!(within(gate.recv()).await, Err(Error::AllBlocked)));
    gate.unblock_all();
    within(senders[0].send(Message::Watermark(Timestamp::MAX))).await.unwrap();
    assert_eq!(within(gate.recv()).await.unwrap(), Some((0, Message::Watermark(Timestamp::MAX))));
    within(senders[0].send(Message::Eos)).await.unwrap();
    assert_eq!(within(gate.recv()).await.unwrap(), Some((0, Message::Eos)));
    assert_eq!(within(gate.recv()).await.unwrap(), None);
    assert_eq!(within(Gate::new(vec![]).recv()).await.unwrap(), None);
}

#[tokio::test]
async fn a_failure_of_a_blocked_input_is_told_at_once() {
    let (_exchanges, mut senders, mut gate) = gate(2).await;
    gate.block(0);
    let (found, ()) = tokio::join!(within(gate.recv()), async { drop(senders.remove(0)) });
    assert!(matches!(found, Err(Error::Peer { .. })));
}

#[tokio::test]
async fn inputs_are_read_in_turn() {
    let (_exchanges, mut senders, mut gate) = gate(3).await;
    for sender in &mut senders {
        for epoch in 0..20 {
            within(sender.send(Message::Barrier(epoch))).await.unwrap();
        }
        within(sender.send(Message::Data(batch(0, 1, 1)))).await.unwrap();
    }
    eventually(|| (0..3).all(|i| gate.receiver(i).unwrap().waiting_bytes() > 0)).await;
    let mut order = Vec::new();
    for _ in 0..60 {
        order.push(within(gate.recv()).await.unwrap().unwrap().0);
    }
    assert!(order.chunks(3).all(|turn| turn == &order[..3]), "{order:?}");
}
