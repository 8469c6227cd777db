//! Files: each is a split, with the byte at which its reader goes on.

use std::{
    fs::File,
    io::{Read as _, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use flow::FileFormat;
use formats::{Csv, Layout, Ndjson, Rows as Read, Taken};
use futures::future::BoxFuture;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    folder::{Folder, Found},
    parquet::ParquetReader,
    pulled::{PIECE_ROWS, Place, Reader, Share, Split},
};
use crate::error::TaskError;

/// Bytes that are read at once; the next ones are read while these are worked on.
const BLOCK_BYTES: u64 = 512 << 10;

/// Bytes in which the names of columns are looked for: those of a line.
const HEAD_BYTES: u64 = 1 << 20;

/// The subtask's share of the files.
///
/// A job that goes on reads exactly the files that it began with, and a file belongs to the subtask of its place among them: so
/// any number of subtasks can take over. Each subtask lists by itself, so the files must be there when the job is submitted.
/// Bounds: about 1 MiB for each open file.
pub(super) async fn splits(
    share: Share,
    (root, url): (&Path, &str),
    format: &FileFormat,
    layout: &Layout,
    known: Vec<(String, Place)>,
) -> Result<Vec<Split>, TaskError> {
    let (root, url) = (root.to_owned(), url.to_owned());
    let find = move || -> Result<Vec<(Found, Place)>, TaskError> {
        let folder = Folder::open(&root)?;
        if known.is_empty() {
            return Ok(folder.list(&url)?.into_iter().map(|found| (found, Place::default())).collect());
        }
        known.into_iter().map(|(name, place)| Ok((folder.named(&name)?, place))).collect()
    };
    let files = spawn_blocking(find).await??;
    let mut splits = Vec::new();
    let mine = (0u32..).zip(files).filter(|(number, _)| share.has(*number));
    for (_, (Found { name, path }, place)) in mine {
        let reader: Option<Box<dyn Reader>> = match format {
            _ if place.ended => None,
            FileFormat::Parquet => Some(Box::new(ParquetReader::open(&name, path, layout, place.position).await?)),
            FileFormat::Ndjson => {
                let lines = Format::Ndjson(Box::new(Ndjson::new(layout.clone(), place.position)));
                Some(Box::new(FileReader::open(&name, path, lines, place.position).await?))
            }
            FileFormat::Csv { delimiter, header } => {
                let csv = Csv::new(layout.clone(), *delimiter, *header);
                let csv = csv.map_err(|error| TaskError::source(&name, &error))?;
                Some(Box::new(FileReader::open(&name, path, Format::Csv(Box::new(csv)), place.position).await?))
            }
        };
        splits.push(Split { number: types::hash64(name.as_bytes()), name, place, reader });
    }
    Ok(splits)
}

/// A format's reader.
#[derive(Debug)]
enum Format {
    Ndjson(Box<Ndjson>),
    Csv(Box<Csv>),
}

impl Format {
    fn read(&mut self, input: &[u8], ended: bool) -> Result<Taken, formats::Error> {
        match self {
            Self::Ndjson(reader) => reader.read(input, ended, PIECE_ROWS),
            Self::Csv(reader) => reader.read(input, ended, PIECE_ROWS),
        }
    }

    fn position(&self) -> u64 {
        match self {
            Self::Ndjson(reader) => reader.position(),
            Self::Csv(reader) => reader.position(),
        }
    }
}

/// An open file with the block that was read, or why it was not.
type Loaded = std::io::Result<(File, Vec<u8>)>;

/// Reads one file.
#[derive(Debug)]
struct FileReader {
    name: String,
    path: PathBuf,
    format: Format,
    /// Where the first block begins.
    begin: u64,
    file: Option<File>,
    loading: Option<JoinHandle<Loaded>>,
    /// What was read; before `used` it was handed to the format.
    block: Vec<u8>,
    used: usize,
    /// Whether nothing comes behind the block.
    ended: bool,
}

impl FileReader {
    async fn open(name: &str, path: PathBuf, format: Format, begin: u64) -> Result<Self, TaskError> {
        let (name, file, loading) = (name.to_owned(), None, None);
        let mut reader = Self { name, path, format, begin, file, loading, block: Vec::new(), used: 0, ended: false };
        if begin > 0 {
            reader.go_on().await?;
        }
        Ok(reader)
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> TaskError {
        TaskError::Source { what: self.name.clone(), problem: problem.to_string() }
    }

    /// Checks that the file has what was read of it, and reads the names of its columns again.
    async fn go_on(&mut self) -> Result<(), TaskError> {
        let (path, begin) = (self.path.clone(), self.begin);
        let head = spawn_blocking(move || -> std::io::Result<(u64, Vec<u8>)> {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            let mut head = Vec::new();
            file.take(begin.min(HEAD_BYTES)).read_to_end(&mut head)?;
            Ok((length, head))
        });
        let (length, head) = head.await?.map_err(|e| self.wrong(e))?;
        if length < begin {
            return Err(self.wrong(format_args!("it was read up to byte {begin} and has {length}: it may only grow")));
        }
        if let Format::Csv(reader) = &mut self.format {
            if !reader.has_names() {
                drop(reader.read(&head, true, 1).map_err(|e| TaskError::source(&self.name, &e))?);
            }
            reader.seek(begin);
        }
        Ok(())
    }

    async fn piece(&mut self) -> Result<Option<(Read, u64)>, TaskError> {
        loop {
            let Taken { bytes, rows } = match self.format.read(&self.block[self.used..], self.ended) {
                Ok(taken) => taken,
                Err(error) => return Err(TaskError::source(&self.name, &error)),
            };
            self.used += bytes;
            if rows.batch.num_rows() > 0 || !rows.faults.is_empty() {
                return Ok(Some((rows, crate::metrics::rows(bytes))));
            }
            match (bytes, self.ended) {
                (0, true) => return Ok(None),
                (0, false) => self.load().await?,
                _ => {}
            }
        }
    }

    /// Puts the next block behind what is left of this one. Cancel safe: what is being read is kept.
    async fn load(&mut self) -> Result<(), TaskError> {
        let loading = self.loading.get_or_insert_with(|| begin_load(self.file.take(), self.path.clone(), self.begin));
        let loaded = loading.await;
        self.loading = None;
        let (file, block) = loaded?.map_err(|e| self.wrong(e))?;
        self.ended = block.is_empty();
        self.block.drain(..self.used);
        self.used = 0;
        if self.block.is_empty() {
            self.block = block;
        } else {
            self.block.extend_from_slice(&block);
        }
        if !self.ended {
            self.loading = Some(begin_load(Some(file), PathBuf::new(), 0));
        }
        Ok(())
    }
}

fn begin_load(file: Option<File>, path: PathBuf, begin: u64) -> JoinHandle<Loaded> {
    spawn_blocking(move || {
        let mut file = match file {
            Some(file) => file,
            None => {
                let mut file = File::open(&path)?;
                file.seek(SeekFrom::Start(begin))?;
                file
            }
        };
        let mut block = Vec::with_capacity(1 << 19);
        file.by_ref().take(BLOCK_BYTES).read_to_end(&mut block)?;
        Ok((file, block))
    })
}

impl Reader for FileReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<(Read, u64)>, TaskError>> {
        Box::pin(self.piece())
    }

    fn position(&self) -> u64 {
        self.format.position()
    }
}
