//! Searches as conditions of SQL.

use types::Severity;

use super::{ColumnKind, Lowering, Rows, quote, term::Typed, text};
use crate::{
    Comparison, Diagnostic,
    plan::{MESSAGE, Network, Pattern, PatternKind, Predicate, Value},
    quantity,
};

/// The column of severities, which are words with an order.
const SEVERITY: &str = "severity";

impl Lowering<'_> {
    /// Keeps the rows that the search finds.
    pub(super) fn filter(&mut self, rows: &mut Rows, predicate: &Predicate) -> Result<(), Diagnostic> {
        let parts = match predicate {
            Predicate::Everything => return Ok(()),
            Predicate::All(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        if rows.columns.iter().any(|out| !out.plain) {
            self.settle(rows, None)?;
        }
        for part in parts {
            let sql = self.predicate(rows, part)?;
            rows.filters.push(if matches!(part, Predicate::Any(_)) { format!("({sql})") } else { sql });
        }
        Ok(())
    }

    pub(super) fn predicate(&mut self, rows: &Rows, predicate: &Predicate) -> Result<String, Diagnostic> {
        Ok(match predicate {
            Predicate::Everything => "TRUE".to_owned(),
            Predicate::Text { field, pattern } => {
                let field = self.column(rows, field.as_deref().unwrap_or(MESSAGE))?;
                matches(&field.text(), pattern)
            }
            Predicate::Exists(field) => format!("{} IS NOT NULL", self.column(rows, field)?.sql),
            Predicate::Like { field, glob } => {
                let pieces: Vec<String> = glob.split('*').map(escaped).collect();
                let regex = format!("(?s)^{}$", pieces.join(".*"));
                format!("{} ~ {}", self.column(rows, field)?.text(), text(&regex))
            }
            Predicate::Compare { field, op, value } => self.compare_field(rows, field, *op, value)?,
            Predicate::In { field, values } => self.one_of(rows, field, values)?,
            Predicate::InPlan { field, plan } => {
                let left = self.column(rows, field)?;
                let inner = self.rows_of(plan)?;
                let column = match inner.columns.as_slice() {
                    [one] => one,
                    several => several.iter().find(|out| out.name == *field).ok_or_else(|| {
                        self.complaint(field, format!("the inner query has no field {field}"))
                            .help("end it with | keep and one field")
                    })?,
                };
                let right = Typed { sql: column.sql.clone(), kind: column.kind };
                format!("{} IN (SELECT {} FROM {})", left.text(), right.text(), inner.filtered())
            }
            Predicate::Network { field, network } => {
                format!("{} ~ {}", self.column(rows, field)?.text(), text(&network_regex(*network)))
            }
            Predicate::Not(inner) => format!("({}) IS NOT TRUE", self.predicate(rows, inner)?),
            Predicate::All(parts) => self.joined(rows, parts, " AND ")?,
            Predicate::Any(parts) => self.joined(rows, parts, " OR ")?,
        })
    }

    fn joined(&mut self, rows: &Rows, parts: &[Predicate], between: &str) -> Result<String, Diagnostic> {
        let one = |part: &Predicate| {
            let sql = self.predicate(rows, part)?;
            let closed = matches!(part, Predicate::All(_) | Predicate::Any(_));
            Ok(if closed { format!("({sql})") } else { sql })
        };
        Ok(parts.iter().map(one).collect::<Result<Vec<_>, _>>()?.join(between))
    }

    /// A field; of a label that is not there the null.
    pub(super) fn column(&self, rows: &Rows, field: &str) -> Result<Typed, Diagnostic> {
        if let Some(out) = rows.find(field) {
            return Ok(Typed { sql: out.sql.clone(), kind: out.kind });
        }
        if !self.labels {
            return Err(self.no_field(field, rows.columns.iter().map(|out| out.name.as_str())));
        }
        let as_label = |column: &str| column.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let named = rows.columns.iter().find(|out| as_label(&out.name) == field);
        let meant = named.or_else(|| if field == "level" { rows.find(SEVERITY) } else { None });
        Ok(match (meant, rows.find(SEVERITY)) {
            (None, Some(severity)) if field == "detected_level" => {
                Typed { sql: format!("coalesce({}, 'unknown')", severity.sql), kind: ColumnKind::Text }
            }
            (Some(out), _) => Typed { sql: out.sql.clone(), kind: out.kind },
            (None, _) => Typed { sql: "CAST(NULL AS TEXT)".to_owned(), kind: ColumnKind::Text },
        })
    }

    fn compare_field(&self, rows: &Rows, field: &str, op: Comparison, value: &Value) -> Result<String, Diagnostic> {
        let column = self.column(rows, field)?;
        if let (SEVERITY, Value::Text(word)) = (field, value)
            && let Ok(wanted) = word.parse::<Severity>()
        {
            return Ok(severity(&column.sql, op, wanted));
        }
        self.compared(&column, Some(field), op, value)
    }

    /// A column compared with a constant, as their kinds allow.
    pub(super) fn compared(
        &self,
        column: &Typed,
        field: Option<&str>,
        op: Comparison,
        value: &Value,
    ) -> Result<String, Diagnostic> {
        let sign = sign(op);
        let equality = matches!(op, Comparison::Equal | Comparison::NotEqual);
        let numeric = matches!(column.kind, ColumnKind::Integer | ColumnKind::Number);
        Ok(match value {
            Value::Integer(number) if numeric => format!("{} {sign} {}", column.sql, quote::integer(*number)),
            Value::Number(number) if numeric => format!("{} {sign} {}", column.sql, quote::number(*number)),
            _ if column.kind == ColumnKind::Time => {
                let Value::Text(written) = value else {
                    return Err(self
                        .complaint(field.unwrap_or(""), "a time is compared with a time")
                        .help("for example _time > \"2026-11-22T05:00:00Z\", or since:1h in front"));
                };
                let Some(at) = quantity::instant(written) else {
                    return Err(self
                        .complaint(field.unwrap_or(""), format!("{written:?} is not a time"))
                        .help("write 2026-11-22 or 2026-11-22T05:00:00Z"));
                };
                format!("{} {sign} {}", column.sql, quote::timestamp(at))
            }
            Value::Integer(number) if equality => format!("{} {sign} {}", column.text(), text(&number.to_string())),
            Value::Integer(number) => format!("{} {sign} {}", column.numeric(), quote::integer(*number)),
            Value::Number(number) => format!("{} {sign} {}", column.numeric(), quote::number(*number)),
            Value::Duration(span) => {
                let (sql, factor) = column.seconds(field);
                format!("{sql} {sign} {}", quote::number(span.as_secs_f64() * factor))
            }
            Value::Bytes(size) => {
                let (sql, factor) = column.bytes(field);
                #[allow(clippy::cast_precision_loss, reason = "sizes beyond 2^53 are compared with one rounded")]
                let size = *size as f64 * factor;
                format!("{sql} {sign} {}", quote::number(size))
            }
            Value::Boolean(value) if column.kind == ColumnKind::Boolean => format!("{} {sign} {value}", column.sql),
            Value::Boolean(value) => format!("{} {sign} '{value}'", column.text()),
            Value::Text(value) if numeric && !equality && value.parse::<f64>().is_ok_and(f64::is_finite) => {
                let number: f64 = value.parse().unwrap_or_default();
                format!("{} {sign} {}", column.sql, quote::number(number))
            }
            Value::Text(value) => format!("{} {sign} {}", column.text(), text(value)),
        })
    }

    /// Membership in a list; values of one kind stand in one `IN`.
    fn one_of(&self, rows: &Rows, field: &str, values: &[Value]) -> Result<String, Diagnostic> {
        let column = self.column(rows, field)?;
        let listed = self.listed(&column, values);
        let single = |value: &Value| self.compare_field(rows, field, Comparison::Equal, value);
        match listed {
            Some(sql) if field != SEVERITY => Ok(sql),
            _ => Ok(format!("({})", values.iter().map(single).collect::<Result<Vec<_>, _>>()?.join(" OR "))),
        }
    }

    /// The list as one `IN`, where all values compare with the column in the same way.
    pub(super) fn listed(&self, column: &Typed, values: &[Value]) -> Option<String> {
        let numeric = matches!(column.kind, ColumnKind::Integer | ColumnKind::Number);
        let constant = |value: &Value| match value {
            Value::Integer(number) if numeric => Some(quote::integer(*number)),
            Value::Number(number) if numeric => Some(quote::number(*number)),
            Value::Integer(number) if column.kind == ColumnKind::Text => Some(text(&number.to_string())),
            Value::Text(value) if column.kind == ColumnKind::Text => Some(text(value)),
            _ => None,
        };
        let constants = values.iter().map(constant).collect::<Option<Vec<_>>>()?;
        Some(format!("{} IN ({})", column.sql, constants.join(", ")))
    }
}

pub(super) fn sign(op: Comparison) -> &'static str {
    match op {
        Comparison::NotEqual => "<>",
        other => other.as_str(),
    }
}

