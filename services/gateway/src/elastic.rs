//! Elasticsearch's reading side, so that Grafana's data source and its own clients ask here unmodified; documents come in by
//! `doors/elastic.rs`.
//!
//! A body becomes a few statements of SQL ([`search`], [`buckets`]), each of which runs like every other query ([`ask`]); the answers have
//! the shapes and the words of Elasticsearch ([`gather`], [`shown`]). Which name is which column, [`field`] says. Everything but
//! [`ask`] is pure.

pub(crate) mod aggregation;
mod answer;
mod ask;
pub(crate) mod buckets;
pub(crate) mod clause;
pub(crate) mod condition;
pub(crate) mod field;
pub(crate) mod gather;
pub(crate) mod highlight;
pub(crate) mod lucene;
pub(crate) mod moment;
pub(crate) mod refused;
pub(crate) mod search;
pub(crate) mod shown;
pub(crate) mod sort;
pub(crate) mod words;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Instant};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, Route,
    body::{BoxBody, SizedStream},
    http::{Method, StatusCode},
    web::{self, Data, Path, Payload, Query, ServiceConfig},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};
use types::IndexName;

use self::{
    answer::{ANSWERS_BYTES_MAX, Budget, Form},
    ask::{Asker, Fault},
    field::Fields,
    refused::{Refused, flag, texts},
    search::{Search, count_query, patterns},
};
use crate::{
    api::Door,
    body::{self, Encoding, apart},
    doors::http::said,
    sql,
};

/// The largest body of a search.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The largest body of several searches.
const BODIES_BYTES_MAX: usize = 4 << 20;
/// Searches of one request.
const SEARCHES_MAX: usize = 64;
/// Of these so many run at once.
const SEARCHES_AT_ONCE: usize = 2;

/// The routes; they stand before the door that takes all paths which begin with an underscore.
pub(crate) fn routes(config: &mut ServiceConfig) {
    let mut both = |paths: &[&str], route: fn() -> Route| {
        for path in paths {
            config.route(path, route().method(Method::GET));
            config.route(path, route().method(Method::POST));
        }
    };
    both(&["/_search", "/{index}/_search"], || web::route().to(search));
    both(&["/_msearch", "/{index}/_msearch"], || web::route().to(searches));
    both(&["/_count", "/{index}/_count"], || web::route().to(count));
    both(&["/_field_caps", "/{index}/_field_caps"], || web::route().to(capabilities));
    both(&["/_search/scroll", "/_search/scroll/{id}"], || web::route().to(no_scroll));
    for path in ["/_mapping", "/_mappings", "/{index}/_mapping", "/{index}/_mappings"] {
        config.route(path, web::get().to(mappings));
    }
    config
        .route("/_resolve/index/{index}", web::get().to(resolved))
        .route("/_search/scroll", web::delete().to(no_scroll))
        .route("/_pit", web::route().to(no_pit))
        .route("/{index}/_pit", web::route().to(no_pit))
        .route("/{index}", web::head().to(is_there));
}

/// What a request says besides its path.
struct Asked {
    index: Option<String>,
    uri: Vec<(String, String)>,
    body: Bytes,
}

impl Asked {
    async fn of(request: &HttpRequest, payload: Payload, bytes_max: usize) -> Result<Self, Fault> {
        let encoding = Encoding::of(request).map_err(crate::error::HttpError::from)?;
        let body = body::read(payload, encoding, bytes_max).await.map_err(crate::error::HttpError::from)?;
        let uri = Query::<Vec<(String, String)>>::from_query(request.query_string());
        let uri = uri.map_err(|error| Refused::illegal(error.to_string()))?.into_inner();
        let index = Path::<String>::extract(request).await.ok().map(Path::into_inner);
        Ok(Self { index, uri, body })
    }

    /// The body as JSON; none is an empty one.
    fn json(&self) -> Result<Value, Refused> {
        if self.body.trim_ascii().is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(&self.body).map_err(|error| Refused::parsing(format!("the body is no JSON: {error}")))
    }

    fn flag(&self, name: &str) -> Result<bool, Refused> {
        let given = self.uri.iter().find(|(known, _)| known == name);
        // A parameter without a value is set.
        given.map_or(
            Ok(false),
            |(_, value)| if value.is_empty() { Ok(true) } else { flag(&value.as_str().into(), name) },
        )
    }
}

