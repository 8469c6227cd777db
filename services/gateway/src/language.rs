//! What somebody asks, and in which language.

use std::{collections::BTreeMap, time::Duration};

use engine::ResultSet;
use query::{
    Column, Diagnostic, Logql, Ongoing, Surroundings, TABLES_MAX, TableName,
    logql::{LogqlRange, lower_logs, lower_metric},
    plan::{Moment, Span, Step},
};
use serde::Deserialize;
use types::{DurationText, IndexName, Timestamp, Token};
use wire::Problem;

use crate::{api::Door, auth::Principal, error::HttpError, export::Form, histogram::moment, into, loki, sql};

/// How far back LogQL looks where nothing else is said.
const SPAN_DEFAULT: Duration = Duration::from_secs(3_600);
/// Points of a LogQL series where no step is given.
const POINTS_DEFAULT: u64 = 60;

/// The languages in which a query may be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Language {
    #[default]
    Sql,
    Pipe,
    Logql,
}

impl Language {
    /// How a job says where its rows go.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Pipe => "end with | into index <index>",
            _ => "begin with INSERT INTO <index>",
        }
    }
}

/// What may be said besides the text, in the body or in the query string.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Manner {
    language: Option<Language>,
    /// What is read where the text names no index; without it the index of the token.
    index: Option<IndexName>,
    /// Where the range begins and ends: of LogQL, and of a search that says neither itself.
    from: Option<String>,
    to: Option<String>,
    /// Of LogQL: how far its points are apart.
    step: Option<String>,
    /// In which form the answer is; it goes before `Accept`.
    #[serde(rename = "format")]
    pub(crate) form: Option<Form>,
    /// The name of the file as which a browser keeps the answer.
    pub(crate) download: Option<String>,
    /// Of a query that writes into an index: by what a repeat is known.
    run: Option<String>,
}

impl Manner {
    /// What is said here, and where nothing is said, what is said there.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            language: self.language.or(other.language),
            index: self.index.or(other.index),
            from: self.from.or(other.from),
            to: self.to.or(other.to),
            step: self.step.or(other.step),
            form: self.form.or(other.form),
            download: self.download.or(other.download),
            run: self.run.or(other.run),
        }
    }

    /// Whether a body that begins with a brace is an object: LogQL begins so too.
    pub(crate) fn reads_objects(&self) -> bool {
        self.language != Some(Language::Logql)
    }

    /// Of which index something is asked that names none.
    pub(crate) fn index(&self, principal: &Principal) -> Option<IndexName> {
        self.index.clone().or_else(|| match principal {
            Principal::Admin => None,
            Principal::Bound(grant) => Some(grant.index.clone()),
        })
    }

    /// The time of a search that says none itself.
    fn span(&self, now: Timestamp) -> Result<Span, Problem> {
        let at = |text: &Option<String>| {
            let at = text.as_deref().map(|text| moment(text, now)).transpose();
            at.map(|at| at.map(Moment::At))
        };
        Ok(Span { since: at(&self.from)?, until: at(&self.to)? })
    }

    fn range(&self, index: Option<IndexName>, now: Timestamp) -> Result<LogqlRange, Problem> {
        let end = self.to.as_deref().map_or(Ok(now), |text| moment(text, now))?;
        let start = self.from.as_deref().map_or(Ok(end - SPAN_DEFAULT), |text| moment(text, now))?;
        let step = match &self.step {
            Some(step) => {
                let step: Result<DurationText, _> = step.parse();
                step.map_err(|error| Problem::bad_request("BadTime", format_args!("step: {error}")))?.0
            }
            None => Duration::from_secs((end.since(start).as_secs() / POINTS_DEFAULT).max(1)),
        };
        Ok(LogqlRange { indexes: index.into_iter().collect(), start, end, step, labels: Vec::new() })
    }
}

/// One question.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) manner: Manner,
}

impl Question {
    /// What is asked in a language, of an index where the text names none.
    pub(crate) fn new(text: String, language: Language, index: Option<IndexName>) -> Self {
        Self { text, manner: Manner { language: Some(language), index, ..Manner::default() } }
    }

