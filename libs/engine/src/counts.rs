//! Statements that ask for nothing but counts by time and severity, as what they ask.
//!
//! These are what every screen asks first and again: how many events, by severity, by minute. They are answered from counters
//! ([`crate::scan::tally`]) and are not worth planning. What is not recognised here is planned like everything else.

use std::sync::LazyLock;

use arrow::{compute::kernels::cast_utils::string_to_timestamp_nanos, datatypes::SchemaRef};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, LimitClause, OrderByKind,
    Query, SelectItem, SetExpr, Statement, TableFactor, Value,
};
use query::Select;
use types::{IndexName, Severity};

use crate::scan::{SEVERITIES, SEVERITY, TIME};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Counts of the events of one index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counts {
    pub(crate) index: IndexName,
    /// The first and the last instant that count.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Which of [`SEVERITIES`] count.
    pub(crate) severities: [bool; 7],
    /// By what they are counted.
    pub(crate) step: Option<Step>,
    pub(crate) by_severity: bool,
    /// The columns of the answer, by name.
    pub(crate) columns: Vec<(String, Of)>,
    pub(crate) order: Vec<Key>,
    pub(crate) limit: Option<usize>,
}

/// Equal spans of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    width: i64,
    origin: i64,
}

/// What stands in a column of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Time(Step),
    Severity,
    Count,
}

/// A column that answers are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) of: Of,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

impl Step {
    /// Where the span begins that an instant is in; `None` where that is no time.
    pub(crate) fn start(self, nanos: i64) -> Option<i64> {
        let since = nanos.checked_sub(self.origin)?;
        since.div_euclid(self.width).checked_mul(self.width)?.checked_add(self.origin)
    }
}

/// Whether a statement is answered from counters and the rows that are in no chunk yet: asking for its parts elsewhere costs
/// more than the answer.
pub fn is_counted(select: &Select) -> bool {
    select.items.is_empty() && Counts::of(select, &[]).is_some()
}

/// A statement that asks for nothing special.
static PLAIN: LazyLock<Option<ast::Select>> = LazyLock::new(|| {
    let plain = query::parse_select("SELECT 1 FROM x").ok()?;
    let Statement::Query(query) = plain.statement() else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    Some(select.as_ref().clone())
});

impl Counts {
    /// What a statement counts in a table of these columns; `None` where it does anything else.
    pub(crate) fn of(select: &Select, schemas: &[SchemaRef]) -> Option<Self> {
        let [index] = select.tables.as_slice() else { return None };
        let Statement::Query(query) = select.statement() else { return None };
        let (inner, outer) = match &query.with {
            None => (query.as_ref(), query.as_ref()),
            // What is counted as a stage of its own, of which all is shown.
            Some(with) => match with.cte_tables.as_slice() {
                [one]
                    if !with.recursive
                        && one.from.is_none()
                        && one.alias.columns.is_empty()
                        && query.body.to_string() == format!("SELECT * FROM {}", one.alias.name) =>
                {
                    (one.query.as_ref(), query.as_ref())
                }
                _ => return None,
            },
        };
        let reader = Reader { index, schemas };
        let mut counts = reader.counts(inner)?;
        let is_stage = !std::ptr::eq(inner, outer);
        if is_stage {
            if inner.with.is_some() || inner.order_by.is_some() || inner.limit_clause.is_some() {
                return None;
            }
            is_plain(inner)?;
        }
        is_plain(outer)?;
        counts.order = reader.order(outer, &counts.columns, is_stage)?;
        counts.limit = limit(outer)?;
        Some(counts)
    }
}

/// Whether a query asks for nothing that is not looked at here.
fn is_plain(query: &Query) -> Option<()> {
    let none = query.fetch.is_none() && query.for_clause.is_none() && query.settings.is_none();
    (none && query.format_clause.is_none() && query.locks.is_empty() && query.pipe_operators.is_empty()).then_some(())
}

fn limit(query: &Query) -> Option<Option<usize>> {
    match &query.limit_clause {
        None => Some(None),
        Some(LimitClause::LimitOffset { limit: Some(limit), offset: None, limit_by }) if limit_by.is_empty() => {
            number(limit).map(Some)
        }
        Some(_) => None,
    }
}

