//! The tables: one line declares a call or an event, and everything else is derived from it.

use std::fmt::{self, Write as _};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Problem, Retry, Service, delegation::Outer};

/// What fills the holes of a subject.
pub trait Key: Send + Sync + 'static {
    /// One token per hole, in order.
    fn tokens(&self) -> Vec<String>;
}

impl Key for () {
    fn tokens(&self) -> Vec<String> {
        Vec::new()
    }
}

macro_rules! one_token {
    ($($name:ty),*) => {$(
        impl Key for $name {
            fn tokens(&self) -> Vec<String> { vec![self.to_string()] }
        }
    )*};
}
one_token!(types::ContainerId, types::ReplicaId, types::JobId, types::RuleId, types::IndexName, types::SegmentId);

/// A request with one reply.
pub trait Call: Send + Sync + 'static {
    /// The name, as in `Lb-Schema`.
    const NAME: &'static str;
    /// The subject with `{holes}`.
    const PATTERN: &'static str;
    /// Who answers.
    const OWNER: Service;
    /// What a caller may do when it does not know the outcome.
    const RETRY: Retry;
    /// How programs outside the platform may make it; `None`: not at all.
    const OUTER: Option<Outer<Self::Request>> = None;
    /// What fills the holes.
    type Key: Key;
    /// The request body.
    type Request: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;
    /// The reply body.
    type Reply: Serialize + DeserializeOwned + Send + Sync + 'static;
}

/// A notice, at most once; whoever misses it can read the truth elsewhere.
pub trait Event: Send + Sync + 'static {
    /// The name.
    const NAME: &'static str;
    /// The subject with `{holes}`.
    const PATTERN: &'static str;
    /// Who tells.
    const OWNER: Service;
    /// What fills the holes.
    type Key: Key;
    /// The body.
    type Body: Serialize + DeserializeOwned + Send + Sync + 'static;
}

fn fill(pattern: &str, tokens: &[String]) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut tokens = tokens.iter();
    for (i, part) in pattern.split('.').enumerate() {
        if i > 0 {
            out.push('.');
        }
        if part.starts_with('{') {
            out.push_str(tokens.next().map_or("_", String::as_str));
        } else {
            out.push_str(part);
        }
    }
    debug_assert!(tokens.next().is_none(), "more key tokens than holes in {pattern}");
    out
}

/// The subject of one call.
pub fn subject_of<C: Call>(key: &C::Key) -> String {
    fill(C::PATTERN, &key.tokens())
}

/// The subject of one event.
pub fn subject_of_event<E: Event>(key: &E::Key) -> String {
    fill(E::PATTERN, &key.tokens())
}

/// The subscription that sees every key: each hole becomes `*`.
pub fn filter_of(pattern: &str) -> String {
    pattern.split('.').map(|p| if p.starts_with('{') { "*" } else { p }).collect::<Vec<_>>().join(".")
}

/// Encodes a body as a MessagePack map, so that fields can be added in any place.
pub fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    // Bodies are our own plain types: the only failure is a map key that is not a scalar, which none has.
    rmp_serde::to_vec_named(body).unwrap_or_default()
}

/// The most that is said of a malformed body: what is wrong with it may quote it whole, and more than once its size.
const MALFORMED_BYTES_MAX: usize = 300;

/// Decodes a body; unknown fields are ignored.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        let mut said = Short(String::new());
        // It ends early where there is more to say than is wanted.
        write!(said, "{error}").ok();
        Problem::bad_request("MalformedBody", said.0)
    })
}

/// Text that takes no more than it has room for.
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MALFORMED_BYTES_MAX.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Declares calls: docs, `Name(Request) -> Reply; "subject" [Key] @ Owner, Retry`; where programs outside the platform may make it,
/// `, Right(|request| what it is about)` behind.
macro_rules! calls {
    ($($(#[doc = $doc:literal])+ $name:ident($request:ty) -> $reply:ty; $pattern:literal [$key:ty] @ $owner:ident, $retry:ident $(, $right:ident($touched:expr))?)*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl $crate::Call for $name {
                const NAME: &'static str = stringify!($name);
                const PATTERN: &'static str = $pattern;
                const OWNER: $crate::Service = $crate::Service::$owner;
                const RETRY: $crate::Retry = $crate::Retry::$retry;
                $(const OUTER: Option<$crate::delegation::Outer<$request>> = Some($crate::delegation::Outer {
                    right: $crate::delegation::Right::$right,
                    touched: $touched,
                });)?
                type Key = $key;
                type Request = $request;
                type Reply = $reply;
            }
        )*

        pub(crate) const CALLS: &[$crate::Row] = &[$($crate::Row {
            kind: "call", name: stringify!($name), pattern: $pattern, owner: $crate::Service::$owner,
            request: stringify!($request), reply: stringify!($reply), retry: stringify!($retry),
            outer: concat!($(stringify!($right))?), doc: concat!($($doc),+),
        }),*];
    };
}

/// Declares events: docs, `Name(Body); "subject" [Key] @ Owner`.
macro_rules! events {
    ($($(#[doc = $doc:literal])+ $name:ident($body:ty); $pattern:literal [$key:ty] @ $owner:ident)*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl $crate::Event for $name {
                const NAME: &'static str = stringify!($name);
                const PATTERN: &'static str = $pattern;
                const OWNER: $crate::Service = $crate::Service::$owner;
                type Key = $key;
                type Body = $body;
            }
        )*

        pub(crate) const EVENTS: &[$crate::Row] = &[$($crate::Row {
            kind: "event", name: stringify!($name), pattern: $pattern, owner: $crate::Service::$owner,
            request: stringify!($body), reply: "", retry: "", outer: "", doc: concat!($($doc),+),
        }),*];
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_become_tokens_and_stars() {
        assert_eq!(fill("a.{x}.b.{y}", &["1".into(), "2".into()]), "a.1.b.2");
        assert_eq!(filter_of("a.{x}.b"), "a.*.b");
    }

    #[test]
    fn a_field_added_later_is_ignored_by_old_readers() {
        #[derive(serde::Serialize)]
        struct New {
            added: u8,
            old: u8,
        }
        #[derive(serde::Deserialize, PartialEq, Debug)]
        struct Old {
            old: u8,
        }
        assert_eq!(decode::<Old>(&encode(&New { added: 1, old: 2 })).unwrap(), Old { old: 2 });
    }
}
