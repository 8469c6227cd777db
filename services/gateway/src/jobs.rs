//! Continuous jobs over HTTP.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use query::{Continuous, Ongoing};
use serde::Deserialize;
use types::{IndexName, JobId};
use wire::{
    Problem,
    job_manager::{JobDescription, NewJob, Sink, StartAt},
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
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    Earliest,
    #[default]
    Latest,
}

/// Reads a continuous query and makes sure that its expressions can be run.
pub(crate) fn read_continuous(text: &str) -> Result<Continuous, HttpError> {
    let read = query::parse_continuous(text).map_err(|found| HttpError::query("InvalidQuery", &found, text))?;
    engine::Stage::for_query(&read).map_err(|error| HttpError::engine(error, text))?;
    Ok(read)
}

fn sink(job: &JobDescription) -> Option<&IndexName> {
    match &job.sink {
        Sink::Index(index) => Some(index),
        Sink::Alerts(_) => None,
    }
}

fn may_see(principal: &Principal, job: &JobDescription) -> bool {
    principal.may_read(&job.source).is_ok()
}

/// `GET /api/v1/jobs`: the jobs whose source this token may read.
pub(crate) async fn list(request: HttpRequest, door: Data<Door>) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let mut list = door.platform.jobs().await?;
    list.jobs.retain(|job| may_see(&principal, job));
    Ok(HttpResponse::Ok().json(list))
}

/// `GET /api/v1/jobs/{job}`.
pub(crate) async fn describe(
    request: HttpRequest,
    door: Data<Door>,
    job: Path<JobId>,
) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let job = door.platform.job(&job).await?;
    principal.may_read(&job.source)?;
    Ok(HttpResponse::Ok().json(job))
}

/// `POST /api/v1/jobs`: starts a job; the same id with the same text answers the running job.
pub(crate) async fn submit(
    request: HttpRequest,
    door: Data<Door>,
    body: Json<Submission>,
) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    let Submission { job, text, language, index, start, parallelism } = body.into_inner();
    let Ongoing { text, .. } = Question::new(text, language, index).ongoing(&door, &principal).await?;
    let read = read_continuous(&text)?;
    let Some(target) = &read.insert_into else {
        let found = query::Diagnostic::new(1, 1, "the job does not say where its rows go");
        return Err(HttpError::query("InvalidQuery", &found.help(language.target()), &text));
    };
    principal.may_manage(&read.source)?;
    principal.may_write(target)?;
    let made_up = || format!("job-{}", uuid::Uuid::new_v4().simple()).parse();
    let job = job.map_or_else(made_up, Ok).map_err(|error| Problem::internal(format_args!("job id: {error}")))?;
    let start = match start {
        Start::Earliest => StartAt::Earliest,
        Start::Latest => StartAt::Latest,
    };
    let _turn = door.begin_continuous(&principal, &read.source, Begun::Job(&job)).await?;
    let sink = Some(Sink::Index(target.clone()));
    let started = door.platform.submit(&NewJob { job, text, sink, start, parallelism, early: None }).await?;
    door.continuous_changed();
    Ok(HttpResponse::Created().json(started))
}

/// `DELETE /api/v1/jobs/{job}`: ends a job; ending what is not there succeeds.
pub(crate) async fn cancel(
    request: HttpRequest,
    door: Data<Door>,
    job: Path<JobId>,
) -> Result<HttpResponse, HttpError> {
    let principal = door.auth.of(&request).await?;
    match door.platform.job(&job).await {
        Ok(found) => {
            principal.may_manage(&found.source)?;
            if sink(&found).is_none() {
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
