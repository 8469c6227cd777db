//! Expressions as expressions of SQL, with the kind of their value.

use std::time::Duration;

use super::{ColumnKind, Lowering, Rows, predicate::sign, quote, source::sql_type, text, timestamp};
use crate::{
    Comparison, Diagnostic,
    plan::{FunctionName, Operator, Term, Value},
};

/// A piece of SQL and what its values are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Typed {
    pub(crate) sql: String,
    pub(crate) kind: ColumnKind,
}

/// Ends of names that tell the unit of a number, and how many of it are a second.
const SPAN_SUFFIXES: [(&str, f64); 12] = [
    ("_ns", 1e9),
    ("_nanos", 1e9),
    ("_us", 1e6),
    ("_micros", 1e6),
    ("_ms", 1e3),
    ("_millis", 1e3),
    ("_milliseconds", 1e3),
    ("_s", 1.0),
    ("_sec", 1.0),
    ("_seconds", 1.0),
    ("_minutes", 1.0 / 60.0),
    ("_hours", 1.0 / 3_600.0),
];

/// Ends of names that tell the unit of a size, and how many of it are a byte.
const SIZE_SUFFIXES: [(&str, f64); 6] =
    [("_kb", 1e-3), ("_mb", 1e-6), ("_gb", 1e-9), ("_kib", 0.0009765625), ("_mib", 1.0 / 1_048_576.0), ("_bytes", 1.0)];

/// Units in texts, and how many seconds or bytes they are.
const SPAN_UNITS: [(&str, &str); 6] =
    [("ns", "0.000000001"), ("(us|µs)", "0.000001"), ("ms", "0.001"), ("s", "1.0"), ("m", "60.0"), ("h", "3600.0")];
const SIZE_UNITS: [(&str, &str); 7] = [
    ("[kK]i[bB]?", "1024.0"),
    ("[mM]i[bB]?", "1048576.0"),
    ("[gG]i[bB]?", "1073741824.0"),
    ("[kK][bB]?", "1000.0"),
    ("[mM][bB]?", "1000000.0"),
    ("[gG][bB]?", "1000000000.0"),
    ("[bB]", "1.0"),
];

impl Typed {
    pub(crate) fn new(sql: impl Into<String>, kind: ColumnKind) -> Self {
        Self { sql: sql.into(), kind }
    }

    /// The value as text.
    pub(crate) fn text(&self) -> String {
        if self.kind == ColumnKind::Text { self.sql.clone() } else { format!("CAST({} AS TEXT)", self.sql) }
    }

    /// The value as a number; null where it is none.
    pub(crate) fn numeric(&self) -> String {
        match self.kind {
            ColumnKind::Integer | ColumnKind::Number => self.sql.clone(),
            ColumnKind::Boolean => format!("CAST({} AS INT)", self.sql),
            ColumnKind::Time => format!("CAST(CAST({} AS BIGINT) AS DOUBLE) / 1000000000.0", self.sql),
            ColumnKind::Text | ColumnKind::Other => format!("TRY_CAST({} AS DOUBLE)", self.sql),
        }
    }

    /// The value as a condition.
    pub(crate) fn condition(&self) -> String {
        match self.kind {
            ColumnKind::Boolean => self.sql.clone(),
            ColumnKind::Integer | ColumnKind::Number => format!("({}) <> 0", self.sql),
            _ => format!("{} = 'true'", self.text()),
        }
    }

    /// The value as a number of some unit, and how many of that unit are a second: the end of the field's name tells, else
    /// a text may hold its unit, else it is seconds.
    pub(crate) fn seconds(&self, field: Option<&str>) -> (String, f64) {
        self.quantity(field, &SPAN_SUFFIXES, &SPAN_UNITS)
    }

    /// The same of bytes.
    pub(crate) fn bytes(&self, field: Option<&str>) -> (String, f64) {
        self.quantity(field, &SIZE_SUFFIXES, &SIZE_UNITS)
    }

