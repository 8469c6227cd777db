//! Rows as requests to an address outside: a POST of lines of JSON each.
//!
//! A request is repeated until its receiver takes it. So a receiver that is away for an hour holds the job up by back-pressure: nothing is
//! read meanwhile, no checkpoint completes, nothing is lost. What a new attempt repeats it can recognise: `Lb-Writer` and `Lb-First-Number`
//! name the rows of a request by consecutive numbers, the same in every attempt, however rows are cut into requests; `Idempotency-Key` is
//! made of both and of the last number.

use std::{error::Error, time::Duration};

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{HeaderMap, RETRY_AFTER},
};
use tokio::time::sleep;
use tracing::warn;

use super::numbered::Numbered;
use crate::{
    error::TaskError,
    metrics::{SINK_REPEATS, rows},
    part::Part,
    retry::Pauses,
    run::{Begin, RowSink},
    task::Context,
};

/// Bytes of a request, but at least a row.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Rows of a request.
const BODY_ROWS_MAX: usize = 5_000;
/// The longest pause that a receiver can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The sink of one subtask.
#[derive(Debug)]
pub(super) struct HttpSink {
    client: Client,
    url: Url,
    headers: HeaderMap,
    task: String,
    numbers: Numbered,
}

/// What became of a request.
enum Sent {
    Taken,
    /// It may be taken later: why not now, and the pause that was asked for.
    Later(String, Option<Duration>),
    /// It will never be.
    Refused(String),
}

impl HttpSink {
    pub(super) fn open(
        context: &Context,
        url: &str,
        headers: &std::collections::BTreeMap<String, String>,
        ordered: bool,
        begin: Begin<'_>,
    ) -> Result<Self, TaskError> {
        let posts = &context.shared.posts;
        let (client, url) = posts.to(url)?;
        let headers = posts.headers(headers)?;
        let numbers = Numbered::open(context, begin, ordered)?;
        Ok(Self { client, url, headers, task: context.label.clone(), numbers })
    }

    async fn take(&mut self, split: Option<u64>, batch: &RecordBatch) -> Result<(), TaskError> {
        let lines = engine::json_rows(batch)?;
        let mut rest = lines.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |line: &&Vec<u8>| {
                bytes += line.len() + 1;
                bytes <= BODY_BYTES_MAX
            };
            let count = rest.iter().take(BODY_ROWS_MAX).take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count.min(rest.len()));
            let mut body = now.join(&b'\n');
            body.push(b'\n');
            self.post(split, rows(now.len()), body).await?;
            rest = later;
        }
        Ok(())
    }

    /// Sends a request until it is taken.
    async fn post(&mut self, split: Option<u64>, count: u64, body: Vec<u8>) -> Result<(), TaskError> {
        let given = self.numbers.give(split, count);
        let last = given.first.saturating_add(count).saturating_sub(1);
        let key = format!("{}-{}-{last}", given.writer, given.first);
        let body = bytes::Bytes::from(body);
        let mut pauses = Pauses::default();
        loop {
            let request = self.client.post(self.url.clone()).headers(self.headers.clone());
            let request = request
                .header("Content-Type", "application/x-ndjson")
                .header("Idempotency-Key", &key)
                .header("Lb-Writer", &given.writer)
                .header("Lb-First-Number", given.first);
            match outcome(request.body(body.clone()).send().await) {
                Sent::Taken => return Ok(()),
                Sent::Refused(problem) => {
                    return Err(TaskError::Source { what: self.url.origin().ascii_serialization(), problem });
                }
                Sent::Later(reason, asked) => {
                    SINK_REPEATS.with(&self.task).inc();
                    let pause = pauses.next().max(asked.unwrap_or_default());
                    warn!(task = %self.task, %reason, ?pause, "rows are not taken; they are sent again");
                    sleep(pause).await;
                }
            }
        }
    }
}

fn outcome(answer: Result<Response, reqwest::Error>) -> Sent {
    let response = match answer {
        Ok(response) => response,
        Err(error) if error.is_builder() => return Sent::Refused(reason(&error.without_url())),
        Err(error) => return Sent::Later(reason(&error.without_url()), None),
    };
    let status = response.status();
    let later = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    match status {
        _ if status.is_success() => Sent::Taken,
        _ if later => {
            let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Sent::Later(format!("it answered {status}"), asked.map(Duration::from_secs).map(|p| p.min(RETRY_AFTER_MAX)))
        }
        // A redirection is not followed: it could lead where nobody allowed rows to go.
        _ => Sent::Refused(format!("it answered {status} and will do so again")),
    }
}

/// The innermost reason: the outer ones only say that something could not be sent.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

impl RowSink for HttpSink {
    fn rows(&mut self, split: Option<u64>, batch: &RecordBatch) -> BoxFuture<'_, Result<(), TaskError>> {
        let batch = batch.clone();
        Box::pin(async move { self.take(split, &batch).await })
    }

    fn barrier<'a>(&'a mut self, _: u64, part: &'a mut Part) -> BoxFuture<'a, Result<(), TaskError>> {
        // Everything that was sent is taken.
        self.numbers.note(part);
        Box::pin(std::future::ready(Ok(())))
    }
}