    /// The continuous query that it is, for somebody who must be allowed to read every index that it names.
    pub(crate) async fn ongoing(self, door: &Door, principal: &Principal) -> Result<Ongoing, HttpError> {
        let Self { text, manner } = self;
        let wrong = |found: Diagnostic| HttpError::query("InvalidQuery", &found, &text);
        match manner.language.unwrap_or_default() {
            Language::Sql => Ok(Ongoing { text, condition: None }),
            Language::Pipe => {
                let mut plan = query::parse_pipe(&text).map_err(wrong)?;
                plan.default_indexes(manner.index(principal).as_slice());
                let mut columns = BTreeMap::new();
                for index in plan.all_indexes().into_iter().take(TABLES_MAX) {
                    let of = sql::columns(door, principal, &index).await?;
                    columns.insert(index, of.to_vec());
                }
                let around = Surroundings { now: door.clock.now(), columns, rows_max: door.config.query_rows_max };
                query::lower_continuous(&plan, &text, &around).map_err(wrong)
            }
            Language::Logql => {
                Err(wrong(Diagnostic::new(1, 1, "LogQL asks about the past only").help("use the language pipe or sql")))
            }
        }
    }

    /// Reads and runs it for somebody, who must be allowed to read every index that it names.
    pub(crate) async fn answer(&self, door: &Door, principal: &Principal) -> Result<ResultSet, HttpError> {
        let text = &self.text;
        let wrong = |found: Diagnostic| HttpError::query("InvalidQuery", &found, text);
        let index = self.manner.index(principal);
        match self.manner.language.unwrap_or_default() {
            Language::Sql => match query::parse_insert(text).map_err(wrong)? {
                None => sql::answer(door, principal, text).await,
                Some((target, select)) => {
                    principal.may_write(&target)?;
                    let result = sql::answer_select(&door.without_stream(), principal, text, &select).await?;
                    self.write(door, principal, &target, result).await
                }
            },
            Language::Pipe => {
                let mut plan = query::parse_pipe(text).map_err(wrong)?;
                plan.default_indexes(index.as_slice());
                if plan.span == Span::default() {
                    plan.span = self.manner.span(door.clock.now())?;
                }
                let explained = plan.steps.pop_if(|step| matches!(step, Step::Explain)).is_some();
                let target = match plan.steps.pop_if(|step| matches!(step, Step::Into(_)) && !explained) {
                    Some(Step::Into(target)) => Some(target),
                    _ => None,
                };
                target.iter().try_for_each(|target| principal.may_write(target))?;
                let named = (plan.all_indexes(), plan.all_items());
                let lower = |around: &Surroundings, tables: &BTreeMap<TableName, Vec<Column>>| {
                    query::lower_over(&plan, text, around, tables)
                };
                let whole = (explained || target.is_some()).then(|| door.without_stream());
                let door = whole.as_ref().unwrap_or(door);
                let result = sql::answer_over(door, principal, (&named.0, &named.1), text, &lower).await?;
                match target {
                    Some(target) => self.write(door, principal, &target, result).await,
                    None if explained => result.explain().map_err(|error| HttpError::engine(error, text)),
                    None => Ok(result),
                }
            }
            Language::Logql => {
                let query = query::parse_logql(text).map_err(wrong)?;
                let range = self.manner.range(index, door.clock.now())?;
                if range.indexes.is_empty() {
                    let found = Diagnostic::new(1, 1, "LogQL names no index");
                    return Err(wrong(found.help("say beside the text which one: \"index\": \"name\"")));
                }
                let lower = |around: &Surroundings| match &query {
                    Logql::Logs(plan) => lower_logs(plan, text, around, &range, false),
                    Logql::Metric(metric) => {
                        let columns: Vec<_> = around.columns.values().flatten().cloned().collect();
                        let range = LogqlRange { labels: loki::labels::of_streams(&columns), ..range.clone() };
                        lower_metric(metric, text, around, &range)
                    }
                };
                sql::answer_plan(door, principal, &range.indexes, text, &lower).await
            }
        }
    }

    /// Writes the rows of a result into an index.
    async fn write(
        &self,
        door: &Door,
        principal: &Principal,
        target: &IndexName,
        result: ResultSet,
    ) -> Result<ResultSet, HttpError> {
        let run = match &self.manner.run {
            Some(run) => Token::new(run).map_err(|wrong| Problem::bad_request("MalformedRequest", wrong))?.to_string(),
            None => uuid::Uuid::new_v4().simple().to_string(),
        };
        Box::pin(into::write(door, principal, target, &run, result)).await
    }
}
