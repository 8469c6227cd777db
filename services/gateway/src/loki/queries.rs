//! `query_range` and `query`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data},
};
use query::{Logql, logql::LogqlRange};
use serde_json::Value;
use wire::Problem;

use super::{
    answer,
    ask::{self, Asker, Most, apart},
    parameters::LINES_DEFAULT,
    said,
};
use crate::{api::Door, error::HttpError};

/// `GET`, `POST /loki/api/v1/query_range`: lines as streams, or a metric as a matrix.
///
/// Bounds: `limit`, 100 by default, and `query_rows_max` lines; 11,000 points of a series.
pub(super) async fn range(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    said(ranged(&request, &door, &form).await)
}

async fn ranged(request: &HttpRequest, door: &Data<Door>, form: &[u8]) -> Result<Value, HttpError> {
    let asker = Asker::of(request, door, form).await?;
    let text = asker.parameters.query()?;
    let span = asker.parameters.span(asker.now())?;
    match ask::read(text)? {
        Logql::Logs(plan) => {
            let limit = asker.parameters.count("limit", LINES_DEFAULT, asker.rows_max())?;
            let forward = asker.parameters.forward()?;
            let found = asker.lines((text, &plan), span, (limit, forward)).await?;
            let categorize = asker.categorize;
            let written = apart(move || {
                answer::success("streams", &answer::streams(found.lines, categorize), &found.stats, categorize)
            });
            Ok(written.await?)
        }
        Logql::Metric(metric) => {
            let step = asker.parameters.step(span)?;
            let range = LogqlRange { step, ..asker.range(span.start, span.end) };
            let (all, stats) = asker.series((text, &metric), range, Most::Refuse(asker.rows_max())).await?;
            Ok(apart(move || answer::success("matrix", &answer::matrix(&all), &stats, false)).await?)
        }
    }
}

/// `GET`, `POST /loki/api/v1/query`: a metric at one instant as a vector, or as a scalar where it is only a number.
pub(super) async fn instant(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    said(at_once(&request, &door, &form).await)
}

async fn at_once(request: &HttpRequest, door: &Data<Door>, form: &[u8]) -> Result<Value, HttpError> {
    let asker = Asker::of(request, door, form).await?;
    let text = asker.parameters.query()?;
    let at = asker.parameters.time("time")?.unwrap_or_else(|| asker.now());
    let Logql::Metric(metric) = ask::read(text)? else {
        let message =
            "log queries are not supported as an instant query type, please change your query to a range query type";
        return Err(Problem::bad_request("InvalidQuery", message).into());
    };
    let (mut all, stats) = asker.series((text, &metric), asker.range(at, at), Most::Refuse(asker.rows_max())).await?;
    if answer::is_scalar(&metric) {
        let number = all.first().and_then(|one| one.points.last()).map_or(f64::NAN, |point| point.1);
        return Ok(answer::success("scalar", &answer::point(at.nanos(), number), &stats, false));
    }
    answer::arrange(&metric, &mut all);
    Ok(answer::success("vector", &answer::vector(&all), &stats, false))
}
