//! Key-value tables: entries under a primary and a secondary key, changed on conditions, together where the primary key is one.

mod rows;

use bus::Bucket;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use types::{Clock, ScopeName, Token};
use wire::{Problem, views::TABLES};

pub use rows::{RowChange, RowCondition, TableError, Version, Versioned};

use crate::{
    Client,
    document::{Document, Verdict},
};
use rows::Rows;

/// The longest primary key; with scope and table it names the entry in the bucket.
pub const PRIMARY_KEY_BYTES_MAX: usize = 120;
/// The longest secondary key.
pub const SECONDARY_KEY_BYTES_MAX: usize = 256;
/// The largest value.
pub const TABLE_VALUE_BYTES_MAX: usize = 256 << 10;
/// Everything under one primary key: one message.
pub const PRIMARY_BYTES_MAX: usize = 1 << 20;
/// Changes made at once.
pub const TABLE_CHANGES_MAX: usize = 200;
/// Entries of a page.
pub const TABLE_PAGE_MAX: usize = 1_000;

/// A key-value table.
///
/// An entry is named by a primary and a secondary key, both bytes; the empty secondary key is one too. What is under one primary
/// key is changed at once or not at all. Versions grow with each change of a primary key. For settings, offsets and the like:
/// each change writes everything under its primary key. Reads see what was acknowledged before.
/// Source: Pravega, Key-Value Tables.
///
/// ```no_run
/// use client::{RowChange, RowCondition};
///
/// # async fn example(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let carts = client.table(&"shop".parse()?, &types::Token::new("carts")?).await?;
/// carts.insert(b"cart-17", b"owner", "ann").await?;
/// let entry = carts.get(b"cart-17", b"owner").await?.expect("just written");
///
/// // Both or none, and only if nobody changed the owner meanwhile.
/// carts
///     .change(b"cart-17", &[
///         RowChange::put(b"owner", "bob").on(RowCondition::Version(entry.version)),
///         RowChange::put(b"total", "12.50"),
///     ])
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Table {
    bucket: Bucket,
    prefix: String,
}

/// An entry of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// The primary key.
    pub primary: Bytes,
    /// The secondary key.
    pub secondary: Bytes,
    /// What is there.
    pub value: Bytes,
    /// Its version.
    pub version: Version,
}

/// A page of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablePage {
    /// By primary and secondary key.
    pub entries: Vec<TableEntry>,
    /// The key behind which the next page begins; `None` after the last.
    pub next: Option<(Bytes, Bytes)>,
}

impl Client {
    /// A table of a scope; it is there as soon as something is in it.
    pub async fn table(&self, scope: &ScopeName, table: &Token) -> Result<Table, Problem> {
        Ok(Table { bucket: self.bucket(TABLES).await?, prefix: format!("{scope}.{table}.") })
    }

    /// Removes every entry of a table; what is written meanwhile may stay.
    pub async fn delete_table(&self, scope: &ScopeName, table: &Token) -> Result<(), Problem> {
        let table = self.table(scope, table).await?;
        for (key, _) in table.bucket.list(&table.prefix).await? {
            table.bucket.delete(&key).await?;
        }
        Ok(())
    }
}

impl Table {
    /// Adds an entry that is not there. Errors: Conflict `KeyExists`.
    pub async fn insert(&self, primary: &[u8], secondary: &[u8], value: impl Into<Bytes>) -> Result<Version, Problem> {
        self.change_one(primary, RowChange::put(secondary, value).on(RowCondition::Absent)).await
    }

    /// Sets an entry whatever it held.
    pub async fn put(&self, primary: &[u8], secondary: &[u8], value: impl Into<Bytes>) -> Result<Version, Problem> {
        self.change_one(primary, RowChange::put(secondary, value)).await
    }

    /// Sets an entry of this version. Errors: Conflict `BadKeyVersion`; NotFound `KeyDoesNotExist`.
    pub async fn replace(
        &self,
        primary: &[u8],
        secondary: &[u8],
        value: impl Into<Bytes>,
        version: Version,
    ) -> Result<Version, Problem> {
        self.change_one(primary, RowChange::put(secondary, value).on(RowCondition::Version(version))).await
    }

    /// Removes an entry, if it is there.
    pub async fn remove(&self, primary: &[u8], secondary: &[u8]) -> Result<(), Problem> {
        self.change(primary, &[RowChange::remove(secondary)]).await.map(|_| ())
    }

    /// Removes an entry of this version. Errors: Conflict `BadKeyVersion`; NotFound `KeyDoesNotExist`.
    pub async fn remove_at(&self, primary: &[u8], secondary: &[u8], version: Version) -> Result<(), Problem> {
        let change = RowChange::remove(secondary).on(RowCondition::Version(version));
        self.change(primary, &[change]).await.map(|_| ())
    }

