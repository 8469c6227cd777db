//! Parquet files: each is a split, with the row at which its reader goes on.

use std::{fs::File, path::PathBuf};

use formats::{Layout, Parquet, Rows as Read};
use futures::future::BoxFuture;
use tokio::task::{JoinHandle, spawn_blocking};

use super::pulled::{PIECE_ROWS, Reader};
use crate::{error::TaskError, metrics::rows};

/// A file, and what was read of it.
type Loaded = (Box<Parquet>, Result<Option<Read>, formats::Error>);

/// Reads one file; the next rows are decoded while these are worked on.
#[derive(Debug)]
pub(super) struct ParquetReader {
    name: String,
    /// None after the end.
    loading: Option<JoinHandle<Loaded>>,
    position: u64,
}

impl ParquetReader {
    /// A reader of a file from that row on.
    pub(super) async fn open(name: &str, path: PathBuf, layout: &Layout, from: u64) -> Result<Self, TaskError> {
        let layout = layout.clone();
        let opened = spawn_blocking(move || -> Result<Parquet, String> {
            let file = File::open(&path).map_err(|error| error.to_string())?;
            Parquet::open(file, layout, from, PIECE_ROWS).map_err(|error| crate::error::told(&error))
        });
        let file = opened.await?.map_err(|problem| TaskError::Source { what: name.to_owned(), problem })?;
        Ok(Self { name: name.to_owned(), loading: Some(begin_load(Box::new(file))), position: from })
    }

    async fn piece(&mut self) -> Result<Option<(Read, u64)>, TaskError> {
        while let Some(loading) = &mut self.loading {
            let (file, read) = loading.await?;
            self.loading = None;
            let read = read.map_err(|error| TaskError::source(&self.name, &error))?;
            self.position = file.position();
            let Some(read) = read else { break };
            self.loading = Some(begin_load(file));
            if read.batch.num_rows() > 0 || !read.faults.is_empty() {
                let bytes = rows(read.batch.get_array_memory_size());
                return Ok(Some((read, bytes)));
            }
        }
        Ok(None)
    }
}

fn begin_load(mut file: Box<Parquet>) -> JoinHandle<Loaded> {
    spawn_blocking(move || {
        let read = file.read();
        (file, read)
    })
}

impl Reader for ParquetReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<(Read, u64)>, TaskError>> {
        Box::pin(self.piece())
    }

    fn position(&self) -> u64 {
        self.position
    }
}
