//! Keeps the views of streams true, also against a leader that was deposed and does not know it yet.
//!
//! What such a leader still writes cannot be refused: a view that was deleted can be created again by anybody, and two descriptions
//! that differ in their policies only do not say which is newer. So whoever leads watches the views, and puts right what it did not write.

use std::collections::BTreeSet;

use bus::{Change, Entry, Watch};
use futures::{StreamExt, TryStreamExt, stream};
use types::IndexName;
use wire::{Problem, encode};

use super::{RESUMED_MAX, Streams};
use crate::{Stream, views::index_of};

impl Streams {
    /// Makes every view true; the answer tells what is changed from then on.
    pub(crate) async fn show_all(&self) -> Result<Watch, Problem> {
        let mut watch = self.views.watch();
        let mut seen = BTreeSet::new();
        loop {
            match watch.next().await {
                Change::Ready => break,
                Change::Key { key, entry } => seen.extend(self.look(&key, entry.as_ref())),
            }
        }
        let missing = self.ledger.read(|state| {
            let live = state.live().map(|stream| stream.summary().index.clone());
            live.filter(|index| !seen.contains(index)).collect::<Vec<_>>()
        });
        self.unshown.lock().extend(missing);
        let unshown = self.unshown.lock().clone();
        let shown = stream::iter(unshown).map(|index| async move { self.show(&index).await });
        shown.buffer_unordered(RESUMED_MAX).try_collect::<()>().await?;
        Ok(watch)
    }

    /// Looks at every change, for ever; what is not true is put right when work is resumed.
    pub(crate) async fn keep_shown(&self, mut watch: Watch) {
        loop {
            if let Change::Key { key, entry } = watch.next().await {
                self.look(&key, entry.as_ref());
            }
        }
    }

    /// Takes note of a view that is not as it should be; answers whose it is.
    fn look(&self, key: &str, entry: Option<&Entry>) -> Option<IndexName> {
        let index = index_of(key)?;
        let is_true = self.ledger.read(|state| match (state.live_stream(&index), entry) {
            (Ok(stream), Some(entry)) => encode(&stream.describe()) == entry.value,
            (Ok(_), None) => false,
            (Err(_), entry) => entry.is_none(),
        });
        if !is_true {
            self.unshown.lock().insert(index.clone());
        }
        Some(index)
    }

    /// Shows a stream that can be used, and hides one that cannot; but not one that is younger than all that are known here.
    pub(super) async fn show(&self, index: &IndexName) -> Result<(), Problem> {
        if !self.ledger.is_leader() {
            return Ok(());
        }
        let (live, newest) =
            self.ledger.read(|state| (state.live_stream(index).ok().map(Stream::describe), state.newest_stream()));
        match (live, newest) {
            (Some(description), _) => self.views.show(&description).await?,
            (None, Some(newest)) => self.views.hide(index, newest).await?,
            (None, None) => {}
        }
        self.unshown.lock().remove(index);
        Ok(())
    }
}