/// A severity against one of their order.
fn severity(column: &str, op: Comparison, wanted: Severity) -> String {
    const ALL: [Severity; 6] =
        [Severity::Trace, Severity::Debug, Severity::Info, Severity::Warn, Severity::Error, Severity::Fatal];
    let meant = ALL.into_iter().filter(|one| match op {
        Comparison::Above => *one > wanted,
        Comparison::AtLeast => *one >= wanted,
        Comparison::Below => *one < wanted,
        Comparison::AtMost => *one <= wanted,
        Comparison::Equal => *one == wanted,
        Comparison::NotEqual => *one != wanted,
    });
    match meant.map(|one| text(one.as_str())).collect::<Vec<_>>().as_slice() {
        [] => "FALSE".to_owned(),
        [one] => format!("{column} = {one}"),
        several => format!("{column} IN ({})", several.join(", ")),
    }
}

/// A pattern in a text.
fn matches(of: &str, pattern: &Pattern) -> String {
    let regex = match pattern.kind {
        PatternKind::Part if !pattern.any_case => return format!("contains({of}, {})", text(&pattern.text)),
        PatternKind::Regex => pattern.text.clone(),
        PatternKind::Part => escaped(&pattern.text),
        PatternKind::Word | PatternKind::Phrase => bounded(&pattern.text, true),
        PatternKind::Prefix => bounded(&pattern.text, false),
    };
    let any_case = if pattern.any_case { "(?i)" } else { "" };
    format!("{of} ~ {}", text(&format!("{any_case}{regex}")))
}

