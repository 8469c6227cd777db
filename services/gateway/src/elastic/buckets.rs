//! Aggregations as statements of SQL: one for each place in the tree that has buckets or metrics. Pure.
//!
//! A statement groups by the keys of all buckets around it, and joins the statement of the nearest of them, so that of inner buckets
//! there are those of outer ones that are answered and no others. Its columns are `#k1`, `#k2`, … the keys, `#n` how many rows,
//! `#m<i>_<j>` numbers of the metric at that place, `#r` the rank of a term and `#t` the rows of all terms.

use jiff::tz::TimeZone;
use types::Timestamp;

use super::{
    aggregation::{Aggregation, By, Dates, Function, Histogram, Keys, Kind, Metric, Order, Step, Terms, TopHits},
    clause::Test,
    condition::{condition, decimal, joined},
    field::{Field, Fields},
    moment,
    refused::Refused,
    sort::as_kind,
};

/// Changes of clocks that one query looks at.
const TRANSITIONS_MAX: usize = 40;
/// How far back changes of clocks are looked at where a query has no begin.
const TRANSITIONS_BACK: std::time::Duration = std::time::Duration::from_secs(10 * 366 * 86_400);

/// A tree of aggregations as places.
#[derive(Debug)]
pub(crate) struct Plan<'s> {
    query: &'s Test,
    now: Timestamp,
    pub(crate) levels: Vec<Level<'s>>,
    pub(crate) hits: Vec<(usize, &'s TopHits)>,
}

/// A place in the tree.
#[derive(Debug)]
pub(crate) struct Level<'s> {
    /// The buckets around it, the outermost first.
    pub(crate) chain: Vec<&'s Keys>,
    conditions: Vec<&'s Test>,
    /// Whether it is the buckets of the last of the chain, and not of conditions in them.
    pub(crate) is_keys: bool,
    /// The nearest place around it that is of keys.
    limit: Option<usize>,
    pub(crate) inner: &'s [Aggregation],
    pub(crate) children: Vec<Child>,
}

/// Where what an aggregation gives is found.
#[derive(Debug)]
pub(crate) enum Child {
    Metric,
    Keys(usize),
    Conditions(Vec<usize>),
    Hits(usize),
}

impl<'s> Plan<'s> {
    /// Of the rows that pass a query.
    pub(crate) fn new(query: &'s Test, aggregations: &'s [Aggregation], now: Timestamp) -> Self {
        let mut plan = Self { query, now, levels: Vec::new(), hits: Vec::new() };
        plan.level((Vec::new(), Vec::new(), false), None, aggregations);
        plan
    }

    fn level(
        &mut self,
        (chain, conditions, is_keys): (Vec<&'s Keys>, Vec<&'s Test>, bool),
        limit: Option<usize>,
        inner: &'s [Aggregation],
    ) -> usize {
        let own = self.levels.len();
        let around = (chain.clone(), conditions.clone());
        self.levels.push(Level { chain, conditions, is_keys, limit, inner, children: Vec::new() });
        let limit = if is_keys { Some(own) } else { limit };
        let mut children = Vec::new();
        for one in inner {
            children.push(match &one.kind {
                Kind::Metric(_) => Child::Metric,
                Kind::Hits(hits) => {
                    self.hits.push((own, hits));
                    Child::Hits(self.hits.len() - 1)
                }
                Kind::Keys(keys) => {
                    let (mut chain, mut conditions) = around.clone();
                    chain.push(keys);
                    if let Keys::Terms(terms) = keys {
                        conditions.push(&terms.only);
                    }
                    Child::Keys(self.level((chain, conditions, true), limit, &one.inner))
                }
                Kind::Conditions(of) => Child::Conditions(
                    of.buckets
                        .iter()
                        .map(|(_, test)| {
                            let (chain, mut conditions) = around.clone();
                            conditions.push(test);
                            self.level((chain, conditions, false), limit, &one.inner)
                        })
                        .collect(),
                ),
            });
        }
        self.levels[own].children = children;
        own
    }

    /// Whether a place has something to ask: the whole without metrics has not.
    pub(crate) fn asks(&self, level: usize) -> bool {
        level > 0 || self.levels[level].inner.iter().any(|one| matches!(one.kind, Kind::Metric(_)))
    }

    /// The statement of a place.
    pub(crate) fn statement(&self, level: usize, fields: &Fields) -> Result<String, Refused> {
        let select = self.select(level, fields)?;
        let own = &self.levels[level];
        let ranked = own.is_keys && matches!(own.chain.last(), Some(Keys::Terms(_)));
        Ok(if ranked { format!("{select} ORDER BY \"#r\"") } else { select })
    }

