//! Files that are there as a whole or not at all, each row in one of them once.
//!
//! Two phases. Rows go into a file whose name begins with a dot, which sources leave out. At a barrier the file is closed and synced, and the
//! part of the checkpoint names it. Once that checkpoint is committed it gets its name, in one step. A new attempt
//! begins with naming what the checkpoint names, and with removing what it does not: that is written again.
//!
//! Names are made of job, submission, generation, subtask and a number that counts up, so that no two writers share one.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use flow::FileFormat;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_blocking, time::Instant};
use tracing::info;

use super::plain::lines;
use crate::{
    error::TaskError,
    metrics::rows,
    part::Part,
    run::{Begin, RowSink},
    source::folder::Folder,
    task::Context,
};

/// A file rolls at that size unless the plan says otherwise.
const ROLL_BYTES: u64 = 128 << 20;
/// Files that wait for a commit; beyond it rows go into the last one.
const HELD_MAX: usize = 256;
/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 1 << 20;
/// The end of the names of files that have none yet.
const PENDING: &str = ".pending";

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
    file: File,
    gathered: Vec<u8>,
    bytes: u64,
    since: Instant,
}

fn wrong(what: &Path, problem: &io::Error) -> TaskError {
    TaskError::Source { what: what.display().to_string(), problem: problem.to_string() }
}

fn pending(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}{PENDING}"))
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
        if *format != FileFormat::Ndjson {
            return Err(TaskError::Plan("the files sink writes NDJSON; other formats are not built".to_owned()));
        }
        let submitted = &context.submitted;
        let family = format!("part-{}-{}-v{}", submitted.job, submitted.submission, context.id.vertex);
        let (subtask, parallelism) = (context.id.subtask, context.parallelism.max(1));
        let prefix = format!("{family}-g{}-s{subtask}", submitted.generation);
        let mut written = Written::default();
        for part in begin.parts.iter().filter(|part| part.task.subtask % parallelism == subtask) {
            let Some(record) = &part.sink else { continue };
            let known: Written = wire::decode(record)
                .map_err(|problem| TaskError::Part { key: "files sink".to_owned(), problem: problem.to_string() })?;
            written.held.extend(known.held);
            if part.task == context.id && part.generation == submitted.generation {
                written.next = known.next;
            }
        }
        let (root, url, held) = (context.shared.files_dir.clone(), url.to_owned(), written.held.clone());
        let mine = move |of: u32| of % parallelism == subtask;
        let dir = spawn_blocking(move || -> Result<PathBuf, TaskError> {
            let dir = Folder::open(&root)?.make(&url)?;
            sweep(&dir, &family, mine, &held)?;
            Ok(dir)
        });
        let dir = dir.await??;
        Ok(Self::at(dir, prefix, written, (roll_bytes, roll_after)))
    }

    fn at(dir: PathBuf, prefix: String, written: Written, rolls: (Option<u64>, Option<Duration>)) -> Self {
        let (roll_bytes, roll_after) = (rolls.0.unwrap_or(ROLL_BYTES).max(1), rolls.1);
        Self { dir, prefix, written, open: None, roll_bytes, roll_after, closed: Vec::new() }
    }

    async fn take(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let text = lines(batch)?;
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.bytes += rows(text.len());
        open.gathered.extend_from_slice(&text);
        let old = self.roll_after.is_some_and(|after| open.since.elapsed() >= after);
        let full = open.bytes >= self.roll_bytes || old;
        if full && self.closed.len() + self.written.held.len() < HELD_MAX {
            return self.close().await;
        }
        if open.gathered.len() >= GATHERED_BYTES {
            self.write(false).await?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<Open, TaskError> {
        let name = format!("{}-{:08}.ndjson", self.prefix, self.written.next);
        self.written.next += 1;
        let path = pending(&self.dir, &name);
        // What an attempt before wrote behind the checkpoint is written again.
        let file = File::create(&path).map_err(|e| wrong(&path, &e))?;
        Ok(Open { name, file, gathered: Vec::new(), bytes: 0, since: Instant::now() })
    }

    /// Writes what is gathered; with `sync` it is durable then.
    async fn write(&mut self, sync: bool) -> Result<(), TaskError> {
        let Some(Open { name, mut file, gathered, bytes, since }) = self.open.take() else { return Ok(()) };
        let path = pending(&self.dir, &name);
        let written = spawn_blocking(move || {
            file.write_all(&gathered)?;
            if sync {
                file.sync_all()?;
            }
            Ok(file)
        });
        let file = written.await?.map_err(|e: io::Error| wrong(&path, &e))?;
        self.open = Some(Open { name, file, gathered: Vec::new(), bytes, since });
        Ok(())
    }

    async fn close(&mut self) -> Result<(), TaskError> {
        self.write(true).await?;
        self.closed.extend(self.open.take().map(|open| open.name));
        Ok(())
    }

    async fn publish(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        let (due, held): (VecDeque<_>, VecDeque<_>) =
            self.written.held.iter().cloned().partition(|(closed, _)| *closed <= checkpoint);
        if due.is_empty() {
            return Ok(());
        }
        let dir = self.dir.clone();
        let count = due.len();
        spawn_blocking(move || name(&dir, due.iter().map(|(_, name)| name.as_str()))).await??;
        info!(dir = %self.dir.display(), count, checkpoint, "files published");
        self.written.held = held;
        Ok(())
    }
}

/// Gives files their names; those that have them already are left.
fn name<'a>(dir: &Path, names: impl Iterator<Item = &'a str>) -> Result<(), TaskError> {
    for name in names {
        let (from, to) = (pending(dir, name), dir.join(name));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => {}
            named => named.map_err(|error| wrong(&from, &error))?,
        }
    }
    // The directory has to remember the names too.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| wrong(dir, &error))
}

