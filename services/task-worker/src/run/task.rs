//! The loop of one task.

use std::{future::pending, sync::Arc};

use arrow::array::RecordBatch;
use bus::SystemClock;
use exchange::{Gate, Message};
use flow::{Aligner, Alignment, Chain, Combined, DeadLetter, Out, Port, row::without_hidden};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;
use types::{Clock, Timestamp};
use wire::task_worker::BarrierKind;

use super::{Cut, Fed, RowSink, RowSource, Rows};
use crate::{
    checkpoint::{Checkpointer, Snapshot},
    edges::Edges,
    error::TaskError,
    metrics::{Meter, rows},
    task::{Context, Order},
};

/// Where a task's rows come from.
#[derive(Debug)]
pub(super) enum Feed {
    Source(Box<dyn RowSource>),
    /// The channels, and of each the number of its edge among those into the vertex.
    Gate(Gate, Vec<usize>),
}

/// One task.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) feed: Feed,
    pub(super) chain: Chain,
    pub(super) out: Out,
    pub(super) edges: Edges,
    pub(super) sink: Option<Box<dyn RowSink>>,
    /// Whether rows reach the sink in the order of their split.
    pub(super) by_split: bool,
    pub(super) combined: Combined,
    pub(super) aligner: Aligner,
    pub(super) checkpoints: Checkpointer,
    pub(super) commits: watch::Receiver<u64>,
    pub(super) meter: Meter,
    pub(super) progress: Progress,
}

/// How far a task has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The watermark that the chain knows.
    watermark: Option<Timestamp>,
    /// Whether the receivers know that nothing comes for a while.
    told_idle: bool,
    /// Whether something happened since the last snapshot.
    changed: bool,
    /// When the operators want the time of day.
    timer: Option<Instant>,
    /// When the first barrier of the alignment came.
    aligning: Option<Instant>,
}

#[derive(Debug)]
enum Event {
    Fed(Fed),
    Message(usize, Message),
    /// All inputs have ended.
    Ended,
    Order(Order),
    Committed(u64),
    Timer,
}

impl Run {
    /// Runs until every input has ended, or a barrier says that nothing follows it.
    pub(crate) async fn run(
        mut self,
        context: Arc<Context>,
        mut orders: Option<mpsc::Receiver<Order>>,
    ) -> Result<(), TaskError> {
        let restored = self.checkpoints.last();
        if let (Some(sink), true) = (&mut self.sink, restored > 0) {
            sink.committed(restored).await?;
        }
        self.timer().await?;
        loop {
            match self.event(&mut orders).await? {
                Event::Fed(Fed::Rows(rows)) => self.fed(rows).await?,
                Event::Fed(Fed::Watermark(watermark)) => self.advance(watermark).await?,
                Event::Fed(Fed::Idle) => self.idle().await?,
                Event::Fed(Fed::End) => {
                    self.advance(Timestamp::MAX).await?;
                    break;
                }
                Event::Message(input, message) => self.message(input, message).await?,
                Event::Ended => break,
                Event::Order(order) => {
                    if self.order(order).await? {
                        break;
                    }
                }
                Event::Committed(checkpoint) => {
                    if let Some(sink) = &mut self.sink {
                        sink.committed(checkpoint).await?;
                    }
                }
                Event::Timer => self.timer().await?,
            }
            self.tell_figures();
        }
        debug!(task = %context.label, "task comes to its end");
        self.end().await
    }

    async fn event(&mut self, orders: &mut Option<mpsc::Receiver<Order>>) -> Result<Event, TaskError> {
        let Self { feed, commits, progress, .. } = self;
        let order = async {
            match orders {
                Some(orders) => orders.recv().await,
                None => None,
            }
        };
        let timer = progress.timer;
        let next = async {
            match feed {
                Feed::Source(source) => Ok::<_, TaskError>(Event::Fed(source.next().await?)),
                Feed::Gate(gate, _) => Ok(match gate.recv().await? {
                    Some((input, message)) => Event::Message(input, message),
                    None => Event::Ended,
                }),
            }
        };
        // A barrier first: rows may be there without end, and a checkpoint has to end.
        let event = tokio::select! {
            biased;
            Some(order) = order => Event::Order(order),
            Ok(()) = commits.changed() => Event::Committed(*commits.borrow_and_update()),
            () = until(timer) => Event::Timer,
            event = next => event?,
        };
        // What waits for the barriers of other inputs is not without work.
        match self.aligner.pending() {
            Some(_) => self.meter.gave(),
            None => self.meter.waited(),
        }
        Ok(event)
    }

