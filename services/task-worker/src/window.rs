//! A window task: lines up its inputs, keeps the windows, and gives what fires to its sink.

use std::sync::Arc;

use arrow::array::RecordBatch;
use exchange::{Gate, Message};
use flow::{Aligner, Alignment, Combined, EARLY_COLUMN, TIME_COLUMN, TumblingState, WINDOW_START_COLUMN, WindowSpec};
use tracing::{debug, info};
use types::Timestamp;

use crate::{
    chain::Stages,
    checkpoint::{Checkpointer, Snapshot},
    error::TaskError,
    metrics::{Meter, rows},
    part::Part,
    sink::{
        Sink,
        index::{events_at, routing_keys},
    },
    task::Context,
};

/// One window task.
pub(crate) struct Window {
    stages: Arc<Stages>,
    gate: Gate,
    state: TumblingState,
    combined: Combined,
    aligner: Aligner,
    sink: Sink,
    checkpoints: Checkpointer,
    meter: Meter,
}

impl Window {
    /// A window task behind a gate, fresh or as `restored` says.
    pub(crate) fn open(
        context: &Arc<Context>,
        spec: WindowSpec,
        stages: Arc<Stages>,
        gate: Gate,
        restored: Option<&Part>,
        sink: Sink,
    ) -> Result<Self, TaskError> {
        let state = match restored.and_then(|part| part.window.as_ref()) {
            Some(snapshot) => TumblingState::restore(spec, snapshot)?,
            None => TumblingState::new(spec)?,
        };
        // Inputs begin anew: a source tells its watermark first, and splits may have moved from one source to another since.
        let combined = Combined::new(gate.len());
        let checkpoint = restored.map_or(0, |part| part.checkpoint);
        info!(task = %context.label, inputs = gate.len(), groups = state.groups(), checkpoint, "window begins");
        Ok(Self {
            stages,
            aligner: Aligner::new(gate.len(), checkpoint),
            gate,
            state,
            combined,
            sink,
            checkpoints: Checkpointer::new(Arc::clone(context), checkpoint),
            meter: Meter::of(context),
        })
    }

    /// Runs until every input has ended.
    pub(crate) async fn run(mut self) -> Result<(), TaskError> {
        loop {
            let message = tokio::select! {
                message = self.gate.recv() => message?,
                () = due(&self.sink) => {
                    if let Sink::Alerts(sink) = &mut self.sink {
                        sink.tell_watermark().await?;
                    }
                    continue;
                }
            };
            // What waits for the barriers of other inputs is not without work.
            match self.aligner.pending() {
                Some(_) => self.meter.gave(),
                None => self.meter.waited(),
            }
            match message {
                Some((input, message)) => self.take(input, message).await?,
                None => return self.end().await,
            }
        }
    }

    async fn take(&mut self, input: usize, message: Message) -> Result<(), TaskError> {
        match message {
            Message::Data(batch) => {
                self.combined.active(input);
                self.rows(&batch).await?;
                tokio::task::yield_now().await;
                Ok(())
            }
            Message::Watermark(watermark) => {
                let risen = self.combined.watermark(input, watermark);
                self.advance(risen).await
            }
            Message::Idle => {
                let risen = self.combined.idle(input);
                self.advance(risen).await
            }
            Message::Barrier(checkpoint) => {
                let alignment = self.aligner.barrier(input, checkpoint);
                self.aligned(input, alignment)
            }
            // A source of an index ends at a stop alone, and nothing may close behind its barrier.
            Message::Eos => {
                let alignment = self.aligner.end(input);
                self.aligned(input, alignment)
            }
        }
    }

    async fn rows(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let late = self.state.late_rows();
        let early = self.state.update(batch)?;
        self.meter.took(rows(batch.num_rows()), 0);
        self.meter.late(self.state.late_rows() - late);
        self.meter.ran();
        // Early rows come in the order of arrival, which no sink that numbers rows may see.
        if let (Some(early), Sink::Alerts(sink)) = (early, &mut self.sink) {
            sink.early(&early).await?;
            self.meter.gave();
        }
        Ok(())
    }

    async fn advance(&mut self, risen: Option<Timestamp>) -> Result<(), TaskError> {
        let Some(watermark) = risen else { return Ok(()) };
        let fired = self.state.advance(watermark)?;
        self.meter.watermark(watermark);
        self.meter.gave_rows(fired.iter().map(|batch| rows(batch.num_rows())).sum(), 0);
        self.meter.ran();
        match &mut self.sink {
            // After a restore the inputs begin behind what has fired already.
            Sink::Alerts(sink) => sink.fired(&fired, self.state.watermark()).await?,
            Sink::Index(sink) => {
                for batch in &fired {
                    let events = results(batch, &self.state.spec().keys, &self.stages)?;
                    sink.append(None, events).await?;
                }
            }
        }
        self.meter.gave();
        Ok(())
    }

    fn aligned(&mut self, input: usize, alignment: Alignment) -> Result<(), TaskError> {
        match alignment {
            Alignment::Unchanged => {}
            Alignment::Block => self.gate.block(input),
            Alignment::Restart { abandoned } => {
                debug!(abandoned, "barriers of a newer checkpoint came first");
                self.gate.unblock_all();
                self.gate.block(input);
            }
            Alignment::Complete(checkpoint) => {
                self.gate.unblock_all();
                self.checkpoint(checkpoint)?;
            }
        }
        Ok(())
    }

    /// Everything that was given to the sink is acknowledged, so the state may say so.
    fn checkpoint(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        let mut part = self.checkpoints.part(checkpoint);
        part.window = Some(self.state.snapshot()?.into());
        if let Sink::Index(sink) = &self.sink {
            sink.note(&mut part);
        }
        self.checkpoints.store(checkpoint, Snapshot::of(part));
        self.meter.ran();
        Ok(())
    }

    async fn end(&mut self) -> Result<(), TaskError> {
        self.checkpoints.reported().await;
        match &mut self.sink {
            Sink::Alerts(sink) => sink.tell_watermark().await,
            Sink::Index(_) => Ok(()),
        }
    }
}

async fn due(sink: &Sink) {
    match sink {
        Sink::Alerts(sink) => sink.due().await,
        Sink::Index(_) => std::future::pending().await,
    }
}

/// One result row as an event, with its routing key.
type RoutedEvent = (Option<types::RoutingKey>, Vec<u8>);

/// The fired rows as events at the start of their window, each with the routing key of its group.
fn results(fired: &RecordBatch, keys: &[String], stages: &Stages) -> Result<Vec<RoutedEvent>, TaskError> {
    let schema = fired.schema();
    let shown: Vec<usize> = (0..fired.num_columns()).filter(|i| schema.field(*i).name() != EARLY_COLUMN).collect();
    let projected = stages.apply(&fired.project(&shown)?)?;
    let time = fired.column_by_name(WINDOW_START_COLUMN).ok_or(TaskError::Column(TIME_COLUMN))?;
    let events = events_at(time, &projected)?;
    Ok(routing_keys(fired, keys)?.into_iter().zip(events).collect())
}