fn told(found: Result<impl Into<Vec<u8>>, Fault>) -> HttpResponse {
    match found {
        Ok(body) => said(StatusCode::OK, body),
        Err(fault) => {
            let (status, value) = fault.told();
            said(status, value.to_string())
        }
    }
}

/// `GET` or `POST /{index}/_search`
async fn search(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door).await?;
        let asked = Asked::of(&request, payload, BODY_BYTES_MAX).await?;
        let search = Search::read(&asked.json()?, &asked.uri, asker.now())?;
        let form = Form { plain_total: asked.flag("rest_total_hits_as_int")?, status: false };
        let indexes = asker.indexes(asked.index.as_deref(), asked.flag("ignore_unavailable")?).await?;
        asker.search(&indexes, search, form, &Budget::default()).await
    };
    told(Box::pin(found).await)
}

/// `GET` or `POST /_msearch`: pairs of lines, a header and a search; each is answered with a status of its own.
async fn searches(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    let began = Instant::now();
    let found = async {
        let asker = Asker::of(&request, &door).await?;
        let asked = Asked::of(&request, payload, BODIES_BYTES_MAX).await?;
        answers(&asker, &asked, &Budget::default()).await
    };
    let answers = match Box::pin(found).await {
        Ok(answers) => answers,
        Err(fault) => return told(Err::<String, _>(fault)),
    };
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut parts = vec![Bytes::from(format!("{{\"took\":{took},\"responses\":["))];
    for (number, answer) in answers.into_iter().enumerate() {
        parts.extend((number > 0).then(|| Bytes::from_static(b",")));
        parts.push(answer);
    }
    parts.push(Bytes::from_static(b"]}"));
    // They are sent as they are: together they may be large.
    let length = parts.iter().map(|part| part.len() as u64).sum();
    let parts = stream::iter(parts.into_iter().map(Ok::<_, Infallible>));
    said(StatusCode::OK, "").map_body(|_, _| BoxBody::new(SizedStream::new(length, parts)))
}

/// The answers of several searches in their order; one that has no room any more is refused in its place.
async fn answers(asker: &Asker, asked: &Asked, budget: &Budget) -> Result<Vec<Bytes>, Fault> {
    let form = Form { plain_total: asked.flag("rest_total_hits_as_int")?, status: true };
    let uri: Vec<(String, String)> = asked.uri.iter().filter(|(name, _)| name == "typed_keys").cloned().collect();
    let (uri, index) = (uri.as_slice(), asked.index.as_deref());
    let one = |(header, body): Pair<'_>| {
        let read = read_pair(header, body);
        async move {
            let found = async {
                let (header, body) = read?;
                let search = Search::read(&body, uri, asker.now())?;
                let named = match header.get("index").or_else(|| header.get("indices")) {
                    None | Some(Value::Null) => index.map(str::to_owned),
                    Some(named) => Some(texts(named, "index")?.join(",")),
                };
                let lenient =
                    header.get("ignore_unavailable").map_or(Ok(false), |on| flag(on, "ignore_unavailable"))?;
                let indexes = asker.indexes(named.as_deref(), lenient).await?;
                asker.search(&indexes, search, form, budget).await
            };
            let answer = Box::pin(found).await;
            answer.unwrap_or_else(|fault: Fault| fault.told().1.to_string().into_bytes()).into()
        }
    };
    Ok(stream::iter(pairs(&asked.body)?.into_iter().map(one)).buffered(SEARCHES_AT_ONCE).collect().await)
}

/// A search of several: its header and its body, a line each.
type Pair<'b> = (&'b [u8], &'b [u8]);

/// The pairs of lines of a body.
fn pairs(body: &[u8]) -> Result<Vec<Pair<'_>>, Refused> {
    let mut lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let pairs = lines.chunks(2).map(|pair| match pair {
        [header, body] => Ok((*header, *body)),
        _ => Err(Refused::illegal("the last search has no body: lines come in pairs")),
    });
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    match pairs.len() {
        0 => Err(Refused {
            kind: "action_request_validation_exception",
            reason: "Validation Failed: 1: no requests added;".to_owned(),
        }),
        many if many > SEARCHES_MAX => {
            Err(Refused::illegal(format!("{many} searches in one request, {SEARCHES_MAX} are the most")))
        }
        _ => Ok(pairs),
    }
}