    async fn fed(&mut self, fed: Rows) -> Result<(), TaskError> {
        self.progress.changed = true;
        self.speaks().await?;
        let Rows { batch, split, dead, read, bytes } = fed;
        self.meter.took(read, bytes);
        if batch.num_rows() > 0 {
            self.chain.process(0, batch, &mut self.out)?;
        }
        self.meter.ran();
        if !dead.is_empty() {
            self.edges.rows_of(Port::DeadLetter, &DeadLetter::rows(&dead)?).await?;
        }
        self.flush(Some(split).filter(|_| self.by_split)).await?;
        self.meter.gave();
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn message(&mut self, channel: usize, message: Message) -> Result<(), TaskError> {
        match message {
            Message::Data(batch) => {
                self.combined.active(channel);
                self.rows(channel, batch).await
            }
            Message::Watermark(watermark) => match self.combined.watermark(channel, watermark) {
                Some(risen) => self.advance(risen).await,
                None => Ok(()),
            },
            Message::Idle => {
                if let Some(risen) = self.combined.idle(channel) {
                    self.advance(risen).await?;
                }
                if self.combined.is_idle() { self.idle().await } else { Ok(()) }
            }
            Message::Barrier(checkpoint) => {
                self.progress.aligning.get_or_insert_with(Instant::now);
                let alignment = self.aligner.barrier(channel, checkpoint);
                self.aligned(channel, alignment).await
            }
            // An input that ended at a stop told no last watermark and holds its own for ever: nothing may close behind the
            // barrier. One that came to its end told the last one before.
            Message::Eos => {
                let alignment = self.aligner.end(channel);
                self.aligned(channel, alignment).await
            }
        }
    }

    async fn rows(&mut self, channel: usize, batch: RecordBatch) -> Result<(), TaskError> {
        self.progress.changed = true;
        self.speaks().await?;
        self.meter.took(rows(batch.num_rows()), bytes_of(&batch));
        let input = match &self.feed {
            Feed::Gate(_, inputs) => inputs.get(channel).copied().unwrap_or_default(),
            Feed::Source(_) => 0,
        };
        self.chain.process(input, batch, &mut self.out)?;
        self.meter.ran();
        self.flush(None).await?;
        self.meter.gave();
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn advance(&mut self, watermark: Timestamp) -> Result<(), TaskError> {
        if self.progress.watermark.is_some_and(|known| known >= watermark) {
            return Ok(());
        }
        self.progress.changed = true;
        self.progress.watermark = Some(watermark);
        self.meter.watermark(watermark);
        let risen = self.chain.watermark(watermark, &mut self.out)?;
        if watermark == Timestamp::MAX {
            self.chain.end(&mut self.out)?;
        }
        self.meter.ran();
        self.flush(None).await?;
        if let Some(risen) = risen {
            self.progress.told_idle = false;
            self.edges.tell(&Message::Watermark(risen)).await?;
        }
        self.meter.gave();
        Ok(())
    }

    async fn idle(&mut self) -> Result<(), TaskError> {
        if !std::mem::replace(&mut self.progress.told_idle, true) {
            self.edges.tell(&Message::Idle).await?;
        }
        Ok(())
    }

    /// Rows come again: the receivers wait for this task's watermark from now on.
    async fn speaks(&mut self) -> Result<(), TaskError> {
        if std::mem::take(&mut self.progress.told_idle) {
            let known = self.chain.told();
            self.edges.tell(&Message::Watermark(known)).await?;
        }
        Ok(())
    }

    async fn timer(&mut self) -> Result<(), TaskError> {
        let now = SystemClock.now();
        let next = self.chain.timer(now, &mut self.out)?;
        self.progress.timer = next.map(|next| Instant::now() + next.since(now));
        self.flush(None).await
    }

    /// Gives on what the chain gave.
    async fn flush(&mut self, split: Option<u64>) -> Result<(), TaskError> {
        for (port, batch) in self.out.take() {
            self.meter.gave_rows(rows(batch.num_rows()), bytes_of(&batch));
            self.edges.rows_of(port, &batch).await?;
            if let (Some(sink), Port::Main) = (&mut self.sink, port) {
                let shown = if sink.takes_hidden() { batch } else { without_hidden(&batch)? };
                sink.rows(split, &shown).await?;
            }
        }
        Ok(())
    }

    async fn aligned(&mut self, channel: usize, alignment: Alignment) -> Result<(), TaskError> {
        let Feed::Gate(gate, _) = &mut self.feed else { return Ok(()) };
        match alignment {
            Alignment::Unchanged => Ok(()),
            Alignment::Block => {
                gate.block(channel);
                Ok(())
            }
            Alignment::Restart { abandoned } => {
                debug!(abandoned, "barriers of a newer checkpoint came first");
                gate.unblock_all();
                gate.block(channel);
                self.progress.aligning = Some(Instant::now());
                Ok(())
            }
            Alignment::Complete(checkpoint) => {
                gate.unblock_all();
                self.snapshot(checkpoint).await
            }
        }
    }

    /// Takes an order of the job manager to a source; true if nothing follows it.
    async fn order(&mut self, order: Order) -> Result<bool, TaskError> {
        if !self.checkpoints.is_new(order.checkpoint) {
            return Ok(false);
        }
        if order.kind == BarrierKind::Drain {
            self.advance(Timestamp::MAX).await?;
        }
        self.progress.aligning = Some(order.came);
        self.snapshot(order.checkpoint).await?;
        Ok(matches!(order.kind, BarrierKind::Stop | BarrierKind::Drain))
    }

    async fn snapshot(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        let began = Instant::now();
        self.chain.barrier(&mut self.out)?;
        self.flush(None).await?;
        self.edges.tell(&Message::Barrier(checkpoint)).await?;
        self.meter.gave();
        let mut snapshot = self.freeze(checkpoint).await?;
        let align = self.progress.aligning.take().map(|first| began.duration_since(first));
        snapshot.align = align.unwrap_or_default();
        snapshot.sync = began.elapsed();
        self.progress.changed = false;
        self.checkpoints.store(checkpoint, snapshot);
        self.meter.ran();
        Ok(())
    }

    async fn freeze(&mut self, checkpoint: u64) -> Result<Snapshot, TaskError> {
        let mut part = self.checkpoints.part(checkpoint);
        let cut = match &self.feed {
            Feed::Source(source) => source.note(&mut part),
            Feed::Gate(..) => Cut::default(),
        };
        if let Some(sink) = &mut self.sink {
            sink.barrier(checkpoint, &mut part).await?;
        }
        let (state, watermark) = (self.chain.snapshot()?, self.progress.watermark.unwrap_or(Timestamp::MIN));
        Ok(Snapshot { state, watermark, cut, ..Snapshot::of(part) })
    }

    /// Nothing follows: what happened since the last barrier becomes a last part, which stands for the task from now on.
    async fn end(mut self) -> Result<(), TaskError> {
        if self.progress.changed {
            self.chain.barrier(&mut self.out)?;
            self.flush(None).await?;
            let snapshot = self.freeze(u64::MAX).await?;
            self.checkpoints.store_last(snapshot);
            self.edges.tell(&Message::Eos).await?;
            let taken = self.checkpoints.reported().await;
            match &mut self.sink {
                // Nobody counts on this part: the attempt is being ended, and what it holds back comes again.
                Some(sink) if !taken && sink.holds_back() => pending().await,
                Some(sink) => sink.committed(u64::MAX).await?,
                None => {}
            }
            return Ok(());
        }
        self.edges.tell(&Message::Eos).await?;
        self.checkpoints.reported().await;
        let last = self.checkpoints.last();
        while let Some(sink) = self.sink.as_mut().filter(|sink| sink.holds_back()) {
            let committed = self.commits.wait_for(|committed| *committed >= last).await.map(|committed| *committed);
            match committed {
                Ok(committed) => sink.committed(committed).await?,
                // The attempt is being ended.
                Err(_) => pending().await,
            }
        }
        Ok(())
    }

    fn tell_figures(&mut self) {
        let source = match &self.feed {
            Feed::Source(source) => Some(source.counts()),
            Feed::Gate(..) => None,
        };
        self.meter.counted(self.out.counts(), source);
        let (bytes, spilled) = self.chain.operators().fold((0, 0), |(bytes, spilled), (_, operator)| {
            (bytes + operator.bytes(), spilled + operator.spilled_bytes())
        });
        self.meter.state(rows(bytes), rows(spilled));
    }
}

async fn until(timer: Option<Instant>) {
    match timer {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Bytes of the rows as they lie in memory, of a slice only its own.
fn bytes_of(batch: &RecordBatch) -> u64 {
    let of = |array: &arrow::array::ArrayRef| array.to_data().get_slice_memory_size().unwrap_or_default();
    rows(batch.columns().iter().map(of).sum())
}
