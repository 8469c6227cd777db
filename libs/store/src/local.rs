//! Local state behind a guard: it is a cache of the journal, so the answer to any trouble is to start empty.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use crate::tree::{Damage, Tree};

/// Damaged directories that are kept for a look at them; older ones are deleted.
pub const BROKEN_KEPT_MAX: usize = 2;
/// Entries between two rebases; at this bound the local state is dropped, and begins anew at the next rebase.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// A directory that was closed a moment ago frees its lock when sled's threads have ended.
const LOCK_ATTEMPTS_MAX: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalState {
    /// The sequence that the base stands at.
    pub base_seq: u64,
    /// The whole state at that sequence.
    pub base: Vec<u8>,
    /// What was applied since, by ascending sequence.
    pub entries: Vec<(u64, Vec<u8>)>,
}

/// The local copy of a state: a base and the entries applied since.
///
/// It never fails: on any error or panic of sled, and on any value that is not what was written, its directory is moved aside to
/// `<dir>.broken-<n>`, counted, and the copy is empty. Where not even that works (disk full, read-only) it stays empty.
/// Durable: only what a rebase wrote; later entries may be lost from the end, never from the middle.
#[derive(Clone)]
pub struct Local {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dir: PathBuf,
    tree: Option<Tree>,
    /// Somebody else has the directory open, so it is not touched.
    in_use: bool,
    broken_count: u64,
}

impl Local {
    /// Opens the copy in its own directory, which is created if absent. Blocks for as long as sled needs.
    pub fn open(dir: &Path) -> Self {
        let mut inner = Inner { dir: dir.to_owned(), tree: None, in_use: false, broken_count: 0 };
        inner.begin();
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Everything that is kept; `None` if nothing is, or if it cannot be trusted.
    pub fn load(&self) -> Option<LocalState> {
        let mut inner = self.inner.lock();
        let state = inner.with(|tree| tree.load())?;
        let empty = state.base_seq == 0 && state.base.is_empty() && state.entries.is_empty();
        (!empty).then_some(state)
    }

    /// Adds an entry; it and its sequence are kept in one batch. A sequence that is not above the last one changes nothing.
    pub fn apply(&self, seq: u64, entry: &[u8]) {
        let mut inner = self.inner.lock();
        if inner.tree.as_ref().is_some_and(|tree| tree.entry_count() >= ENTRIES_MAX) {
            tracing::warn!(entries = ENTRIES_MAX, "local state dropped: no rebase for too long");
            inner.reset();
        }
        inner.with(|tree| if seq > tree.applied() { tree.apply(seq, entry) } else { Ok(()) });
    }

    /// Replaces the base, drops the entries up to `seq` and writes everything to a fresh directory. Blocks until it is on disk.
    pub fn rebase(&self, seq: u64, base: &[u8]) {
        self.inner.lock().rebase(seq, base);
    }

    /// Forgets everything, for example because it belongs to another journal.
    pub fn reset(&self) {
        self.inner.lock().reset();
    }

    /// Writes what was applied to disk. Blocks.
    pub fn flush(&self) {
        self.inner.lock().with(|tree| tree.flush());
    }

    /// Entries since the base.
    pub fn entry_count(&self) -> u64 {
        self.inner.lock().tree.as_ref().map_or(0, Tree::entry_count)
    }

    /// How often the directory had to be moved aside since it was opened.
    pub fn broken_count(&self) -> u64 {
        self.inner.lock().broken_count
    }
}

impl Inner {
    /// Runs `work` on the tree; whatever goes wrong ends in an empty copy.
    fn with<T>(&mut self, work: impl FnOnce(&mut Tree) -> Result<T, Damage>) -> Option<T> {
        let tree = self.tree.as_mut()?;
        match guarded(|| work(tree)) {
            Ok(value) => Some(value),
            Err(damage) => {
                self.set_aside(&damage);
                None
            }
        }
    }

    /// Opens what is there; if that fails, starts once more without it.
    fn begin(&mut self) {
        match guarded(|| open_newest(&self.dir)) {
            Ok(tree) => self.tree = Some(tree),
            Err(damage) if damage.is_locked() => {
                // The directory belongs to somebody who lives: it must not be moved away under them.
                self.in_use = true;
                tracing::warn!(dir = %self.dir.display(), %damage, "local state is in use elsewhere; working without");
            }
            Err(damage) => self.set_aside(&damage),
        }
    }

    fn reset(&mut self) {
        if self.in_use {
            return;
        }
        self.tree = None;
        remove(&self.dir);
        self.begin();
    }