/// Removes what earlier attempts of the subtask wrote and no checkpoint names.
fn sweep(
    dir: &Path,
    family: &str,
    mine: impl Fn(u32) -> bool,
    held: &VecDeque<(u64, String)>,
) -> Result<(), TaskError> {
    for entry in fs::read_dir(dir).map_err(|e| wrong(dir, &e))? {
        let file = entry.map_err(|e| wrong(dir, &e))?.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_prefix('.').and_then(|name| name.strip_suffix(PENDING)) else { continue };
        let behind = name.strip_prefix(family).and_then(|rest| rest.strip_prefix("-g"));
        let Some((_, rest)) = behind.and_then(|rest| rest.split_once("-s")) else { continue };
        let subtask = rest.split('-').next().and_then(|number| number.parse().ok());
        if subtask.is_some_and(&mine) && !held.iter().any(|(_, held)| held == name) {
            let path = dir.join(&file);
            fs::remove_file(&path).map_err(|e| wrong(&path, &e))?;
        }
    }
    Ok(())
}

impl RowSink for FilesSink {
    fn rows(&mut self, _: Option<u64>, batch: &RecordBatch) -> BoxFuture<'_, Result<(), TaskError>> {
        let batch = batch.clone();
        Box::pin(async move { self.take(&batch).await })
    }

    fn barrier(&mut self, checkpoint: u64, part: &mut Part) -> BoxFuture<'_, Result<(), TaskError>> {
        let open = self.open.as_ref().map(|open| open.name.clone());
        let names = self.closed.drain(..).chain(open);
        self.written.held.extend(names.map(|name| (checkpoint, name)));
        part.sink = Some(Bytes::from(wire::encode(&self.written)));
        Box::pin(async move {
            self.close().await?;
            // It is among those that are held already.
            self.closed.clear();
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
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use arrow::array::{ArrayRef, Int64Array};
    use flow::{TaskId, Uid};

    use super::*;

    const FAMILY: &str = "part-j-1-v0";

    fn sink(dir: &Path, written: Written, roll: u64) -> FilesSink {
        sweep(dir, FAMILY, |subtask| subtask == 0, &written.held).unwrap();
        FilesSink::at(dir.to_path_buf(), format!("{FAMILY}-g0-s0"), written, (Some(roll), None))
    }

    fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(rows.collect::<Int64Array>()) as ArrayRef)]).unwrap()
    }

    async fn barrier(sink: &mut FilesSink, checkpoint: u64) -> Written {
        let mut part = Part::new(TaskId { vertex: 0, subtask: 0 }, Uid::default(), checkpoint);
        sink.barrier(checkpoint, &mut part).await.unwrap();
        wire::decode(&part.sink.unwrap()).unwrap()
    }

    /// The rows that a reader of the directory sees.
    fn seen(dir: &Path) -> Vec<i64> {
        let mut rows = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with('.') {
                continue;
            }
            for line in fs::read_to_string(path).unwrap().lines() {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                rows.push(value["n"].as_i64().unwrap());
            }
        }
        rows.sort_unstable();
        rows
    }

    #[tokio::test]
    async fn rows_are_seen_once_their_checkpoint_is_committed_and_once_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let mut first = sink(at, Written::default(), 60);
        first.take(&batch(0..20)).await.unwrap();
        first.take(&batch(20..21)).await.unwrap();
        assert!(!first.holds_back());
        let restored = barrier(&mut first, 1).await;
        assert_eq!((restored.held.len(), restored.next), (2, 2), "one file rolled, one was closed by the barrier");
        assert!(first.holds_back() && seen(at).is_empty());
        first.take(&batch(21..30)).await.unwrap();
        barrier(&mut first, 2).await;
        first.committed(1).await.unwrap();
        assert_eq!(seen(at), (0..21).collect::<Vec<_>>());
        first.take(&batch(30..40)).await.unwrap();
        drop(first);

        // Killed before the second checkpoint was committed: the next attempt goes on behind the first one.
        let mut second = sink(at, restored, 1 << 20);
        second.committed(1).await.unwrap();
        second.take(&batch(21..50)).await.unwrap();
        barrier(&mut second, 3).await;
        barrier(&mut second, 4).await;
        second.committed(4).await.unwrap();
        second.committed(4).await.unwrap();
        assert_eq!(seen(at), (0..50).collect::<Vec<_>>());
        assert!(!second.holds_back());
        let left: BTreeSet<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[tokio::test]
    async fn a_file_that_is_lost_is_no_commit_and_others_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let other = pending(dir.path(), &format!("{FAMILY}1-g0-s0-00000000.ndjson"));
        let neighbour = pending(dir.path(), &format!("{FAMILY}-g0-s1-00000000.ndjson"));
        for path in [&other, &neighbour] {
            fs::write(path, "").unwrap();
        }
        let held = VecDeque::from([(1, format!("{FAMILY}-g0-s0-00000000.ndjson"))]);
        let mut sink = sink(dir.path(), Written { next: 1, held }, 60);
        assert!(sink.committed(1).await.unwrap_err().to_string().contains("00000000"));
        assert!(other.exists() && neighbour.exists());
    }
}
