//! The groups of one window.

use arrow::row::{Row, RowConverter, Rows};

use super::{
    accumulator::{Accumulator, Values},
    layout::Layout,
    spec::EarlyFire,
};

const FREE: u32 = u32::MAX;

/// The groups of one window: keys as comparable rows, accumulators as columns, and a table from hash to group.
///
/// The table is open addressing over group numbers: probing touches 4-byte slots and 8-byte hashes, and a key's bytes
/// only when the hashes agree.
#[derive(Debug)]
pub(super) struct Block {
    keys: Rows,
    hashes: Vec<u64>,
    slots: Vec<u32>,
    accumulators: Vec<Accumulator>,
    fired: Vec<bool>,
    key_bytes: usize,
}

impl Block {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            keys: layout.converter.empty_rows(0, 0),
            hashes: Vec::new(),
            slots: vec![FREE; 8],
            accumulators: layout.accumulators(),
            fired: Vec::new(),
            key_bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    pub(super) fn find(&self, hash: u64, key: Row<'_>) -> Option<u32> {
        let mut slot = self.home(hash);
        loop {
            let group = self.slots[slot];
            if group == FREE {
                return None;
            }
            let place = at(group);
            if self.hashes[place] == hash && self.keys.row(place) == key {
                return Some(group);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds a group that is not there; its accumulators come with [`Block::grow`] or [`Block::load`].
    ///
    /// Bounds: the caller keeps the number of groups below [`super::GROUPS_MAX`].
    pub(super) fn insert(&mut self, hash: u64, key: Row<'_>) -> u32 {
        // At most three quarters full, so that there is always a free slot to end a probe.
        if (self.len() + 1) * 4 > self.slots.len() * 3 {
            self.slots = vec![FREE; self.slots.len() * 2];
            for group in 0..self.len() {
                self.place(self.hashes[group], number(group));
            }
        }
        let group = number(self.len());
        self.place(hash, group);
        self.keys.push(key);
        self.hashes.push(hash);
        self.fired.push(false);
        self.key_bytes += key.as_ref().len();
        group
    }

    fn home(&self, hash: u64) -> usize {
        // The low bits: the top ones are equal within a key group.
        usize::try_from(hash & 0xffff_ffff).unwrap_or(0) & (self.slots.len() - 1)
    }

    fn place(&mut self, hash: u64, group: u32) {
        let mut slot = self.home(hash);
        while self.slots[slot] != FREE {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = group;
    }

    pub(super) fn grow(&mut self) {
        let groups = self.len();
        self.accumulators.iter_mut().for_each(|a| a.grow(groups));
    }

    pub(super) fn update(&mut self, groups: &[u32], first: usize, values: &[Values]) {
        self.accumulators.iter_mut().zip(values).for_each(|(a, v)| a.update(groups, first, v));
    }

    /// Whether the group holds the early condition for the first time.
    pub(super) fn fire_once(&mut self, group: u32, fire: &EarlyFire) -> bool {
        let fired = self.fired[at(group)];
        let now = !fired && fire.holds(self.accumulators[fire.aggregate].measure(group));
        self.fired[at(group)] |= now;
        now
    }

    pub(super) fn fired(&self, group: u32) -> bool {
        self.fired[at(group)]
    }

    pub(super) fn set_fired(&mut self, group: u32, fired: bool) {
        self.fired[at(group)] = fired;
    }

    pub(super) fn accumulators(&self) -> &[Accumulator] {
        &self.accumulators
    }

    pub(super) fn accumulators_mut(&mut self) -> &mut [Accumulator] {
        &mut self.accumulators
    }

    /// All groups, by key.
    pub(super) fn in_key_order(&self) -> Vec<u32> {
        let mut groups: Vec<u32> = (0..number(self.len())).collect();
        groups.sort_unstable_by(|a, b| self.keys.row(at(*a)).cmp(&self.keys.row(at(*b))));
        groups
    }

    /// The key columns of these groups.
    pub(super) fn keys(
        &self,
        converter: &RowConverter,
        groups: &[u32],
    ) -> Result<Vec<arrow::array::ArrayRef>, crate::Error> {
        Ok(converter.convert_rows(groups.iter().map(|g| self.keys.row(at(*g))))?)
    }
}

fn at(group: u32) -> usize {
    usize::try_from(group).unwrap_or(usize::MAX)
}

fn number(group: usize) -> u32 {
    u32::try_from(group).unwrap_or(FREE)
}
