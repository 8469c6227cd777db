//! What was ever written is read for ever: the bytes of every request, reply, event, view and error.
//!
//! The journals of the control services and formats that are private to a crate are checked the same way beside them; see
//! `tests/golden/README.md`.

#[macro_use]
#[path = "golden/calls.rs"]
mod calls;

use std::{
    any::{TypeId, type_name},
    collections::BTreeMap,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use testkit::Golden;
use types::Timestamp;
use wire::{
    Call, Event, Problem,
    alerter::Transition,
    block::{Block, BlockBuilder},
    broker::AuditEntry,
    segment_store::OwnerRecord,
    views::{ArchivePlace, IndexKeys, Member, Placement, Quota, TokenGrant, Usages},
};

/// The file, and which type stands under which name in it.
struct Messages {
    golden: Golden,
    types: BTreeMap<String, TypeId>,
    calls: Vec<&'static str>,
}

impl Messages {
    fn message<T: Serialize + DeserializeOwned + 'static>(&mut self) {
        let name = name_of::<T>();
        let known = self.types.insert(name.clone(), TypeId::of::<T>());
        assert!(known.is_none_or(|known| known == TypeId::of::<T>()), "{name} names two types: give one another name");
        if known.is_none() {
            self.golden.check::<T>(&name);
        }
    }

    fn call<C: Call>(&mut self) {
        self.message::<C::Request>();
        self.message::<C::Reply>();
        self.calls.push(C::NAME);
    }

    fn event<E: Event>(&mut self) {
        self.message::<E::Body>();
        self.calls.push(E::NAME);
    }
}

/// A type of `wire` as others name it: its public module, and itself.
fn name_of<T>() -> String {
    let path: Vec<&str> = type_name::<T>().split("::").collect();
    match path[..] {
        ["wire", public, .., name] => format!("{public}::{name}"),
        ["wire", name] => name.to_owned(),
        _ => panic!("{} is no type of wire", path.join("::")),
    }
}

#[test]
fn golden_messages_are_read_for_ever() {
    let mut messages = Messages { golden: Golden::open("wire"), types: BTreeMap::new(), calls: Vec::new() };
    macro_rules! take_calls {
        ($($owner:ident: $($name:ident),+;)*) => { $($(messages.call::<wire::$owner::$name>();)+)* };
    }
    every_call!(take_calls);
    messages.event::<wire::coordinator::ContainerMoved>();
    messages.event::<wire::segment_store::ContainerLoaded>();
    messages.event::<wire::task_worker::FiguresTold>();
    let declared = wire::registry().into_iter().filter(|row| row.kind != "record").map(|row| row.name);
    let missing: Vec<_> = declared.filter(|name| !messages.calls.contains(name)).collect();
    assert!(missing.is_empty(), "add these to calls.rs or below it, and rows for their messages: {missing:?}");

    messages.message::<Problem>();
    messages.message::<OwnerRecord>();
    messages.message::<AuditEntry>();
    messages.message::<Member>();
    messages.message::<Placement>();
    messages.message::<TokenGrant>();
    messages.message::<Quota>();
    messages.message::<Usages>();
    messages.message::<ArchivePlace>();
    messages.message::<IndexKeys>();
    messages.golden.close();
}

#[test]
fn golden_formats_are_read_for_ever() {
    let mut golden = Golden::open("formats");
    golden.check_as("Transition", to_json::<Transition>, from_json::<Transition>);
    golden.check_as("Block", block_of, events_of);
    golden.close();
}

fn to_json<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Vec<u8>, String> {
    let value: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    serde_json::to_vec(&value).map_err(|error| error.to_string())
}

fn from_json<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Value, String> {
    let value: T = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    serde_json::to_value(value).map_err(|error| error.to_string())
}

/// A block of events, each as when it was received, its id and its payload.
fn block_of(events: &Value) -> Result<Vec<u8>, String> {
    let events: Vec<(i64, String, Vec<u8>)> =
        serde_json::from_value(events.clone()).map_err(|error| error.to_string())?;
    let mut block = BlockBuilder::new();
    for (received, id, payload) in events {
        let id = id.parse().map_err(|_| format!("{id} is no number"))?;
        if !block.push(Timestamp::from_nanos(received), id, &payload) {
            return Err("it is too large".to_owned());
        }
    }
    Ok(block.finish().to_vec())
}

fn events_of(bytes: &[u8]) -> Result<Value, String> {
    let block = Block::open(Bytes::copy_from_slice(bytes)).map_err(|error| error.to_string())?;
    Ok(block
        .iter()
        .map(|event| json!([event.received.nanos(), event.id.to_string(), event.payload.to_vec()]))
        .collect())
}
