//! From a key to the number of its group.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Int64Type, UInt64Type},
    row::{RowConverter, Rows, SortField},
};

use super::chunk::{Chunked, at, number};
use crate::{Error, HASH_COLUMN, column, hash};

/// Bytes of a table that are there for each group beside its key: slots at half full, and the hash.
const GROUP_BYTES: usize = 24;

/// How the keys of a window are held.
#[derive(Debug, Clone)]
pub(crate) struct KeyForm {
    columns: Vec<(String, DataType)>,
    kind: KeyKind,
}

#[derive(Debug, Clone)]
enum KeyKind {
    /// No key: one group.
    None,
    /// One column of whole numbers or instants.
    Int,
    /// One column of text.
    Text,
    /// Anything else, as comparable rows.
    Rows(Arc<RowConverter>),
}

/// The keys of a batch.
#[derive(Debug)]
pub(crate) enum KeyInput {
    None,
    Int(Int64Array),
    Text(StringArray),
    Rows(Rows),
}

/// Keys and hashes of a batch.
#[derive(Debug)]
pub(crate) struct Keyed {
    pub(crate) keys: KeyInput,
    pub(crate) hashes: Vec<u64>,
}

impl KeyForm {
    pub(crate) fn new(columns: Vec<(String, DataType)>) -> Result<Self, Error> {
        let kind = match columns.as_slice() {
            [] => KeyKind::None,
            [(_, DataType::Int64 | DataType::Timestamp(..))] => KeyKind::Int,
            [(_, DataType::Utf8)] => KeyKind::Text,
            _ => {
                let fields = columns.iter().map(|(_, kind)| SortField::new(kind.clone())).collect();
                KeyKind::Rows(Arc::new(RowConverter::new(fields)?))
            }
        };
        Ok(Self { columns, kind })
    }

    /// The form for the types of that batch.
    pub(crate) fn learn(keys: &[String], batch: &RecordBatch) -> Result<Self, Error> {
        let kind =
            |name: &String| Ok((name.clone(), column::key(column::column(batch, name)?, name)?.data_type().clone()));
        Self::new(keys.iter().map(kind).collect::<Result<_, Error>>()?)
    }

    pub(crate) fn columns(&self) -> &[(String, DataType)] {
        &self.columns
    }

    /// The keys of a batch; its hashes, too, if it brings them along.
    pub(crate) fn read(&self, batch: &RecordBatch) -> Result<Keyed, Error> {
        let keys = self
            .columns
            .iter()
            .map(|(name, kind)| column::as_learnt(column::key(column::column(batch, name)?, name)?, kind, name))
            .collect::<Result<Vec<ArrayRef>, Error>>()?;
        let rows = batch.num_rows();
        let brought = batch.column_by_name(HASH_COLUMN).and_then(|array| array.as_primitive_opt::<UInt64Type>());
        let hashes = match brought {
            Some(array) if array.null_count() == 0 => array.values().to_vec(),
            // Without a key everything goes to the first subtask, whose key groups have this hash's.
            _ if keys.is_empty() => vec![0; rows],
            _ => hash::of_columns(&keys, rows)?,
        };
        let keys = match &self.kind {
            KeyKind::None => KeyInput::None,
            KeyKind::Int => KeyInput::Int(cast(&keys[0], &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            KeyKind::Text => KeyInput::Text(keys[0].as_string::<i32>().clone()),
            KeyKind::Rows(converter) => KeyInput::Rows(converter.convert_columns(&keys)?),
        };
        Ok(Keyed { keys, hashes })
    }
}

/// One key, borrowed.
#[derive(Debug, Clone, Copy)]
enum Key<'a> {
    Null,
    Int(i64),
    Bytes(&'a [u8]),
}

impl KeyInput {
    fn key(&self, row: usize) -> Key<'_> {
        match self {
            Self::None => Key::Int(0),
            Self::Int(array) if array.is_null(row) => Key::Null,
            Self::Int(array) => Key::Int(array.value(row)),
            Self::Text(array) if array.is_null(row) => Key::Null,
            Self::Text(array) => Key::Bytes(array.value(row).as_bytes()),
            Self::Rows(rows) => Key::Bytes(rows.row(row).data()),
        }
    }
}

/// Keys by group. A null of a single column has a group of its own, and any value in its place.
#[derive(Debug, Clone)]
enum Store {
    Int(Chunked<i64>),
    Bytes(Chunked<Box<[u8]>>),
}

/// Open addressing over group numbers: a slot has the upper half of the hash and the number of the group, so that probing
/// touches eight bytes, and the key only where the halves agree.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    form: Arc<KeyForm>,
    slots: Vec<u64>,
    hashes: Chunked<u64>,
    store: Store,
    null: Option<u32>,
    len: usize,
    key_bytes: usize,
}

