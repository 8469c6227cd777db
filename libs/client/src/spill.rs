//! Memory beyond memory, which outlives the process: blocks that wait for a segment without an owner lie in files meanwhile.
//!
//! A block is in its file before it leaves memory, and its number is there before it is sent. So whoever opens the directory
//! again knows of every block under which number the segment may have it, and sends it again under that one: the
//! segment tells a repeat. What is damaged is never sent.

mod entry;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use types::{IndexName, WriterId};
use wire::{
    block::{Block, BlockBuilder},
    coordinator::SegmentRange,
};

use crate::writer::{Contents, EVENT_OVERHEAD};
pub(crate) use entry::Label;
use entry::{Entry, MAGIC, Record, frame, parse, replay};

/// No block begins in a file that is longer than this; it is deleted when nothing in it is needed.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// The largest frame that is read: a block, divided.
const FRAME_BYTES_MAX: u32 = 16 << 20;

/// Where events go that do not fit into memory while segments do not answer.
///
/// What is there outlives a crash: when a writer of the same name is opened for the same index with the same directory, it first
/// sends what an earlier one left, each event once and those of a key before newer ones, see
/// [`EventWriter::recovered`](crate::EventWriter::recovered). What was in memory at that moment is lost, as it is without a
/// directory: nobody was told that it was stored.
///
/// A directory with events that cannot be sent any more, because their stream was deleted for good, may be removed by hand while
/// no writer is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillOptions {
    /// A directory on a disk of this machine; each writer of an index makes one of its own below it, and locks it.
    pub dir: PathBuf,
    /// Bytes of events in files, about; beyond it writes wait.
    pub bytes_max: u64,
}

/// A block that an earlier process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) key: u64,
    pub(crate) label: Label,
}

/// The newest epoch that an earlier process knew of a stream: with an older description one would take segments for ended that
/// have not begun yet.
pub(crate) fn newest_epoch(left: &[Left], stream: u32) -> Option<u32> {
    let segments = left.iter().map(|left| left.label.place.segment).filter(|segment| segment.stream == stream);
    segments.map(|segment| segment.epoch).max()
}

/// A block made of a part of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) key: u64,
    pub(crate) label: Label,
    /// Which events of the other one it has, in order.
    pub(crate) places: Vec<u32>,
}

/// The spill files of one writer; its methods block.
#[derive(Debug)]
pub(crate) struct Spill {
    dir: PathBuf,
    files: Mutex<Files>,
    /// Whoever holds it is the only writer here.
    _lock: File,
}

#[derive(Debug, Default)]
struct Files {
    /// The file to which blocks are added.
    open: Option<u64>,
    last: u64,
    known: BTreeMap<u64, Kept>,
    records: BTreeMap<u64, Place>,
}

/// A file.
#[derive(Debug, Default)]
struct Kept {
    /// Where the next frame goes.
    end: u64,
    /// Records in it that are needed.
    needed: usize,
    /// What was written of a frame could not be taken back, so that nothing may follow it.
    broken: bool,
}

/// Where a record is.
#[derive(Debug, Clone)]
struct Place {
    file: u64,
    at: u64,
    label: Label,
}

impl Spill {
    /// Takes the writer's directory and answers what is left there, in the order in which it is to be sent.
    ///
    /// Errors: it is in use; a file is damaged otherwise than by a crash.
    pub(crate) fn open(options: &SpillOptions, index: &IndexName, writer: &WriterId) -> io::Result<(Self, Vec<Left>)> {
        let dir = options.dir.join(format!("{index}.{writer}.spill"));
        fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{} is in use: each living writer needs a name of its own", dir.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let spill = Self { dir, files: Mutex::default(), _lock: lock };
        spill.restore()?;
        let files = spill.files();
        let left = |(key, place): (&u64, &Place)| Left { key: *key, label: place.label.clone() };
        let mut left: Vec<Left> = files.records.iter().map(left).collect();
        drop(files);
        // What has a number was the first of its segment, or is acknowledged and not known to be.
        left.sort_by_key(|left| (left.label.first.unwrap_or(u64::MAX), left.label.order));
        Ok((spill, left))
    }