    fn quantity(&self, field: Option<&str>, suffixes: &[(&str, f64)], units: &[(&str, &str)]) -> (String, f64) {
        let lower = field.unwrap_or_default().to_ascii_lowercase();
        if let Some((_, factor)) = suffixes.iter().find(|(suffix, _)| lower.ends_with(suffix)) {
            return (self.numeric(), *factor);
        }
        if self.kind != ColumnKind::Text {
            return (self.numeric(), 1.0);
        }
        let number = format!("TRY_CAST(regexp_replace({}, '[a-zA-Zµ ]+$', '') AS DOUBLE)", self.sql);
        let case = |(unit, factor): &(&str, &str)| {
            format!(" WHEN {} ~ {} THEN {number} * {factor}", self.sql, text(&format!("^[0-9.]+ ?{unit}$")))
        };
        let cases: String = units.iter().map(case).collect();
        (format!("CASE{cases} ELSE {} END", self.numeric()), 1.0)
    }
}

/// Shows every field that the term names.
pub(super) fn fields_of<'t>(term: &'t Term, see: &mut dyn FnMut(&'t str)) {
    match term {
        Term::Field(field) => see(field),
        Term::Value(_) => {}
        Term::Minus(inner) | Term::Not(inner) | Term::In { term: inner, .. } => fields_of(inner, see),
        Term::Binary { left, right, .. } => {
            fields_of(left, see);
            fields_of(right, see);
        }
        Term::Call { arguments, .. } => arguments.iter().for_each(|argument| fields_of(argument, see)),
    }
}

