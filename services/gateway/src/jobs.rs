//! Continuous jobs over HTTP.

pub(crate) mod control;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Json, Path, ServiceConfig},
};
use query::{Continuous, Ongoing, stream::Node};
use serde::Deserialize;
use types::{DurationText, IndexName, JobId};
use wire::{
    Problem,
    job_manager::{JobDescription, JobOptions, NewJob, RestartPolicy, RestoreFrom, SavepointName, Sink, StartAt},
};

use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    language::{Language, Question},
    quota::Begun,
};

/// The body of a submission.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    /// The job's id; without it one is made up.
    job: Option<JobId>,
    /// Continuous SQL, `INSERT INTO <index> SELECT …`; in the pipe language what ends with `| into index <index>`.
    #[serde(alias = "sql")]
    text: String,
    #[serde(default)]
    language: Language,
    /// What a text of the pipe language reads where it names no index.
    index: Option<IndexName>,
    #[serde(default)]
    start: Start,
    #[serde(default)]
    parallelism: u16,
    /// What follows a failure, for example `{"fixed": {"attempts": 3, "delay": "10s"}}`.
    #[serde(default)]
    restart: RestartPolicy,
    checkpoint_interval: Option<DurationText>,
    /// The savepoint to begin from.
    restore: Option<Restored>,
}

/// A savepoint to begin from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restored {
    job: JobId,
    savepoint: String,
    #[serde(default)]
    drop_state: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    Earliest,
    #[default]
    Latest,
}

/// The routes below `/api/v1`.
pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .route("/jobs", web::get().to(list))
        .route("/jobs", web::post().to(submit))
        .route("/jobs/explain", web::post().to(explain))
        .route("/jobs/{job}", web::get().to(describe))
        .route("/jobs/{job}", web::delete().to(cancel))
        .configure(control::routes);
}

/// Reads a continuous query and makes sure that its expressions can be run.
pub(crate) fn read_continuous(text: &str) -> Result<Continuous, HttpError> {
    let read = query::parse_continuous(text).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    engine::Stage::for_query(&read).map_err(|error| HttpError::engine(error, text))?;
    Ok(read)
}

/// Refuses a token that is not for what the job reads; one that reads no index is the platform's.
pub(crate) fn may_read(principal: &Principal, job: &JobDescription) -> Result<(), HttpError> {
    match &job.source {
        Some(source) => principal.may_read(source),
        None => principal.is_admin(),
    }
}

/// The same for whoever changes it.
pub(crate) fn may_manage(principal: &Principal, job: &JobDescription) -> Result<(), HttpError> {
    match &job.source {
        Some(source) => principal.may_manage(source),
        None => principal.is_admin(),
    }
}

fn may_see(principal: &Principal, job: &JobDescription) -> bool {
    may_read(principal, job).is_ok()
}

/// `GET /api/v1/jobs`: the jobs whose source this token may read.
async fn list(request: HttpRequest, door: Data<Door>) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let mut list = door.platform.jobs().await?;
    list.jobs.retain(|job| may_see(&principal, job));
    Ok(HttpResponse::Ok().json(list))
}

/// `GET /api/v1/jobs/{job}`.
async fn describe(request: HttpRequest, door: Data<Door>, job: Path<JobId>) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let job = door.platform.job(&job).await?;
    may_read(&principal, &job)?;
    Ok(HttpResponse::Ok().json(job))
}

/// `POST /api/v1/jobs`: starts a job; the same id with the same text answers the running job.
async fn submit(request: HttpRequest, door: Data<Door>, body: Json<Submission>) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let Submission { job, text, language, index, start, parallelism, restart, checkpoint_interval, restore } =
        body.into_inner();
    let Ongoing { text, .. } = Question::new(text, language, index).ongoing(&door, &principal).await?;
    let (reads, sink) = match read_continuous(&text) {
        Ok(read) => {
            let Some(target) = read.insert_into else {
                let found = query::Diagnostic::new(1, 1, "the job does not say where its rows go");
                return Err(HttpError::query("InvalidQuery", &found.help(language.target()), &text));
            };
            principal.may_manage(&read.source)?;
            principal.may_write(&target)?;
            (Some(read.source), Some(Sink::Index(target)))
        }
        Err(refused) if query::parse_continuous(&text).is_ok() => return Err(refused),
        Err(_) => (read_stream(&principal, &text)?, None),
    };
    let made_up = || format!("job-{}", uuid::Uuid::new_v4().simple()).parse();
    let job = job.map_or_else(made_up, Ok).map_err(|error| Problem::internal(format_args!("job id: {error}")))?;
    let start = match start {
        Start::Earliest => StartAt::Earliest,
        Start::Latest => StartAt::Latest,
    };
    let options = JobOptions { restart, checkpoint_interval, restore: restored(&door, &principal, restore).await? };
    let _turn = match &reads {
        Some(index) => Some(door.begin_continuous(&principal, index, Begun::Job(&job)).await?),
        None => None,
    };
    let started = door.platform.submit(&NewJob { job, text, sink, start, parallelism, early: None, options }).await?;
    door.continuous_changed();
    Ok(HttpResponse::Created().json(started))
}

