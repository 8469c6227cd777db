//! The library of an index: views, saved searches and lookups, by name.

use serde::{Deserialize, Serialize};
use types::{IndexName, ItemName, Timestamp};

use super::Page;

/// The longest text of a view or a saved search: that of a query.
pub const LIBRARY_TEXT_MAX: usize = 64 << 10;

/// In which language a text is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextLanguage {
    /// SQL.
    #[default]
    Sql,
    /// The pipe language.
    Pipe,
    /// LogQL.
    Logql,
}

/// What kinds of items there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// A query that is read like an index.
    View,
    /// A query that is run by its name.
    Saved,
    /// A table that somebody has uploaded.
    Lookup,
}

impl ItemKind {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Saved => "saved",
            Self::Lookup => "lookup",
        }
    }
}

/// A query that is read like an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its text.
    pub text: String,
    /// In which language: SQL or the pipe language.
    #[serde(default)]
    pub language: TextLanguage,
    /// What it is for, in a few words.
    #[serde(default)]
    pub title: String,
}

/// A query that is run by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSearch {
    /// Its text.
    pub text: String,
    /// In which language.
    #[serde(default)]
    pub language: TextLanguage,
    /// What it is for, in a few words.
    #[serde(default)]
    pub title: String,
    /// Where the range begins that is looked at, as the doors read times.
    #[serde(default)]
    pub from: Option<String>,
    /// Where it ends.
    #[serde(default)]
    pub to: Option<String>,
    /// The columns that are shown, in order; empty for all.
    #[serde(default)]
    pub columns: Vec<String>,
}

/// What the values of a lookup's column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupKind {
    /// Text.
    Text,
    /// Whole numbers.
    Integer,
    /// Floating-point numbers.
    Number,
    /// True or false.
    Boolean,
    /// Instants.
    Timestamp,
}

/// A column of a lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: LookupKind,
}

/// A table that somebody has uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Where its rows are.
    pub place: UploadPlace,
    /// SHA-256 of what lies there, in hex: equal tables are equal.
    pub digest: String,
    /// How long that is.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
    /// Its columns.
    pub columns: Vec<LookupColumn>,
    /// What it is for, in a few words.
    #[serde(default)]
    pub title: String,
}

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ItemBody {
    /// A view.
    View(View),
    /// A saved search.
    Saved(SavedSearch),
    /// A lookup.
    Lookup(Lookup),
}

impl ItemBody {
    /// Its kind.
    pub fn kind(&self) -> ItemKind {
        match self {
            Self::View(_) => ItemKind::View,
            Self::Saved(_) => ItemKind::Saved,
            Self::Lookup(_) => ItemKind::Lookup,
        }
    }
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The index in whose library it is.
    pub index: IndexName,
    /// Its name.
    pub name: ItemName,
    /// Grows with every change; no other item of the library ever had it.
    pub version: u64,
    /// When it was put there in this form.
    pub changed: Timestamp,
    /// What it is.
    pub body: ItemBody,
}

/// Names an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ItemPlace {
    /// The index.
    pub index: IndexName,
    /// The name in its library.
    pub name: ItemName,
}

/// Which items to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsOf {
    /// The index.
    pub index: IndexName,
    /// Only of this kind.
    #[serde(default)]
    pub kind: Option<ItemKind>,
    /// Begin behind this name, which need not be there.
    #[serde(default)]
    pub after: Option<ItemName>,
    /// At most so many.
    #[serde(default)]
    pub limit: Page,
}

/// Items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemList {
    /// By name.
    pub items: Vec<Item>,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
}

/// What must be there for a change to happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Anything, or nothing.
    #[default]
    Any,
    /// Nothing.
    Absent,
    /// The item in this version.
    Version(u64),
}

/// An item to put into a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemChange {
    /// The index.
    pub index: IndexName,
    /// The name.
    pub name: ItemName,
    /// What it is.
    pub body: ItemBody,
    /// What must be there.
    #[serde(default)]
    pub expected: Expected,
}

/// An item to take out of a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRemoval {
    /// The index.
    pub index: IndexName,
    /// The name.
    pub name: ItemName,
    /// The kind that is meant; another counts as not there.
    pub kind: ItemKind,
    /// What must be there.
    #[serde(default)]
    pub expected: Expected,
}

/// Whose library an upload is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadOf {
    /// The index.
    pub index: IndexName,
}

/// Where the table of a lookup lies in object storage; nothing else ever lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadPlace {
    /// The stream of the index.
    pub stream: u32,
    /// Which one of its library.
    pub number: u64,
}

impl UploadPlace {
    /// The key of the object.
    pub fn key(self) -> String {
        format!("library/{}/{}.parquet", self.stream, self.number)
    }
}
