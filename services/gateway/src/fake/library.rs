//! A library in memory: what callers see of it, without limits.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use types::Timestamp;
use wire::{
    Code, Problem,
    coordinator::{Expected, Item, ItemChange, ItemList, ItemPlace, ItemRemoval, ItemsOf, UploadPlace},
};

use super::NOW_MS;

#[derive(Default)]
pub(crate) struct Library {
    items: Mutex<BTreeMap<ItemPlace, Item>>,
    last: AtomicU64,
}

impl Library {
    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn reserve(&self) -> UploadPlace {
        UploadPlace { stream: 1, number: self.next() }
    }

    pub(crate) fn items(&self, of: &ItemsOf) -> Result<ItemList, Problem> {
        let items = self.items.lock();
        let wanted = items.values().filter(|item| {
            item.index == of.index
                && of.kind.is_none_or(|kind| item.body.kind() == kind)
                && of.after.as_ref().is_none_or(|after| item.name > *after)
        });
        let (items, more) = of.limit.fill(wanted.cloned())?;
        Ok(ItemList { items, more })
    }

    pub(crate) fn item(&self, place: &ItemPlace) -> Result<Item, Problem> {
        let found = self.items.lock().get(place).cloned();
        found.ok_or_else(|| Problem::not_found("UnknownItem", format_args!("no {}", place.name)))
    }

    fn expect(there: Option<&Item>, expected: Expected) -> Result<(), Problem> {
        let met = match expected {
            Expected::Any => true,
            Expected::Absent => there.is_none(),
            Expected::Version(version) => there.is_some_and(|item| item.version == version),
        };
        if met { Ok(()) } else { Err(Problem::new(Code::Fenced, "ItemChanged", "another version")) }
    }

    pub(crate) fn put(&self, change: &ItemChange) -> Result<Item, Problem> {
        let ItemChange { index, name, body, expected } = change.clone();
        let place = ItemPlace { index: index.clone(), name: name.clone() };
        let mut items = self.items.lock();
        if let Some(there) = items.get(&place).filter(|item| item.body == body) {
            return Ok(there.clone());
        }
        if items.get(&place).is_some_and(|item| item.body.kind() != body.kind()) {
            return Err(Problem::conflict("ItemKindDiffers", "another kind"));
        }
        Self::expect(items.get(&place), expected)?;
        let item = Item { index, name, version: self.next(), changed: Timestamp::from_millis(NOW_MS), body };
        items.insert(place, item.clone());
        Ok(item)
    }

    pub(crate) fn delete(&self, removal: &ItemRemoval) -> Result<(), Problem> {
        let place = ItemPlace { index: removal.index.clone(), name: removal.name.clone() };
        let mut items = self.items.lock();
        let there = items.get(&place).filter(|item| item.body.kind() == removal.kind);
        Self::expect(there, removal.expected)?;
        if there.is_some() {
            items.remove(&place);
        }
        Ok(())
    }
}