const FREE: u64 = 0;
const TAG: u64 = 0xffff_ffff_0000_0000;

fn slot_of(hash: u64, group: u32) -> u64 {
    (hash & TAG) | (u64::from(group) + 1)
}

fn group_in(slot: u64) -> u32 {
    u32::try_from((slot & !TAG) - 1).unwrap_or(u32::MAX)
}

fn home(hash: u64, mask: usize) -> usize {
    // The low bits: the top ones are equal within a key group.
    usize::try_from(hash & !TAG).unwrap_or(0) & mask
}

impl Table {
    pub(crate) fn new(form: &Arc<KeyForm>) -> Self {
        let store = match form.kind {
            KeyKind::None | KeyKind::Int => Store::Int(Chunked::default()),
            KeyKind::Text | KeyKind::Rows(_) => Store::Bytes(Chunked::default()),
        };
        let (form, slots) = (Arc::clone(form), vec![FREE; 16]);
        Self { form, slots, hashes: Chunked::default(), store, null: None, len: 0, key_bytes: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.key_bytes + self.len * GROUP_BYTES
    }

    pub(crate) fn form(&self) -> &KeyForm {
        &self.form
    }

    pub(crate) fn hash(&self, group: u32) -> u64 {
        *self.hashes.get(group)
    }

    /// Whether the group has that key.
    fn has(&self, group: u32, key: Key<'_>) -> bool {
        match (&self.store, key) {
            (_, Key::Null) => self.null == Some(group),
            (Store::Int(keys), Key::Int(value)) => *keys.get(group) == value && self.null != Some(group),
            (Store::Bytes(keys), Key::Bytes(value)) => **keys.get(group) == *value && self.null != Some(group),
            _ => false,
        }
    }

    fn find(&self, hash: u64, key: Key<'_>) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut place = home(hash, mask);
        loop {
            let slot = self.slots[place];
            if slot == FREE {
                return None;
            }
            if slot & TAG == hash & TAG && self.has(group_in(slot), key) {
                return Some(group_in(slot));
            }
            place = (place + 1) & mask;
        }
    }

    fn find_or_insert(&mut self, hash: u64, key: Key<'_>) -> u32 {
        match self.find(hash, key) {
            Some(group) => group,
            None => self.insert(hash, key),
        }
    }

    fn insert(&mut self, hash: u64, key: Key<'_>) -> u32 {
        // At most half full: probes stay short, and there is always a free slot to end one.
        if (self.len + 1) * 2 > self.slots.len() {
            self.slots = vec![FREE; self.slots.len() * 4];
            let hashes: Vec<u64> = self.hashes.iter().copied().collect();
            hashes.into_iter().enumerate().for_each(|(group, hash)| self.place(hash, number(group)));
        }
        let group = number(self.len);
        self.place(hash, group);
        self.hashes.push(hash);
        match (&mut self.store, key) {
            (Store::Int(keys), Key::Int(value)) => keys.push(value),
            (Store::Int(keys), _) => keys.push(0),
            (Store::Bytes(keys), Key::Bytes(value)) => {
                self.key_bytes += value.len() + 16;
                keys.push(value.into());
            }
            (Store::Bytes(keys), _) => keys.push(Box::default()),
        }
        if matches!(key, Key::Null) {
            self.null = Some(group);
        }
        self.len += 1;
        group
    }

    fn place(&mut self, hash: u64, group: u32) {
        let mask = self.slots.len() - 1;
        let mut place = home(hash, mask);
        while self.slots[place] != FREE {
            place = (place + 1) & mask;
        }
        self.slots[place] = slot_of(hash, group);
    }

    /// The groups of these rows, or of all, into `groups`; new keys become new groups.
    pub(crate) fn groups(&mut self, input: &Keyed, rows: Option<&[u32]>, groups: &mut Vec<u32>) {
        groups.clear();
        let hashes = input.hashes.as_slice();
        match rows {
            Some(rows) => groups.extend(rows.iter().map(|row| {
                let row = at(*row);
                self.find_or_insert(hashes[row], input.keys.key(row))
            })),
            None => {
                groups.extend(
                    hashes.iter().enumerate().map(|(row, hash)| self.find_or_insert(*hash, input.keys.key(row))),
                );
            }
        }
    }

    /// The group of the key of a row, if there is one.
    pub(crate) fn lookup(&self, input: &Keyed, row: usize) -> Option<u32> {
        self.find(input.hashes[row], input.keys.key(row))
    }

    /// These groups, numbered anew in that order.
    pub(crate) fn kept(&self, groups: &[u32]) -> Self {
        let mut table = Self::new(&self.form);
        groups.iter().for_each(|group| {
            table.same(self, *group, true);
        });
        table
    }

    fn key(&self, group: u32) -> Key<'_> {
        match &self.store {
            _ if self.null == Some(group) => Key::Null,
            Store::Int(keys) => Key::Int(*keys.get(group)),
            Store::Bytes(keys) => Key::Bytes(keys.get(group)),
        }
    }

