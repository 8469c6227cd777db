//! The HTTP door: every replica opens it, checks who asks, and hands the request to whoever leads.

use std::{sync::Arc, time::Duration, time::Instant};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Server, ServerHandle},
    http::{StatusCode, header},
    web,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use host::Host;
use wire::Problem;

use crate::{
    desk::{Asked, Desk},
    forward::ForwardRequest,
    metrics,
    osb::{Answer, Credential, HEADERS, REQUEST_IDENTITY, Request, Subject},
};

/// The largest request body.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How long a forwarded request may take: longer than the leader waits, shorter than any platform does.
const FORWARD_MAX: Duration = Duration::from_secs(25);

/// Worker threads: requests wait, they do not compute.
const WORKERS: usize = 2;

/// Seconds that requests in flight have to end when the service drains.
const SHUTDOWN_SECONDS: u64 = 5;

/// What the HTTP workers share.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) desk: Desk,
    pub(crate) credentials: Arc<Vec<Credential>>,
}

impl Front {
    /// Listens; the answer must be polled.
    pub(crate) fn serve(self, host: &Host, address: &str) -> std::io::Result<(Server, ServerHandle)> {
        let front = web::Data::new(self);
        let make = move || App::new().app_data(front.clone()).default_service(web::to(handle));
        let server = HttpServer::new(make).workers(WORKERS).disable_signals().shutdown_timeout(SHUTDOWN_SECONDS);
        let server = match host.https() {
            Some(tls) => server.bind_rustls_0_23(address, tls)?,
            None => server.bind(address)?,
        };
        for bound in server.addrs() {
            host.listens("service broker api", bound);
        }
        let server = server.run();
        let handle = server.handle();
        Ok((server, handle))
    }

    async fn answer(&self, request: Request) -> (Answer, &'static str) {
        let asked = match Asked::admit(request) {
            Ok(asked) => asked,
            Err(refusal) => return (refusal, "none"),
        };
        let door = asked.route.subject.name();
        if asked.route.subject == Subject::Catalog {
            return (self.desk.catalog(&asked), door);
        }
        if self.desk.ledger.is_leader() {
            return (self.desk.answer(&asked).await, door);
        }
        let forwarded = self.desk.bus.call_within::<ForwardRequest>(&(), &asked.request, FORWARD_MAX).await;
        (forwarded.unwrap_or_else(Answer::from), door)
    }
}

/// What a leader does with a forwarded request.
pub(crate) async fn forwarded(desk: &Desk, request: Request) -> Result<Answer, Problem> {
    match Asked::admit(request) {
        Ok(asked) => Ok(desk.answer(&asked).await),
        Err(refusal) => Ok(refusal),
    }
}

async fn handle(http: HttpRequest, payload: web::Payload, front: web::Data<Front>) -> HttpResponse {
    let begun = Instant::now();
    let authorization = http.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // Every credential is tried, so that the time does not say which one was nearly right.
    let admitted = front.credentials.iter().fold(false, |found, c| c.admits(authorization) | found);
    let (answer, door) = if admitted {
        match body(payload).await {
            Ok(body) => front.answer(request(&http, body)).await,
            Err(refusal) => (refusal, "none"),
        }
    } else {
        let refusal = Answer::refuse(401, "Unauthorized", "the credentials of the platform are missing or wrong");
        (refusal.header("WWW-Authenticate", "Basic realm=\"logboom\", charset=\"UTF-8\""), "none")
    };
    metrics::REQUESTS.with(&format!("{} {door} {}", method_word(http.method().as_str()), answer.status)).inc();
    metrics::DURATION.observe_duration(begun.elapsed());
    let mut response =
        HttpResponse::build(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &answer.headers {
        response.insert_header((name.as_str(), value.as_str()));
    }
    if let Some(identity) = http.headers().get(REQUEST_IDENTITY) {
        response.insert_header(("X-Broker-API-Request-Identity", identity.clone()));
    }
    if answer.body.is_empty() { response.finish() } else { response.content_type("application/json").body(answer.body) }
}

/// Keeps made-up methods out of the metrics.
fn method_word(method: &str) -> &str {
    if ["GET", "PUT", "PATCH", "DELETE"].contains(&method) { method } else { "other" }
}

fn request(http: &HttpRequest, body: Bytes) -> Request {
    let header = |name: &&str| Some(((*name).to_owned(), http.headers().get(*name)?.to_str().ok()?.to_owned()));
    Request {
        method: http.method().as_str().to_owned(),
        path: http.uri().path().to_owned(),
        query: http.uri().query().unwrap_or_default().to_owned(),
        headers: HEADERS.iter().filter_map(header).collect(),
        body,
    }
}

async fn body(mut payload: web::Payload) -> Result<Bytes, Answer> {
    let mut body = BytesMut::new();
    while let Some(part) = payload.next().await {
        let part = part.map_err(|error| Answer::bad_request(format!("the body cannot be read: {error}")))?;
        if body.len() + part.len() > BODY_BYTES_MAX {
            let limit = format!("the body is larger than {BODY_BYTES_MAX} bytes");
            return Err(Answer::refuse(413, "RequestEntityTooLarge", limit));
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}
