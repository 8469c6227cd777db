//! Memory beyond memory: blocks that wait for a segment without an owner lie in files meanwhile.
//!
//! The files hold nothing that outlives the process: whatever is in them is not acknowledged, and the next process begins with
//! an empty directory. A record is checked when it is read; one that is damaged fails the writer and is never sent.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use types::WriterId;

use crate::writer::Contents;

/// A file is closed at this size, and deleted when nothing in it is needed.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Length of the contents, CRC32C of all that follows it, and how much of the contents are hashes.
const HEAD: usize = 12;

/// Where events go that do not fit into memory while segments do not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillOptions {
    /// A directory of the writer's own file system; each writer makes one of its own below it.
    pub dir: PathBuf,
    /// Bytes of events in files, about; beyond it writes wait.
    pub bytes_max: u64,
}

/// The spill files of one writer; they go with this value.
#[derive(Debug)]
pub(crate) struct Spill {
    dir: PathBuf,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// The file that is written: its number and length.
    open: Option<(u64, File, u64)>,
    count: u64,
    records: HashMap<u64, Record>,
    /// Records that are needed, by file.
    needed: HashMap<u64, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    file: u64,
    at: u64,
}

impl Spill {
    /// Makes the writer's directory anew; what an earlier process left there goes.
    pub(crate) fn open(options: &SpillOptions, writer: &WriterId) -> io::Result<Self> {
        let dir = options.dir.join(format!("{writer}.spill"));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, files: Mutex::default() })
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, file: u64) -> PathBuf {
        path(&self.dir, file)
    }

    /// Writes a record; blocks.
    pub(crate) fn write(&self, key: u64, contents: &Contents) -> io::Result<()> {
        let length = contents.hashes.len() + contents.block.len();
        let hashes = word(contents.hashes.len())?.to_le_bytes();
        let crc = [&hashes[..], &contents.hashes, &contents.block]
            .iter()
            .fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&word(length)?.to_le_bytes());
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        head[8..].copy_from_slice(&hashes);
        let mut files = self.files();
        if files.open.as_ref().is_none_or(|(_, _, end)| *end >= FILE_BYTES_MAX) {
            files.count += 1;
            let number = files.count;
            let file = File::create_new(self.path(number))?;
            if let Some((full, _, _)) = files.open.replace((number, file, 0)) {
                self.delete_unneeded(&mut files, full);
            }
        }
        let Some((file, handle, end)) = &mut files.open else { return Err(io::Error::other("no file is open")) };
        let (file, at) = (*file, *end);
        let written = [&head[..], &contents.hashes, &contents.block].iter().try_for_each(|part| handle.write_all(part));
        if let Err(error) = written {
            // What was written of it stays behind; the next record goes to another file.
            files.open = None;
            self.delete_unneeded(&mut files, file);
            return Err(error);
        }
        *end += u64::try_from(HEAD + length).unwrap_or(u64::MAX);
        files.records.insert(key, Record { file, at });
        *files.needed.entry(file).or_default() += 1;
        Ok(())
    }

    /// Reads a record and checks it; blocks.
    pub(crate) fn read(&self, key: u64) -> io::Result<Contents> {
        let found = self.files().records.get(&key).copied();
        let record = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such record"))?;
        let path = self.path(record.file);
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(record.at))?;
        let mut head = [0; HEAD];
        file.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged at {}", path.display(), record.at));
        let (length, hashes) = (number(0) as usize, number(8) as usize);
        if hashes > length || u64::from(number(0)) > file.metadata()?.len() {
            return Err(damaged());
        }
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[8..]), &bytes) != number(4) {
            return Err(damaged());
        }
        let mut block = Bytes::from(bytes);
        let hashes = block.split_to(hashes);
        Ok(Contents { block, hashes })
    }

    /// Forgets a record; a file without any goes.
    pub(crate) fn release(&self, key: u64) {
        let mut files = self.files();
        let Some(record) = files.records.remove(&key) else { return };
        if let Some(needed) = files.needed.get_mut(&record.file) {
            *needed -= 1;
        }
        let is_open = files.open.as_ref().is_some_and(|(open, _, _)| *open == record.file);
        if files.records.is_empty() && is_open {
            // Drained: the next trouble begins with a new file.
            files.open = None;
        } else if is_open {
            return;
        }
        self.delete_unneeded(&mut files, record.file);
    }

    fn delete_unneeded(&self, files: &mut Files, file: u64) {
        if files.needed.get(&file).is_some_and(|needed| *needed > 0) {
            return;
        }
        files.needed.remove(&file);
        if let Err(error) = fs::remove_file(self.path(file)) {
            tracing::warn!(%error, file, "spill file not deleted");
        }
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "spill directory not deleted");
        }
    }
}

fn path(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("{file:08}.spill"))
}

fn word(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(|_| io::Error::other("a record is larger than 4 GiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(byte: u8, length: usize) -> Contents {
        Contents { block: Bytes::from(vec![byte; length]), hashes: Bytes::from(vec![byte ^ 0xff; 16]) }
    }

    fn open(dir: &Path) -> Spill {
        let options = SpillOptions { dir: dir.to_owned(), bytes_max: 1 << 30 };
        Spill::open(&options, &"w".parse().unwrap()).unwrap()
    }

    fn files(spill: &Spill) -> usize {
        fs::read_dir(&spill.dir).unwrap().count()
    }

    #[test]
    fn records_come_back_and_files_go_when_they_are_drained() {
        let dir = tempfile::tempdir().unwrap();
        let spill = open(dir.path());
        let all: Vec<_> = (0..40u8).map(|n| contents(n, 512 << 10)).collect();
        for (key, one) in (0..).zip(&all) {
            spill.write(key, one).unwrap();
        }
        assert_eq!(files(&spill), 3, "20 MiB in files of 8 MiB");
        for (key, one) in (0..).zip(&all) {
            assert_eq!(spill.read(key).unwrap(), *one);
        }
        (0..20).for_each(|key| spill.release(key));
        assert_eq!(files(&spill), 2);
        (20..40).for_each(|key| spill.release(key));
        assert_eq!(files(&spill), 0);
        assert_eq!(spill.read(39).unwrap_err().kind(), io::ErrorKind::NotFound);
        spill.write(99, &all[0]).unwrap();
        assert_eq!(spill.read(99).unwrap(), all[0]);
        let path = spill.dir.clone();
        drop(spill);
        assert!(!path.exists());
    }

    #[test]
    fn damage_is_an_error_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let spill = open(dir.path());
        spill.write(1, &contents(7, 100)).unwrap();
        let path = spill.path(1);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(spill.read(1).is_err(), "byte {at}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(spill.read(1).is_err());
    }

    #[test]
    fn what_an_earlier_process_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("w.spill");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("00000001.spill"), "left").unwrap();
        let spill = open(dir.path());
        assert_eq!(files(&spill), 0);
        spill.write(1, &contents(1, 10)).unwrap();
    }
}