    fn select(&self, level: usize, fields: &Fields) -> Result<String, Refused> {
        let own = &self.levels[level];
        let keys = self.keys(own, fields)?;
        let mut columns: Vec<String> = named_keys(&keys);
        columns.push("count(*) AS \"#n\"".to_owned());
        for (at, one) in own.inner.iter().enumerate() {
            if let Kind::Metric(metric) = &one.kind {
                let numbers = numbers(metric, fields);
                columns.extend(numbers.iter().enumerate().map(|(j, sql)| format!("{sql} AS \"#m{at}_{j}\"")));
            }
        }
        let source = self.source(own, own.limit, &keys, &fields.from(), fields)?;
        let group: Vec<String> = (1..=keys.len()).map(|number| number.to_string()).collect();
        let group = if group.is_empty() { String::new() } else { format!(" GROUP BY {}", group.join(", ")) };
        let grouped = format!("SELECT {} {source}{group}", columns.join(", "));
        match own.chain.last() {
            Some(Keys::Terms(terms)) if own.is_keys => Ok(ranked(terms, keys.len(), own.inner, &grouped)),
            _ => Ok(grouped),
        }
    }

    /// `FROM`, the join with the buckets around, and `WHERE`.
    fn source(
        &self,
        own: &Level<'_>,
        limit: Option<usize>,
        keys: &[String],
        from: &str,
        fields: &Fields,
    ) -> Result<String, Refused> {
        let mut tests = vec![condition(self.query, fields)];
        tests.extend(
            own.conditions.iter().filter(|test| ***test != Test::Everything).map(|test| condition(test, fields)),
        );
        for (key, sql) in own.chain.iter().zip(keys) {
            if !matches!(key, Keys::Dates(_)) {
                tests.push(format!("({sql}) IS NOT NULL"));
            }
            if let Keys::Dates(Dates { field, hard: Some((from, until)), .. }) = key {
                let hard = Test::Within { field: field.clone(), from: Some(*from), until: Some(*until) };
                tests.push(condition(&hard, fields));
            }
        }
        let is_limited = |level: &&usize| self.levels[**level].chain.iter().any(|key| matches!(key, Keys::Terms(_)));
        let join = match limit.as_ref().filter(is_limited) {
            None => String::new(),
            Some(around) => {
                let shared = self.levels[*around].chain.len();
                let one = |(number, sql): (usize, &String)| format!("({sql}) = \"#p\".\"#k{}\"", number + 1);
                let on: Vec<String> = keys.iter().take(shared).enumerate().map(one).collect();
                format!(" JOIN ({}) AS \"#p\" ON {}", self.select(*around, fields)?, on.join(" AND "))
            }
        };
        tests.retain(|test| test != "TRUE");
        let tests = joined(&tests, "AND");
        Ok(format!("FROM {from}{join} WHERE {tests}"))
    }

    fn keys(&self, own: &Level<'_>, fields: &Fields) -> Result<Vec<String>, Refused> {
        own.chain
            .iter()
            .map(|key| match key {
                Keys::Terms(terms) => Ok(term(terms, fields)),
                Keys::Dates(dates) => self.date(dates, fields),
                Keys::Histogram(histogram) => Ok(step(histogram, fields)),
            })
            .collect()
    }

    /// The begin of the bucket in which an instant lies, in the time of its zone.
    fn date(&self, dates: &Dates, fields: &Fields) -> Result<String, Refused> {
        let column =
            fields.typed(&dates.field).map_or_else(|| "CAST(NULL AS TIMESTAMP)".to_owned(), |column| column.sql);
        let local = match shift(dates, self.query, self.now)? {
            Some(shift) => format!("({column} + {shift})"),
            None => column,
        };
        Ok(match dates.step {
            Step::Fixed(nanos) => {
                format!("date_bin(INTERVAL '{} milliseconds', {local}, {})", nanos / 1_000_000, moment::sql(0))
            }
            Step::Calendar(unit) => format!("date_trunc('{}', {local})", unit.word()),
        })
    }

    /// The statement of the hits in the buckets of a place.
    pub(crate) fn hits_statement(&self, number: usize, fields: &Fields) -> Result<String, Refused> {
        let (level, hits) = self.hits[number];
        let own = &self.levels[level];
        let keys = self.keys(own, fields)?;
        let partition: Vec<String> = keys.iter().map(|key| format!("({key})")).collect();
        let partition = if keys.is_empty() { String::new() } else { format!("PARTITION BY {} ", partition.join(", ")) };
        let mut columns = vec!["\"#b\".*".to_owned(), format!("{} AS \"#index\"", fields.index())];
        columns.extend(named_keys(&keys));
        columns.extend(hits.sort.columns(fields));
        columns.push(format!("row_number() OVER ({partition}ORDER BY {}) AS \"#r\"", hits.sort.order(fields)));
        columns.push(format!("count(*) OVER ({}) AS \"#n\"", partition.trim_end()));
        let limit = if own.is_keys { Some(level) } else { own.limit };
        let source = self.source(own, limit, &keys, &fields.aliased(), fields)?;
        Ok(format!(
            "SELECT * FROM (SELECT {} {source}) AS \"#w\" WHERE \"#r\" <= {} ORDER BY \"#r\"",
            columns.join(", "),
            hits.size.max(1)
        ))
    }
}