    /// Reads every file, cuts off what a crash left half written, and deletes what is not needed.
    fn restore(&self) -> io::Result<()> {
        let mut files = self.files();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let Some(number) = number_of(&path) else { continue };
            files.last = files.last.max(number);
            let bytes = fs::read(&path)?;
            let (found, whole) = replay(&bytes).map_err(|damaged| self.damaged(number, damaged.at))?;
            if found.is_empty() {
                fs::remove_file(&path)?;
                continue;
            }
            if whole < bytes.len() {
                tracing::warn!(path = %path.display(), at = whole, "spill file cut off behind its last whole entry");
                let file = OpenOptions::new().write(true).open(&path)?;
                file.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
                file.sync_data()?;
            }
            let end = u64::try_from(whole).unwrap_or(u64::MAX);
            files.known.insert(number, Kept { end, needed: found.len(), broken: false });
            for (key, found) in found {
                files.records.insert(key, Place { file: number, at: found.at, label: found.label });
            }
        }
        Ok(())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, file: u64) -> PathBuf {
        self.dir.join(format!("{file:08}.spill"))
    }

    fn damaged(&self, file: u64, at: usize) -> io::Error {
        let path = self.path(file);
        let text = format!("{} is damaged at {at}: move it away to go on without what is in it", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    /// Writes a block; it outlives the process when this returns.
    pub(crate) fn write(&self, key: u64, label: &Label, contents: &Contents) -> io::Result<()> {
        let mut files = self.files();
        let file = self.open_file(&mut files)?;
        let at = self.append(&mut files, file, &Entry::Block(Record::new(key, label.clone(), contents)), true)?;
        files.records.insert(key, Place { file, at, label: label.clone() });
        files.known.entry(file).or_default().needed += 1;
        Ok(())
    }

    /// The file for the next block.
    fn open_file(&self, files: &mut Files) -> io::Result<u64> {
        let usable = |file: &u64| files.known.get(file).is_some_and(|kept| kept.end < FILE_BYTES_MAX && !kept.broken);
        if let Some(file) = files.open.filter(usable) {
            return Ok(file);
        }
        if let Some(full) = files.open.take() {
            self.delete_unneeded(files, full);
        }
        let number = files.last + 1;
        files.last = number;
        let mut file = File::create_new(self.path(number))?;
        file.write_all(MAGIC)?;
        file.sync_data()?;
        // The name of a file must outlive a loss of power as its contents do.
        File::open(&self.dir)?.sync_all()?;
        let end = u64::try_from(MAGIC.len()).unwrap_or(u64::MAX);
        files.known.insert(number, Kept { end, ..Kept::default() });
        files.open = Some(number);
        Ok(number)
    }

    /// Adds a frame to a file and answers where it is; `firmly` it outlives a loss of power.
    fn append(&self, files: &mut Files, file: u64, entry: &Entry, firmly: bool) -> io::Result<u64> {
        let path = self.path(file);
        let kept = files.known.get_mut(&file).filter(|kept| !kept.broken);
        let kept = kept.ok_or_else(|| io::Error::other(format!("{} takes nothing more", path.display())))?;
        let (at, frame) = (kept.end, frame(entry));
        let mut handle = OpenOptions::new().write(true).open(path)?;
        handle.seek(SeekFrom::Start(at))?;
        let written = handle.write_all(&frame).and_then(|()| if firmly { handle.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                kept.end += u64::try_from(frame.len()).unwrap_or(u64::MAX);
                Ok(at)
            }
            Err(error) => {
                kept.broken = handle.set_len(at).is_err();
                Err(error)
            }
        }
    }

    /// Reads a block that is about to be sent under a number, which is firmly in its file when this returns.
    pub(crate) fn numbered(&self, key: u64, first: u64) -> io::Result<Contents> {
        let record = self.read(key)?;
        let mut files = self.files();
        let place = files.records.get(&key).ok_or_else(missing)?;
        if place.label.first != Some(first) {
            let file = place.file;
            self.append(&mut files, file, &Entry::Number { key, first }, true)?;
            if let Some(place) = files.records.get_mut(&key) {
                place.label.first = Some(first);
            }
        }
        Ok(record.into_contents())
    }

    /// Gives the events of a block to the segments that have their keys now: one block for each, and that one is no more.
    ///
    /// The new ones are named and ordered by the numbers from `serial` on, two for each segment.
    pub(crate) fn divide(&self, key: u64, among: &[SegmentRange], serial: u64) -> io::Result<Vec<Part>> {
        let contents = self.read(key)?.into_contents();
        let mut parts = Vec::new();
        let mut records = Vec::new();
        for (place, serial) in among.iter().zip((serial..).step_by(2)) {
            let Some((part, contents)) = part_of(&contents, *place, serial)? else { continue };
            records.push(Record::new(part.key, part.label.clone(), &contents));
            parts.push(part);
        }
        let mut files = self.files();
        let file = files.records.get(&key).ok_or_else(missing)?.file;
        let at = self.append(&mut files, file, &Entry::Divided { key, into: records }, true)?;
        files.records.remove(&key);
        for part in &parts {
            files.records.insert(part.key, Place { file, at, label: part.label.clone() });
        }
        if let Some(kept) = files.known.get_mut(&file) {
            kept.needed = kept.needed - 1 + parts.len();
        }
        Ok(parts)
    }

    /// Forgets a block; a file without any goes.
    pub(crate) fn release(&self, key: u64) {
        let mut files = self.files();
        let Some(place) = files.records.remove(&key) else { return };
        let Some(kept) = files.known.get_mut(&place.file) else { return };
        kept.needed -= 1;
        if kept.needed == 0 {
            if files.open == Some(place.file) {
                files.open = None;
            }
            return self.delete_unneeded(&mut files, place.file);
        }
        // If this gets lost, the segment is asked once more and says that it has the block.
        if let Err(error) = self.append(&mut files, place.file, &Entry::Done { key }, false) {
            tracing::warn!(%error, "spill file does not take note of what is acknowledged");
        }
    }

    fn delete_unneeded(&self, files: &mut Files, file: u64) {
        if files.known.get(&file).is_some_and(|kept| kept.needed > 0) {
            return;
        }
        files.known.remove(&file);
        if let Err(error) = fs::remove_file(self.path(file)) {
            tracing::warn!(%error, file, "spill file not deleted");
        }
    }

    fn read(&self, key: u64) -> io::Result<Record> {
        let place = self.files().records.get(&key).cloned().ok_or_else(missing)?;
        let damaged = || self.damaged(place.file, usize::try_from(place.at).unwrap_or(usize::MAX));
        let mut file = File::open(self.path(place.file))?;
        file.seek(SeekFrom::Start(place.at))?;
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if length > FRAME_BYTES_MAX {
            return Err(damaged());
        }
        let mut frame = head.to_vec();
        file.take(u64::from(length)).read_to_end(&mut frame)?;
        match parse(&frame).ok_or_else(damaged)?.0 {
            Entry::Block(record) if record.key == key => Ok(record),
            Entry::Divided { into, .. } => into.into_iter().find(|record| record.key == key).ok_or_else(damaged),
            _ => Err(damaged()),
        }
    }
}

/// The events of a block whose keys a segment has; `None` if there are none.
pub(crate) fn part_of(contents: &Contents, place: SegmentRange, serial: u64) -> io::Result<Option<(Part, Contents)>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let events = Block::open(contents.block.clone()).map_err(|error| invalid(error.to_string()))?;
    let (mut builder, mut hashes) = (BlockBuilder::new(), Vec::new());
    let (mut places, mut bytes) = (Vec::new(), 0);
    for (at, event) in events.iter().enumerate() {
        let hash = contents.hash(at).ok_or_else(|| invalid("a block has fewer keys than events".to_owned()))?;
        if place.range.contains(hash) {
            let taken = builder.push(event.received, 0, &event.payload);
            debug_assert!(taken, "a part is not larger than the whole");
            hashes.extend_from_slice(&hash.to_le_bytes());
            places.push(u32::try_from(at).unwrap_or(u32::MAX));
            bytes += event.payload.len() + EVENT_OVERHEAD;
        }
    }
    if places.is_empty() {
        return Ok(None);
    }
    let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
    let label = Label { order: serial + 1, place, first: None, count, bytes };
    let contents = Contents { block: builder.finish(), hashes: Bytes::from(hashes) };
    Ok(Some((Part { key: serial, label, places }, contents)))
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the spill files have no such block")
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".spill")?.parse().ok()
}

#[cfg(test)]
#[path = "spill_tests.rs"]
mod tests;
