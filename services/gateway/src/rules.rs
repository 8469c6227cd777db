//! Alert rules over HTTP.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use query::{Diagnostic, Ongoing, RuleError};
use serde::Deserialize;
use types::{IndexName, RuleId};
use wire::{
    Problem,
    alerter::{Rule, RuleDescription},
};

use crate::{
    api::Door,
    error::HttpError,
    jobs::read_continuous,
    language::{Language, Question},
    quota::Begun,
};

/// The body of a rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    /// The index whose alert subject is used; without it the one that the query reads.
    index: Option<IndexName>,
    /// A windowed continuous query; in the pipe language one with a chart.
    query: String,
    #[serde(default)]
    language: Language,
    /// For example `n > 100`; in the pipe language `| alert when n > 100` may say it instead.
    condition: Option<String>,
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
    let Body { index, query, language, condition, webhook, summary } = body.into_inner();
    let Ongoing { text: query, condition: said } =
        Question::new(query, language, index.clone()).ongoing(&door, &principal).await?;
    let condition = match (condition, said) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("MalformedRequest", "the condition is said twice").into());
        }
        (condition, said) => condition.or(said).ok_or_else(|| {
            let found = Diagnostic::new(1, 1, "the rule has no condition");
            HttpError::query("InvalidCondition", &found.help("say one, for example n > 100"), "")
        })?,
    };
    let read = read_continuous(&query)?;
    let index = index.unwrap_or_else(|| read.source.clone());
    principal.may_manage(&index)?;
    principal.may_manage(&read.source)?;
    query::Rule::of(&read, &condition).map_err(|wrong| match wrong {
        RuleError::Query(found) => HttpError::query("InvalidQuery", &found, &query),
        RuleError::Condition(found) => HttpError::query("InvalidCondition", &found, &condition),
    })?;
    let _turn = door.begin_continuous(&principal, &read.source, Begun::Rule(&rule)).await?;
    if let Some(old) = find(&door, &rule).await? {
        principal.may_manage(&old.rule.index)?;
    }
    let rule = Rule { rule: rule.into_inner(), index, query, condition, webhook, summary };
    let put = door.platform.put_rule(&rule).await?;
    door.continuous_changed();
    Ok(HttpResponse::Ok().json(put))
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
        door.platform.delete_rule(&rule, &found.rule.index).await?;
        door.continuous_changed();
    }
    Ok(HttpResponse::NoContent().finish())
}
