//! The library of an index over HTTP: views, saved searches and lookups.

pub(crate) mod csv;
pub(crate) mod found;

use std::{str::FromStr, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ETAG, IF_MATCH, IF_NONE_MATCH},
    web::{self, Data, Path, Payload, Query},
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use query::{Definition, TEXT_BYTES_MAX, TableName};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{IndexName, ItemName};
use wire::{
    Problem,
    coordinator::{
        Expected, Item, ItemBody, ItemChange, ItemKind, ItemPlace, ItemRemoval, ItemsOf, Lookup, PAGE_MAX, Page,
        SavedSearch, TextLanguage, UploadOf, View,
    },
};

use crate::{
    api::Door,
    body::{self, Encoding, apart},
    error::HttpError,
};

/// Items of one answer where the caller does not say how many.
const LISTED_DEFAULT: u32 = 200;
/// The largest body of a view or a saved search: its text, escaped, and the rest.
const BODY_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX;
/// How long a table may take into object storage: far less than its place is kept for it.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);

/// The routes, below `/api/v1`.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/indexes/{index}/{shelf:views|saved|lookups}", web::get().to(list))
        .route("/indexes/{index}/{shelf:views|saved|lookups}/{name}", web::get().to(describe))
        .route("/indexes/{index}/{shelf:views|saved|lookups}/{name}", web::put().to(put))
        .route("/indexes/{index}/{shelf:views|saved|lookups}/{name}", web::delete().to(delete));
}

/// The part of a path that says which kind is meant.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shelf {
    Views,
    Saved,
    Lookups,
}

impl Shelf {
    fn kind(self) -> ItemKind {
        match self {
            Self::Views => ItemKind::View,
            Self::Saved => ItemKind::Saved,
            Self::Lookups => ItemKind::Lookup,
        }
    }
}

/// The query string of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    after: Option<ItemName>,
    limit: Option<u32>,
}

/// The query string of a lookup that is put there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Titled {
    #[serde(default)]
    title: String,
}

/// `GET /api/v1/indexes/{index}/{views|saved|lookups}[?after&limit]`: items by name, in pages.
pub(crate) async fn list(
    request: HttpRequest,
    door: Data<Door>,
    path: Path<(IndexName, Shelf)>,
    listed: Query<Listed>,
) -> Result<HttpResponse, HttpError> {
    let (index, shelf) = path.into_inner();
    door.auth.of(&request).await?.may_read(&index)?;
    let Listed { after, limit } = listed.into_inner();
    let limit = Page(limit.unwrap_or(LISTED_DEFAULT).clamp(1, PAGE_MAX));
    let list = door.platform.items(&ItemsOf { index, kind: Some(shelf.kind()), after, limit }).await?;
    let items: Vec<Value> = list.items.iter().map(shown).collect();
    Ok(HttpResponse::Ok().json(json!({ "items": items, "more": list.more })))
}

/// `GET /api/v1/indexes/{index}/{views|saved|lookups}/{name}`.
pub(crate) async fn describe(
    request: HttpRequest,
    door: Data<Door>,
    path: Path<(IndexName, Shelf, ItemName)>,
) -> Result<HttpResponse, HttpError> {
    let (index, shelf, name) = path.into_inner();
    door.auth.of(&request).await?.may_read(&index)?;
    match of_kind(&door, &ItemPlace { index, name }, shelf.kind()).await? {
        Ok(item) => Ok(answer(&item)),
        Err(unknown) => Err(unknown.into()),
    }
}

/// The item, or that there is none of this kind.
async fn of_kind(door: &Door, place: &ItemPlace, kind: ItemKind) -> Result<Result<Item, Problem>, Problem> {
    match door.platform.item(place).await {
        Ok(item) if item.body.kind() == kind => Ok(Ok(item)),
        Ok(_) => {
            let message = format!("the library of index {} has no {} {}", place.index, kind.as_str(), place.name);
            Ok(Err(Problem::not_found("UnknownItem", message)))
        }
        Err(problem) if problem.kind == "UnknownItem" => Ok(Err(problem)),
        Err(problem) => Err(problem),
    }
}