fn named_keys(keys: &[String]) -> Vec<String> {
    keys.iter().enumerate().map(|(number, sql)| format!("{sql} AS \"#k{}\"", number + 1)).collect()
}

fn term(terms: &Terms, fields: &Fields) -> String {
    let missing = terms.missing.as_ref();
    let Some(column) = fields.typed(&terms.field) else {
        return missing
            .and_then(|value| as_kind(value, query::ColumnKind::Text))
            .unwrap_or("CAST(NULL AS TEXT)".to_owned());
    };
    let sql = if column.kind == query::ColumnKind::Time {
        format!("CAST({} AS BIGINT) / 1000000", column.sql)
    } else {
        column.sql.clone()
    };
    match missing.map(|value| (as_kind(value, column.kind), super::condition::shown(value))) {
        None => sql,
        Some((Some(constant), _)) => format!("coalesce({sql}, {constant})"),
        Some((None, text)) => format!("coalesce({}, {})", column.text(), super::field::quoted(&text)),
    }
}

fn step(histogram: &Histogram, fields: &Fields) -> String {
    let number =
        fields.typed(&histogram.field).map_or_else(|| "CAST(NULL AS DOUBLE)".to_owned(), |column| column.number());
    let number = match histogram.missing {
        Some(missing) => format!("coalesce({number}, {})", decimal(missing)),
        None => number,
    };
    format!("floor(({number} - {}) / {})", decimal(histogram.offset), decimal(histogram.interval))
}

/// The best terms of each bucket around them.
fn ranked(terms: &Terms, depth: usize, inner: &[Aggregation], grouped: &str) -> String {
    let around: Vec<String> = (1..depth).map(|number| format!("\"#k{number}\"")).collect();
    let partition = if around.is_empty() { String::new() } else { format!("PARTITION BY {} ", around.join(", ")) };
    let own = format!("\"#k{depth}\"");
    let mut order: Vec<String> = terms.order.iter().filter_map(|order| ordered(order, &own, inner)).collect();
    order.push(format!("{own} ASC"));
    let total = format!("sum(\"#n\") OVER ({}) AS \"#t\"", partition.trim_end());
    let rank = format!("row_number() OVER ({partition}ORDER BY {}) AS \"#r\"", order.join(", "));
    let inside = if terms.least > 1 {
        let least = terms.least;
        format!(
            "SELECT *, {rank} FROM (SELECT *, {total} FROM ({grouped}) AS \"#g\") AS \"#f\" WHERE \"#n\" >= {least}"
        )
    } else {
        format!("SELECT *, {total}, {rank} FROM ({grouped}) AS \"#g\"")
    };
    format!("SELECT * FROM ({inside}) AS \"#w\" WHERE \"#r\" <= {}", terms.size)
}

fn ordered(order: &Order, key: &str, inner: &[Aggregation]) -> Option<String> {
    let column = match &order.by {
        By::Count => "\"#n\"".to_owned(),
        By::Key => key.to_owned(),
        By::Metric(name, part) => {
            let at = inner.iter().position(|one| one.name == *name)?;
            let Kind::Metric(metric) = &inner[at].kind else { return None };
            format!("\"#m{at}_{}\"", metric.function.place(part)?)
        }
    };
    Some(format!("{column} {} NULLS LAST", if order.descending { "DESC" } else { "ASC" }))
}

/// The numbers of a metric.
fn numbers(metric: &Metric, fields: &Fields) -> Vec<String> {
    let column = fields.typed(&metric.field);
    let missing = metric.missing.as_ref();
    let mut number = column.as_ref().map_or_else(|| "CAST(NULL AS DOUBLE)".to_owned(), super::field::Typed::number);
    if let Some(constant) = missing.and_then(|value| as_kind(value, query::ColumnKind::Number)) {
        number = format!("coalesce({number}, CAST({constant} AS DOUBLE))");
    }
    let mut value = column.as_ref().map_or_else(|| "CAST(NULL AS TEXT)".to_owned(), |column| column.sql.clone());
    if let Some(given) = missing {
        let text = column.as_ref().map_or_else(|| value.clone(), super::field::Typed::text);
        value = format!("coalesce({text}, {})", super::field::quoted(&super::condition::shown(given)));
    }
    let of = |function: &str| format!("{function}({number})");
    let stats = || ["count", "min", "max", "avg", "sum"].map(of).to_vec();
    match &metric.function {
        Function::Avg => vec![of("avg")],
        Function::Sum => vec![of("sum")],
        Function::Min => vec![of("min")],
        Function::Max => vec![of("max")],
        Function::Count => vec![format!("count({value})")],
        Function::Cardinality => vec![format!("count(DISTINCT {value})")],
        Function::Stats => stats(),
        Function::ExtendedStats { .. } => {
            let mut all = stats();
            all.extend([format!("sum({number} * {number})"), of("var_pop"), of("stddev_pop")]);
            all
        }
        Function::Percentiles { percents, .. } => {
            let one = |percent: &f64| {
                format!("approx_percentile_cont({:?}) WITHIN GROUP (ORDER BY {number})", percent / 100.0)
            };
            percents.iter().map(one).collect()
        }
    }
}

