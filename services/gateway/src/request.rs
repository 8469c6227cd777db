//! What every request gets: an id that travels, a deadline, a count.

use std::time::{Duration, Instant};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderName, HeaderValue},
    middleware::Next,
    web::Data,
};
use bus::{Origin, with_origin};

use crate::{
    api::Door,
    metrics::{REQUEST_TIME, REQUESTS},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How much longer than its query a request may wait for other services.
const GRACE: Duration = Duration::from_secs(10);

/// Gives the request its id, the caller's own where that is a token, and lets every call on the bus carry it.
pub(crate) async fn identify<B: MessageBody>(
    door: Data<Door>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let began = Instant::now();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let given = header("x-request-id").filter(|id| types::Token::new(id).is_ok());
    let id = given.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let origin = Origin {
        caller: door.caller.clone(),
        deadline: door.clock.now() + door.config.query_timeout.0 + GRACE,
        request_id: id.clone(),
        traceparent: header("traceparent"),
    };
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let answer = with_origin(origin, next.call(request)).await;
    let id = HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"));
    let status = match &answer {
        Ok(answer) => answer.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    REQUESTS.with(status.as_str()).inc();
    REQUEST_TIME.observe_duration(began.elapsed());
    tracing::debug!(%method, path, status = status.as_u16(), request_id = ?id, elapsed = ?began.elapsed(), "request answered");
    let mut answer = answer?;
    answer.headers_mut().insert(REQUEST_ID, id);
    Ok(answer)
}