    fn set_aside(&mut self, damage: &Damage) {
        let tree = self.tree.take();
        drop(guarded(|| {
            drop(tree);
            Ok(())
        }));
        self.broken_count += 1;
        tracing::warn!(dir = %self.dir.display(), %damage, "local state set aside; it will be rebuilt");
        quarantine(&self.dir);
        match guarded(|| open_newest(&self.dir)) {
            Ok(tree) => self.tree = Some(tree),
            Err(damage) => tracing::warn!(dir = %self.dir.display(), %damage, "no local state is kept"),
        }
    }

    fn rebase(&mut self, seq: u64, base: &[u8]) {
        if self.in_use {
            return;
        }
        let later: Vec<_> = match self.with(|tree| tree.load()) {
            Some(state) => state.entries.into_iter().filter(|(entry, _)| *entry > seq).collect(),
            None => Vec::new(),
        };
        let newest = self.tree.as_ref().and_then(|tree| number_of(tree.dir())).unwrap_or(0);
        let dir = self.dir.join(format!("{:08}", newest + 1));
        remove(&dir);
        match guarded(|| Tree::create(&dir, seq, base, &later)) {
            Ok(tree) => {
                if let Some(old) = self.tree.replace(tree) {
                    let old_dir = old.dir().to_owned();
                    drop(guarded(|| {
                        drop(old);
                        Ok(())
                    }));
                    remove(&old_dir);
                }
            }
            Err(damage) => self.set_aside(&damage),
        }
    }
}

/// Catches what sled throws, so that a damaged file is a reason to rebuild and not to die.
fn guarded<T>(work: impl FnOnce() -> Result<T, Damage>) -> Result<T, Damage> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Damage::Panicked(text.to_owned()))
    })
}

/// A rebase may have died between two directories: the newest complete one counts, the others go.
fn open_newest(dir: &Path) -> Result<Tree, Damage> {
    fs::create_dir_all(dir)?;
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        numbers.extend(number_of(&entry?.path()));
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let mut newest = None;
    for number in &numbers {
        let path = dir.join(format!("{number:08}"));
        if newest.is_none() {
            newest = unlocked(|| Tree::open(&path))?;
            if newest.is_some() {
                continue;
            }
        }
        remove(&path);
    }
    match newest {
        Some(tree) => Ok(tree),
        None => {
            let next = numbers.first().map_or(1, |highest| highest + 1);
            unlocked(|| Tree::create(&dir.join(format!("{next:08}")), 0, &[], &[]))
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "every caller is told that it blocks; sled has no other way to wait for its own threads"
)]
fn unlocked<T>(open: impl Fn() -> Result<T, Damage>) -> Result<T, Damage> {
    let mut attempt = 1;
    loop {
        match open() {
            Err(damage) if damage.is_locked() && attempt < LOCK_ATTEMPTS_MAX => {
                attempt += 1;
                thread::sleep(LOCK_PAUSE);
            }
            other => return other,
        }
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "local state could not be deleted");
        }
        _ => {}
    }
}

