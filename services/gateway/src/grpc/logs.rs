//! OTLP over gRPC: the one call that exporters of logs make.
//!
//! Its message is given on as it came, packed or not, to the way in of HTTP, which bounds the time in which it arrives, what it
//! unpacks to and the memory that takes: who sends it is known before it is read, a repeat is recognised by its bytes, and it is taken
//! apart elsewhere. So only the head of the message is read here, and the codecs of the library have no part in it.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bus::with_origin;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use tokio::time::timeout;
use tonic::{
    Status,
    body::Body,
    codec::{EncodeBody, EncodeBuf, Encoder, SingleMessageCompressionOverride},
    codegen::{Body as _, BoxFuture, Service, http},
    metadata::MetadataMap,
    server::NamedService,
};
use wire::Problem;

use super::{caller, connection::BEGIN_WITHIN, for_agents, origin, text};
use crate::{
    api::Door,
    body::{BodyFault, Encoding},
    doors::{
        http::{export, unread},
        otlp::Form,
    },
    error::HttpError,
};

/// What stands in front of a message: whether it is packed, and its length.
const HEAD_BYTES: usize = 5;
/// How a message may be packed.
const ENCODINGS: &str = "identity,gzip,deflate,zstd,snappy";

/// `LogsService`.
#[derive(Clone)]
pub(super) struct Logs {
    door: Door,
}

impl Logs {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

impl NamedService for Logs {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl Service<http::Request<Body>> for Logs {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let door = self.door.clone();
        Box::pin(async move {
            let mut answer = answer(&door, request).await.map_or_else(Status::into_http, written);
            answer.headers_mut().insert("grpc-accept-encoding", http::HeaderValue::from_static(ENCODINGS));
            Ok(answer)
        })
    }
}

/// The message of the answer.
async fn answer(door: &Door, request: http::Request<Body>) -> Result<Bytes, Status> {
    let (head, body) = request.into_parts();
    if head.uri.path().rsplit('/').next() != Some("Export") {
        let message = format!("there is no call {}; logs go to {}/Export", head.uri.path(), Logs::NAME);
        return Err(Status::unimplemented(message));
    }
    let metadata = MetadataMap::from_headers(head.headers);
    let is_one = Arc::new(AtomicBool::new(true));
    let stored = async {
        let named = text(&metadata, "x-scope-orgid");
        let principal = caller(door, &metadata).await?;
        let (is_packed, message) = message(parts(body), Arc::clone(&is_one)).await?;
        // An encoding may be agreed on and not be used.
        let said = text(&metadata, "grpc-encoding").filter(|_| is_packed).unwrap_or("identity");
        let encoding = Encoding::named(said).map_err(HttpError::from)?;
        export(door, (principal, named), (message, encoding), Form::Protobuf).await
    };
    let stored = with_origin(origin(door, &metadata), stored).await;
    stored.map(Bytes::from).map_err(|error| {
        tracing::debug!(%error, "gRPC call refused");
        // The way in knows it as a body that broke off, which may come again; this stays as it is.
        let error =
            if is_one.load(Ordering::Relaxed) { error } else { malformed("the call has more than one message") };
        for_agents(&error)
    })
}

fn malformed(message: &str) -> HttpError {
    Problem::bad_request("MalformedBody", message).into()
}

/// What comes of a call, or why no more does.
fn parts(mut body: Body) -> impl Stream<Item = Result<Bytes, String>> + Unpin {
    let frames = stream::poll_fn(move |context| Pin::new(&mut body).poll_frame(context));
    frames.filter_map(|frame| {
        let part = frame.map(|frame| frame.into_data().ok()).map_err(|status| status.message().to_owned());
        std::future::ready(part.transpose())
    })
}

/// The one message of a call without its head: whether it is packed, and its bytes, an error among them where they are not as many as
/// the head says. That there are more is told apart: fewer may be all the next time.
async fn message(
    mut parts: impl Stream<Item = Result<Bytes, String>> + Unpin,
    is_one: Arc<AtomicBool>,
) -> Result<(bool, impl Stream<Item = Result<Bytes, String>> + Unpin), HttpError> {
    let broken = |why: String| unread(BodyFault::Broken(why));
    let head = async {
        let mut first = BytesMut::new();
        while first.len() < HEAD_BYTES {
            match parts.next().await {
                Some(part) => first.extend_from_slice(&part.map_err(broken)?),
                None if first.is_empty() => return Err(malformed("the call has no message")),
                None => return Err(broken("the call broke off in the head of its message".to_owned())),
            }
        }
        Ok(first)
    };
    let late = |_| broken(format!("no message began within {} s", BEGIN_WITHIN.as_secs()));
    let mut first = timeout(BEGIN_WITHIN, head).await.map_err(late)??;
    let is_packed = match first.get_u8() {
        0 => false,
        1 => true,
        _ => return Err(malformed("the message does not begin as one of gRPC")),
    };
    let mut left = u64::from(first.get_u32());
    let ended = stream::once(std::future::ready(None));
    let all = stream::once(std::future::ready(Ok(first.freeze()))).chain(parts).map(Some).chain(ended);
    let counted = all.filter_map(move |part| {
        let counted = match part {
            Some(Ok(part)) => match left.checked_sub(u64::try_from(part.len()).unwrap_or(u64::MAX)) {
                Some(rest) => {
                    left = rest;
                    Some(Ok(part))
                }
                None => {
                    is_one.store(false, Ordering::Relaxed);
                    Some(Err("more than one message".to_owned()))
                }
            },
            Some(Err(why)) => Some(Err(why)),
            None => (left > 0).then(|| Err(format!("{left} bytes of the message are missing"))),
        };
        std::future::ready(counted)
    });
    Ok((is_packed, counted))
}

/// The answer with its message, and behind it that all went well.
fn written(message: Bytes) -> http::Response<Body> {
    let messages = stream::iter([Ok(message)]);
    let how = SingleMessageCompressionOverride::default();
    let mut answer = http::Response::new(Body::new(EncodeBody::new_server(Whole, messages, None, how, None)));
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    answer
}

/// Messages as their bytes.
struct Whole;

impl Encoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}
