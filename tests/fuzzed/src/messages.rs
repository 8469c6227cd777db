//! Every body that travels over NATS.

use std::{any::type_name, sync::LazyLock};

use data_encoding::HEXLOWER;
use serde::{Serialize, de::DeserializeOwned};
use wire::{Call, Event};

use crate::damage::damaged;

#[macro_use]
#[path = "../../golden/calls.rs"]
mod calls;

/// A message as some release wrote it, and how it is read.
type Known = (Vec<u8>, fn(&[u8]));

/// Types by their names in the file of golden rows.
type Types = Vec<(String, fn(&[u8]))>;

/// The golden rows of requests, replies and events.
static MESSAGES: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let mut types: Types = Vec::new();
    macro_rules! take_calls {
        ($($owner:ident: $($name:ident),+;)*) => { $($(call::<wire::$owner::$name>(&mut types);)+)* };
    }
    every_call!(take_calls);
    event::<wire::coordinator::ContainerMoved>(&mut types);
    event::<wire::segment_store::ContainerLoaded>(&mut types);
    take::<wire::Problem>(&mut types);
    let rows = include_str!("../../golden/wire.txt").lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let known = rows.filter_map(|cells| {
        let read = types.iter().find(|(name, _)| *name == cells[0])?.1;
        Some((HEXLOWER.decode(cells.get(2)?.as_bytes()).ok()?, read))
    });
    known.collect()
});

fn call<C: Call>(types: &mut Types) {
    take::<C::Request>(types);
    take::<C::Reply>(types);
}

fn event<E: Event>(types: &mut Types) {
    take::<E::Body>(types);
}

/// Under the name that it has in the file: its public module, and itself.
fn take<T: Serialize + DeserializeOwned>(types: &mut Types) {
    let path: Vec<&str> = type_name::<T>().split("::").collect();
    let name = match path[..] {
        [_, public, .., name] => format!("{public}::{name}"),
        _ => path.last().copied().unwrap_or_default().to_owned(),
    };
    types.push((name, read::<T>));
}

/// What is taken can be written and taken again; what is not is refused in a few words.
fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    match wire::decode::<T>(bytes) {
        Ok(value) => {
            let written = wire::encode(&value);
            let again: T = wire::decode(&written).expect("what was written is read");
            assert_eq!(wire::encode(&again), written, "and is the same");
        }
        Err(problem) => assert!(problem.code.status() == 400 && problem.message.len() <= 300, "{problem:?}"),
    }
}

/// A message: the first two bytes say which, the others what is done to it.
pub fn wire_decode(data: &[u8]) {
    let [low, high, orders @ ..] = data else { return };
    let number = usize::from(*low) | usize::from(*high) << 8;
    let Some((good, read)) = MESSAGES.get(number % (MESSAGES.len() + 1)) else {
        return MESSAGES.iter().for_each(|(_, read)| read(orders));
    };
    read(&damaged(good, orders));
}
