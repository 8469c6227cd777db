//! What happens to files: a byte turns over, an end is cut off, a directory is as it was before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A directory as it was at one instant: to give a process back what a power loss would have left it.
#[derive(Debug)]
pub struct Backup {
    of: PathBuf,
    kept: TempDir,
}

impl Backup {
    /// Copies a directory; whoever writes to it must be stopped meanwhile.
    pub fn take(of: &Path) -> Result<Self> {
        let kept = tempfile::Builder::new().prefix("lb-backup-").tempdir()?;
        copy(of, kept.path()).with_context(|| format!("copy {}", of.display()))?;
        Ok(Self { of: of.to_owned(), kept })
    }

    /// Makes the directory what it was; whoever writes to it must have ended.
    pub fn put_back(&self) -> Result<()> {
        if self.of.exists() {
            fs::remove_dir_all(&self.of).with_context(|| format!("delete {}", self.of.display()))?;
        }
        copy(self.kept.path(), &self.of).with_context(|| format!("restore {}", self.of.display()))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Turns over one byte in the middle of the last block of a stream; answers which file it was in.
pub(crate) fn flip(store_dir: &Path, stream: &str) -> Result<PathBuf> {
    let (block, mut bytes) = last_block(store_dir, stream)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&block, bytes)?;
    Ok(block)
}

/// Cuts the second half off the last block of a stream; answers which file it was.
pub(crate) fn shorten(store_dir: &Path, stream: &str) -> Result<PathBuf> {
    let (block, mut bytes) = last_block(store_dir, stream)?;
    bytes.truncate(bytes.len() / 2);
    fs::write(&block, bytes)?;
    Ok(block)
}

fn last_block(store_dir: &Path, stream: &str) -> Result<(PathBuf, Vec<u8>)> {
    let mut blocks = Vec::new();
    find_blocks(store_dir, &Path::new("streams").join(stream).join("msgs"), &mut blocks)?;
    // Their names are numbers that grow.
    let number = |block: &PathBuf| block.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
    blocks.sort_by_key(number);
    let block = blocks.pop().with_context(|| format!("{} has no block of {stream}", store_dir.display()))?;
    let bytes = fs::read(&block)?;
    ensure!(!bytes.is_empty(), "{} is empty", block.display());
    Ok((block, bytes))
}

/// Files `*.blk` in a directory that ends with `below`.
fn find_blocks(dir: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_blocks(&path, below, found)?;
        } else if path.extension().is_some_and(|end| end == "blk") && path.parent().is_some_and(|p| p.ends_with(below))
        {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_gives_back_what_was_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let of = dir.path().join("state");
        fs::create_dir_all(of.join("deep")).unwrap();
        fs::write(of.join("deep/one"), "before").unwrap();
        let backup = Backup::take(&of).unwrap();
        fs::write(of.join("deep/one"), "after").unwrap();
        fs::write(of.join("two"), "later").unwrap();
        backup.put_back().unwrap();
        assert_eq!(fs::read_to_string(of.join("deep/one")).unwrap(), "before");
        assert!(!of.join("two").exists());
        fs::remove_dir_all(&of).unwrap();
        backup.put_back().unwrap();
        assert_eq!(fs::read_to_string(of.join("deep/one")).unwrap(), "before");
        assert!(Backup::take(&dir.path().join("nothing")).is_err());
    }

    #[test]
    fn the_last_block_is_harmed() {
        let dir = tempfile::tempdir().unwrap();
        let msgs = dir.path().join("jetstream/acc/streams/T1_3/msgs");
        fs::create_dir_all(&msgs).unwrap();
        assert!(flip(dir.path(), "T1_3").is_err(), "there is none yet");
        for (name, text) in [("9.blk", "0123"), ("10.blk", "4567"), ("index.db", "x")] {
            fs::write(msgs.join(name), text).unwrap();
        }
        let block = flip(dir.path(), "T1_3").unwrap();
        assert_eq!(block, msgs.join("10.blk"));
        assert_ne!(fs::read(&block).unwrap(), b"4567");
        shorten(dir.path(), "T1_3").unwrap();
        assert_eq!(fs::read(&block).unwrap(), b"45");
        assert_eq!(fs::read(msgs.join("9.blk")).unwrap(), b"0123");
        assert!(shorten(dir.path(), "T1_4").is_err());
    }
}
