//! The libraries of indexes: views, saved searches and lookups by name, and where the tables of lookups are. Pure.
//!
//! A table is put into object storage before its item is put here, under a number that was reserved for it and that nothing else ever
//! gets. From then on it is being uploaded, or named by one item, or leaving, until it is collected: so that whatever is in storage
//! is known here, and what nobody names any more goes.

pub(crate) mod doors;
mod error;

#[cfg(test)]
mod library_tests;

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use types::{IndexName, ItemName, Timestamp};
use wire::coordinator::{
    Expected, Item, ItemBody, ItemChange, ItemKind, ItemPlace, ItemRemoval, LIBRARY_TEXT_MAX, SavedSearch,
    TextLanguage, UploadPlace,
};

use crate::{CoordinatorError, State};

pub use error::LibraryError;

/// Items of the library of one index.
pub const ITEMS_MAX: usize = 200;

/// Items of all libraries.
pub const ITEMS_ALL_MAX: usize = 20_000;

/// Bytes of all items of all libraries: they are held in memory, and in every snapshot.
pub const BYTES_ALL_MAX: usize = 64 << 20;

/// Bytes of the items of one library: texts above all.
pub const BYTES_MAX: usize = 2 << 20;

/// Tables that are being uploaded or are leaving.
pub const PLACES_MAX: usize = 10_000;

/// The same of one index, so that none takes the places of all.
pub const PLACES_OF_INDEX_MAX: usize = 64;

/// The longest title, and the longest name of a column, in bytes.
pub const TITLE_BYTES_MAX: usize = 200;

/// Columns of a saved search or of a lookup.
pub const COLUMNS_MAX: usize = 64;

/// How long after its reservation a table must be named by an item: far longer than an upload may take.
pub const UPLOAD_LIFE: Duration = Duration::from_secs(600);

/// Places of one event.
const PLACES_A_TIME: usize = 1_000;

/// What somebody wants of libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Puts an item there, or finds it.
    Put(ItemChange),
    /// Takes an item out.
    Delete(ItemRemoval),
    /// Reserves a place for a table.
    Reserve(IndexName),
    /// Gives up uploads that were never named.
    Expire,
    /// Object storage holds these no more.
    Collected(Vec<UploadPlace>),
}

/// What happened to libraries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An item is there, in the place of a former one of its name.
    Put {
        /// The stream of the index.
        stream: u32,
        /// The name.
        name: ItemName,
        /// Its version.
        version: u64,
        /// What it is.
        body: ItemBody,
    },
    /// An item is gone.
    Deleted {
        /// The stream of the index.
        stream: u32,
        /// The name.
        name: ItemName,
    },
    /// A table may be put into this place.
    Reserved {
        /// The place.
        place: UploadPlace,
    },
    /// Tables that were reserved for and never named are leaving.
    Expired {
        /// Their places.
        places: Vec<UploadPlace>,
    },
    /// Object storage holds these no more.
    Collected {
        /// Their places.
        places: Vec<UploadPlace>,
    },
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u64,
    changed: Timestamp,
    body: ItemBody,
}

/// The library of one index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Library {
    items: BTreeMap<ItemName, Kept>,
    /// Reserved places that no item names yet, and since when.
    uploads: BTreeMap<u64, Timestamp>,
}

/// Every library.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Libraries {
    libraries: BTreeMap<u32, Library>,
    /// Places that nothing names any more, by stream, and since when. Their streams may be gone.
    leaving: BTreeMap<u32, BTreeMap<u64, Timestamp>>,
    /// The last number that was given to a version or a place; none is given twice.
    last: u64,
}

impl Libraries {
    /// One item of the library of an index that can be used.
    pub fn describe(&self, state: &State, place: &ItemPlace) -> Result<Item, CoordinatorError> {
        let stream = state.live_stream(&place.index)?.summary().stream;
        let kept = self.libraries.get(&stream).and_then(|library| library.items.get(&place.name));
        let unknown = || LibraryError::Unknown { index: place.index.clone(), name: place.name.clone() };
        Ok(item(&place.index, &place.name, kept.ok_or_else(unknown)?))
    }

