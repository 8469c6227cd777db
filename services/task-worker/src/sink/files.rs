//! Files that are there as a whole or not at all, each row in one of them once.
//!
//! Two phases. Rows go into a file whose name begins with a dot, which sources leave out. At a barrier the file is closed and synced, its
//! directory too, and the part of the checkpoint names it. Once that checkpoint is committed it gets its name, in one step. A new attempt
//! begins with naming what the checkpoint names, and with removing what it does not: that is written again.
//!
//! What is removed is told by numbers ([`pending`](super::pending)): each subtask numbers its files, and a checkpoint knows the next number.
//! So it holds also for files that a task named at its end, behind the last checkpoint, when the job had to begin again after that: they go,
//! and come again.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use flow::{FileFormat, TaskId};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_blocking, time::Instant};
use tracing::info;

use super::{
    pending::{self, Family, Kept},
    writer::{Encoding, Writer},
};
use crate::{
    error::TaskError,
    part::Part,
    run::{Begin, RowSink},
    source::folder::Folder,
    task::Context,
};

/// A file rolls at that size unless the plan says otherwise.
const ROLL_BYTES: u64 = 128 << 20;
/// Files that wait for a commit; beyond it rows go into the last one.
const HELD_MAX: usize = 256;
/// The same where rows of other columns need a file of their own; beyond it the job fails.
const HELD_FAILS: usize = 4_096;

/// What a checkpoint knows of a writer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// The number of the next file.
    next: u64,
    /// Files that are closed and have no name yet, with the checkpoint that closed them.
    held: VecDeque<(u64, String)>,
}

/// The sink of one subtask.
#[derive(Debug)]
pub(super) struct FilesSink {
    dir: PathBuf,
    encoding: Encoding,
    /// Of the names of its files.
    prefix: String,
    written: Written,
    open: Option<Open>,
    roll_bytes: u64,
    roll_after: Option<Duration>,
    /// Files that were closed since the last barrier.
    closed: Vec<String>,
}

#[derive(Debug)]
struct Open {
    name: String,
    schema: SchemaRef,
    writer: Writer,
    since: Instant,
}

pub(super) fn wrong(what: &Path, problem: &io::Error) -> TaskError {
    TaskError::Source { what: what.display().to_string(), problem: problem.to_string() }
}

impl FilesSink {
    /// The sink, behind the parts of the subtasks that it stands for.
    pub(super) async fn open(
        context: &Context,
        url: &str,
        format: &FileFormat,
        (roll_bytes, roll_after): (Option<u64>, Option<Duration>),
        begin: Begin<'_>,
    ) -> Result<Self, TaskError> {
        let encoding = Encoding::new(format)?;
        let submitted = &context.submitted;
        let family = Family::new(&submitted.job, submitted.submission, context.id.vertex);
        let (subtask, parallelism) = (context.id.subtask, context.parallelism.max(1));
        let (written, kept) = known(begin.parts, (context.id, parallelism), submitted.generation)?;
        let prefix = family.prefix(submitted.generation, context.attempt, subtask);
        let (root, url) = (context.shared.files_dir.clone(), url.to_owned());
        let dir = spawn_blocking(move || -> Result<PathBuf, TaskError> {
            let dir = Folder::open(&root)?.make(&url)?;
            pending::sweep(&dir, &family, |of| of % parallelism == subtask, &kept)?;
            Ok(dir)
        });
        let dir = dir.await??;
        Ok(Self::at(dir, encoding, prefix, written, (roll_bytes, roll_after)))
    }

    fn at(
        dir: PathBuf,
        encoding: Encoding,
        prefix: String,
        written: Written,
        rolls: (Option<u64>, Option<Duration>),
    ) -> Self {
        let (roll_bytes, roll_after) = (rolls.0.unwrap_or(ROLL_BYTES).max(1), rolls.1);
        Self { dir, encoding, prefix, written, open: None, roll_bytes, roll_after, closed: Vec::new() }
    }