fn read_pair(header: &[u8], body: &[u8]) -> Result<(Map<String, Value>, Value), Refused> {
    let read = |line: &[u8]| -> Result<Value, Refused> {
        if line.is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(line).map_err(|error| Refused::parsing(format!("a line is no JSON: {error}")))
    };
    Ok((refused::object(&read(header)?, "header")?.clone(), read(body)?))
}

/// `GET` or `POST /{index}/_count`
async fn count(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door).await?;
        let asked = Asked::of(&request, payload, BODY_BYTES_MAX).await?;
        let search = count_query(&asked.json()?, &asked.uri, asker.now())?;
        let indexes = asker.indexes(asked.index.as_deref(), asked.flag("ignore_unavailable")?).await?;
        let count = asker.count(&indexes, &search).await?;
        let shards = json!({ "total": indexes.len(), "successful": indexes.len(), "skipped": 0, "failed": 0 });
        Ok(json!({ "count": count, "_shards": shards }).to_string())
    };
    told(Box::pin(found).await)
}

/// The columns of an index.
async fn fields(asker: &Asker, index: &IndexName) -> Result<Fields, Fault> {
    let columns = sql::columns(&asker.door, &asker.principal, index).await?;
    Ok(Fields::of(&BTreeMap::from([(index.clone(), columns.to_vec())])))
}

/// `GET` or `POST /{index}/_field_caps`: of fields that are of two types in two indexes, each type.
async fn capabilities(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door).await?;
        let asked = Asked::of(&request, payload, BODY_BYTES_MAX).await?;
        let patterns: Arc<[String]> = patterns(&asked.json()?, &asked.uri)?.into();
        let length: usize = patterns.iter().map(String::len).sum();
        let indexes = asker.indexes(asked.index.as_deref(), asked.flag("ignore_unavailable")?).await?;
        let (mut all, mut left) = (Map::new(), ANSWERS_BYTES_MAX);
        for index in &indexes {
            let (fields, patterns) = (fields(&asker, index).await?, Arc::clone(&patterns));
            // Every pattern is compared with every field.
            let steps = length.saturating_mul(fields.named().count());
            let found = apart(steps, move || field::capabilities(&fields, &patterns)).await?;
            left = left.checked_sub(found.to_string().len()).ok_or(Fault::Full)?;
            let Value::Object(found) = found else { continue };
            for (name, types) in found {
                match (all.get_mut(&name), types) {
                    (Some(Value::Object(known)), Value::Object(types)) => known.extend(types),
                    (_, types) => {
                        all.insert(name, types);
                    }
                }
            }
        }
        Ok(json!({ "indices": indexes, "fields": all }).to_string())
    };
    told(Box::pin(found).await)
}

/// `GET /{index}/_mapping`
async fn mappings(request: HttpRequest, door: Data<Door>, payload: Payload) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door).await?;
        let asked = Asked::of(&request, payload, BODY_BYTES_MAX).await?;
        let indexes = asker.indexes(asked.index.as_deref(), asked.flag("ignore_unavailable")?).await?;
        all_mappings(&asker, &indexes, ANSWERS_BYTES_MAX).await
    };
    told(Box::pin(found).await)
}

/// What indexes are made of, in at most so many bytes.
async fn all_mappings(asker: &Asker, indexes: &[IndexName], bytes_max: usize) -> Result<String, Fault> {
    let mut out = "{".to_owned();
    for index in indexes {
        let mapping = field::mapping(&fields(asker, index).await?);
        let comma = if out.len() > 1 { "," } else { "" };
        out.push_str(&format!("{comma}\"{index}\":{mapping}"));
        if out.len() >= bytes_max {
            return Err(Fault::Full);
        }
    }
    out.push('}');
    Ok(out)
}

/// `GET /_resolve/index/{index}`
async fn resolved(request: HttpRequest, door: Data<Door>, index: Path<String>) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door).await?;
        let one = |index: IndexName| json!({ "name": index, "attributes": ["open"] });
        let indexes: Vec<Value> = asker.indexes(Some(&index), false).await?.into_iter().map(one).collect();
        Ok(json!({ "indices": indexes, "aliases": [], "data_streams": [] }).to_string())
    };
    told(found.await)
}