    /// The items of a stream by name, of one kind or all; those behind a name.
    pub fn list<'a>(
        &'a self,
        (stream, index): (u32, &'a IndexName),
        kind: Option<ItemKind>,
        after: Option<&'a ItemName>,
    ) -> impl Iterator<Item = Item> + 'a {
        let behind = (after.map_or(Unbounded, Excluded), Unbounded);
        let items = self.libraries.get(&stream).into_iter().flat_map(move |of| of.items.range::<ItemName, _>(behind));
        let wanted = items.filter(move |(_, kept)| kind.is_none_or(|kind| kept.body.kind() == kind));
        wanted.map(move |(name, kept)| item(index, name, kept))
    }

    /// How many items there are.
    pub fn count(&self) -> usize {
        self.libraries.values().map(|library| library.items.len()).sum()
    }

    /// Places that have been leaving for so long: nobody reads what lies there any more.
    pub fn due(&self, now: Timestamp, delay: Duration) -> Vec<UploadPlace> {
        let all = self.leaving.iter().flat_map(|(stream, of)| of.iter().map(|(number, at)| (*stream, *number, *at)));
        let over = all.filter(|(.., at)| now.since(*at) >= delay);
        over.map(|(stream, number, _)| UploadPlace { stream, number }).take(PLACES_A_TIME).collect()
    }

    pub(crate) fn decide(
        &self,
        state: &State,
        command: Command,
        now: Timestamp,
    ) -> Result<Vec<Event>, CoordinatorError> {
        match command {
            Command::Put(change) => self.put(state, change),
            Command::Delete(removal) => self.delete(state, &removal),
            Command::Reserve(index) => {
                let stream = state.live_stream(&index)?.summary().stream;
                let own = self.libraries.get(&stream).map_or(0, |library| library.uploads.len())
                    + self.leaving.get(&stream).map_or(0, BTreeMap::len);
                if own >= PLACES_OF_INDEX_MAX {
                    return Err(LibraryError::TooManyPlacesOfIndex { index }.into());
                }
                let open: usize = self.libraries.values().map(|library| library.uploads.len()).sum();
                if open + self.leaving.values().map(BTreeMap::len).sum::<usize>() >= PLACES_MAX {
                    return Err(LibraryError::TooManyPlaces.into());
                }
                Ok(vec![Event::Reserved { place: UploadPlace { stream, number: self.last + 1 } }])
            }
            Command::Expire => {
                let open = self.libraries.iter().flat_map(|(stream, of)| of.uploads.iter().map(|at| (*stream, at)));
                let over = open.filter(|(_, (_, at))| now.since(**at) >= UPLOAD_LIFE);
                let places = over.map(|(stream, (number, _))| UploadPlace { stream, number: *number });
                let places: Vec<UploadPlace> = places.take(PLACES_A_TIME).collect();
                Ok(if places.is_empty() { Vec::new() } else { vec![Event::Expired { places }] })
            }
            Command::Collected(places) => {
                let leaving = |place: &UploadPlace| {
                    self.leaving.get(&place.stream).is_some_and(|of| of.contains_key(&place.number))
                };
                let places: Vec<UploadPlace> = places.into_iter().filter(leaving).collect();
                Ok(if places.is_empty() { Vec::new() } else { vec![Event::Collected { places }] })
            }
        }
    }

    fn put(&self, state: &State, change: ItemChange) -> Result<Vec<Event>, CoordinatorError> {
        let ItemChange { index, name, body, expected } = change;
        let stream = state.live_stream(&index)?.summary().stream;
        let library = self.libraries.get(&stream);
        let there = library.and_then(|library| library.items.get(&name));
        // A repeat, also of a change that expected what was there before.
        if there.is_some_and(|there| there.body == body) {
            return Ok(Vec::new());
        }
        if let Some(kind) = there.map(|there| there.body.kind()).filter(|kind| *kind != body.kind()) {
            return Err(LibraryError::KindDiffers { name, kind }.into());
        }
        meets(&name, expected, there)?;
        check(&body)?;
        if let ItemBody::Lookup(lookup) = &body {
            let open = library.is_some_and(|library| library.uploads.contains_key(&lookup.place.number));
            // The same table under another title.
            let same = |there: &Kept| matches!(&there.body, ItemBody::Lookup(now) if now.place == lookup.place && now.digest == lookup.digest);
            if !there.is_some_and(same) && (lookup.place.stream != stream || !open) {
                return Err(LibraryError::UploadExpired { name }.into());
            }
        }
        if there.is_none() && library.is_some_and(|library| library.items.len() >= ITEMS_MAX) {
            return Err(LibraryError::TooManyItems { index }.into());
        }
        let bytes = |of: &Library| of.items.values().map(|kept| weight(&kept.body)).sum::<usize>();
        let freed = there.map_or(0, |there| weight(&there.body));
        // What gets smaller has room in any case.
        let grows = weight(&body) > freed;
        if grows && library.map_or(0, bytes) - freed + weight(&body) > BYTES_MAX {
            return Err(LibraryError::TooMuch { index }.into());
        }
        let full = there.is_none() && self.count() >= ITEMS_ALL_MAX;
        let all: usize = self.libraries.values().map(bytes).sum();
        if full || (grows && all - freed + weight(&body) > BYTES_ALL_MAX) {
            return Err(LibraryError::TooMuchInAll.into());
        }
        Ok(vec![Event::Put { stream, name, version: self.last + 1, body }])
    }

    fn delete(&self, state: &State, removal: &ItemRemoval) -> Result<Vec<Event>, CoordinatorError> {
        let stream = state.live_stream(&removal.index)?.summary().stream;
        let there = self.libraries.get(&stream).and_then(|library| library.items.get(&removal.name));
        let there = there.filter(|there| there.body.kind() == removal.kind);
        meets(&removal.name, removal.expected, there)?;
        let deleted = there.map(|_| Event::Deleted { stream, name: removal.name.clone() });
        Ok(deleted.into_iter().collect())
    }

    pub(crate) fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Put { stream, name, version, body } => {
                self.last = self.last.max(*version);
                let library = self.libraries.entry(*stream).or_default();
                if let ItemBody::Lookup(lookup) = body {
                    library.uploads.remove(&lookup.place.number);
                }
                let kept = Kept { version: *version, changed: at, body: body.clone() };
                let former = library.items.insert(name.clone(), kept);
                self.leave(former.filter(|former| place_of(&former.body) != place_of(body)), at);
            }
            Event::Deleted { stream, name } => {
                let former = self.libraries.get_mut(stream).and_then(|library| library.items.remove(name));
                self.leave(former, at);
                self.tidy(*stream);
            }
            Event::Reserved { place } => {
                self.last = self.last.max(place.number);
                self.libraries.entry(place.stream).or_default().uploads.insert(place.number, at);
            }
            Event::Expired { places } => {
                for place in places {
                    let library = self.libraries.get_mut(&place.stream);
                    if library.and_then(|library| library.uploads.remove(&place.number)).is_some() {
                        self.leaving.entry(place.stream).or_default().insert(place.number, at);
                    }
                    self.tidy(place.stream);
                }
            }
            Event::Collected { places } => {
                for place in places {
                    let Some(of) = self.leaving.get_mut(&place.stream) else { continue };
                    of.remove(&place.number);
                    if of.is_empty() {
                        self.leaving.remove(&place.stream);
                    }
                }
            }
        }
    }

    /// The stream is gone: whatever its library has in storage leaves, also what is just being put there.
    pub(crate) fn forget(&mut self, stream: u32, at: Timestamp) {
        let Some(library) = self.libraries.remove(&stream) else { return };
        library.items.into_values().for_each(|kept| self.leave(Some(kept), at));
        if !library.uploads.is_empty() {
            self.leaving.entry(stream).or_default().extend(library.uploads.into_keys().map(|number| (number, at)));
        }
    }

    fn leave(&mut self, former: Option<Kept>, at: Timestamp) {
        if let Some(Kept { body: ItemBody::Lookup(lookup), .. }) = former {
            self.leaving.entry(lookup.place.stream).or_default().insert(lookup.place.number, at);
        }
    }

    fn tidy(&mut self, stream: u32) {
        self.libraries
            .remove(&stream)
            .filter(|of| !of.items.is_empty() || !of.uploads.is_empty())
            .map(|of| self.libraries.insert(stream, of));
    }
}