impl Lowering<'_> {
    pub(super) fn term(&self, rows: &Rows, term: &Term) -> Result<Typed, Diagnostic> {
        Ok(match term {
            Term::Field(field) => self.column(rows, field)?,
            Term::Value(value) => constant(value),
            Term::Minus(inner) => {
                let inner = self.term(rows, inner)?;
                Typed::new(format!("(- {})", inner.numeric()), number_kind(inner.kind))
            }
            Term::Not(inner) => {
                Typed::new(format!("(({}) IS NOT TRUE)", self.term(rows, inner)?.condition()), ColumnKind::Boolean)
            }
            Term::In { term, values } => {
                let column = self.term(rows, term)?;
                let sql = match self.listed(&column, values) {
                    Some(sql) => sql,
                    None => {
                        let one = |value: &Value| self.compared(&column, field_name(term), Comparison::Equal, value);
                        values.iter().map(one).collect::<Result<Vec<_>, _>>()?.join(" OR ")
                    }
                };
                Typed::new(format!("({sql})"), ColumnKind::Boolean)
            }
            Term::Binary { op, left, right } => self.binary(rows, *op, left, right)?,
            Term::Call { function, arguments } => self.call(rows, *function, arguments)?,
        })
    }

    fn binary(&self, rows: &Rows, op: Operator, left: &Term, right: &Term) -> Result<Typed, Diagnostic> {
        if let Operator::Compare(comparison) = op {
            return self.compare_terms(rows, comparison, left, right);
        }
        let (a, b) = (self.term(rows, left)?, self.term(rows, right)?);
        let both_whole = a.kind == ColumnKind::Integer && b.kind == ColumnKind::Integer;
        let kind = if both_whole { ColumnKind::Integer } else { ColumnKind::Number };
        Ok(match op {
            Operator::Or => Typed::new(format!("({} OR {})", a.condition(), b.condition()), ColumnKind::Boolean),
            Operator::And => Typed::new(format!("({} AND {})", a.condition(), b.condition()), ColumnKind::Boolean),
            Operator::Matches => Typed::new(format!("({} ~ {})", a.text(), b.text()), ColumnKind::Boolean),
            // Whole numbers would be divided without their rest, and a zero would end the query.
            Operator::By => Typed::new(
                format!("(CAST({} AS DOUBLE) / nullif({}, 0))", a.numeric(), b.numeric()),
                ColumnKind::Number,
            ),
            Operator::Modulo => Typed::new(format!("({} % nullif({}, 0))", a.numeric(), b.numeric()), kind),
            other => Typed::new(format!("({} {} {})", a.numeric(), other.as_str(), b.numeric()), kind),
        })
    }

    fn compare_terms(&self, rows: &Rows, op: Comparison, left: &Term, right: &Term) -> Result<Typed, Diagnostic> {
        let swapped = match op {
            Comparison::Above => Comparison::Below,
            Comparison::AtLeast => Comparison::AtMost,
            Comparison::Below => Comparison::Above,
            Comparison::AtMost => Comparison::AtLeast,
            same => same,
        };
        let sql = match (left, right) {
            (term, Term::Value(value)) => self.compared(&self.term(rows, term)?, field_name(term), op, value)?,
            (Term::Value(value), term) => self.compared(&self.term(rows, term)?, field_name(term), swapped, value)?,
            (left, right) => {
                let (a, b) = (self.term(rows, left)?, self.term(rows, right)?);
                let numeric = |kind| matches!(kind, ColumnKind::Integer | ColumnKind::Number);
                let (a, b) = match (a.kind, b.kind) {
                    (one, other) if one == other => (a.sql, b.sql),
                    (one, other) if numeric(one) || numeric(other) => (a.numeric(), b.numeric()),
                    _ => (a.text(), b.text()),
                };
                format!("{a} {} {b}", sign(op))
            }
        };
        Ok(Typed::new(format!("({sql})"), ColumnKind::Boolean))
    }

    fn call(&self, rows: &Rows, function: FunctionName, arguments: &[Term]) -> Result<Typed, Diagnostic> {
        use ColumnKind::{Boolean, Integer, Number, Text, Time};
        let given = arguments.iter().map(|term| self.term(rows, term)).collect::<Result<Vec<_>, _>>()?;
        let texts = || given.iter().map(Typed::text).collect::<Vec<_>>().join(", ");
        let numbers = || given.iter().map(Typed::numeric).collect::<Vec<_>>().join(", ");
        let whole =
            |at: usize| given.get(at).map_or("NULL".to_owned(), |one| format!("CAST({} AS BIGINT)", one.numeric()));
        let Some(first) = given.first() else {
            return Ok(Typed::new(timestamp(self.around.now), Time));
        };
        if let Some((word, kind)) = of_texts(function) {
            return Ok(Typed::new(format!("{word}({})", texts()), kind));
        }
        Ok(match function {
            FunctionName::If => {
                let (one, other, kind) = agreed(&given[1], &given[2]);
                Typed::new(format!("CASE WHEN {} THEN {one} ELSE {other} END", first.condition()), kind)
            }
            FunctionName::Coalesce => {
                let same = given.iter().all(|one| one.kind == first.kind);
                let list = given.iter().map(|one| if same { one.sql.clone() } else { one.text() });
                Typed::new(
                    format!("coalesce({})", list.collect::<Vec<_>>().join(", ")),
                    if same { first.kind } else { Text },
                )
            }
            FunctionName::IsNull => Typed::new(format!("({} IS NULL)", first.sql), Boolean),
            FunctionName::IsNotNull => Typed::new(format!("({} IS NOT NULL)", first.sql), Boolean),
            FunctionName::Length => Typed::new(format!("CAST(character_length({}) AS BIGINT)", texts()), Integer),
            FunctionName::Substring => {
                let count = if given.len() > 2 { format!(", {}", whole(2)) } else { String::new() };
                Typed::new(format!("substr({}, {}{count})", first.text(), whole(1)), Text)
            }
            FunctionName::Split => {
                Typed::new(format!("split_part({}, {}, {})", first.text(), given[1].text(), whole(2)), Text)
            }
            FunctionName::Extract => Typed::new(format!("array_element(regexp_match({}), 1)", texts()), Text),
            FunctionName::Text => Typed::new(first.text(), Text),
            FunctionName::Number => Typed::new(format!("TRY_CAST({} AS DOUBLE)", first.numeric()), Number),
            FunctionName::Integer => Typed::new(format!("TRY_CAST({} AS BIGINT)", first.numeric()), Integer),
            FunctionName::Round => {
                let decimals = match arguments.get(1) {
                    None => 0,
                    Some(Term::Value(Value::Integer(decimals @ 0..=9))) => *decimals,
                    Some(_) => {
                        return Err(self.complaint("round", "round takes a constant from 0 to 9 as its decimals"));
                    }
                };
                let decimal = format!("TRY_CAST({} AS DECIMAL(38, {decimals}))", first.numeric());
                Typed::new(format!("CAST({decimal} AS DOUBLE)"), Number)
            }
            FunctionName::Absolute => {
                let value = first.numeric();
                Typed::new(format!("CASE WHEN {value} < 0 THEN (- {value}) ELSE {value} END"), number_kind(first.kind))
            }
            FunctionName::Least => Typed::new(format!("least({})", numbers()), Number),
            FunctionName::Greatest => Typed::new(format!("greatest({})", numbers()), Number),
            FunctionName::Bin => match (&arguments[1], first.kind) {
                (Term::Value(Value::Duration(width)), Time) if !width.is_zero() => {
                    Typed::new(format!("date_bin({}, {})", quote::interval(*width), first.sql), Time)
                }
                _ => return Err(self.complaint("bin", "bin takes a time and a span: bin(_time, 5m)")),
            },
            // `now()`, which has no first argument, and those of texts stand above.
            _ => Typed::new(timestamp(self.around.now), Time),
        })
    }
}

