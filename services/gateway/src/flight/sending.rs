//! Rows on their way to a client that takes them as it likes.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use arrow_flight::{FlightData, encode::FlightDataEncoderBuilder};
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// Messages of some MiB that wait to be taken.
const WAITING_MAX: usize = 2;
/// How long one may wait: the rows behind it are in memory meanwhile.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;
/// Where messages wait; nothing once they came too late.
type Waiting = Mutex<Option<mpsc::Receiver<Result<FlightData, Status>>>>;

/// The rows as messages, the columns first. What is held is given back when the connection took the last of them, and with all that
/// was not taken when it is late or gone.
///
/// Bounds: [`WAITING_MAX`] messages wait; when none was taken for [`TAKEN_WITHIN`], they and the rest are dropped and the last word is
/// an error.
pub(super) fn rows(schema: SchemaRef, batches: Vec<RecordBatch>, held: impl Send + 'static) -> Messages {
    let batches = stream::iter(batches.into_iter().map(Ok));
    let mut messages = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let waiting = Arc::new(Waiting::new(Some(receiver)));
    let given = Arc::clone(&waiting);
    let sent = async move {
        let _held = held;
        while let Some(message) = messages.next().await {
            match timeout(TAKEN_WITHIN, sender.send(message.map_err(Status::from))).await {
                Ok(Ok(())) => {}
                Ok(Err(_gone)) => return Ok(()),
                Err(_late) => return Err(late(&waiting)),
            }
        }
        // One after the other: each may wait so long.
        for free in 1..=WAITING_MAX {
            match timeout(TAKEN_WITHIN, sender.reserve_many(free)).await {
                Ok(Ok(_taken)) => {}
                Ok(Err(_gone)) => return Ok(()),
                Err(_late) => return Err(late(&waiting)),
            }
        }
        Ok(())
    };
    let sent = AbortOnDropHandle::new(tokio::spawn(sent));
    Box::pin(stream::unfold(Some((given, sent)), |state| async move {
        let (given, sent): (Arc<Waiting>, AbortOnDropHandle<_>) = state?;
        let next = poll_fn(|context| match given.lock().as_mut() {
            Some(receiver) => receiver.poll_recv(context),
            None => Poll::Ready(None),
        });
        if let Some(message) = next.await {
            return Some((message, Some((given, sent))));
        }
        match sent.await {
            Ok(Ok(())) => None,
            Ok(Err(late)) => Some((Err(late), None)),
            Err(error) => Some((Err(Status::internal(format!("the result ended early: {error}"))), None)),
        }
    }))
}

/// Drops what was not taken.
fn late(waiting: &Waiting) -> Status {
    drop(waiting.lock().take());
    Status::deadline_exceeded(format!("no rows were taken for {} s", TAKEN_WITHIN.as_secs()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use tonic::Code;

    use super::*;

    fn batches(count: i64) -> (SchemaRef, Vec<RecordBatch>) {
        let batch = |n| RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![n])) as ArrayRef)]).unwrap();
        let all: Vec<_> = (0..count).map(batch).collect();
        (all[0].schema(), all)
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_rows_is_told_that_some_are_missing() {
        let (schema, all) = batches(10);
        let held = Arc::new(());
        let mut slow = rows(schema.clone(), all.clone(), held.clone());
        assert!(slow.next().await.unwrap().is_ok());
        tokio::time::sleep(2 * TAKEN_WITHIN).await;
        assert_eq!(Arc::strong_count(&held), 1, "what was held is given back");
        let rest: Vec<_> = slow.collect().await;
        assert_eq!(rest.len(), 1, "what waited is in memory no more");
        assert_eq!(rest[0].as_ref().unwrap_err().code(), Code::DeadlineExceeded);
        let whole: Vec<_> = rows(schema.clone(), all.clone(), ()).collect().await;
        assert!(whole.len() == 11 && whole.iter().all(Result::is_ok), "the columns, and ten batches");
        let left = rows(schema, all, held.clone());
        drop(left);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&held), 1, "nobody wants the rest");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_held_until_it_is_taken() {
        // The columns and one batch, for which there is room at once.
        let (schema, all) = batches(1);
        let held = Arc::new(());
        let mut taken = rows(schema.clone(), all.clone(), held.clone());
        for left in [1, 0] {
            tokio::time::sleep(TAKEN_WITHIN * 9 / 10).await;
            assert_eq!(Arc::strong_count(&held), 2, "it is in memory");
            assert!(taken.next().await.unwrap().is_ok(), "{left}");
        }
        assert!(taken.next().await.is_none());
        assert_eq!(Arc::strong_count(&held), 1, "the last was taken");
        let late = rows(schema, all, held.clone());
        tokio::time::sleep(2 * TAKEN_WITHIN).await;
        assert_eq!(Arc::strong_count(&held), 1, "nobody takes it");
        let told: Vec<_> = late.collect().await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].as_ref().unwrap_err().code(), Code::DeadlineExceeded);
    }
}