/// Reads a text of any other shape, and makes sure that its expressions can be run and that this token may run it; answers the
/// first index that it reads.
fn read_stream(principal: &Principal, text: &str) -> Result<Option<IndexName>, HttpError> {
    let read = query::parse_stream(text).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    for node in &read.nodes {
        let stage = match node {
            Node::Filter { predicate, .. } => engine::Stage::new(Some(predicate.clone()), Vec::new()),
            Node::Project { columns, .. } => {
                let columns = columns.iter().map(|column| (column.name.clone(), column.expr.clone()));
                engine::Stage::new(None, columns.collect())
            }
            _ => continue,
        };
        stage.map_err(|error| HttpError::engine(error, text))?;
    }
    if read.outputs.iter().any(|output| output.target.is_none()) {
        let found = query::Diagnostic::new(1, 1, "the job does not say where its rows go");
        return Err(HttpError::query("InvalidQuery", &found.help("write INSERT INTO <index> SELECT …"), text));
    }
    if read.reaches_out() {
        principal.is_admin()?;
    }
    let (reads, writes) = (read.reads(), read.writes());
    reads.iter().try_for_each(|index| principal.may_manage(index))?;
    writes.iter().try_for_each(|index| principal.may_write(index))?;
    Ok(reads.first().map(|index| (*index).clone()))
}

/// `POST /api/v1/jobs/explain`: the plan of a text, which is not run. Only `text`, `language`, `index` and `parallelism` count.
async fn explain(request: HttpRequest, door: Data<Door>, body: Json<Submission>) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let Submission { text, language, index, parallelism, .. } = body.into_inner();
    let Ongoing { text, .. } = Question::new(text, language, index).ongoing(&door, &principal).await?;
    match query::parse_continuous(&text) {
        Ok(read) => principal.may_read(&read.source)?,
        Err(_) => read_stream(&principal, &text).map(drop)?,
    }
    let job = "explain".parse::<JobId>().map_err(|error| Problem::internal(format_args!("job id: {error}")))?;
    let (start, options) = (StartAt::Earliest, JobOptions::default());
    let new = NewJob { job, text, sink: None, start, parallelism, early: None, options };
    Ok(HttpResponse::Ok().json(door.platform.explain(&new).await?))
}

/// The savepoint to begin from, if this token may change the job of which it was taken.
async fn restored(
    door: &Door,
    principal: &Principal,
    restore: Option<Restored>,
) -> Result<Option<RestoreFrom>, HttpError> {
    let Some(Restored { job, savepoint, drop_state }) = restore else { return Ok(None) };
    may_manage(principal, &door.platform.job(&job).await?)?;
    Ok(Some(RestoreFrom { savepoint: SavepointName { job, name: savepoint }, drop_state }))
}

/// `DELETE /api/v1/jobs/{job}`: ends a job; ending what is not there succeeds.
async fn cancel(request: HttpRequest, door: Data<Door>, job: Path<JobId>) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    match door.platform.job(&job).await {
        Ok(found) => {
            may_manage(&principal, &found)?;
            if matches!(found.sink, Sink::Alerts(_)) {
                let message = "the job belongs to an alert rule; delete the rule instead";
                return Err(Problem::conflict("JobOfRule", message).into());
            }
            door.platform.cancel(&job).await?;
            door.continuous_changed();
        }
        Err(problem) if problem.code == wire::Code::NotFound => {}
        Err(problem) => return Err(problem.into()),
    }
    Ok(HttpResponse::NoContent().finish())
}
