//! What there is: indexes, bindings, placement, and the state of the door itself.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use serde_json::{Value, json};
use types::IndexName;
use wire::{Problem, views::Role};

use crate::{api::Door, auth::Principal, error::HttpError};

/// `GET /api/v1/status`: open to everybody; with the admin token it also lists the living replicas.
pub(crate) async fn status(request: HttpRequest, door: Data<Door>) -> Result<HttpResponse, HttpError> {
    let connected = door.platform.is_connected();
    let mut status = json!({
        "service": "gateway",
        "version": env!("CARGO_PKG_VERSION"),
        "ready": connected && !door.stop.is_cancelled(),
        "nats_connected": connected,
    });
    if let Ok(Principal::Admin) = door.auth.of(&request).await {
        status["members"] = match door.platform.members().await {
            Ok(members) => json!(members),
            Err(problem) => json!({ "unavailable": problem.message }),
        };
    }
    Ok(HttpResponse::Ok().json(status))
}

/// `GET /api/v1/indexes`: what this token may see, and as what.
pub(crate) async fn list(request: HttpRequest, door: Data<Door>) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let mut indexes = door.platform.indexes().await?.indexes;
    let role = match &principal {
        Principal::Admin => "platform",
        Principal::Bound(grant) => {
            indexes.retain(|index| index.index == grant.index);
            match grant.role {
                Role::Write => "write",
                Role::Read => "read",
                Role::Admin => "admin",
            }
        }
    };
    let indexes: Vec<Value> = indexes.iter().map(|index| json!(index)).collect();
    Ok(HttpResponse::Ok().json(json!({ "indexes": indexes, "role": role })))
}

/// `GET /api/v1/indexes/{index}/usage`: what the plan of the index allows, and what of that is taken.
///
/// Shape: `{index, quota, taken: {bytes_today, queries, streams}}`; what the plan does not limit nobody counts, and is `null`.
pub(crate) async fn usage(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
) -> Result<HttpResponse, HttpError> {
    door.auth.of(&request).await?.is_of(&index)?;
    let all = door.platform.indexes().await?.indexes;
    let unknown = || Problem::not_found("UnknownIndex", format_args!("there is no log index {index}"));
    let there = all.into_iter().find(|known| known.index == *index).ok_or_else(unknown)?;
    let quota = there.options.quota;
    let taken = door.quotas.taken(&index);
    let streams = match quota.streams {
        Some(_) => Some(door.platform.streams_in(&there.scope).await?),
        None => None,
    };
    let queries = match taken.filter(|_| quota.queries.is_some()) {
        Some((_, open)) => Some(open.saturating_add(door.running(&index).await)),
        None => None,
    };
    let bytes = taken.filter(|_| quota.bytes_per_day.is_some()).map(|(bytes, _)| bytes);
    Ok(HttpResponse::Ok().json(json!({
        "index": there.index,
        "quota": quota,
        "taken": { "bytes_today": bytes, "queries": queries, "streams": streams },
    })))
}

/// `GET /api/v1/bindings`, for the admin token.
pub(crate) async fn bindings(request: HttpRequest, door: Data<Door>) -> Result<HttpResponse, HttpError> {
    door.auth.of(&request).await?.is_admin()?;
    Ok(HttpResponse::Ok().json(door.platform.bindings().await?))
}

/// `GET /api/v1/placement`, for the admin token.
pub(crate) async fn placement(request: HttpRequest, door: Data<Door>) -> Result<HttpResponse, HttpError> {
    door.auth.of(&request).await?.is_admin()?;
    Ok(HttpResponse::Ok().json(door.platform.placement().await?))
}