/// The functions whose arguments are all texts, as SQL has them.
fn of_texts(function: FunctionName) -> Option<(&'static str, ColumnKind)> {
    Some(match function {
        FunctionName::Lower => ("lower", ColumnKind::Text),
        FunctionName::Upper => ("upper", ColumnKind::Text),
        FunctionName::Trim => ("btrim", ColumnKind::Text),
        FunctionName::Replace => ("replace", ColumnKind::Text),
        FunctionName::Concat => ("concat", ColumnKind::Text),
        FunctionName::Contains => ("contains", ColumnKind::Boolean),
        FunctionName::StartsWith => ("starts_with", ColumnKind::Boolean),
        FunctionName::EndsWith => ("ends_with", ColumnKind::Boolean),
        _ => return None,
    })
}

/// The field that a term is, whose name may tell its unit.
fn field_name(term: &Term) -> Option<&str> {
    match term {
        Term::Field(field) => Some(field),
        _ => None,
    }
}

fn number_kind(kind: ColumnKind) -> ColumnKind {
    if kind == ColumnKind::Integer { kind } else { ColumnKind::Number }
}

/// Two values as one kind.
fn agreed(a: &Typed, b: &Typed) -> (String, String, ColumnKind) {
    match (a.kind, b.kind) {
        (one, other) if one == other => (a.sql.clone(), b.sql.clone(), one),
        (ColumnKind::Integer | ColumnKind::Number, ColumnKind::Integer | ColumnKind::Number) => {
            (a.sql.clone(), b.sql.clone(), ColumnKind::Number)
        }
        _ => (a.text(), b.text(), ColumnKind::Text),
    }
}

pub(super) fn constant(value: &Value) -> Typed {
    match value {
        Value::Text(value) => Typed::new(text(value), ColumnKind::Text),
        Value::Integer(number) => Typed::new(quote::integer(*number), ColumnKind::Integer),
        Value::Number(number) => Typed::new(quote::number(*number), ColumnKind::Number),
        Value::Duration(span) => Typed::new(quote::seconds(*span), ColumnKind::Number),
        Value::Bytes(size) => Typed::new(size.to_string(), ColumnKind::Integer),
        Value::Boolean(value) => Typed::new(value.to_string(), ColumnKind::Boolean),
    }
}

/// The value in the kind of a column.
pub(super) fn as_kind(value: &Typed, kind: ColumnKind) -> String {
    if value.kind == kind { value.sql.clone() } else { format!("CAST({} AS {})", value.sql, sql_type(kind)) }
}

/// A span that a chart uses where the text gives none: a hundredth of what is shown, rounded up to a usual one.
pub(super) fn usual(seconds: f64) -> Duration {
    const USUAL: [u64; 14] = [1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800];
    let wanted = seconds / 100.0;
    let found = USUAL.iter().find(|usual| u32::try_from(**usual).is_ok_and(|usual| f64::from(usual) >= wanted));
    Duration::from_secs(*found.unwrap_or(&USUAL[13]))
}