    /// Makes all changes under a primary key, or none; gives the versions of what was put, in order.
    ///
    /// Durable when it returns. Bounds: [`TABLE_CHANGES_MAX`], and those of keys, values and [`PRIMARY_BYTES_MAX`].
    /// Errors: Conflict `KeyExists`, `BadKeyVersion`; NotFound `KeyDoesNotExist`; BadRequest `TooLarge`, `InvalidKey`; Throttled
    /// `Contended`: nothing changed. Unavailable: unknown only if nobody can be asked any more.
    pub async fn change(&self, primary: &[u8], changes: &[RowChange]) -> Result<Vec<Version>, Problem> {
        rows::check(changes)?;
        let mut document = Document::<Rows>::new(self.bucket.clone(), self.key(primary)?, PRIMARY_BYTES_MAX);
        document
            .change(|rows| {
                let mut next = rows.cloned().unwrap_or_default();
                let versions = next.change(changes, bus::SystemClock.now())?;
                Ok(match rows {
                    Some(rows) if *rows == next => Verdict::Keep(versions),
                    None if next.is_empty() => Verdict::Keep(versions),
                    _ if next.is_empty() => Verdict::Remove(versions),
                    _ => Verdict::Put(next, versions),
                })
            })
            .await
    }

    /// An entry; `None` if it is not there.
    pub async fn get(&self, primary: &[u8], secondary: &[u8]) -> Result<Option<Versioned>, Problem> {
        Ok(self.rows(primary).await?.get(secondary))
    }

    /// Entries of one primary key, as they were at one instant, in the order asked for.
    pub async fn get_all(&self, primary: &[u8], secondary: &[&[u8]]) -> Result<Vec<Option<Versioned>>, Problem> {
        let rows = self.rows(primary).await?;
        Ok(secondary.iter().map(|key| rows.get(key)).collect())
    }

    /// Whether an entry is there.
    pub async fn exists(&self, primary: &[u8], secondary: &[u8]) -> Result<bool, Problem> {
        Ok(self.get(primary, secondary).await?.is_some())
    }

    /// A page of the entries of a primary key whose secondary keys begin with a prefix, behind `after`.
    ///
    /// Bounds: `limit` is cut to [`TABLE_PAGE_MAX`]. Each page is as of its own instant.
    pub async fn iterate(
        &self,
        primary: &[u8],
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<TablePage, Problem> {
        let rows = self.rows(primary).await?;
        let primary = Bytes::copy_from_slice(primary);
        let found = rows.all().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| **key > *after));
        Ok(page(found.map(|(key, row)| entry(primary.clone(), key, row)), limit))
    }

    /// A page of all entries of the table, behind `after`; by primary keys as bytes.
    ///
    /// Bounds: `limit` is cut to [`TABLE_PAGE_MAX`]. Reads the whole table for each page: for tables of some thousand primary keys.
    pub async fn entries(&self, after: Option<&(Bytes, Bytes)>, limit: usize) -> Result<TablePage, Problem> {
        let mut found = Vec::new();
        for (key, stored) in self.bucket.list(&self.prefix).await? {
            let hex = key.strip_prefix(&self.prefix).unwrap_or_default();
            // What does not read as a key was not written by a table.
            let Ok(primary) = HEXLOWER.decode(hex.as_bytes()).map(Bytes::from) else { continue };
            if after.is_some_and(|(last, _)| primary < *last) {
                continue;
            }
            let mut document = Document::<Rows>::new(self.bucket.clone(), key.clone(), PRIMARY_BYTES_MAX);
            document.observe(Some(stored))?;
            let Some(rows) = document.value() else { continue };
            let rest = rows
                .all()
                .filter(|(secondary, _)| after.is_none_or(|last| (&primary, *secondary) > (&last.0, &last.1)));
            found.extend(rest.map(|(secondary, row)| entry(primary.clone(), secondary, row)));
            if found.len() > limit.min(TABLE_PAGE_MAX) {
                break;
            }
        }
        Ok(page(found.into_iter(), limit))
    }

    async fn change_one(&self, primary: &[u8], change: RowChange) -> Result<Version, Problem> {
        let versions = self.change(primary, &[change]).await?;
        versions.first().copied().ok_or_else(|| Problem::internal("a change of a table gave no version"))
    }

    async fn rows(&self, primary: &[u8]) -> Result<Rows, Problem> {
        let mut document = Document::<Rows>::new(self.bucket.clone(), self.key(primary)?, PRIMARY_BYTES_MAX);
        Ok(document.load().await?.cloned().unwrap_or_default())
    }

    fn key(&self, primary: &[u8]) -> Result<String, Problem> {
        if primary.is_empty() || primary.len() > PRIMARY_KEY_BYTES_MAX {
            return Err(TableError::PrimaryKey(primary.len()).into());
        }
        Ok(format!("{}{}", self.prefix, HEXLOWER.encode(primary)))
    }
}

fn entry(primary: Bytes, secondary: &Bytes, row: Versioned) -> TableEntry {
    TableEntry { primary, secondary: secondary.clone(), value: row.value, version: row.version }
}

fn page(found: impl Iterator<Item = TableEntry>, limit: usize) -> TablePage {
    let limit = limit.clamp(1, TABLE_PAGE_MAX);
    let mut entries: Vec<TableEntry> = found.take(limit + 1).collect();
    let more = entries.len() > limit;
    entries.truncate(limit);
    let last = entries.last().filter(|_| more);
    let next = last.map(|entry| (entry.primary.clone(), entry.secondary.clone()));
    TablePage { entries, next }
}
