//! Protocol buffers within bounds.
//!
//! Messages are declared (`#[derive(prost::Message)]`), with bytes where the official ones have texts, because agents send what is not
//! UTF-8, and bytes for messages in messages, which are read when it is their turn: so no body becomes a tree of many times its size.

use std::time::Duration;

use bytes::{Buf, Bytes};
use prost::Message;

use super::event::BodyError;

/// Steps in which one message is read: each of its fields takes two or three. An empty field is two bytes that become 32 or more, so
/// that of those a message has a million at most, and takes 64 MiB.
const STEPS_MAX: usize = 4 << 20;

/// What is left to be read when the steps are used up: a number that has begun is read to its end.
const NUMBER_BYTES_MAX: usize = 10;

/// Reads a message; its bytes are those of the body.
///
/// Bounds: [`STEPS_MAX`], then `TooMuch`. Errors: `Malformed`.
pub(crate) fn decode<M: Message + Default>(body: Bytes) -> Result<M, BodyError> {
    within(body, STEPS_MAX)
}

fn within<M: Message + Default>(bytes: Bytes, steps: usize) -> Result<M, BodyError> {
    let mut counted = Counted { bytes, steps };
    let message = M::decode(&mut counted);
    if counted.steps == 0 {
        return Err(BodyError::TooMuch("the body has too many fields; send it in parts".to_owned()));
    }
    message.map_err(|error| {
        BodyError::malformed(format_args!("the body is not the protocol buffer that it should be: {error}"))
    })
}

/// Bytes that seem to end after so many steps.
struct Counted {
    bytes: Bytes,
    steps: usize,
}

impl Counted {
    fn step(&mut self) {
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 {
            self.bytes.truncate(NUMBER_BYTES_MAX);
        }
    }
}

impl Buf for Counted {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.step();
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let bytes = self.bytes.split_to(count);
        self.step();
        bytes
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Span>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// What went wrong, as `google.rpc.Status`, and when to come again, as its `RetryInfo`.
pub(crate) fn rpc_status(code: i32, message: &str, retry: Option<Duration>) -> Vec<u8> {
    let detail = |retry: Duration| {
        let seconds = i64::try_from(retry.as_secs()).unwrap_or(i64::MAX);
        let retry_delay = Some(Span { seconds, nanos: retry.subsec_nanos().cast_signed() });
        let value = RetryInfo { retry_delay }.encode_to_vec().into();
        Detail { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value }
    };
    let details = retry.map(detail).into_iter().collect();
    RpcStatus { code, message: message.to_owned(), details }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Many {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        parts: Vec<Bytes>,
        #[prost(message, repeated, tag = "2")]
        pairs: Vec<Span>,
    }

    #[test]
    fn damage_is_an_error() {
        for wrong in
            [&[0x08, 1][..], &[0x0a, 5, 1], &[0x0b], &[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]]
        {
            let read = decode::<Many>(Bytes::from_static(wrong));
            assert!(matches!(read, Err(BodyError::Malformed(_))), "{wrong:?}: {read:?}");
        }
    }

    #[test]
    fn many_fields_are_too_much_however_small_they_are() {
        for (field, steps) in [(0x0a, 3), (0x12, 2)] {
            let body = Bytes::from([field, 0].repeat(1_000));
            let fits: Many = within(body.clone(), 1_000 * steps + 1).unwrap();
            assert_eq!(fits.parts.len() + fits.pairs.len(), 1_000);
            let refused = within::<Many>(body, 999 * steps);
            assert!(matches!(refused, Err(BodyError::TooMuch(_))), "{refused:?}");
        }
        // They end in the middle of a number.
        let refused = within::<Many>(Bytes::from_static(&[0x80; 2]), 1);
        assert!(matches!(refused, Err(BodyError::TooMuch(_))), "{refused:?}");
        // As many records as a body may have.
        let most: Many = decode(Bytes::from([0x0a, 0].repeat(1 << 20))).unwrap();
        assert_eq!(most.parts.len(), 1 << 20);
        assert!(decode::<Many>(Bytes::from([0x0a, 0].repeat(2 << 20))).is_err());
    }

    #[test]
    fn nothing_is_copied() {
        let body = Bytes::from(Many { parts: vec![Bytes::from(vec![7; 100])], pairs: Vec::new() }.encode_to_vec());
        let inside = body.as_ptr_range();
        let read: Many = decode(body).unwrap();
        assert!(inside.contains(&read.parts[0].as_ptr()));
    }

    #[test]
    fn a_status_says_when_to_come_again() {
        let read = RpcStatus::decode(&*rpc_status(14, "busy", Some(Duration::from_millis(1_500)))).unwrap();
        assert_eq!((read.code, read.message.as_str()), (14, "busy"));
        let retry = RetryInfo::decode(read.details[0].value.clone()).unwrap();
        assert_eq!(retry.retry_delay, Some(Span { seconds: 1, nanos: 500_000_000 }));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), steps in 1_usize..50) {
            if let Ok(read) = within::<Many>(bytes.clone().into(), steps) {
                prop_assert!(read.parts.len() + read.pairs.len() <= bytes.len());
            }
        }
    }
}
