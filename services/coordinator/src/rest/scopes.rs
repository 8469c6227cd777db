//! `/scopes`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use serde_json::json;
use types::ScopeName;
use wire::{
    Problem,
    coordinator::{CreateScope, DeleteScope, ScopeDeletion, ScopeRef},
};

use super::{
    acl::{Permission, Resource},
    answer::Refusal,
    door::{Front, unknown_scope},
    shape::{CreateScopeRequest, ScopeProperty},
};
use crate::ScopePhase;

type Answer = Result<HttpResponse, Refusal>;

fn property(scope: &ScopeName) -> ScopeProperty {
    ScopeProperty { scope_name: scope.to_string() }
}

/// GET `/scopes`: those that the caller may see.
pub(crate) async fn list(http: HttpRequest, front: Data<Front>) -> Answer {
    let who = front.admit(&http, Resource::Scopes, Permission::Read).await?;
    front.ledger.whole().await?;
    let scopes: Vec<ScopeName> = front.ledger.read(|state| {
        let live = state.scopes(None).filter(|(_, phase)| *phase == ScopePhase::Live);
        live.map(|(scope, _)| scope.clone()).collect()
    });
    let seen = scopes.iter().filter(|scope| who.is_allowed(Resource::Scope(scope.as_str()), Permission::Read));
    Ok(HttpResponse::Ok().json(json!({ "scopes": seen.map(property).collect::<Vec<_>>() })))
}

/// POST `/scopes`: 201; 409 if it is there.
pub(crate) async fn create(http: HttpRequest, front: Data<Front>, body: Json<CreateScopeRequest>) -> Answer {
    front.admit(&http, Resource::Scopes, Permission::ReadUpdate).await?;
    let scope = body.scope_name.parse::<ScopeName>().map_err(|error| Problem::bad_request("InvalidKey", error))?;
    if front.has_scope(&scope).await? {
        return Err(Problem::conflict("KeyExists", format_args!("scope {scope} exists")).into());
    }
    front.change::<CreateScope>(&ScopeRef { scope: scope.clone() }).await?;
    Ok(HttpResponse::Created().json(property(&scope)))
}

/// GET `/scopes/{scope}`.
pub(crate) async fn describe(http: HttpRequest, front: Data<Front>, path: Path<String>) -> Answer {
    front.admit(&http, Resource::Scope(&path), Permission::Read).await?;
    let scope = front.scope(&path).await?;
    Ok(HttpResponse::Ok().json(property(&scope)))
}

/// DELETE `/scopes/{scope}`: 204; 412 while there is something in it.
pub(crate) async fn delete(http: HttpRequest, front: Data<Front>, path: Path<String>) -> Answer {
    front.admit(&http, Resource::Scopes, Permission::ReadUpdate).await?;
    let scope = path.parse::<ScopeName>().map_err(|_| unknown_scope(&path))?;
    if !front.has_scope(&scope).await? {
        return Err(unknown_scope(&path).into());
    }
    front.change::<DeleteScope>(&ScopeDeletion { scope, recursive: false }).await?;
    Ok(HttpResponse::NoContent().finish())
}
