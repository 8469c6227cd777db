//! What could come next while somebody writes a query of the pipe language.

use std::{cell::RefCell, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::DataType,
};
use query::{Column, CompletionKind, Diagnostic, Known, name_text};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use types::IndexName;
use wire::views::Role;

use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    language::{Language, Manner, Question},
    sql,
};

/// How long values are believed to be the commonest.
pub(crate) const VALUES_TTL: Duration = Duration::from_secs(30);
/// Fields whose values are remembered; beyond it the least used are forgotten.
pub(crate) const FIELDS_KEPT_MAX: u64 = 1_024;
/// How far back values are looked for.
const VALUES_SINCE: &str = "1h";
/// How many values of a field are told.
const VALUES_MAX: usize = 50;
/// The longest value that is told: nobody wants a longer one completed.
const VALUE_BYTES_MAX: usize = 200;
/// How long somebody who writes waits for values; without them the rest is told.
const VALUES_WITHIN: Duration = Duration::from_secs(2);

/// The body: a text of the pipe language, and after how many of its characters the cursor stands, the end if not said.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    text: String,
    cursor: Option<usize>,
    #[serde(flatten)]
    manner: Manner,
}

/// `POST /api/v1/complete`: what could stand at the cursor, likeliest first.
///
/// Shape: `{completions: [{kind, from, text, help}]}`; `text` replaces the characters from `from` up to the cursor.
/// Bounds: 50 completions; values of the last hour, the 50 commonest; none where they cannot be had within 2 s.
pub(crate) async fn complete(
    request: HttpRequest,
    door: Data<Door>,
    body: Json<Body>,
) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let Body { text, cursor, manner } = body.into_inner();
    if text.len() > query::TEXT_BYTES_MAX {
        let found = Diagnostic::new(1, 1, format!("a query has at most {} bytes", query::TEXT_BYTES_MAX));
        return Err(HttpError::query("InvalidQuery", &found, &text));
    }
    let cursor = cursor.and_then(|chars| text.char_indices().nth(chars)).map_or(text.len(), |(at, _)| at);
    let index = index_of(&text[..cursor]).or_else(|| manner.index(&principal));
    let (columns, indexes) = match &index {
        Some(index) => (sql::columns(&door, &principal, index).await?, readable(&door, &principal).await?),
        None => (Arc::default(), readable(&door, &principal).await?),
    };
    let fields: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let wanted = RefCell::new(None);
    let note = |field: &str| {
        *wanted.borrow_mut() = Some(field.trim_matches('`').to_owned());
        Vec::new()
    };
    let mut found = query::complete(&text, cursor, &Known { indexes: &indexes, fields: &fields, values: &note });
    let column = wanted.borrow().as_ref().and_then(|field| columns.iter().find(|column| column.name == *field));
    if let (Some(index), Some(column)) = (&index, column) {
        let values = values(&door, &principal, index, column).await;
        let tell = |_: &str| values.to_vec();
        found = query::complete(&text, cursor, &Known { indexes: &indexes, fields: &fields, values: &tell });
    }
    let completions: Vec<_> = found
        .into_iter()
        .map(|one| {
            let from = text[..one.from].chars().count();
            json!({ "kind": word(one.kind), "from": from, "text": one.text, "help": one.help })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({ "completions": completions })))
}

fn word(kind: CompletionKind) -> &'static str {
    match kind {
        CompletionKind::Command => "command",
        CompletionKind::Function => "function",
        CompletionKind::Aggregate => "aggregate",
        CompletionKind::Field => "field",
        CompletionKind::Value => "value",
        CompletionKind::Word => "word",
    }
}

/// The first index that the text names before the cursor.
fn index_of(before: &str) -> Option<IndexName> {
    let (_, named) = before.split_once("index:")?;
    let name: &str = named.split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_'))).next()?;
    // While it is still being written, it is none.
    (name.len() < named.len()).then(|| name.parse().ok()).flatten()
}

async fn readable(door: &Door, principal: &Principal) -> Result<Vec<String>, HttpError> {
    match principal {
        Principal::Bound(grant) if grant.role == Role::Write => Ok(Vec::new()),
        Principal::Bound(grant) => Ok(vec![grant.index.to_string()]),
        Principal::Admin => {
            let all = door.platform.indexes().await?.indexes;
            Ok(all.into_iter().map(|index| index.index.to_string()).collect())
        }
    }
}

/// The commonest values of a field; a question of its own, with the bounds of one.
async fn values(door: &Door, principal: &Principal, index: &IndexName, column: &Column) -> Arc<Vec<String>> {
    let key = (index.clone(), column.name.clone());
    if let Some(known) = door.values.get(&key) {
        return known;
    }
    let field = name_text(&column.name);
    let text = format!("index:{index} since:{VALUES_SINCE} | top {VALUES_MAX} {field} | keep {field}");
    let question = Question::new(text, Language::Pipe, None);
    let Ok(Ok(result)) = timeout(VALUES_WITHIN, question.answer(door, principal)).await else {
        return Arc::default();
    };
    let mut found = Vec::new();
    for batch in &result.batches {
        let Ok(texts) = cast(batch.column(0), &DataType::Utf8) else { continue };
        let texts = texts.as_string::<i32>();
        let short = |text: &&str| text.len() <= VALUE_BYTES_MAX && !text.contains(char::is_control);
        found.extend((0..texts.len()).map(|i| texts.value(i)).filter(short).map(str::to_owned));
    }
    let found = Arc::new(found);
    door.values.insert(key, Arc::clone(&found));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_counts_when_it_is_written_whole() {
        for (before, index) in [
            ("index:shop ", Some("shop")),
            ("index:shop,other err", Some("shop")),
            ("since:1h index:shop-2 ", Some("shop-2")),
            ("index:sh", None),
            ("error", None),
            ("index: ", None),
        ] {
            assert_eq!(index_of(before).as_ref().map(IndexName::as_str), index, "{before}");
        }
    }
}
