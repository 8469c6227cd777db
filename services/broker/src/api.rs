//! The HTTP door: every replica opens it, checks who asks, and hands the request to whoever leads.

use std::{time::Duration, time::Instant};

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
    audit::offering_of,
    desk::{ANSWERED_WITHIN, Asked, Desk},
    forward::ForwardRequest,
    metrics,
    osb::{Admission, Answer, HEADERS, REQUEST_IDENTITY, Request, Subject, gate, openapi},
};

/// The largest request body.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How long a forwarded request may take: longer than the leader waits, shorter than any platform does.
const FORWARD_MAX: Duration = Duration::from_secs(25);

/// How long the leader may take for one: what is not decided when whoever forwarded it gives up is not decided any more.
const DECIDED_WITHIN: Duration = Duration::from_secs(FORWARD_MAX.as_secs() - 1);

/// Worker threads: requests wait, they do not compute.
const WORKERS: usize = 2;

/// Connections of one worker thread; beyond, new ones wait to be taken. A platform holds a few.
const CONNECTIONS_MAX: usize = 1_024;

/// How long a connection is kept that asks nothing: longer than load balancers keep theirs (60 s at most of them), so that it is not
/// closed while a request is on its way.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Seconds that requests in flight have to end when the service drains.
const SHUTDOWN_SECONDS: u64 = 5;

/// The door of a request that led to none.
const NO_DOOR: &str = "none";

/// What the HTTP workers share.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) desk: Desk,
    pub(crate) admission: Admission,
}

impl Front {
    /// Listens; the answer must be polled.
    pub(crate) fn serve(self, host: &Host, address: &str) -> std::io::Result<(Server, ServerHandle)> {
        let front = web::Data::new(self);
        let make = move || App::new().app_data(front.clone()).default_service(web::to(handle));
        let server = HttpServer::new(make)
            .workers(WORKERS)
            .max_connections(CONNECTIONS_MAX)
            .keep_alive(KEEP_ALIVE)
            .disable_signals()
            .shutdown_timeout(SHUTDOWN_SECONDS);
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

    /// Answers whoever was let in; the checks come in the order of the specification, the body last.
    async fn answer(&self, request: Request, body: Result<Bytes, Answer>) -> (Answer, &'static str) {
        if let Some(document) = openapi::answer(&request) {
            return (document, "openapi");
        }
        let draft = self.desk.audit.draft(&request);
        let refused = |refusal| self.desk.audit.drafted(draft, std::future::ready(refusal));
        let mut asked = match Asked::admit(request) {
            Ok(asked) => asked,
            Err(refusal) => return (refused(refusal).await, NO_DOOR),
        };
        let door = asked.route.subject.name();
        let answer = match body {
            Ok(body) => {
                asked.request.body = body;
                self.routed(&asked).await
            }
            Err(refusal) => refused(refusal).await,
        };
        if let Some(plan) = offering_of(&asked.request).1 {
            // Only names of the catalog become labels.
            let plan = self.desk.catalog.current().name_of(&plan).unwrap_or_else(|| "unknown".to_owned());
            let (method, class) = (asked.route.method.word(), answer.status / 100);
            metrics::PLANS.with(&format!("{plan} {method} {door} {class}xx")).inc();
        }
        (answer, door)
    }

    /// Catalogs are prepared for each version; of other answers what is too new is held back here, at the edge.
    async fn routed(&self, asked: &Asked) -> Answer {
        if asked.route.subject == Subject::Catalog {
            return self.desk.catalog(asked);
        }
        let answer = if self.desk.ledger.is_leader() {
            self.desk.answer(asked, ANSWERED_WITHIN).await
        } else {
            let forwarded = self.desk.bus.call_within::<ForwardRequest>(&(), &asked.request, FORWARD_MAX).await;
            forwarded.unwrap_or_else(Answer::from)
        };
        gate(answer, asked.version)
    }
}

/// What a leader does with a forwarded request.
pub(crate) async fn forwarded(desk: &Desk, request: Request) -> Result<Answer, Problem> {
    match Asked::admit(request) {
        Ok(asked) => Ok(desk.answer(&asked, DECIDED_WITHIN).await),
        Err(refusal) => Ok(refusal),
    }
}

async fn handle(http: HttpRequest, payload: web::Payload, front: web::Data<Front>) -> HttpResponse {
    let begun = Instant::now();
    let authorization = http.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (answer, door) = match front.admission.admits(authorization) {
        Some(credential) => {
            // Read whatever becomes of the request, so that the connection can be used again.
            let body = body(payload).await;
            front.answer(request(&http, credential), body).await
        }
        None => (unauthorized(), NO_DOOR),
    };
    let asked = format!("{} {door}", method_word(http.method().as_str()));
    metrics::REQUESTS.with(&format!("{asked} {}", answer.status)).inc();
    metrics::DURATION.with(&asked).observe_duration(begun.elapsed());
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

fn unauthorized() -> Answer {
    let refusal = Answer::refuse(401, "Unauthorized", "the credentials of the platform are missing or wrong");
    refusal.header("WWW-Authenticate", "Basic realm=\"logboom\", charset=\"UTF-8\"")
}

/// Keeps made-up methods out of the metrics.
fn method_word(method: &str) -> &str {
    if ["GET", "PUT", "PATCH", "DELETE"].contains(&method) { method } else { "other" }
}

fn request(http: &HttpRequest, credential: String) -> Request {
    // A header that is no text must not count as absent: it is malformed, and will be found so.
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = |name: &&str| Some(((*name).to_owned(), text(http.headers().get(*name)?)));
    Request {
        method: http.method().as_str().to_owned(),
        path: http.uri().path().to_owned(),
        query: http.uri().query().unwrap_or_default().to_owned(),
        headers: HEADERS.iter().filter_map(header).collect(),
        body: Bytes::new(),
        credential,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::PATIENCE;

    /// Platforms wait for a minute and then delete what they asked for.
    const PLATFORM: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_comes_before_any_platform_gives_up() {
        // The leader has waited when whoever forwarded gives up, and that long before a platform does.
        const {
            assert!(
                PATIENCE.as_secs() < DECIDED_WITHIN.as_secs()
                    && DECIDED_WITHIN.as_secs() < FORWARD_MAX.as_secs()
                    && FORWARD_MAX.as_secs() < PLATFORM.as_secs()
            )
        };
        // And a leader that is asked itself, whatever hangs behind it.
        const { assert!(PATIENCE.as_secs() < ANSWERED_WITHIN.as_secs() && ANSWERED_WITHIN.as_secs() < PLATFORM.as_secs()) };
    }
}