/// Reads the parts of a statement over one index.
struct Reader<'a> {
    index: &'a IndexName,
    schemas: &'a [SchemaRef],
}

impl Reader<'_> {
    /// Everything but order and limit.
    fn counts(&self, query: &Query) -> Option<Counts> {
        let SetExpr::Select(select) = query.body.as_ref() else { return None };
        let plain = PLAIN.as_ref()?;
        let rest = ast::Select {
            projection: plain.projection.clone(),
            from: plain.from.clone(),
            selection: None,
            group_by: plain.group_by.clone(),
            ..select.as_ref().clone()
        };
        if rest != *plain {
            return None;
        }
        let [from] = select.from.as_slice() else { return None };
        let TableFactor::Table { name, .. } = &from.relation else { return None };
        let [part] = name.0.as_slice() else { return None };
        if !from.joins.is_empty()
            || from.relation.to_string() != name.to_string()
            || part.as_ident()?.value != self.index.as_str()
        {
            return None;
        }
        let columns: Vec<(String, Of)> =
            select.projection.iter().map(|item| self.column(item)).collect::<Option<_>>()?;
        let named = |(place, (name, _)): (usize, &(String, Of))| columns[..place].iter().all(|(own, _)| own != name);
        // Two of one name are told apart, or refused, by whoever plans.
        if !columns.iter().enumerate().all(named) {
            return None;
        }
        let mut counts = Counts {
            index: self.index.clone(),
            from: i64::MIN,
            to: i64::MAX,
            severities: [true; 7],
            step: None,
            by_severity: false,
            columns,
            order: Vec::new(),
            limit: None,
        };
        self.groups(&select.group_by, &mut counts)?;
        if let Some(filter) = &select.selection {
            self.filter(filter, &mut counts)?;
        }
        let counted = counts.columns.iter().any(|(_, of)| *of == Of::Count);
        let grouped = counts.columns.iter().all(|(_, of)| match of {
            Of::Count => true,
            Of::Severity => counts.by_severity,
            Of::Time(step) => counts.step == Some(*step),
        });
        (counted && grouped).then_some(counts)
    }

    fn column(&self, item: &SelectItem) -> Option<(String, Of)> {
        match item {
            SelectItem::ExprWithAlias { expr, alias } => Some((alias.value.clone(), self.of(expr)?)),
            SelectItem::UnnamedExpr(expr) => {
                let of = self.of(expr)?;
                let name = match of {
                    Of::Severity => SEVERITY,
                    Of::Count if expr.to_string() == "count(*)" => "count(*)",
                    // Others are called by what they are.
                    _ => return None,
                };
                Some((name.to_owned(), of))
            }
            _ => None,
        }
    }

    fn of(&self, expr: &Expr) -> Option<Of> {
        if self.name(expr) == Some(SEVERITY) {
            return Some(Of::Severity);
        }
        let Expr::Function(function) = bare(expr) else { return None };
        let plain = function.filter.is_none()
            && function.over.is_none()
            && function.null_treatment.is_none()
            && function.within_group.is_empty()
            && !function.uses_odbc_syntax
            && matches!(function.parameters, FunctionArguments::None);
        let FunctionArguments::List(list) = &function.args else { return None };
        if !plain || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return None;
        }
        let args: Option<Vec<&FunctionArgExpr>> = list
            .args
            .iter()
            .map(|arg| match arg {
                FunctionArg::Unnamed(arg) => Some(arg),
                _ => None,
            })
            .collect();
        let exprs = |args: &[&FunctionArgExpr]| -> Option<Vec<Expr>> {
            let expr = |arg: &&FunctionArgExpr| match arg {
                FunctionArgExpr::Expr(expr) => Some(expr.clone()),
                _ => None,
            };
            args.iter().map(expr).collect()
        };
        match (function.name.to_string().as_str(), args?.as_slice()) {
            ("count", [FunctionArgExpr::Wildcard]) => Some(Of::Count),
            ("count", args) => match exprs(args)?.as_slice() {
                [one] => number(one).map(|_| Of::Count),
                _ => None,
            },
            ("date_trunc", args) => match exprs(args)?.as_slice() {
                [unit, time] if self.name(time) == Some(TIME) => unit_step(text(unit)?).map(Of::Time),
                _ => None,
            },
            ("date_bin", args) => match exprs(args)?.as_slice() {
                [width, time, origin @ ..] if self.name(time) == Some(TIME) && origin.len() < 2 => {
                    let origin = origin.first().map_or(Some(0), instant)?;
                    Some(Of::Time(Step { width: interval(width)?, origin }))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The column of the index that an expression is.
    fn name<'e>(&self, expr: &'e Expr) -> Option<&'e str> {
        match bare(expr) {
            Expr::Identifier(ident) => Some(&ident.value),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, column] if table.value == self.index.as_str() => Some(&column.value),
                _ => None,
            },
            _ => None,
        }
    }

    fn groups(&self, groups: &GroupByExpr, counts: &mut Counts) -> Option<()> {
        let GroupByExpr::Expressions(groups, more) = groups else { return None };
        if !more.is_empty() {
            return None;
        }
        for group in groups {
            let named = match bare(group) {
                Expr::Value(_) => number(group).and_then(|place| counts.columns.get(place.checked_sub(1)?)),
                // What an index has goes before what a statement calls so.
                Expr::Identifier(ident) if !self.has(&ident.value) => {
                    counts.columns.iter().find(|(name, _)| *name == ident.value)
                }
                _ => None,
            };
            match named.map_or_else(|| self.of(group), |(_, of)| Some(*of))? {
                Of::Severity => counts.by_severity = true,
                Of::Time(step) if counts.step.is_none_or(|known| known == step) => counts.step = Some(step),
                Of::Time(_) | Of::Count => return None,
            }
        }
        Some(())
    }

    fn has(&self, column: &str) -> bool {
        self.schemas.iter().any(|schema| schema.index_of(column).is_ok()) || ingest::BASE_COLUMNS.contains(&column)
    }

    /// By what is ordered; of a stage only what it gives is known.
    fn order(&self, query: &Query, columns: &[(String, Of)], is_stage: bool) -> Option<Vec<Key>> {
        let Some(order) = &query.order_by else { return Some(Vec::new()) };
        let OrderByKind::Expressions(keys) = &order.kind else { return None };
        if order.interpolate.is_some() {
            return None;
        }
        let key = |key: &ast::OrderByExpr| {
            let named = match bare(&key.expr) {
                Expr::Value(_) => columns.get(number(&key.expr)?.checked_sub(1)?),
                Expr::Identifier(ident) => columns.iter().find(|(name, _)| *name == ident.value),
                _ => None,
            };
            let of = match named {
                Some((_, of)) => *of,
                None if is_stage => return None,
                None => self.of(&key.expr).filter(|of| columns.iter().any(|(_, own)| own == of))?,
            };
            let descending = key.options.asc == Some(false);
            let nulls_first = key.options.nulls_first.unwrap_or(descending);
            key.with_fill.is_none().then_some(Key { of, descending, nulls_first })
        };
        keys.iter().map(key).collect()
    }

    /// Narrows what is counted by a condition; `None` where it is none of these.
    fn filter(&self, filter: &Expr, counts: &mut Counts) -> Option<()> {
        match bare(filter) {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.filter(left, counts)?;
                self.filter(right, counts)
            }
            Expr::BinaryOp { left, op, right } => match (self.name(left), self.name(right)) {
                (Some(TIME), None) => counts.within(op, instant(right)?),
                (None, Some(TIME)) => counts.within(&turned(op)?, instant(left)?),
                (Some(SEVERITY), None) => {
                    let wanted = text(right)?.to_owned();
                    match op {
                        BinaryOperator::Eq => counts.only(|own| own == Some(wanted.as_str())),
                        BinaryOperator::NotEq => counts.only(|own| own.is_some_and(|own| own != wanted)),
                        _ => return None,
                    }
                    Some(())
                }
                _ => None,
            },
            Expr::Between { expr, negated: false, low, high } if self.name(expr) == Some(TIME) => {
                counts.within(&BinaryOperator::GtEq, instant(low)?)?;
                counts.within(&BinaryOperator::LtEq, instant(high)?)
            }
            Expr::InList { expr, list, negated } if self.name(expr) == Some(SEVERITY) => {
                let list: Vec<&str> = list.iter().map(text).collect::<Option<_>>()?;
                counts.only(|own| own.is_some_and(|own| list.contains(&own) != *negated));
                Some(())
            }
            Expr::IsNull(expr) if self.name(expr) == Some(SEVERITY) => {
                counts.only(|own| own.is_none());
                Some(())
            }
            Expr::IsNotNull(expr) if self.name(expr) == Some(SEVERITY) => {
                counts.only(|own| own.is_some());
                Some(())
            }
            _ => None,
        }
    }
}