/// Where the table of a lookup is.
fn place_of(body: &ItemBody) -> Option<UploadPlace> {
    if let ItemBody::Lookup(lookup) = body { Some(lookup.place) } else { None }
}

fn item(index: &IndexName, name: &ItemName, kept: &Kept) -> Item {
    let Kept { version, changed, body } = kept.clone();
    Item { index: index.clone(), name: name.clone(), version, changed, body }
}

fn meets(name: &ItemName, expected: Expected, there: Option<&Kept>) -> Result<(), LibraryError> {
    let is = there.map(|there| there.version);
    let met = match expected {
        Expected::Any => true,
        Expected::Absent => is.is_none(),
        Expected::Version(version) => is == Some(version),
    };
    if met { Ok(()) } else { Err(LibraryError::Changed { name: name.clone(), is }) }
}

/// What an item takes in memory, but for its row.
fn weight(body: &ItemBody) -> usize {
    let sum = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    match body {
        ItemBody::View(view) => view.text.len() + view.title.len(),
        ItemBody::Saved(saved) => saved.text.len() + saved.title.len() + sum(&saved.columns),
        ItemBody::Lookup(lookup) => {
            lookup.title.len() + lookup.columns.iter().map(|column| column.name.len()).sum::<usize>()
        }
    }
}

