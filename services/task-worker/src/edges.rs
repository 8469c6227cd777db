//! The way of a task's rows to other tasks.

use arrow::array::RecordBatch;
use exchange::{Message, Sender};
use flow::Port;

use crate::error::TaskError;

/// The edges out of a task, each with one sender per receiving subtask.
#[derive(Debug)]
pub(crate) struct Edges(pub(crate) Vec<Edge>);

/// One edge.
#[derive(Debug)]
pub(crate) struct Edge {
    /// The key columns of a hash edge; a forward edge has none and one sender.
    pub(crate) keys: Vec<String>,
    /// Which of the task's rows it takes.
    pub(crate) port: Port,
    pub(crate) senders: Vec<Sender>,
}

impl Edges {
    /// Sends each result to the subtask of its key; waits for credit.
    pub(crate) async fn rows(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        self.rows_of(Port::Main, batch).await
    }

    /// The same of any port; rows of a port without an edge go nowhere.
    pub(crate) async fn rows_of(&mut self, port: Port, batch: &RecordBatch) -> Result<(), TaskError> {
        for edge in self.0.iter_mut().filter(|edge| edge.port == port) {
            let parts = flow::scatter(batch, &edge.keys, edge.senders.len())?;
            for (sender, part) in edge.senders.iter_mut().zip(parts) {
                if let Some(part) = part {
                    sender.send(Message::Data(part)).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells every receiving subtask, in order with the rows.
    pub(crate) async fn tell(&mut self, message: &Message) -> Result<(), TaskError> {
        for sender in self.0.iter_mut().flat_map(|edge| &mut edge.senders) {
            sender.send(message.clone()).await?;
        }
        Ok(())
    }
}
