//! Jobs as Flink's REST interface shows them, so that dashboards, exporters and operators made for Flink can read them.
//!
//! Paths and keys are those of Flink 2.3; `flink/recorded.json` holds answers of one, and the tests compare the shapes. Reads only. What
//! is not measured here is 0 or -1 where Flink says so too, with the `…-complete` keys false. Nobody is let in without a token.

mod history;
pub(crate) mod ids;
mod job;
pub(crate) mod worker;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::StatusCode,
    web::{self, Data, Path, ServiceConfig},
};
use serde_json::{Value, json};
use wire::{
    Problem, Service,
    job_manager::{JobDescription, JobStatus},
    views::Member,
};

use crate::{api::Door, auth::Principal, error::HttpError, flink::job::Shown};

/// The version whose interface this is.
const FLINK_VERSION: &str = "2.3.0";
/// How often a page may ask again, in milliseconds.
const REFRESH_MS: u32 = 3_000;

/// The routes, with and without the version.
pub(crate) fn routes(config: &mut ServiceConfig) {
    for version in ["", "/v1"] {
        let at = |path: &str| format!("{version}{path}");
        config
            .route(&at("/overview"), web::get().to(overview))
            .route(&at("/config"), web::get().to(configuration))
            .route(&at("/taskmanagers"), web::get().to(workers))
            .route(&at("/taskmanagers/{worker}"), web::get().to(worker))
            .route(&at("/jobs"), web::get().to(jobs))
            .route(&at("/jobs/overview"), web::get().to(jobs_overview))
            .route(&at("/jobs/{job}"), web::get().to(job))
            .route(&at("/jobs/{job}/{what}"), web::get().to(of_job))
            .route(&at("/jobs/{job}/checkpoints/config"), web::get().to(checkpoints_config))
            .route(&at("/jobs/{job}/checkpoints/details/{number}"), web::get().to(checkpoint))
            .route(&at("/jobs/{job}/vertices/{vertex}"), web::get().to(vertex))
            .route(&at("/jobs/{job}/vertices/{vertex}/{what}"), web::get().to(of_vertex));
    }
}

/// A refusal in the form of Flink.
#[derive(Debug)]
struct Refused(HttpError);

impl<E: Into<HttpError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).json(json!({ "errors": [self.0.to_string()] }))
    }
}

type Answer = Result<HttpResponse, Refused>;

fn ok(body: &Value) -> Answer {
    Ok(HttpResponse::Ok().json(body))
}

fn not_found(what: &str) -> Refused {
    Problem::not_found("UnknownPath", what).into()
}

/// The jobs whose source this token may read.
async fn seen(door: &Door, request: &HttpRequest) -> Result<(Principal, Vec<JobDescription>), Refused> {
    let principal = door.auth.of(request).await?;
    let mut jobs = door.platform.jobs().await?.jobs;
    jobs.retain(|job| crate::jobs::may_read(&principal, job).is_ok());
    Ok((principal, jobs))
}

async fn task_workers(door: &Door) -> Result<Vec<Member>, Refused> {
    let members = door.platform.members().await?.into_iter();
    Ok(members.filter(|member| member.service == Service::TaskWorker).collect())
}

/// One job with its plan, by Flink's id.
async fn found(door: &Door, request: &HttpRequest, id: &str) -> Result<Shown, Refused> {
    let (_, jobs) = seen(door, request).await?;
    let Some(job) = jobs.into_iter().find(|job| ids::job(&job.job) == id) else {
        return Err(Problem::not_found("UnknownJob", format_args!("Job {id} not found")).into());
    };
    let plan = door.platform.plan(&job.job).await?;
    Ok(Shown::new(job, &plan.graph, door.clock.now().millis()))
}

async fn overview(request: HttpRequest, door: Data<Door>) -> Answer {
    let (_, jobs) = seen(&door, &request).await?;
    let workers = task_workers(&door).await?;
    // Slots are taken by jobs of everybody.
    let all = door.platform.jobs().await?.jobs;
    let count = |state: &str| jobs.iter().filter(|job| job::state(job.status) == state).count();
    let slots: u32 = workers.iter().map(|worker| u32::from(worker.slots)).sum();
    let free: u32 = workers.iter().map(|worker| worker::free(worker, &all)).sum();
    ok(&json!({
        "taskmanagers": workers.len(),
        "slots-total": slots,
        "slots-available": free,
        "jobs-running": jobs.iter().filter(|job| !job.status.is_over() && job.status != JobStatus::Suspended).count(),
        "jobs-finished": count("FINISHED"),
        "jobs-cancelled": count("CANCELED"),
        "jobs-failed": count("FAILED"),
        "flink-version": FLINK_VERSION,
        "flink-commit": concat!("logboom-", env!("CARGO_PKG_VERSION")),
    }))
}