    async fn take(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|open| self.encoding.has_schema() && open.schema != batch.schema()) {
            if self.waiting() >= HELD_FAILS {
                let problem = format!("rows change their columns: {HELD_FAILS} files wait for a checkpoint already");
                return Err(TaskError::Source { what: self.dir.display().to_string(), problem });
            }
            self.close().await?;
        }
        let Open { name, schema, writer, since } = match self.open.take() {
            Some(open) => open,
            None => self.begin(batch.schema()).await?,
        };
        let path = pending::path(&self.dir, &name);
        let writer = writer.take(batch.clone()).await?.map_err(|problem| said(&path, problem))?;
        let old = self.roll_after.is_some_and(|after| since.elapsed() >= after);
        let full = writer.bytes() >= self.roll_bytes || old;
        self.open = Some(Open { name, schema, writer, since });
        if full && self.waiting() < HELD_MAX {
            return self.close().await;
        }
        Ok(())
    }

    /// Files that wait for a checkpoint or its commit.
    fn waiting(&self) -> usize {
        self.closed.len() + self.written.held.len()
    }

    async fn begin(&mut self, schema: SchemaRef) -> Result<Open, TaskError> {
        let name = format!("{}-{:08}.{}", self.prefix, self.written.next, self.encoding.ending());
        self.written.next += 1;
        let (path, encoding, columns) =
            (pending::path(&self.dir, &name), self.encoding.clone(), SchemaRef::clone(&schema));
        let writer = spawn_blocking({
            let path = path.clone();
            move || {
                let file = File::create(path).map_err(|error| error.to_string())?;
                Writer::new(file, &encoding, columns)
            }
        });
        let writer = writer.await?.map_err(|problem| said(&path, problem))?;
        Ok(Open { name, schema, writer, since: Instant::now() })
    }

    /// Ends the open file; it is durable then, and so is its name with the dot.
    async fn close(&mut self) -> Result<(), TaskError> {
        let Some(Open { name, writer, .. }) = self.open.take() else { return Ok(()) };
        let (path, dir) = (pending::path(&self.dir, &name), self.dir.clone());
        let closed = spawn_blocking(move || -> Result<(), String> {
            writer.finish()?.sync_all().map_err(|error| error.to_string())?;
            pending::sync(&dir).map_err(|error| error.to_string())
        });
        closed.await?.map_err(|problem| said(&path, problem))?;
        self.closed.push(name);
        Ok(())
    }

    /// Closes the open file; it and those before wait for that checkpoint from now on.
    async fn hold(&mut self, checkpoint: u64) -> Result<Bytes, TaskError> {
        self.close().await?;
        self.written.held.extend(self.closed.drain(..).map(|name| (checkpoint, name)));
        Ok(Bytes::from(wire::encode(&self.written)))
    }

    async fn publish(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        let (due, held): (VecDeque<_>, VecDeque<_>) =
            self.written.held.iter().cloned().partition(|(closed, _)| *closed <= checkpoint);
        if due.is_empty() {
            return Ok(());
        }
        let dir = self.dir.clone();
        let count = due.len();
        spawn_blocking(move || pending::name(&dir, due.iter().map(|(_, name)| name.as_str()))).await??;
        info!(dir = %self.dir.display(), count, checkpoint, "files published");
        self.written.held = held;
        Ok(())
    }
}

/// What a checkpoint knows of the files of a subtask and of those that it stands for.
fn known(parts: &[Part], (id, parallelism): (TaskId, u32), generation: u32) -> Result<(Written, Kept), TaskError> {
    let (mut written, mut kept) = (Written::default(), Kept::new(generation));
    for part in parts.iter().filter(|part| part.task.subtask % parallelism == id.subtask) {
        let Some(record) = &part.sink else { continue };
        let known: Written = wire::decode(record)
            .map_err(|problem| TaskError::Part { key: "files sink".to_owned(), problem: problem.to_string() })?;
        kept.numbers_from(part.generation, part.task.subtask, known.next);
        kept.held.extend(known.held.iter().map(|(_, name)| name.clone()));
        written.held.extend(known.held);
        if part.task == id && part.generation == generation {
            written.next = known.next;
        }
    }
    Ok((written, kept))
}

fn said(path: &Path, problem: String) -> TaskError {
    TaskError::Source { what: path.display().to_string(), problem }
}

impl RowSink for FilesSink {
    fn rows(&mut self, _: Option<u64>, batch: &RecordBatch) -> BoxFuture<'_, Result<(), TaskError>> {
        let batch = batch.clone();
        Box::pin(async move { self.take(&batch).await })
    }

    fn barrier<'a>(&'a mut self, checkpoint: u64, part: &'a mut Part) -> BoxFuture<'a, Result<(), TaskError>> {
        Box::pin(async move {
            part.sink = Some(self.hold(checkpoint).await?);
            Ok(())
        })
    }

    fn committed(&mut self, checkpoint: u64) -> BoxFuture<'_, Result<(), TaskError>> {
        Box::pin(self.publish(checkpoint))
    }

    fn holds_back(&self) -> bool {
        !self.written.held.is_empty()
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