/// What is added to an instant so that it is the local time of the zone, as if that were UTC; nothing in UTC.
fn shift(dates: &Dates, query: &Test, now: Timestamp) -> Result<Option<String>, Refused> {
    let seconds = |nanos: i64| format!("INTERVAL '{} milliseconds'", nanos / 1_000_000);
    let of = |offset: i32| i64::from(offset) * 1_000_000_000 - dates.offset;
    if let Ok(fixed) = dates.zone.to_fixed_offset() {
        let nanos = of(fixed.seconds());
        return Ok((nanos != 0).then(|| seconds(nanos)));
    }
    let (from, until) = span_of(query);
    let from = from.unwrap_or_else(|| (now - TRANSITIONS_BACK).nanos());
    let until = until.unwrap_or_else(|| now.nanos().saturating_add(31_622_400_000_000_000));
    let at = |nanos: i64| jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
    let first = dates.zone.to_offset(at(from)).seconds();
    let changes: Vec<(i64, i32)> = dates
        .zone
        .following(at(from))
        .take(TRANSITIONS_MAX + 1)
        .filter_map(|change| Some((i64::try_from(change.timestamp().as_nanosecond()).ok()?, change.offset().seconds())))
        .take_while(|(nanos, _)| *nanos < until)
        .collect();
    if changes.len() > TRANSITIONS_MAX {
        let reason =
            format!("clocks change more than {TRANSITIONS_MAX} times in the range of the query: ask for less time");
        return Err(Refused::illegal(reason));
    }
    let mut offset = first;
    let mut cases = String::new();
    let time = fields_time(&dates.field);
    for (nanos, next) in changes {
        cases.push_str(&format!(" WHEN {time} < {} THEN {}", moment::sql(nanos), seconds(of(offset))));
        offset = next;
    }
    Ok(Some(if cases.is_empty() {
        seconds(of(offset))
    } else {
        format!("CASE{cases} ELSE {} END", seconds(of(offset)))
    }))
}

fn fields_time(field: &Field) -> &'static str {
    if *field == Field::Received { "\"_received\"" } else { "\"_time\"" }
}

/// The time that a query asks for.
fn span_of(query: &Test) -> (Option<i64>, Option<i64>) {
    match query {
        Test::Within { field: Field::Time, from, until } => (*from, *until),
        Test::All(tests) => tests
            .iter()
            .map(span_of)
            .fold((None, None), |(a, b), (from, until)| (a.max(from), b.into_iter().chain(until).min())),
        _ => (None, None),
    }
}

/// The instant of which this is the local time, as if that were UTC, without the offset of the buckets.
pub(crate) fn unshifted(dates: &Dates, local: i64) -> Option<i64> {
    let zoned = moment::zoned(local, &TimeZone::UTC)?.datetime().to_zoned(dates.zone.clone()).ok()?;
    moment::nanos(&zoned)?.checked_add(dates.offset)
}

/// The begin, as local time, of the bucket in which an instant lies.
pub(crate) fn floor(dates: &Dates, at: i64) -> Option<i64> {
    let offset = moment::zoned(at, &dates.zone)?.offset().seconds();
    let local = at.checked_add(i64::from(offset) * 1_000_000_000)?.checked_sub(dates.offset)?;
    match dates.step {
        Step::Fixed(nanos) => local.div_euclid(nanos).checked_mul(nanos),
        Step::Calendar(unit) => moment::nanos(&unit.floor(&moment::zoned(local, &TimeZone::UTC)?)?),
    }
}

/// The begin of the next bucket, as local time.
pub(crate) fn next(dates: &Dates, local: i64) -> Option<i64> {
    match dates.step {
        Step::Fixed(nanos) => local.checked_add(nanos),
        Step::Calendar(unit) => moment::nanos(&moment::zoned(local, &TimeZone::UTC)?.checked_add(unit.span(1)?).ok()?),
    }
}

#[cfg(test)]
#[path = "buckets_tests.rs"]
mod tests;
