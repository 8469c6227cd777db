//! The routes, and what their handlers share.

use std::time::Duration;

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    body::MessageBody,
    dev::{Server, ServerHandle, Service, ServiceFactory, ServiceRequest, ServiceResponse},
    http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    middleware::DefaultHeaders,
    web::{self, Data},
};
use bus::Bucket;
use host::{Host, Ledger};
use types::{IndexName, ScopeName};
use wire::{
    Call, Code, Problem,
    coordinator::{DescribeStream, StreamDescription, StreamName},
};

use super::{
    acl::{Permission, Resource},
    answer::{Refusal, malformed},
    groups,
    guard::{Guard, Principal},
    health, scopes, streams,
};
use crate::{ScopePhase, State, metrics};

/// The largest request body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Worker threads: requests wait, they do not compute.
const HTTP_THREADS: usize = 2;
/// Connections of one worker thread; others wait to be accepted.
const CONNECTIONS_MAX: usize = 1_024;
/// Seconds that requests in flight have to end when the service drains; below the host's own bound.
const DRAIN_SECONDS: u64 = 5;
/// How long a change may take: a stream is created, scaled or deleted in all its containers.
const CHANGE_WITHIN: Duration = Duration::from_secs(25);

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) host: Host,
    pub(crate) ledger: Ledger<State>,
    pub(crate) guard: Guard,
    /// Who is alive.
    pub(crate) members: Bucket,
    /// Who leads.
    pub(crate) leases: Bucket,
    /// What readers of groups hold.
    pub(crate) groups: Bucket,
}

impl Front {
    /// Listens; the answer must be polled.
    pub(crate) fn serve(self, address: &str) -> std::io::Result<(Server, ServerHandle)> {
        let host = self.host.clone();
        let server = HttpServer::new(move || app(self.clone()))
            .workers(HTTP_THREADS)
            .max_connections(CONNECTIONS_MAX)
            .disable_signals()
            .shutdown_timeout(DRAIN_SECONDS);
        let server = match host.https() {
            Some(tls) => server.bind_rustls_0_23(address, tls)?,
            None => server.bind(address)?,
        };
        for bound in server.addrs() {
            host.listens("rest interface", bound);
        }
        let server = server.run();
        let handle = server.handle();
        Ok((server, handle))
    }

    /// Who asks, if they may so much.
    pub(crate) async fn admit(
        &self,
        http: &HttpRequest,
        resource: Resource<'_>,
        needed: Permission,
    ) -> Result<Principal, Refusal> {
        let principal = self.guard.principal(http).await?;
        principal.require(resource, needed)?;
        Ok(principal)
    }

    /// Has the leader do it, wherever it is.
    pub(crate) async fn change<C: Call<Key = ()>>(&self, request: &C::Request) -> Result<C::Reply, Problem> {
        self.host.bus.call_within::<C>(&(), request, CHANGE_WITHIN).await
    }

    /// Whether a scope is there.
    pub(crate) async fn has_scope(&self, scope: &ScopeName) -> Result<bool, Problem> {
        match self.scope(scope.as_str()).await {
            Err(problem) if problem.code == Code::NotFound => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// The scope of this name. Errors: NotFound.
    pub(crate) async fn scope(&self, scope: &str) -> Result<ScopeName, Problem> {
        let name = scope.parse::<ScopeName>().map_err(|_| unknown_scope(scope))?;
        let look = |state: &State| match state.scope(&name) {
            Some(ScopePhase::Live) => Ok(()),
            _ => Err(unknown_scope(scope)),
        };
        self.ledger.look(look).await.map(|()| name)
    }

    /// The stream of a scope as the leader knows it. Errors: NotFound, also where the stream is another scope's.
    pub(crate) async fn stream(&self, scope: &str, stream: &str) -> Result<StreamDescription, Problem> {
        let index = stream.parse::<IndexName>().map_err(|_| unknown_stream(scope, stream))?;
        let described = self.change::<DescribeStream>(&StreamName { index }).await?;
        if described.scope.as_str() == scope { Ok(described) } else { Err(unknown_stream(scope, stream)) }
    }
}

pub(crate) fn unknown_scope(scope: &str) -> Problem {
    Problem::not_found("UnknownScope", format_args!("there is no scope {scope:?}"))
}

pub(crate) fn unknown_stream(scope: &str, stream: &str) -> Problem {
    Problem::not_found("UnknownIndex", format_args!("there is no stream {stream:?} in scope {scope:?}"))
}

/// The application, once for each thread.
fn app(
    front: Front,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let json = web::JsonConfig::default().limit(BODY_BYTES_MAX).content_type_required(false);
    let headers = DefaultHeaders::new()
        .add((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .add((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
    App::new()
        .app_data(Data::new(front))
        .app_data(json.error_handler(|error, _| malformed(error)))
        .app_data(web::PathConfig::default().error_handler(|error, _| malformed(error)))
        .app_data(web::QueryConfig::default().error_handler(|error, _| malformed(error)))
        .wrap(headers)
        .wrap_fn(|request, service| {
            let answer = service.call(request);
            async move {
                let answer = answer.await?;
                metrics::REST_REQUESTS.with(answer.status().as_str()).inc();
                Ok(answer)
            }
        })
        .route("/ping", web::get().to(HttpResponse::Ok))
        // Pravega's base path; without it the same is shorter to type.
        .service(web::scope("/v1").configure(routes))
        .configure(routes)
        .default_service(web::to(nothing_here))
}

fn routes(app: &mut web::ServiceConfig) {
    const STREAM: &str = "/scopes/{scope}/streams/{stream}";
    app.route("/scopes", web::get().to(scopes::list))
        .route("/scopes", web::post().to(scopes::create))
        .route("/scopes/{scope}", web::get().to(scopes::describe))
        .route("/scopes/{scope}", web::delete().to(scopes::delete))
        .route("/scopes/{scope}/streams", web::get().to(streams::list))
        .route("/scopes/{scope}/streams", web::post().to(streams::create))
        .route(STREAM, web::get().to(streams::describe))
        .route(STREAM, web::put().to(streams::update))
        .route(STREAM, web::delete().to(streams::delete))
        .route(&format!("{STREAM}/state"), web::put().to(streams::seal))
        .route(&format!("{STREAM}/scaling-events"), web::get().to(streams::scaling_events))
        .route("/scopes/{scope}/readergroups", web::get().to(groups::list))
        .route("/scopes/{scope}/readergroups/{group}", web::get().to(groups::describe))
        .route("/scopes/{scope}/readergroups/{group}", web::delete().to(groups::delete))
        // The words come before `{id}`, which would match them too.
        .route("/health", web::get().to(health::whole))
        .route("/health/{facet:readiness|liveness|details|status}", web::get().to(health::facet))
        .route("/health/{facet:readiness|liveness|details|status}/{id}", web::get().to(health::facet_of))
        .route("/health/{id}", web::get().to(health::one));
}

async fn nothing_here(http: HttpRequest) -> Result<HttpResponse, Refusal> {
    let asked = format!("there is no {} {}", http.method(), http.path());
    Err(Problem::not_found("UnknownPath", asked).into())
}
