//! OTLP over gRPC: the one call that exporters of logs make, on a listener of its own.
//!
//! gRPC is HTTP/2 with a length in front of the message and the outcome behind the answer, which the HTTP door cannot write.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bus::{Origin, with_origin};
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use rustls::ServerConfig;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::{
    api::Door,
    auth::token_in,
    body::{BodyFault, Encoding},
    doors::{
        http::{export, grpc_code, unread},
        otlp::Form,
    },
    error::HttpError,
    sockets::{ListenError, Listener, Socket},
};

/// The call.
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// What stands in front of a message: whether it is packed, and its length.
const HEAD_BYTES: usize = 5;
/// Calls of one connection at once.
const CALLS_MAX: u32 = 32;
/// Bytes of one call that may be on their way.
const WINDOW_BYTES: u32 = 1 << 20;
/// The largest headers of a call.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// How long a connection may be without an open call: it holds one of few places.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// How long a connection may take to begin, or without an open call to end, and a message to say its length.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// How long a call may take behind its body.
const CALL_WITHIN: Duration = Duration::from_secs(90);
/// How much is told of what is wrong.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

const INVALID_ARGUMENT: u64 = 3;
const UNIMPLEMENTED: u64 = 12;

/// Opens the listener if the settings name one; it closes when the door stops.
pub(crate) async fn open(
    door: &Door,
    tls: Option<Arc<ServerConfig>>,
    tasks: &TaskTracker,
) -> Result<Option<SocketAddr>, ListenError> {
    let address = &door.config.otlp_grpc_address;
    if address.is_empty() {
        return Ok(None);
    }
    let tls = tls.map(|tls| {
        let mut tls = ServerConfig::clone(&tls);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(tls)
    });
    let listener = Listener::open("otlp-grpc", address, tls).await?;
    let bound = listener.bound();
    let (serving, begun) = (door.clone(), tasks.clone());
    let serve = move |socket, _| serve(serving.clone(), socket, begun.clone());
    tasks.spawn_local(listener.run(door.stop.clone(), tasks.clone(), serve));
    Ok(Some(bound))
}

/// Answers the calls of a connection until it ends or is idle; after a stop those that were begun.
async fn serve(door: Door, socket: Box<dyn Socket>, tasks: TaskTracker) {
    let mut how = h2::server::Builder::new();
    how.max_concurrent_streams(CALLS_MAX)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX);
    let Ok(Ok(mut connection)) = timeout(BEGIN_WITHIN, how.handshake::<_, Bytes>(socket)).await else { return };
    let (calls, mut is_ending) = (TaskTracker::new(), false);
    // So that it can be waited for: it takes calls all the same.
    calls.close();
    loop {
        let patience = if is_ending { BEGIN_WITHIN } else { IDLE_MAX };
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                calls.spawn_local(tasks.track_future(call(door.clone(), request, respond)));
                continue;
            }
            () = door.stop.cancelled(), if !is_ending => {}
            // Who was told that it ends, and does nothing more, is cut off.
            () = idle(&calls, patience) => if is_ending { return },
        }
        connection.graceful_shutdown();
        is_ending = true;
    }
}

/// Returns when there was no open call for so long.
async fn idle(calls: &TaskTracker, patience: Duration) {
    calls.wait().await;
    sleep(patience).await;
}

/// A call that is not answered as it should be.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: u64,
    message: String,
}

impl From<HttpError> for Refusal {
    fn from(error: HttpError) -> Self {
        Self { code: grpc_code(&error), message: error.problem().to_string() }
    }
}

async fn call(door: Door, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let origin = Origin {
        caller: door.caller.clone(),
        deadline: door.clock.now() + CALL_WITHIN,
        request_id: uuid::Uuid::new_v4().simple().to_string(),
        traceparent: header(request.headers(), "traceparent").map(str::to_owned),
    };
    let answered = match with_origin(origin, answer(&door, request)).await {
        Ok(message) => answered(&mut respond, &message),
        Err(refusal) => {
            tracing::debug!(?refusal, "gRPC call refused");
            refused(&mut respond, &refusal)
        }
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "gRPC call not answered");
    }
}