/// `PUT /api/v1/indexes/{index}/{views|saved|lookups}/{name}`: puts an item there, or another in its place.
///
/// Bounds: those of the library; [`csv::BYTES_MAX`] of a table.
/// Errors: 403 without the admin role; 412 `ItemChanged`; 400 `InvalidQuery` for a view that cannot be read or would read itself,
/// `InvalidTable`.
pub(crate) async fn put(
    request: HttpRequest,
    door: Data<Door>,
    path: Path<(IndexName, Shelf, ItemName)>,
    titled: Query<Titled>,
    payload: Payload,
) -> Result<HttpResponse, HttpError> {
    let (index, shelf, name) = path.into_inner();
    let principal = door.auth.of(&request).await?;
    principal.may_manage(&index)?;
    let expected = expected(&request)?;
    let most = if matches!(shelf, Shelf::Lookups) { csv::BYTES_MAX } else { BODY_BYTES_MAX };
    let body = body::read(payload, Encoding::of(&request)?, most).await?;
    let place = ItemPlace { index, name };
    let body = match shelf {
        Shelf::Views => {
            let view: View = read(&body)?;
            let name = TableName { index: place.index.clone(), item: place.name.clone() };
            let definition = match view.language {
                TextLanguage::Sql => Definition::sql(&view.text),
                TextLanguage::Pipe => Definition::pipe(&view.text, &name.index),
                TextLanguage::Logql => return Err(found::no_logql().into()),
            };
            let definition = definition.map_err(|found| HttpError::query("InvalidQuery", &found, &view.text))?;
            found::check(&door, &principal, (name, definition), &view.text).await?;
            ItemBody::View(view)
        }
        Shelf::Saved => ItemBody::Saved(read::<SavedSearch>(&body)?),
        Shelf::Lookups => ItemBody::Lookup(upload(&door, &place, body, titled.into_inner().title).await?),
    };
    let ItemPlace { index, name } = place;
    let item = door.platform.put_item(&ItemChange { index, name, body, expected }).await?;
    Ok(answer(&item))
}

fn read<'b, T: Deserialize<'b>>(body: &'b Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request("MalformedRequest", error))
}

/// Puts a table into object storage, unless the lookup of this name has the same one.
async fn upload(door: &Door, place: &ItemPlace, csv: Bytes, title: String) -> Result<Lookup, HttpError> {
    let encoded = apart(csv.len(), move || {
        let (table, columns) = csv::read(&csv).map_err(Problem::from)?;
        csv::fits(table.get_array_memory_size()).map_err(Problem::from)?;
        let bytes = engine::to_parquet(&table).map_err(|error| Problem::internal(format_args!("parquet: {error}")))?;
        Ok::<_, Problem>((bytes, table.num_rows(), columns))
    });
    let (bytes, rows, columns) = encoded.await??;
    let digest = HEXLOWER.encode(digest(&SHA256, &bytes).as_ref());
    let (rows, length) = (u64::try_from(rows).unwrap_or(u64::MAX), u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    if let Ok(Item { body: ItemBody::Lookup(there), .. }) = of_kind(door, place, ItemKind::Lookup).await?
        && there.digest == digest
    {
        return Ok(Lookup { title, ..there });
    }
    let to = door.platform.reserve_upload(&UploadOf { index: place.index.clone() }).await?;
    let stored = tokio::time::timeout(UPLOAD_WITHIN, door.platform.put_object(&to.key(), bytes.into())).await;
    stored
        .map_err(|_| Problem::unavailable("ObjectsUnavailable", "object storage does not take the table in time"))??;
    Ok(Lookup { place: to, digest, bytes: length, rows, columns, title })
}

/// `DELETE /api/v1/indexes/{index}/{views|saved|lookups}/{name}`: deleting what is not there succeeds.
pub(crate) async fn delete(
    request: HttpRequest,
    door: Data<Door>,
    path: Path<(IndexName, Shelf, ItemName)>,
) -> Result<HttpResponse, HttpError> {
    let (index, shelf, name) = path.into_inner();
    door.auth.of(&request).await?.may_manage(&index)?;
    let (kind, expected) = (shelf.kind(), expected(&request)?);
    door.platform.delete_item(&ItemRemoval { index, name, kind, expected }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// What must be there: `If-Match: "3"` that version, `If-None-Match: *` nothing.
fn expected(request: &HttpRequest) -> Result<Expected, Problem> {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default().trim());
    let wrong = || {
        let message = "write If-Match with the ETag of the item, or If-None-Match: *";
        Problem::bad_request("MalformedRequest", message)
    };
    match (header(IF_MATCH), header(IF_NONE_MATCH)) {
        (None, None) => Ok(Expected::Any),
        (None, Some("*")) => Ok(Expected::Absent),
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).map(u64::from_str);
            version.and_then(Result::ok).map(Expected::Version).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn answer(item: &Item) -> HttpResponse {
    HttpResponse::Ok().insert_header((ETAG, format!("\"{}\"", item.version))).json(shown(item))
}

/// An item as the API shows it: what it is beside its name, and nothing of where its rows lie.
fn shown(item: &Item) -> Value {
    let Item { index, name, version, changed, body } = item;
    let mut shown = serde_json::to_value(body).unwrap_or_default();
    if let Value::Object(members) = &mut shown {
        members.remove("place");
        members.insert("index".to_owned(), json!(index));
        members.insert("name".to_owned(), json!(name));
        members.insert("version".to_owned(), json!(version));
        let changed = jiff::Timestamp::from_nanosecond(changed.nanos().into());
        members.insert("changed".to_owned(), changed.map_or(Value::Null, |at| at.to_string().into()));
    }
    shown
}
