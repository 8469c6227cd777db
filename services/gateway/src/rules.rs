//! Alert rules over HTTP.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use query::{Diagnostic, Shape, nearest};
use serde::Deserialize;
use types::{IndexName, RuleId};
use wire::{
    Problem,
    alerter::{Rule, RuleDescription},
};

use crate::{api::Door, error::HttpError, jobs::read_continuous, quota::Begun};

/// The body of a rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    /// The index whose alert subject is used; without it the one that the query reads.
    index: Option<IndexName>,
    /// A windowed continuous query.
    query: String,
    /// For example `n > 100`.
    condition: String,
    webhook: Option<String>,
    #[serde(default)]
    summary: String,
}

/// `GET /api/v1/rules`: the rules of indexes that this token may read.
pub(crate) async fn list(request: HttpRequest, door: Data<Door>) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let mut list = door.platform.rules().await?;
    list.rules.retain(|rule| principal.may_read(&rule.rule.index).is_ok());
    Ok(HttpResponse::Ok().json(list))
}

/// `PUT /api/v1/rules/{rule}`: creates or replaces a rule.
pub(crate) async fn put(
    request: HttpRequest,
    door: Data<Door>,
    rule: Path<RuleId>,
    body: Json<Body>,
) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let Body { index, query, condition, webhook, summary } = body.into_inner();
    let read = read_continuous(&query)?;
    let index = index.unwrap_or_else(|| read.source.clone());
    principal.may_manage(&index)?;
    principal.may_manage(&read.source)?;
    check(&read, &query, &condition)?;
    let _turn = door.begin_continuous(&principal, &read.source, Begun::Rule(&rule)).await?;
    if let Some(old) = find(&door, &rule).await? {
        principal.may_manage(&old.rule.index)?;
    }
    let rule = Rule { rule: rule.into_inner(), index, query, condition, webhook, summary };
    let put = door.platform.put_rule(&rule).await?;
    door.continuous_changed();
    Ok(HttpResponse::Ok().json(put))
}

/// A rule's query has windows, and its condition is about one of their aggregates.
fn check(read: &query::Continuous, text: &str, condition: &str) -> Result<(), HttpError> {
    let Shape::Windowed(window) = &read.shape else {
        let found = Diagnostic::new(1, 1, "a rule needs a query with windows");
        let help = "write SELECT count(*) AS n FROM tumble(<index>, INTERVAL '10 seconds') GROUP BY window_start";
        return Err(HttpError::query("InvalidQuery", &found.help(help), text));
    };
    if read.insert_into.is_some() {
        let found = Diagnostic::new(1, 1, "the rows of a rule's query go to the rule, not into an index");
        return Err(HttpError::query("InvalidQuery", &found.help("leave out INSERT INTO"), text));
    }
    let wrong = |found: Diagnostic| HttpError::query("InvalidCondition", &found, condition);
    let parsed = query::parse_condition(condition).map_err(wrong)?;
    let names = || window.aggregates.iter().map(|aggregate| aggregate.name.as_str());
    if names().any(|name| name == parsed.column) {
        return Ok(());
    }
    let found = Diagnostic::new(1, 1, format!("the query has no aggregate {}", parsed.column));
    Err(wrong(match nearest(&parsed.column, names()) {
        Some(meant) => found.help(format!("did you mean {meant}?")),
        None => found.help(format!("the aggregates are {}", names().collect::<Vec<_>>().join(", "))),
    }))
}

async fn find(door: &Door, rule: &RuleId) -> Result<Option<RuleDescription>, Problem> {
    Ok(door.platform.rules().await?.rules.into_iter().find(|found| found.rule.rule == *rule))
}

/// `DELETE /api/v1/rules/{rule}`: deleting what is not there succeeds.
pub(crate) async fn delete(
    request: HttpRequest,
    door: Data<Door>,
    rule: Path<RuleId>,
) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    if let Some(found) = find(&door, &rule).await? {
        principal.may_manage(&found.rule.index)?;
        door.platform.delete_rule(&rule).await?;
        door.continuous_changed();
    }
    Ok(HttpResponse::NoContent().finish())
}