/// The message of the answer.
async fn answer(door: &Door, request: Request<RecvStream>) -> Result<Vec<u8>, Refusal> {
    let (head, body) = request.into_parts();
    let is_grpc = header(&head.headers, "content-type").is_some_and(|kind| kind.starts_with("application/grpc"));
    if !is_grpc || head.uri.path() != EXPORT {
        let message = format!("there is no call {}; logs go to {EXPORT}", head.uri.path());
        return Err(Refusal { code: UNIMPLEMENTED, message });
    }
    let none = || HttpError::unauthorized("send the metadata `authorization: Bearer <token>`");
    let token = header(&head.headers, "authorization").and_then(token_in).ok_or_else(none)?;
    let principal = door.auth.check(&token).await?;
    let named = header(&head.headers, "x-scope-orgid");
    let (is_packed, message) = message(Body(body)).await?;
    let said = if is_packed { header(&head.headers, "grpc-encoding").unwrap_or("identity") } else { "identity" };
    let encoding = Encoding::named(said).map_err(HttpError::from)?;
    Ok(export(door, (principal, named), (message, encoding), Form::Protobuf).await?)
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What comes, and room for more as soon as it was taken.
struct Body(RecvStream);

impl Stream for Body {
    type Item = Result<Bytes, h2::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(part) = ready!(self.0.poll_data(context)) else { return Poll::Ready(None) };
        let given = part.and_then(|part| self.0.flow_control().release_capacity(part.len()).map(|()| part));
        Poll::Ready(Some(given))
    }
}

/// The one message of a call without its head: whether it is packed, and its bytes, an error among them where they are not as many as
/// the head says.
async fn message<E: std::fmt::Display>(
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(bool, impl Stream<Item = Result<Bytes, String>> + Unpin), Refusal> {
    let malformed = |message: &str| Refusal { code: INVALID_ARGUMENT, message: message.to_owned() };
    let mut first = BytesMut::new();
    while first.len() < HEAD_BYTES {
        let part = timeout(BEGIN_WITHIN, body.next()).await.map_err(|_| unread(BodyFault::Late))?;
        let part = part.ok_or_else(|| malformed("the call has no message"))?;
        first.extend_from_slice(&part.map_err(|error| unread(BodyFault::Broken(error.to_string())))?);
    }
    let is_packed = match first.get_u8() {
        0 => false,
        1 => true,
        _ => return Err(malformed("the message does not begin as one of gRPC")),
    };
    let mut left = u64::from(first.get_u32());
    let parts =
        stream::once(std::future::ready(Ok(first.freeze()))).chain(body.map(|part| part.map_err(|e| e.to_string())));
    let counted = parts.map(Some).chain(stream::once(std::future::ready(None))).filter_map(move |part| {
        let counted = match part {
            Some(Ok(part)) => match left.checked_sub(u64::try_from(part.len()).unwrap_or(u64::MAX)) {
                Some(rest) => {
                    left = rest;
                    Some(Ok(part))
                }
                None => Some(Err("the call has more than one message".to_owned())),
            },
            Some(Err(error)) => Some(Err(error)),
            None => (left > 0).then(|| Err(format!("{left} bytes of the message are missing"))),
        };
        std::future::ready(counted)
    });
    Ok((is_packed, counted))
}

fn answered(respond: &mut SendResponse<Bytes>, message: &[u8]) -> Result<(), h2::Error> {
    let mut body = BytesMut::with_capacity(HEAD_BYTES + message.len());
    body.extend_from_slice(&[0]);
    body.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(message);
    let mut stream: SendStream<Bytes> = respond.send_response(head(), false)?;
    stream.send_data(body.freeze(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(0));
    stream.send_trailers(trailers)
}

fn refused(respond: &mut SendResponse<Bytes>, refusal: &Refusal) -> Result<(), h2::Error> {
    let mut head = head();
    let headers = head.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(refusal.code));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,deflate,zstd,snappy"));
    if let Ok(message) = HeaderValue::from_str(&percent(&refusal.message)) {
        headers.insert("grpc-message", message);
    }
    respond.send_response(head, true).map(|_| ())
}

fn head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    head
}

/// A text as `grpc-message` carries it, cut where it is long.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes().take(MESSAGE_BYTES_MAX) {
        match byte {
            b'%' => out.push_str("%25"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
