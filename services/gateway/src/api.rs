//! The routes, and what their handlers share.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    middleware::{DefaultHeaders, from_fn},
    web::{self, Data},
};
use host::{Host, Places, Quotas};
use moka::sync::Cache;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use types::{Clock, IndexName};
use wire::Problem;

use crate::{
    Config,
    answers::{self, Memory},
    auth::Auth,
    complete, console, doors,
    error::{HttpError, malformed},
    explore, flink, histogram, indexes, ingest_lines, jobs, library, loki,
    platform::Platform,
    quota::Turns,
    request, rules, sql,
    stream::Shown,
    tail,
};

/// Ingest requests that are worked on at once, half of them of one index; beyond it 429. Each holds its body in memory.
const INGESTS_MAX: usize = 32;
/// Queries that run at once, half of them of one index; beyond it they wait. Each may use `query_memory`.
const QUERIES_MAX: usize = 16;
/// Open live tails, half of them of one index; beyond it 429.
const TAILS_MAX: usize = 256;
/// How long it is believed which continuous queries run.
const RUNNING_TTL: Duration = Duration::from_secs(2);
/// The largest JSON body of everything but ingest.
const JSON_BYTES_MAX: usize = 256 << 10;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) config: Arc<Config>,
    pub(crate) auth: Auth,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) clock: Arc<dyn Clock>,
    /// `<service>/<replica>`.
    pub(crate) caller: String,
    /// Cancelled when no new work is taken.
    pub(crate) stop: CancellationToken,
    /// Where queries run.
    pub(crate) queries: Handle,
    pub(crate) ingests: Places,
    pub(crate) selects: Places,
    pub(crate) tails: Places,
    /// Room of answers until they are taken.
    pub(crate) answers: Memory,
    /// What the users of an index may still take.
    pub(crate) quotas: Quotas,
    /// Whose turn it is to begin a continuous query.
    pub(crate) turns: Turns,
    /// Continuous queries by the index that they read.
    pub(crate) running: Cache<(), Arc<HashMap<IndexName, u32>>>,
    /// The columns of indexes.
    pub(crate) columns: Cache<IndexName, Arc<Vec<query::Column>>>,
    /// Where the rows of a streamed answer go; nowhere for others.
    pub(crate) shown: Option<Shown>,
    /// Tables of lookups, by what they hold.
    pub(crate) tables: Cache<String, arrow::array::RecordBatch>,
    /// Values of fields, commonest first.
    pub(crate) values: Cache<(IndexName, String), Arc<Vec<String>>>,
}

impl Door {
    /// Built once, shared by all threads.
    pub(crate) fn new(
        config: Config,
        (auth, quotas): (Auth, Quotas),
        platform: Arc<dyn Platform>,
        host: &Host,
        queries: Handle,
    ) -> Self {
        let caller = format!("{}/{}", host.service, host.replica);
        let door = Self::of(config, auth, platform, Arc::clone(&host.clock), caller, host.stop.clone(), queries);
        Self { quotas, ..door }
    }

    /// The same, for an answer as a whole.
    pub(crate) fn without_stream(&self) -> Self {
        Self { shown: None, ..self.clone() }
    }

    /// Without quotas.
    pub(crate) fn of(
        config: Config,
        auth: Auth,
        platform: Arc<dyn Platform>,
        clock: Arc<dyn Clock>,
        caller: String,
        stop: CancellationToken,
        queries: Handle,
    ) -> Self {
        Self {
            answers: Memory::new(config.query_memory.0.saturating_mul(answers::MEMORY_OF_QUERIES)),
            config: Arc::new(config),
            auth,
            platform,
            caller,
            stop,
            queries,
            ingests: Places::new(INGESTS_MAX),
            selects: Places::new(QUERIES_MAX),
            tails: Places::new(TAILS_MAX),
            quotas: Quotas::without(Arc::clone(&clock)),
            turns: Turns::default(),
            shown: None,
            running: Cache::builder().max_capacity(1).time_to_live(RUNNING_TTL).build(),
            columns: Cache::builder().max_capacity(sql::COLUMNS_KEPT_MAX).time_to_live(sql::COLUMNS_TTL).build(),
            tables: Cache::builder()
                .max_capacity(library::found::TABLES_BYTES_MAX)
                .weigher(|_, table| library::found::table_bytes(table))
                .build(),
            values: Cache::builder().max_capacity(complete::FIELDS_KEPT_MAX).time_to_live(complete::VALUES_TTL).build(),
            clock,
        }
    }
}

/// The application, once for each thread.
pub(crate) fn app(
    door: Door,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let no_store = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let no_sniff = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    App::new()
        .app_data(Data::new(door))
        .app_data(
            web::JsonConfig::default()
                .limit(JSON_BYTES_MAX)
                .content_type_required(false)
                .error_handler(|e, _| malformed(e)),
        )
        .app_data(web::PathConfig::default().error_handler(|e, _| malformed(e)))
        .app_data(web::QueryConfig::default().error_handler(|e, _| malformed(e)))
        .wrap(DefaultHeaders::new().add(no_sniff))
        .wrap(from_fn(answers::bounded))
        .wrap(from_fn(request::identify))
        .service(
            web::scope("/api/v1")
                .wrap(DefaultHeaders::new().add(no_store))
                .route("/status", web::get().to(indexes::status))
                .route("/indexes", web::get().to(indexes::list))
                .route("/indexes/{index}/ingest", web::post().to(ingest_lines::ingest))
                .route("/indexes/{index}/tail", web::get().to(tail::tail))
                .route("/indexes/{index}/histogram", web::get().to(histogram::histogram))
                .route("/indexes/{index}/usage", web::get().to(indexes::usage))
                .configure(explore::routes)
                .configure(library::routes)
                .route("/query", web::post().to(sql::sql))
                .route("/sql", web::post().to(sql::sql))
                .route("/complete", web::post().to(complete::complete))
                .configure(jobs::routes)
                .route("/rules", web::get().to(rules::list))
                .route("/rules/{rule}", web::put().to(rules::put))
                .route("/rules/{rule}", web::delete().to(rules::delete))
                .route("/bindings", web::get().to(indexes::bindings))
                .route("/placement", web::get().to(indexes::placement))
                .default_service(web::to(nothing_here)),
        )
        .route("/", web::get().to(doors::http::root))
        .route("/console/{file}", web::get().to(console::asset))
        .configure(loki::routes)
        .configure(flink::routes)
        .configure(doors::http::routes)
        .default_service(web::to(nothing_here))
}

async fn nothing_here(request: actix_web::HttpRequest) -> Result<HttpResponse, HttpError> {
    let asked = format!("there is no {} {}", request.method(), request.path());
    Err(Problem::not_found("UnknownPath", asked).into())
}

#[cfg(test)]
mod tests;
