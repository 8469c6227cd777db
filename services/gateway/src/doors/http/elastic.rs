//! Elasticsearch's bulk, and what its clients ask before they use it.

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{ACCEPT, CONTENT_TYPE, HeaderValue},
    },
    web::{self, Data, Path, Payload, ServiceConfig},
};
use serde_json::{Map, Value, json};
use wire::Problem;

use super::{Sender, Translated, answer, deliver, status};
use crate::{
    api::Door,
    auth::Principal,
    body::{Encoding, apart},
    console,
    doors::elastic::{self, Bulk, Item},
    error::HttpError,
    platform::askable,
};

/// The version that is claimed: clients of 7, 8 and 9 speak with it.
const VERSION: &str = "8.19.0";
/// About so long is the answer about one document.
const ITEM_BYTES: usize = 100;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/_bulk", web::post().to(bulk))
        .route("/_bulk", web::put().to(bulk))
        .route("/{index}/_bulk", web::post().to(bulk_of))
        .route("/{index}/_bulk", web::put().to(bulk_of))
        .route("/", web::head().to(there))
        .route("/_cat/health", web::route().to(cat_health))
        .route("/_cluster/health", web::get().to(health))
        .route("/_license", web::get().to(license))
        .route("/_xpack", web::get().to(xpack))
        .route("/_aliases", web::get().to(aliases))
        .route("/_cat/indices", web::get().to(cat_indices));
    for known in ["_ilm", "_index_template", "_component_template", "_template", "_ingest", "_nodes", "_logstash"] {
        config.route(&format!("/{known}"), web::route().to(nothing_to_do));
        config.route(&format!("/{known}/{{rest:.*}}"), web::route().to(nothing_to_do));
    }
    config.route("/_{rest:.*}", web::route().to(unknown));
}

/// An answer of the product that clients look for: without this header they refuse to go on.
pub(crate) fn said(status: StatusCode, body: impl Into<Vec<u8>>) -> HttpResponse {
    answer(status)
        .insert_header(("x-elastic-product", "Elasticsearch"))
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(body.into())
}

fn refusal(error: &HttpError) -> HttpResponse {
    let status = status(error);
    let kind = match status.as_u16() {
        401 | 403 => "security_exception",
        404 => "index_not_found_exception",
        409 => "cluster_block_exception",
        413 => "content_too_long_exception",
        429 => "es_rejected_execution_exception",
        503 => "unavailable_shards_exception",
        _ => "illegal_argument_exception",
    };
    let cause = json!({ "type": kind, "reason": error.problem().to_string() });
    let mut whole = cause.clone();
    whole["root_cause"] = json!([cause]);
    said(status, json!({ "error": whole, "status": status.as_u16() }).to_string())
}

async fn bulk(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    bulk_to(&request, &door, payload, None).await
}

async fn bulk_of(request: HttpRequest, door: Data<Door>, index: Path<String>, payload: Payload) -> HttpResponse {
    bulk_to(&request, &door, payload, Some(index.into_inner())).await
}

/// `POST` or `PUT /_bulk`, `/{index}/_bulk`: 200 when every document is durable whose item does not say otherwise.
async fn bulk_to(request: &HttpRequest, door: &Door, payload: Payload, index: Option<String>) -> HttpResponse {
    let began = Instant::now();
    let (index, first_id, items) = match stored(request, door, payload, index).await {
        Ok(stored) => stored,
        Err(error) => return refusal(&error),
    };
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    // As long as those that Elasticsearch gives.
    let id = move |number: usize| {
        let id = first_id.wrapping_add(u128::try_from(number).unwrap_or(0));
        format!("{:020x}", id & ((1 << 80) - 1))
    };
    let bytes = items.len().saturating_mul(ITEM_BYTES);
    match apart(bytes, move || elastic::answer(&items, took, &index, id)).await {
        Ok(body) => said(StatusCode::OK, body),
        Err(problem) => refusal(&problem.into()),
    }
}

async fn stored(
    request: &HttpRequest,
    door: &Door,
    payload: Payload,
    index: Option<String>,
) -> Result<(String, u128, Vec<Item>), HttpError> {
    let principal = door.auth.of(request).await?;
    let is_admin = matches!(principal, Principal::Admin);
    // An action may name another index than the path.
    let sender = Sender::new(principal, None)?;
    let encoding = Encoding::of(request)?;
    if index.as_deref().is_some_and(|name| !elastic::is_index(name)) {
        let why = "the path names an index of more than 255 bytes, or with control characters";
        return Err(Problem::not_found("UnknownIndex", why).into());
    }
    let of_path = index.clone();
    let translate = move |body: bytes::Bytes, bounds| {
        let Bulk { batch, items } = elastic::bulk(&body, of_path.as_deref(), bounds)?;
        let index = if is_admin { elastic::one_index(&items, of_path.as_deref())?.map(str::to_owned) } else { None };
        Ok(Translated { batch, index, more: items })
    };
    let delivered = deliver(door, sender, (payload, encoding), translate).await?;
    Ok((index.unwrap_or_else(|| delivered.index.to_string()), delivered.first_id, delivered.more))
}