/// The text between the ends of words, where it begins and ends with characters of words.
fn bounded(phrase: &str, both: bool) -> String {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let begin = if phrase.starts_with(in_word) { r"\b" } else { "" };
    let end = if both && phrase.ends_with(in_word) { r"\b" } else { "" };
    format!("{begin}{}{end}", escaped(phrase))
}

/// The text as a regular expression that matches it alone.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Addresses of a network as a regular expression: whole octets first, then one that is free in part.
fn network_regex(network: Network) -> String {
    const ANY: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    let (whole, part) = (usize::from(network.bits / 8), network.bits % 8);
    let octets = network.address.octets();
    let octet = |(i, octet): (usize, &u8)| {
        if i < whole {
            return octet.to_string();
        }
        if i > whole || part == 0 {
            return ANY.to_owned();
        }
        let all: Vec<String> = (*octet..=*octet | (0xff >> part)).map(|octet| octet.to_string()).collect();
        format!("({})", all.join("|"))
    };
    format!("^{}$", octets.iter().enumerate().map(octet).collect::<Vec<_>>().join(r"\."))
}

/// The named groups of a regular expression, each with an expression in which it alone is a group.
pub(crate) fn regex_groups(regex: &str) -> Vec<(String, String)> {
    let mut pieces = vec![String::new()];
    let mut names: Vec<Option<String>> = Vec::new();
    let mut rest = regex;
    let mut class = 0usize;
    while let Some(c) = rest.chars().next() {
        let last = pieces.len() - 1;
        let mut taken = c.len_utf8();
        match c {
            '\\' => taken += rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => class += 1,
            ']' => class = class.saturating_sub(1),
            '(' if class == 0 => {
                let named = rest.strip_prefix("(?P<").or_else(|| rest.strip_prefix("(?<"));
                let name = named.and_then(|after| after.split_once('>')).map(|(name, _)| name.to_owned());
                // `(?<=` looks behind and names nothing.
                let name = name.filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
                let plain = !rest.starts_with("(?");
                if let Some(name) = name {
                    let prefix = if rest.starts_with("(?P<") { 4 } else { 3 };
                    rest = &rest[prefix + name.len() + 1..];
                    names.push(Some(name));
                    pieces.push(String::new());
                    continue;
                }
                if plain {
                    names.push(None);
                    pieces.push(String::new());
                    rest = &rest[1..];
                    continue;
                }
            }
            _ => {}
        }
        pieces[last].push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    let alone = |wanted: usize| {
        let mut out = pieces[0].clone();
        for (i, piece) in pieces[1..].iter().enumerate() {
            out.push_str(if i == wanted { "(" } else { "(?:" });
            out.push_str(piece);
        }
        out
    };
    let named = names.iter().enumerate().filter_map(|(i, name)| Some((name.clone()?, alone(i))));
    named.collect()
}