    /// The group here of a group there; a new one, if `insert` and its key is not here.
    pub(crate) fn same(&mut self, other: &Self, group: u32, insert: bool) -> Option<u32> {
        let (hash, key) = (other.hash(group), other.key(group));
        if insert { Some(self.find_or_insert(hash, key)) } else { self.find(hash, key) }
    }

    /// All groups, by key, nulls first.
    pub(crate) fn in_key_order(&self) -> Vec<u32> {
        match &self.store {
            Store::Int(keys) => {
                let mut all: Vec<(bool, i64, u32)> =
                    (0u32..).zip(keys.iter()).map(|(group, key)| (self.null != Some(group), *key, group)).collect();
                all.sort_unstable();
                all.into_iter().map(|(_, _, group)| group).collect()
            }
            Store::Bytes(keys) => {
                // The first eight bytes decide nearly always, and lie beside each other.
                let mut all: Vec<(bool, u64, u32)> = (0u32..)
                    .zip(keys.iter())
                    .map(|(group, key)| (self.null != Some(group), first_bytes(key), group))
                    .collect();
                all.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| keys.get(a.2).cmp(keys.get(b.2))));
                all.into_iter().map(|(_, _, group)| group).collect()
            }
        }
    }

    /// The order of the keys of two groups.
    pub(crate) fn compare(&self, a: u32, b: u32) -> Ordering {
        let valid = |group| self.null != Some(group);
        valid(a).cmp(&valid(b)).then_with(|| match &self.store {
            Store::Int(keys) => keys.get(a).cmp(keys.get(b)),
            Store::Bytes(keys) => keys.get(a).cmp(keys.get(b)),
        })
    }

    /// The key columns of these groups.
    pub(crate) fn columns(&self, groups: &[u32]) -> Result<Vec<ArrayRef>, Error> {
        let valid = |group: &u32| self.null != Some(*group);
        Ok(match (&self.store, &self.form.kind) {
            (_, KeyKind::None) => Vec::new(),
            (Store::Int(keys), _) => {
                let ints: Int64Array = groups.iter().map(|g| valid(g).then(|| *keys.get(*g))).collect();
                vec![cast(&ints, &self.form.columns[0].1)?]
            }
            (Store::Bytes(keys), KeyKind::Rows(converter)) => {
                let parser = converter.parser();
                converter.convert_rows(groups.iter().map(|g| parser.parse(keys.get(*g))))?
            }
            (Store::Bytes(keys), _) => {
                let text = |g: &u32| valid(g).then(|| std::str::from_utf8(keys.get(*g)).unwrap_or_default());
                vec![Arc::new(groups.iter().map(text).collect::<StringArray>())]
            }
        })
    }

    /// Keys and hashes, shared, to be written; nothing can be found in it.
    pub(crate) fn shared(&self) -> Self {
        let (form, hashes, store) = (Arc::clone(&self.form), self.hashes.clone(), self.store.clone());
        Self { form, slots: Vec::new(), hashes, store, null: self.null, len: self.len, key_bytes: 0 }
    }

    /// Keys and hashes of one piece, shared, to be written; nothing can be found in it.
    pub(crate) fn only(&self, chunk: usize) -> Self {
        let first = number(chunk * super::chunk::CHUNK);
        let hashes = self.hashes.only(chunk);
        let len = hashes.iter().count();
        let store = match &self.store {
            Store::Int(keys) => Store::Int(keys.only(chunk)),
            Store::Bytes(keys) => Store::Bytes(keys.only(chunk)),
        };
        let null = self.null.and_then(|group| group.checked_sub(first)).filter(|group| at(*group) < len);
        Self { form: Arc::clone(&self.form), slots: Vec::new(), hashes, store, null, len, key_bytes: 0 }
    }
}

fn first_bytes(key: &[u8]) -> u64 {
    let mut first = [0u8; 8];
    let len = key.len().min(8);
    first[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(first)
}