/// `GET /`: the console for a browser, for everybody else what Elasticsearch says of itself.
pub(crate) async fn root(request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accepts.contains("text/html") {
        return console::page(request).await;
    }
    let version = json!({
        "number": VERSION,
        "build_flavor": "default",
        "build_type": "tar",
        "build_hash": "unknown",
        "build_date": "2026-01-01T00:00:00.000Z",
        "build_snapshot": false,
        "lucene_version": "9.12.2",
        "minimum_wire_compatibility_version": "7.17.0",
        "minimum_index_compatibility_version": "7.0.0",
    });
    let info = json!({
        "name": "logboom",
        "cluster_name": "logboom",
        "cluster_uuid": "logboom",
        "version": version,
        "tagline": "You Know, for Search",
    });
    Ok(said(StatusCode::OK, info.to_string()))
}

async fn there() -> HttpResponse {
    said(StatusCode::OK, "")
}

fn is_up(door: &Door) -> bool {
    door.platform.is_connected() && !door.stop.is_cancelled()
}

async fn cat_health(door: Data<Door>) -> HttpResponse {
    if is_up(&door) { said(StatusCode::OK, "[]") } else { said(StatusCode::SERVICE_UNAVAILABLE, "[]") }
}

async fn health(door: Data<Door>) -> HttpResponse {
    let up = is_up(&door);
    let body = json!({
        "cluster_name": "logboom",
        "status": if up { "green" } else { "red" },
        "timed_out": !up,
        "number_of_nodes": 1,
        "number_of_data_nodes": 1,
        "active_primary_shards": 1,
        "active_shards": 1,
        "unassigned_shards": 0,
    });
    said(if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body.to_string())
}

async fn license() -> HttpResponse {
    let license = json!({
        "uid": "00000000-0000-0000-0000-000000000000",
        "type": "oss",
        "mode": "oss",
        "status": "active",
        "issued_to": "logboom",
        "issuer": "logboom",
        "expiry_date_in_millis": 4_000_000_000_000_u64,
    });
    said(StatusCode::OK, json!({ "license": license }).to_string())
}

async fn xpack() -> HttpResponse {
    let off = json!({ "available": false, "enabled": false });
    let features: Map<String, Value> =
        ["ilm", "ml", "monitoring", "security"].map(|name| (name.to_owned(), off.clone())).into_iter().collect();
    let body = json!({
        "build": { "hash": "unknown", "date": "2026-01-01T00:00:00.000Z" },
        "license": { "type": "oss", "mode": "oss", "status": "active" },
        "features": features,
    });
    said(StatusCode::OK, body.to_string())
}

/// Templates, pipelines and policies: an agent may set them up, and none is needed.
async fn nothing_to_do() -> HttpResponse {
    said(StatusCode::OK, "{}")
}

/// The indexes that a token may see.
async fn names(request: &HttpRequest, door: &Door) -> Result<Vec<String>, HttpError> {
    let principal = door.auth.of(request).await?;
    let all = askable(&*door.platform).await?.into_iter();
    Ok(all.filter(|index| principal.is_of(index).is_ok()).map(|index| index.to_string()).collect())
}

async fn aliases(request: HttpRequest, door: Data<Door>) -> HttpResponse {
    match names(&request, &door).await {
        Ok(names) => {
            let all: Map<String, Value> = names.into_iter().map(|name| (name, json!({ "aliases": {} }))).collect();
            said(StatusCode::OK, Value::Object(all).to_string())
        }
        Err(error) => refusal(&error),
    }
}

async fn cat_indices(request: HttpRequest, door: Data<Door>) -> HttpResponse {
    match names(&request, &door).await {
        Ok(names) => {
            let row = |name| json!({ "health": "green", "status": "open", "index": name });
            let rows: Vec<Value> = names.into_iter().map(row).collect();
            said(StatusCode::OK, json!(rows).to_string())
        }
        Err(error) => refusal(&error),
    }
}

async fn unknown(request: HttpRequest) -> HttpResponse {
    let reason = format!("no handler found for uri [{}] and method [{}]", request.path(), request.method());
    said(StatusCode::BAD_REQUEST, json!({ "error": reason, "status": 400 }).to_string())
}