fn check(body: &ItemBody) -> Result<(), LibraryError> {
    let refuse = |what: String| Err(LibraryError::Invalid(what));
    let (text, title, columns): (Option<&str>, &str, Vec<&String>) = match body {
        ItemBody::View(view) => (Some(&view.text), &view.title, Vec::new()),
        ItemBody::Saved(saved) => (Some(&saved.text), &saved.title, saved.columns.iter().collect()),
        ItemBody::Lookup(of) => (None, &of.title, of.columns.iter().map(|column| &column.name).collect()),
    };
    if matches!(body, ItemBody::View(view) if view.language == TextLanguage::Logql) {
        return refuse(
            "a view is written in sql or pipe: LogQL asks about a range, which a view does not have".to_owned(),
        );
    }
    if text.is_some_and(|text| text.trim().is_empty()) {
        return refuse("the text is empty".to_owned());
    }
    if let Some(text) = text.filter(|text| text.len() > LIBRARY_TEXT_MAX) {
        return refuse(format!("the text has {} bytes, {LIBRARY_TEXT_MAX} are the most it may have", text.len()));
    }
    let times =
        if let ItemBody::Saved(SavedSearch { from, to, .. }) = body { [from.as_ref(), to.as_ref()] } else { [None; 2] };
    let long = columns.iter().copied().chain(times.into_iter().flatten()).any(|text| text.len() > TITLE_BYTES_MAX);
    if long || title.len() > TITLE_BYTES_MAX {
        return refuse(format!("a title, a time and the name of a column have at most {TITLE_BYTES_MAX} bytes each"));
    }
    if columns.len() > COLUMNS_MAX {
        return refuse(format!("{} columns are named, {COLUMNS_MAX} are the most", columns.len()));
    }
    Ok(())
}
