//! What there is: indexes, bindings, placement, and the state of the door itself.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::{Value, json};
use wire::views::Role;

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
