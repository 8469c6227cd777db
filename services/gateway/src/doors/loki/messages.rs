//! The messages of `logproto.proto` that a push is made of.

use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct PushRequest {
    /// Each a [`Stream`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) streams: Vec<Bytes>,
}

/// `StreamAdapter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Stream {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) labels: Bytes,
    /// Each an [`Entry`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) entries: Vec<Bytes>,
}

/// `EntryAdapter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(message, optional, tag = "1")]
    pub(super) timestamp: Option<Time>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) line: Bytes,
    #[prost(message, repeated, tag = "3")]
    pub(super) metadata: Vec<Pair>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Time {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// `LabelPairAdapter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Pair {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}
