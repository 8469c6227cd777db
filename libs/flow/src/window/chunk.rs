//! Long columns in pieces that a snapshot shares with the state, which copies a piece before it changes it again.

use std::sync::Arc;

const BITS: u32 = 13;

/// The entries of one piece: what one block of a checkpoint holds, and what is copied at once.
pub(crate) const CHUNK: usize = 1 << BITS;

/// Group numbers are 32 bits, which halves the tables; a `usize` has at least as many here.
pub(crate) fn at(group: u32) -> usize {
    usize::try_from(group).unwrap_or(usize::MAX)
}

/// The inverse of [`at`]; no table gets that large, for its bytes are bounded.
pub(crate) fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// The piece of a group.
pub(crate) fn chunk_of(group: u32) -> usize {
    at(group >> BITS)
}

fn within(group: u32) -> usize {
    at(group) & (CHUNK - 1)
}

/// A column of one entry per group.
#[derive(Debug, Clone)]
pub(crate) struct Chunked<T>(Vec<Arc<Vec<T>>>);

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Chunked<T> {
    pub(crate) fn get(&self, group: u32) -> &T {
        &self.0[chunk_of(group)][within(group)]
    }

    pub(crate) fn get_mut(&mut self, group: u32) -> &mut T {
        &mut Arc::make_mut(&mut self.0[chunk_of(group)])[within(group)]
    }

    pub(crate) fn push(&mut self, value: T) {
        match self.0.last_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => Arc::make_mut(last).push(value),
            None => self.0.push(Arc::new(vec![value])),
        }
    }

    /// Makes it that long.
    pub(crate) fn grow(&mut self, len: usize, value: &T) {
        let last = self.0.len().saturating_sub(1);
        for chunk in last..len.div_ceil(CHUNK) {
            let wanted = (len - chunk * CHUNK).min(CHUNK);
            match self.0.get_mut(chunk) {
                Some(old) if old.len() >= wanted => {}
                Some(old) => Arc::make_mut(old).resize(wanted, value.clone()),
                None => self.0.push(Arc::new(vec![value.clone(); wanted])),
            }
        }
    }

    /// Calls `change` with the entry of each group and the place of the group in the list.
    pub(crate) fn each(&mut self, groups: &[u32], mut change: impl FnMut(&mut T, usize)) {
        if let [only] = self.0.as_mut_slice() {
            let only = Arc::make_mut(only).as_mut_slice();
            groups.iter().enumerate().for_each(|(place, group)| change(&mut only[at(*group)], place));
            return;
        }
        // Only what is touched is copied.
        let mut touched = vec![false; self.0.len()];
        groups.iter().for_each(|group| touched[chunk_of(*group)] = true);
        let mut slices: Vec<&mut [T]> = Vec::with_capacity(touched.len());
        for (chunk, touched) in self.0.iter_mut().zip(touched) {
            slices.push(if touched { Arc::make_mut(chunk).as_mut_slice() } else { &mut [] });
        }
        for (place, group) in groups.iter().enumerate() {
            change(&mut slices[chunk_of(*group)][within(*group)], place);
        }
    }

    /// The entries of these groups, in that order.
    pub(crate) fn kept(&self, groups: &[u32]) -> Self {
        groups.iter().map(|group| self.get(*group).clone()).collect()
    }

    /// All entries, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|chunk| chunk.iter())
    }

    /// One piece as a column of its own, shared.
    pub(crate) fn only(&self, chunk: usize) -> Self {
        Self(self.0.get(chunk).cloned().into_iter().collect())
    }
}

impl<T: Clone> FromIterator<T> for Chunked<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut column = Self::default();
        let mut values = values.into_iter();
        loop {
            let chunk: Vec<T> = values.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return column;
            }
            column.0.push(Arc::new(chunk));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_copied_and_nothing_else() {
        let mut column: Chunked<usize> = (0..CHUNK * 2).collect();
        column.push(CHUNK * 2);
        let (first, last) = (column.only(0), column.only(2));
        column.each(&[number(CHUNK * 2), number(CHUNK)], |value, place| *value += place + 100);
        column.grow(CHUNK * 3 + 2, &7);
        assert!(Arc::ptr_eq(&first.0[0], &column.0[0]), "not touched, not copied");
        assert_eq!(last.iter().collect::<Vec<_>>(), [&(CHUNK * 2)], "the snapshot stays as it was");
        assert_eq!((*column.get(number(CHUNK * 2)), *column.get(number(CHUNK))), (CHUNK * 2 + 100, CHUNK + 101));
        assert_eq!((column.iter().count(), *column.get(number(CHUNK * 3 + 1))), (CHUNK * 3 + 2, 7));
    }
}