/// `HEAD /{index}`
async fn is_there(request: HttpRequest, door: Data<Door>, index: Path<String>) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door).await?;
        asker.indexes(Some(&index), false).await
    };
    match found.await {
        Ok(_) => said(StatusCode::OK, ""),
        Err(fault) => said(fault.told().0, ""),
    }
}

async fn no_scroll() -> HttpResponse {
    let reason = "[scroll] is not supported here: sort by [@timestamp] and [_doc], and page with search_after";
    told(Err::<String, _>(Refused::illegal(reason).into()))
}

async fn no_pit() -> HttpResponse {
    let reason = "a point in time is not supported here: sort by [@timestamp] and [_doc], and page with search_after";
    told(Err::<String, _>(Refused::illegal(reason).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::Principal,
        fake::{Fake, FakeGrants, door},
    };

    fn asker() -> Asker {
        let door = Data::new(door(&Arc::new(Fake::default()), &Arc::new(FakeGrants::default())));
        Asker { door, principal: Principal::Admin }
    }

    #[actix_web::test]
    async fn searches_of_one_request_share_a_budget() {
        let body = "{\"index\":\"shop\"}\n{}\n".repeat(5).into();
        let asked = Asked { index: None, uri: Vec::new(), body };
        let one = answers(&asker(), &asked, &Budget::default()).await.unwrap()[0].len();
        // Room for two and a half; of two that are made at once both may have found too little.
        for (bytes, full) in [(1 << 20, 0..=0), (one * 5 / 2, 3..=4), (10, 5..=5)] {
            let answers = answers(&asker(), &asked, &Budget::of(bytes)).await.unwrap();
            let answers: Vec<Value> = answers.iter().map(|one| serde_json::from_slice(one).unwrap()).collect();
            let is_full = |one: &&Value| {
                let kind = &one["error"]["type"];
                assert_eq!(kind.is_null(), one["status"] == 200, "{one}");
                one["status"] == 429 && kind == "circuit_breaking_exception"
            };
            assert_eq!(answers.len(), 5);
            assert!(full.contains(&answers.iter().filter(is_full).count()), "{bytes}: {answers:?}");
        }
    }

    #[actix_web::test]
    async fn mappings_are_bounded() {
        let indexes: Vec<IndexName> = ["other", "shop"].map(|name| name.parse().unwrap()).into();
        let all = all_mappings(&asker(), &indexes, ANSWERS_BYTES_MAX).await.unwrap();
        let read: Value = serde_json::from_str(&all).unwrap();
        assert_eq!(read["shop"]["mappings"]["properties"]["message"]["type"], "text", "{all}");
        assert!(matches!(all_mappings(&asker(), &indexes, all.len() - 1).await, Err(Fault::Full)));
        assert_eq!(all_mappings(&asker(), &[], 10).await.unwrap(), "{}");
    }

    #[actix_web::test]
    async fn names_of_indexes_are_bounded() {
        let named = |count: usize| vec!["shop"; count].join(",");
        let found = asker().indexes(Some(&named(1_024)), false).await.unwrap();
        assert_eq!(found, ["shop".parse().unwrap()]);
        let refused = asker().indexes(Some(&named(1_025)), false).await.unwrap_err();
        assert!(matches!(refused, Fault::Refused(refused) if refused.reason.contains("1024")));
    }

    #[actix_web::test]
    async fn indexes_that_lie_elsewhere_cannot_be_asked() {
        let fake = Arc::new(Fake::default());
        fake.elsewhere.lock().push("archive");
        let door = Data::new(door(&fake, &Arc::new(FakeGrants::default())));
        let asker = Asker { door, principal: Principal::Admin };
        let here: Vec<IndexName> = ["other", "shop"].map(|name| name.parse().unwrap()).into();
        for named in [None, Some("*"), Some("*o*,a*")] {
            assert_eq!(asker.indexes(named, false).await.unwrap(), here, "{named:?}");
        }
        assert_eq!(asker.indexes(Some("archive"), false).await.unwrap_err().told().0, StatusCode::NOT_FOUND);
    }
}
