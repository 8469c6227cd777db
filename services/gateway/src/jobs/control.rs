//! What is done with a job that runs: its checkpoints and failures, savepoints, stopping, another parallelism.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Json, Path, ServiceConfig},
};
use serde::Deserialize;
use types::JobId;
use wire::{
    Problem,
    job_manager::{JobDescription, RescaleOf, SavepointName, Sink, StopOf},
};

use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    jobs::{may_manage, may_read},
};

/// The routes below `/api/v1`.
pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/jobs/{job}/plan", web::get().to(plan))
        .route("/jobs/{job}/checkpoints", web::get().to(checkpoints))
        .route("/jobs/{job}/exceptions", web::get().to(exceptions))
        .route("/jobs/{job}/savepoints", web::get().to(savepoints))
        .route("/jobs/{job}/savepoints", web::post().to(take))
        .route("/jobs/{job}/savepoints/{name}", web::delete().to(delete))
        .route("/jobs/{job}/stop", web::post().to(stop))
        .route("/jobs/{job}/rescale", web::post().to(rescale));
}

/// The body of an order for a savepoint; without a name one is made up.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: Option<String>,
}

/// The body of an order to stop.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stopped {
    savepoint: Option<String>,
    /// Whether every window closes first.
    #[serde(default)]
    drain: bool,
}

/// The body of an order for another parallelism.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rescaled {
    parallelism: u16,
}

/// The job, if this token may look at it.
pub(crate) async fn seen(door: &Door, request: &HttpRequest, job: &JobId) -> Result<JobDescription, HttpError> {
    let principal = door.auth.of(request).await?;
    let job = door.platform.job(job).await?;
    may_read(&principal, &job)?;
    Ok(job)
}

/// The same, if this token may change it.
async fn managed(door: &Door, request: &HttpRequest, job: &JobId) -> Result<(Principal, JobDescription), HttpError> {
    let principal = door.auth.of(request).await?;
    let job = door.platform.job(job).await?;
    may_manage(&principal, &job)?;
    if matches!(job.sink, Sink::Alerts(_)) {
        let message = "the job belongs to an alert rule, which starts and ends it";
        return Err(Problem::conflict("JobOfRule", message).into());
    }
    Ok((principal, job))
}

/// A name by which an order can be repeated.
fn named(job: JobId, name: Option<String>) -> SavepointName {
    let made_up = || format!("s-{}", uuid::Uuid::new_v4().simple());
    SavepointName { job, name: name.unwrap_or_else(made_up) }
}

/// `GET /api/v1/jobs/{job}/plan`.
async fn plan(request: HttpRequest, door: Data<Door>, job: Path<JobId>) -> Result<HttpResponse, HttpError> {
    let job = seen(&door, &request, &job).await?;
    Ok(HttpResponse::Ok().json(door.platform.plan(&job.job).await?))
}

/// `GET /api/v1/jobs/{job}/checkpoints`: the last ones, newest first.
async fn checkpoints(request: HttpRequest, door: Data<Door>, job: Path<JobId>) -> Result<HttpResponse, HttpError> {
    let job = seen(&door, &request, &job).await?;
    Ok(HttpResponse::Ok().json(door.platform.checkpoints(&job.job).await?))
}

/// `GET /api/v1/jobs/{job}/exceptions`: what ended its attempts, newest first.
async fn exceptions(request: HttpRequest, door: Data<Door>, job: Path<JobId>) -> Result<HttpResponse, HttpError> {
    let job = seen(&door, &request, &job).await?;
    Ok(HttpResponse::Ok().json(door.platform.exceptions(&job.job).await?))
}

/// `GET /api/v1/jobs/{job}/savepoints`: oldest first.
async fn savepoints(request: HttpRequest, door: Data<Door>, job: Path<JobId>) -> Result<HttpResponse, HttpError> {
    let job = seen(&door, &request, &job).await?;
    Ok(HttpResponse::Ok().json(door.platform.savepoints(&job.job).await?))
}

/// `POST /api/v1/jobs/{job}/savepoints`: takes one; the same name again answers the same one.
async fn take(
    request: HttpRequest,
    door: Data<Door>,
    job: Path<JobId>,
    body: Option<Json<Named>>,
) -> Result<HttpResponse, HttpError> {
    let (_, job) = managed(&door, &request, &job).await?;
    let asked = body.map(Json::into_inner).unwrap_or_default();
    Ok(HttpResponse::Created().json(door.platform.take_savepoint(&named(job.job, asked.name)).await?))
}

/// `DELETE /api/v1/jobs/{job}/savepoints/{name}`: dropping what is not there succeeds.
async fn delete(
    request: HttpRequest,
    door: Data<Door>,
    path: Path<(JobId, String)>,
) -> Result<HttpResponse, HttpError> {
    let (job, name) = path.into_inner();
    let (_, job) = managed(&door, &request, &job).await?;
    door.platform.delete_savepoint(&named(job.job, Some(name))).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /api/v1/jobs/{job}/stop`: stops it at a savepoint; the answer may be a job that is stopping still.
async fn stop(
    request: HttpRequest,
    door: Data<Door>,
    job: Path<JobId>,
    body: Option<Json<Stopped>>,
) -> Result<HttpResponse, HttpError> {
    let (_, job) = managed(&door, &request, &job).await?;
    let Stopped { savepoint, drain } = body.map(Json::into_inner).unwrap_or_default();
    let stopped = door.platform.stop_job(&StopOf { savepoint: named(job.job, savepoint), drain }).await?;
    door.continuous_changed();
    Ok(HttpResponse::Accepted().json(stopped))
}

/// `POST /api/v1/jobs/{job}/rescale`: the answer may be a job that is stopping still, to go on with the new parallelism.
async fn rescale(
    request: HttpRequest,
    door: Data<Door>,
    job: Path<JobId>,
    body: Json<Rescaled>,
) -> Result<HttpResponse, HttpError> {
    let (_, job) = managed(&door, &request, &job).await?;
    let rescale = RescaleOf { job: job.job, parallelism: body.parallelism };
    Ok(HttpResponse::Accepted().json(door.platform.rescale_job(&rescale).await?))
}
