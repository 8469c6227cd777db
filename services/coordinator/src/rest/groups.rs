//! `/scopes/{scope}/readergroups`.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;
use types::{GroupName, ReaderId};
use wire::{
    Problem,
    coordinator::{DeleteGroup, DescribeGroup, GroupDescription, NamedGroup},
    decode,
};

use super::{
    acl::{Permission, Resource},
    answer::Refusal,
    door::Front,
};
use crate::State;

type Answer = Result<HttpResponse, Refusal>;

/// The part of the readers' document that is shown: the rest is theirs.
#[derive(Deserialize)]
struct Shared {
    body: Readers,
}

#[derive(Deserialize)]
struct Readers {
    readers: BTreeMap<ReaderId, IgnoredAny>,
}

fn unknown(scope: &str, group: &str) -> Problem {
    Problem::not_found("UnknownGroup", format_args!("there is no reader group {group:?} in scope {scope:?}"))
}

/// GET `/scopes/{scope}/readergroups`.
pub(crate) async fn list(http: HttpRequest, front: Data<Front>, path: Path<String>) -> Answer {
    front.admit(&http, Resource::Scope(&path), Permission::Read).await?;
    front.ledger.whole().await?;
    let scope = front.scope(&path).await?;
    let names: Vec<_> = front.ledger.read(|state| {
        let groups = state.groups().list(Some(&scope), None);
        groups.map(|group| json!({ "readerGroupName": group.config.group })).collect()
    });
    Ok(HttpResponse::Ok().json(json!({ "readerGroups": names })))
}

/// GET `/scopes/{scope}/readergroups/{group}`.
pub(crate) async fn describe(http: HttpRequest, front: Data<Front>, path: Path<(String, String)>) -> Answer {
    let (scope, group) = path.into_inner();
    front.admit(&http, Resource::Group(&scope, &group), Permission::Read).await?;
    let name = group.parse::<GroupName>().map_err(|_| unknown(&scope, &group))?;
    let look = |state: &State| {
        let found = state.groups().describe(&name).ok().filter(|found| found.config.scope.as_str() == scope);
        found.ok_or_else(|| unknown(&scope, &group))
    };
    let found = front.ledger.look(look).await?;
    Ok(HttpResponse::Ok().json(json!({
        "scopeName": scope,
        "readerGroupName": group,
        "streamList": found.config.from.keys().collect::<Vec<_>>(),
        "onlineReaderIds": online(&front, &found).await?,
    })))
}

async fn online(front: &Front, group: &GroupDescription) -> Result<Vec<ReaderId>, Problem> {
    let key = format!("{}.{}", group.config.group, group.generation);
    let entry = front.groups.get(&key).await?;
    // Without a document nobody has read yet.
    let shared = entry.map(|entry| decode::<Shared>(&entry.value)).transpose()?;
    Ok(shared.map(|shared| shared.body.readers.into_keys().collect()).unwrap_or_default())
}

/// DELETE `/scopes/{scope}/readergroups/{group}`: 204.
pub(crate) async fn delete(http: HttpRequest, front: Data<Front>, path: Path<(String, String)>) -> Answer {
    let (scope, group) = path.into_inner();
    front.admit(&http, Resource::Group(&scope, &group), Permission::ReadUpdate).await?;
    let name = NamedGroup { group: group.parse::<GroupName>().map_err(|_| unknown(&scope, &group))? };
    let found = front.change::<DescribeGroup>(&name).await?;
    if found.config.scope.as_str() != scope {
        return Err(unknown(&scope, &group).into());
    }
    front.change::<DeleteGroup>(&name).await?;
    Ok(HttpResponse::NoContent().finish())
}