/// Moves the directory to `<dir>.broken-<n>` and deletes the oldest of such directories.
fn quarantine(dir: &Path) {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name().and_then(|name| name.to_str())) else { return };
    let prefix = format!("{name}.broken-");
    let mut numbers: Vec<u64> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last + 1);
    if let Err(error) = fs::rename(dir, parent.join(format!("{prefix}{next}"))) {
        tracing::warn!(dir = %dir.display(), %error, "damaged local state could not be moved aside");
        remove(dir);
        return;
    }
    let surplus = (numbers.len() + 1).saturating_sub(BROKEN_KEPT_MAX);
    for number in &numbers[..surplus.min(numbers.len())] {
        remove(&parent.join(format!("{prefix}{number}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        root: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { root: tempfile::tempdir().unwrap() }
        }

        fn dir(&self) -> PathBuf {
            self.root.path().join("local")
        }

        fn broken(&self) -> usize {
            let names = fs::read_dir(self.root.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.starts_with("local.broken-")).count()
        }

        fn files(&self) -> Vec<PathBuf> {
            let mut files = Vec::new();
            let mut dirs = vec![self.dir()];
            while let Some(dir) = dirs.pop() {
                for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                    if entry.path().is_dir() { dirs.push(entry.path()) } else { files.push(entry.path()) }
                }
            }
            files.sort();
            files
        }
    }

    fn entry(seq: u64) -> Vec<u8> {
        format!("entry {seq} {}", "x".repeat(usize::try_from(seq % 7).unwrap() * 50)).into_bytes()
    }

    fn written(place: &Place) {
        let local = Local::open(&place.dir());
        local.rebase(10, &entry(10));
        (11..=60).for_each(|seq| local.apply(seq, &entry(seq)));
    }

    /// Nothing, or a prefix of what was written: a cut tail is replayed from the journal, a hole or a foreign byte never.
    fn is_prefix(state: &LocalState) -> bool {
        let entries = (11..).zip(&state.entries).all(|(n, (seq, bytes))| *seq == n && *bytes == entry(n));
        state.base_seq == 10 && state.base == entry(10) && entries
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let place = Place::new();
        assert_eq!(Local::open(&place.dir()).load(), None);
        written(&place);
        let local = Local::open(&place.dir());
        let state = local.load().unwrap();
        assert!(is_prefix(&state));
        assert_eq!(state.entries.len(), 50);
        assert_eq!((local.entry_count(), local.broken_count(), place.broken()), (50, 0, 0));
    }

    #[test]
    fn a_rebase_keeps_later_entries_and_one_directory() {
        let place = Place::new();
        written(&place);
        let local = Local::open(&place.dir());
        local.rebase(58, b"new base");
        let expected =
            LocalState { base_seq: 58, base: b"new base".into(), entries: vec![(59, entry(59)), (60, entry(60))] };
        assert_eq!(local.load().unwrap(), expected);
        local.apply(60, b"late copy");
        drop(local);
        assert_eq!(Local::open(&place.dir()).load().unwrap(), expected);
        assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_rebase_is_forgotten() {
        let place = Place::new();
        written(&place);
        let next = place.dir().join("00000099");
        let db = sled::open(&next).unwrap();
        db.insert("b", "half a base").unwrap();
        db.flush().unwrap();
        drop(db);
        let local = Local::open(&place.dir());
        assert!(is_prefix(&local.load().unwrap()));
        assert!(!next.exists());
    }

    #[test]
    fn a_reset_forgets_everything() {
        let place = Place::new();
        written(&place);
        let local = Local::open(&place.dir());
        local.reset();
        assert_eq!(local.load(), None);
        local.rebase(3, b"three");
        assert_eq!(local.load().unwrap().base_seq, 3);
        assert_eq!(place.broken(), 0);
    }

    #[test]
    fn any_damaged_file_gives_nothing_or_a_prefix_and_work_goes_on() {
        type Harm = fn(&mut Vec<u8>, usize);
        let harms: [Harm; 3] = [
            |bytes, at| bytes.truncate(at),
            |bytes, at| bytes[at] ^= 0x40,
            |bytes, at| bytes[at..].iter_mut().take(600).for_each(|b| *b = 0xA5),
        ];
        let place = Place::new();
        written(&place);
        let originals: Vec<(PathBuf, Vec<u8>)> =
            place.files().into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
        let mut damaged = 0;
        for (path, bytes) in originals.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let used = bytes.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
            for harm in harms {
                for at in [0, used / 7, used / 2, used - 1] {
                    remove(&place.dir());
                    for (path, bytes) in &originals {
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        fs::write(path, bytes).unwrap();
                    }
                    let mut harmed = bytes.clone();
                    harm(&mut harmed, at);
                    fs::write(path, harmed).unwrap();
                    let local = Local::open(&place.dir());
                    assert!(local.load().is_none_or(|state| is_prefix(&state)), "{} at {at}", path.display());
                    damaged += usize::from(local.broken_count() > 0);
                    local.rebase(70, b"again");
                    local.apply(71, b"onward");
                    assert_eq!(local.load().unwrap().entries, [(71, b"onward".to_vec())]);
                    assert!(place.broken() <= BROKEN_KEPT_MAX);
                }
            }
        }
        assert!(damaged > 0, "no harm was noticed at all");
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let place = Place::new();
        written(&place);
        let first = Local::open(&place.dir());
        let second = Local::open(&place.dir());
        second.apply(61, b"lost");
        second.rebase(62, b"lost");
        second.reset();
        assert_eq!((second.load(), second.broken_count(), place.broken()), (None, 0, 0));
        assert!(is_prefix(&first.load().unwrap()));
    }

    #[test]
    fn without_a_usable_directory_nothing_is_kept_and_nothing_fails() {
        let place = Place::new();
        fs::write(place.root.path().join("file"), b"").unwrap();
        let local = Local::open(&place.root.path().join("file/below"));
        local.apply(1, b"x");
        local.rebase(2, b"y");
        assert_eq!(local.load(), None);
    }
}
