//! Names of files before and after their checkpoint is committed, and the removal of those that no checkpoint knows.
//!
//! A file is named by job, submission, vertex, generation, attempt, subtask and a number that counts up:
//! `part-<job>-<submission>-v<vertex>-g<generation>-a<attempt>-s<subtask>-<number>.<ending>`. No two writers share one: a worker that is cut
//! off from the others may go on writing for a while, into files of its own attempt that nobody will ever name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use types::JobId;

use super::files::wrong;
use crate::error::TaskError;

/// The end of the names of files that have none yet.
const PENDING: &str = ".pending";

/// What the names of a vertex' files begin with.
#[derive(Debug, Clone)]
pub(super) struct Family(String);

/// What the rest of a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    generation: u32,
    subtask: u32,
    number: u64,
}

/// What a checkpoint knows of the files of a subtask and of those that it stands for.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The present one.
    generation: u32,
    /// By generation and subtask the number of the first file that the checkpoint does not know.
    from: BTreeMap<(u32, u32), u64>,
    /// Files without a name that the checkpoint knows.
    pub(super) held: BTreeSet<String>,
}

impl Kept {
    /// Nothing is known: what there is of that generation is written again.
    pub(super) fn new(generation: u32) -> Self {
        Self { generation, ..Self::default() }
    }

    /// The checkpoint has the files of a subtask below a number.
    pub(super) fn numbers_from(&mut self, generation: u32, subtask: u32, number: u64) {
        self.from.insert((generation, subtask), number);
    }

    /// Whether a file is written again.
    fn comes_again(&self, place: Place) -> bool {
        let unknown = || {
            // Of a generation that no part is of yet everything comes again. One before those of the parts came to its end in order.
            let begun = self.from.keys().any(|(generation, _)| *generation == self.generation);
            if place.generation == self.generation && !begun { 0 } else { u64::MAX }
        };
        let from = self.from.get(&(place.generation, place.subtask)).copied().unwrap_or_else(unknown);
        place.number >= from
    }
}

impl Family {
    pub(super) fn new(job: &JobId, submission: u64, vertex: u32) -> Self {
        Self(format!("part-{job}-{submission}-v{vertex}"))
    }

    /// What the names of one subtask's files begin with.
    pub(super) fn prefix(&self, generation: u32, attempt: u32, subtask: u32) -> String {
        format!("{}-g{generation}-a{attempt}-s{subtask}", self.0)
    }

    /// Reads a name of the family; nothing if it is anybody else's.
    fn place(&self, name: &str) -> Option<Place> {
        let (stem, _) = name.strip_prefix(self.0.as_str())?.strip_prefix("-g")?.split_once('.')?;
        let mut fields = stem.split('-');
        let generation = number(fields.next()?)?;
        let _attempt: u32 = number(fields.next()?.strip_prefix('a')?)?;
        let subtask = number(fields.next()?.strip_prefix('s')?)?;
        let number = number(fields.next()?)?;
        fields.next().is_none().then_some(Place { generation, subtask, number })
    }
}

fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Where a file lies while it has no name.
pub(super) fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}{PENDING}"))
}

/// Makes a directory remember the names in it.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Gives files their names; those that have them already are left.
pub(super) fn name<'a>(dir: &Path, names: impl Iterator<Item = &'a str>) -> Result<(), TaskError> {
    for name in names {
        let (from, to) = (path(dir, name), dir.join(name));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => {}
            named => named.map_err(|error| wrong(&from, &error))?,
        }
    }
    sync(dir).map_err(|error| wrong(dir, &error))
}

/// Removes what earlier attempts wrote for these subtasks and the checkpoint does not know: it is written again.
pub(super) fn sweep(dir: &Path, family: &Family, mine: impl Fn(u32) -> bool, kept: &Kept) -> Result<(), TaskError> {
    for entry in fs::read_dir(dir).map_err(|e| wrong(dir, &e))? {
        let file = entry.map_err(|e| wrong(dir, &e))?.file_name().to_string_lossy().into_owned();
        let unnamed = file.strip_prefix('.').and_then(|name| name.strip_suffix(PENDING));
        let Some(place) = family.place(unnamed.unwrap_or(&file)).filter(|place| mine(place.subtask)) else { continue };
        let goes = match unnamed {
            Some(name) => !kept.held.contains(name),
            None => kept.comes_again(place) && !kept.held.contains(&file),
        };
        if goes {
            let path = dir.join(&file);
            fs::remove_file(&path).map_err(|e| wrong(&path, &e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_not_ours() {
        let family = Family::new(&"j".parse().unwrap(), 1, 0);
        let name = format!("{}-{:08}.parquet", family.prefix(2, 7, 3), 41);
        assert_eq!(name, "part-j-1-v0-g2-a7-s3-00000041.parquet");
        assert_eq!(family.place(&name), Some(Place { generation: 2, subtask: 3, number: 41 }));
        for other in [
            "part-j-1-v01-g2-a7-s3-00000041.parquet",
            "part-j-11-v0-g2-a7-s3-00000041.parquet",
            // Of a job that is called j-1-v0-g2-a7-s3-5.
            "part-j-1-v0-g2-a7-s3-5-1-v0-g0-a1-s0-00000000.ndjson",
            "part-j-1-v0-g2-a7-s3-+1.ndjson",
            "part-j-1-v0-g2-a7-s3-1-2.ndjson",
            "part-j-1-v0-g2-a7-s3-1",
            "other",
        ] {
            assert_eq!(family.place(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_checkpoint_does_not_know_comes_again_and_nothing_else_does() {
        let again = |kept: &Kept, generation, subtask, number| kept.comes_again(Place { generation, subtask, number });
        let fresh = Kept::new(0);
        assert!(again(&fresh, 0, 0, 0), "no checkpoint was ever committed");
        let mut kept = Kept::new(1);
        kept.numbers_from(1, 0, 5);
        assert!(!again(&kept, 1, 0, 4) && again(&kept, 1, 0, 5));
        assert!(!again(&kept, 0, 0, 99), "the generation before ended at a savepoint");
        let mut rescaled = Kept::new(2);
        rescaled.numbers_from(1, 0, 5);
        assert!(again(&rescaled, 2, 0, 0), "an attempt of the new generation got as far as that");
        assert!(!again(&rescaled, 1, 0, 4) && again(&rescaled, 1, 0, 5) && !again(&rescaled, 1, 3, 9));
    }
}