impl Counts {
    fn within(&mut self, op: &BinaryOperator, at: i64) -> Option<()> {
        let (from, to) = match op {
            BinaryOperator::Eq => (at, at),
            BinaryOperator::GtEq => (at, i64::MAX),
            BinaryOperator::Gt => (at.checked_add(1)?, i64::MAX),
            BinaryOperator::LtEq => (i64::MIN, at),
            BinaryOperator::Lt => (i64::MIN, at.checked_sub(1)?),
            _ => return None,
        };
        (self.from, self.to) = (self.from.max(from), self.to.min(to));
        Some(())
    }

    fn only(&mut self, wanted: impl Fn(Option<&'static str>) -> bool) {
        for (counts, severity) in self.severities.iter_mut().zip(SEVERITIES) {
            *counts &= wanted(severity.map(Severity::as_str));
        }
    }

    /// Whether every event counts.
    pub(crate) fn is_of_all(&self) -> bool {
        (self.from, self.to) == (i64::MIN, i64::MAX) && self.severities == [true; 7]
    }
}

fn turned(op: &BinaryOperator) -> Option<BinaryOperator> {
    Some(match op {
        BinaryOperator::Eq => BinaryOperator::Eq,
        BinaryOperator::Gt => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::LtEq,
        BinaryOperator::Lt => BinaryOperator::Gt,
        BinaryOperator::LtEq => BinaryOperator::GtEq,
        _ => return None,
    })
}

fn bare(expr: &Expr) -> &Expr {
    if let Expr::Nested(inner) = expr { bare(inner) } else { expr }
}

fn number(expr: &Expr) -> Option<usize> {
    match bare(expr) {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, false) => digits.to_string().parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match bare(expr) {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// A time as it is written, in nanoseconds since 1970.
fn instant(expr: &Expr) -> Option<i64> {
    let written = match bare(expr) {
        Expr::TypedString(typed) if typed.data_type.to_string() == "TIMESTAMP" && !typed.uses_odbc_syntax => {
            match &typed.value.value {
                Value::SingleQuotedString(text) => text,
                _ => return None,
            }
        }
        other => text(other)?,
    };
    string_to_timestamp_nanos(written).ok()
}

/// `date_trunc`'s units of one length.
fn unit_step(unit: &str) -> Option<Step> {
    let (width, origin) = match unit {
        "second" => (SECOND, 0),
        "minute" => (60 * SECOND, 0),
        "hour" => (3_600 * SECOND, 0),
        "day" => (DAY, 0),
        // The first of January 1970 was a Thursday; weeks begin on Monday.
        "week" => (7 * DAY, 4 * DAY),
        _ => return None,
    };
    Some(Step { width, origin })
}

/// `INTERVAL '5 minutes'`, of units of one length.
fn interval(expr: &Expr) -> Option<i64> {
    let Expr::Interval(interval) = bare(expr) else { return None };
    let fields = (&interval.leading_field, &interval.leading_precision, &interval.last_field);
    if fields != (&None, &None, &None) || interval.fractional_seconds_precision.is_some() {
        return None;
    }
    let (count, unit) = text(&interval.value)?.split_once(' ')?;
    let unit = match unit.strip_suffix('s').unwrap_or(unit) {
        "millisecond" => 1_000_000,
        "second" => SECOND,
        "minute" => 60 * SECOND,
        "hour" => 3_600 * SECOND,
        "day" => DAY,
        _ => return None,
    };
    count.parse::<i64>().ok().filter(|count| *count > 0)?.checked_mul(unit)
}

#[cfg(test)]
#[path = "counts_tests.rs"]
mod tests;