async fn configuration(request: HttpRequest, door: Data<Door>) -> Answer {
    door.auth.of(&request).await?;
    ok(&json!({
        "refresh-interval": REFRESH_MS,
        "timezone-name": "Coordinated Universal Time",
        "timezone-offset": 0,
        "flink-version": FLINK_VERSION,
        "flink-revision": concat!("logboom-", env!("CARGO_PKG_VERSION")),
        "features": { "web-submit": false, "web-cancel": false, "web-rescale": false, "web-history": false },
    }))
}

async fn workers(request: HttpRequest, door: Data<Door>) -> Answer {
    let (principal, jobs) = seen(&door, &request).await?;
    principal.is_admin()?;
    let shown: Vec<Value> = task_workers(&door).await?.iter().map(|one| worker::shown(one, &jobs)).collect();
    ok(&json!({ "taskmanagers": shown }))
}

async fn worker(request: HttpRequest, door: Data<Door>, name: Path<String>) -> Answer {
    let (principal, jobs) = seen(&door, &request).await?;
    principal.is_admin()?;
    let workers = task_workers(&door).await?;
    let known = workers.iter().find(|worker| worker.replica.as_str() == *name);
    ok(&worker::detailed(known.ok_or_else(|| not_found(&format!("there is no task worker {name}")))?, &jobs))
}

async fn jobs(request: HttpRequest, door: Data<Door>) -> Answer {
    let (_, jobs) = seen(&door, &request).await?;
    let shown = jobs.iter().map(|job| json!({ "id": ids::job(&job.job), "status": job::state(job.status) }));
    ok(&json!({ "jobs": shown.collect::<Vec<_>>() }))
}

async fn jobs_overview(request: HttpRequest, door: Data<Door>) -> Answer {
    let (_, jobs) = seen(&door, &request).await?;
    let now = door.clock.now().millis();
    ok(&json!({ "jobs": jobs.iter().map(|one| job::line(one, now)).collect::<Vec<_>>() }))
}

async fn job(request: HttpRequest, door: Data<Door>, id: Path<String>) -> Answer {
    ok(&found(&door, &request, &id).await?.whole())
}

async fn of_job(request: HttpRequest, door: Data<Door>, path: Path<(String, String)>) -> Answer {
    let (id, what) = path.into_inner();
    let shown = found(&door, &request, &id).await?;
    let job = &shown.job.job;
    match what.as_str() {
        "plan" => ok(&json!({ "plan": shown.plan() })),
        "status" => ok(&json!({ "status": job::state(shown.job.status) })),
        "config" => ok(&shown.config()),
        "exceptions" => ok(&history::exceptions(&door.platform.exceptions(job).await?)),
        "checkpoints" => ok(&history::checkpoints(&door.platform.checkpoints(job).await?, shown.tasks())),
        "metrics" => match request.query_string().is_empty() {
            true => ok(&history::metric_names()),
            false => ok(&history::metrics(&door.platform.checkpoints(job).await?, &shown, request.query_string())),
        },
        _ => Err(not_found(&format!("nothing is shown under /jobs/{id}/{what}"))),
    }
}

async fn checkpoints_config(request: HttpRequest, door: Data<Door>, id: Path<String>) -> Answer {
    ok(&found(&door, &request, &id).await?.checkpoints_config())
}

async fn checkpoint(request: HttpRequest, door: Data<Door>, path: Path<(String, u64)>) -> Answer {
    let (id, number) = path.into_inner();
    let shown = found(&door, &request, &id).await?;
    let all = door.platform.checkpoints(&shown.job.job).await?;
    let run = all.checkpoints.iter().find(|run| run.number == number);
    let run = run.ok_or_else(|| not_found(&format!("checkpoint {number} is not remembered")))?;
    ok(&history::detailed(run, &shown))
}

async fn vertex(request: HttpRequest, door: Data<Door>, path: Path<(String, String)>) -> Answer {
    let (id, vertex) = path.into_inner();
    let shown = found(&door, &request, &id).await?;
    ok(&shown.vertex(&vertex).ok_or_else(|| not_found(&format!("job {id} has no vertex {vertex}")))?)
}

async fn of_vertex(request: HttpRequest, door: Data<Door>, path: Path<(String, String, String)>) -> Answer {
    let (id, vertex, what) = path.into_inner();
    let shown = found(&door, &request, &id).await?;
    let nothing = || not_found(&format!("job {id} has no vertex {vertex}"));
    match what.as_str() {
        "subtasktimes" => ok(&shown.subtask_times(&vertex).ok_or_else(nothing)?),
        "taskmanagers" => ok(&shown.workers_of(&vertex).ok_or_else(nothing)?),
        // What Flink says while it has no sample.
        "backpressure" => shown.vertex(&vertex).map(|_| ok(&json!({ "status": "deprecated" }))).ok_or_else(nothing)?,
        "watermarks" | "metrics" => shown.vertex(&vertex).map(|_| ok(&json!([]))).ok_or_else(nothing)?,
        _ => Err(not_found(&format!("nothing is shown under /jobs/{id}/vertices/{vertex}/{what}"))),
    }
}
