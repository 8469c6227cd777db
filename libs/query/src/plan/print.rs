//! The text form of a plan: the pipe language in one spelling.

use std::fmt::{self, Display, Formatter, Write};

use super::{
    Direction, Format, JoinKind, Measure, MeasureFunction, Moment, Network, Operator, Parsing, Pattern, PatternKind,
    Plan, Predicate, SortKey, Step, Term, Value,
};
use crate::{
    pipe::{field_text, name_text, quoted},
    quantity::{bytes_text, duration_text, instant_text},
};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let whole = self.views.iter().filter(|view| view.index.is_some()).map(ToString::to_string);
        let names: Vec<String> = self.indexes.iter().map(ToString::to_string).chain(whole).collect();
        if !names.is_empty() {
            parts.push(format!("index:{}", names.join(",")));
        }
        parts.extend(self.views.iter().filter(|view| view.index.is_none()).map(|view| format!("view:{view}")));
        parts.extend(self.span.since.map(|since| format!("since:{since}")));
        parts.extend(self.span.until.map(|until| format!("until:{until}")));
        if self.search != Predicate::Everything || (parts.is_empty() && self.steps.is_empty()) {
            parts.push(inner(&self.search, parts.is_empty()));
        }
        f.write_str(&parts.join(" "))?;
        for (i, step) in self.steps.iter().enumerate() {
            f.write_str(if i == 0 && parts.is_empty() { "| " } else { " | " })?;
            step.fmt(f)?;
        }
        Ok(())
    }
}

/// A search at the begin of a plan: behind a setting an `or` needs parentheses.
fn inner(search: &Predicate, alone: bool) -> String {
    match search {
        Predicate::Any(_) if !alone => format!("({search})"),
        other => other.to_string(),
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ago(span) => f.write_str(&duration_text(*span)),
            Self::At(at) => f.write_str(&instant_text(*at)),
        }
    }
}

impl Display for Network {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Display for Predicate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_char('*'),
            Self::Text { field, pattern: Pattern { kind: PatternKind::Regex, text, .. } } => {
                write!(f, "{}~{}", field_text(field.as_deref().unwrap_or(super::MESSAGE)), quoted(text))
            }
            Self::Text { field: None, pattern } => pattern.fmt(f),
            Self::Text { field: Some(field), pattern } => write!(f, "{}:{pattern}", field_text(field)),
            Self::Exists(field) => write!(f, "{}=*", field_text(field)),
            Self::Like { field, glob } => {
                let pieces: Vec<String> =
                    glob.split('*').map(|piece| if piece.is_empty() { String::new() } else { quoted(piece) }).collect();
                write!(f, "{}={}", field_text(field), pieces.join("*"))
            }
            Self::Compare { field, op, value } => write!(f, "{}{}{value}", field_text(field), op.as_str()),
            Self::In { field, values } => write!(f, "{} in ({})", field_text(field), list(values)),
            Self::InPlan { field, plan } => write!(f, "{} in [{plan}]", field_text(field)),
            Self::Network { field, network } => write!(f, "{} in {network}", field_text(field)),
            Self::Not(part) => match **part {
                Self::All(_) | Self::Any(_) => write!(f, "-({part})"),
                _ => write!(f, "-{part}"),
            },
            Self::All(parts) => joined(f, parts, " ", |part| matches!(part, Self::Any(_))),
            Self::Any(parts) => joined(f, parts, " or ", |_| false),
        }
    }
}

fn joined(
    f: &mut Formatter<'_>,
    parts: &[Predicate],
    between: &str,
    parentheses: fn(&Predicate) -> bool,
) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(between)?;
        }
        if parentheses(part) {
            write!(f, "({part})")?;
        } else {
            part.fmt(f)?;
        }
    }
    Ok(())
}

impl Display for Pattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown = match self.kind {
            PatternKind::Word => self.text.clone(),
            PatternKind::Phrase | PatternKind::Regex => quoted(&self.text),
            PatternKind::Prefix => format!("{}*", quoted(&self.text)),
            PatternKind::Part => format!("*{}*", quoted(&self.text)),
        };
        if self.any_case { write!(f, "i({shown})") } else { f.write_str(&shown) }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Integer(number) => number.fmt(f),
            Self::Number(number) => write!(f, "{number:?}"),
            Self::Duration(span) => f.write_str(&duration_text(*span)),
            Self::Bytes(size) => f.write_str(&bytes_text(*size)),
            Self::Boolean(value) => value.fmt(f),
        }
    }
}

/// The rank of a term as an operand; see [`Operator::rank`].
fn rank(term: &Term) -> u8 {
    match term {
        Term::Binary { op, .. } => op.rank(),
        Term::Not(_) => 3,
        Term::In { .. } => 4,
        _ => 7,
    }
}

fn operand(f: &mut Formatter<'_>, term: &Term, least: u8) -> fmt::Result {
    if rank(term) < least { write!(f, "({term})") } else { term.fmt(f) }
}

impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => f.write_str(&name_text(field)),
            Self::Value(value) => value.fmt(f),
            Self::Minus(inner) => {
                f.write_char('-')?;
                // A number behind the sign would take it.
                let number = matches!(**inner, Self::Value(_));
                if number && !inner.to_string().starts_with('-') {
                    write!(f, "({inner})")
                } else {
                    operand(f, inner, 7)
                }
            }
            Self::Not(inner) => {
                f.write_str("not ")?;
                operand(f, inner, 3)
            }
            Self::Binary { op, left, right } => {
                operand(f, left, op.rank())?;
                write!(f, " {} ", op.as_str())?;
                operand(f, right, op.rank() + 1)
            }
            Self::In { term, values } => {
                operand(f, term, 5)?;
                write!(f, " in ({})", list(values))
            }
            Self::Call { function, arguments } => write!(f, "{}({})", function.as_str(), list(arguments)),
        }
    }
}

impl Display for Operator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn names(fields: &[String]) -> String {
    fields.iter().map(|field| name_text(field)).collect::<Vec<_>>().join(", ")
}

/// ` by a, b`, or nothing.
fn by(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!(" by {}", names(keys)) }
}

impl Display for Measure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function.word())?;
        if let Some(argument) = &self.argument {
            write!(f, "({argument})")?;
        }
        if self.name != Self::default_name(self.function, self.argument.as_ref()) {
            write!(f, " as {}", name_text(&self.name))?;
        }
        Ok(())
    }
}

impl Display for MeasureFunction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word())
    }
}

impl Display for SortKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.direction == Direction::Descending { "-" } else { "" };
        write!(f, "{sign}{}", name_text(&self.field))
    }
}

impl Display for Format {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let row = Self::WORDS.iter().find(|(format, _)| format == self);
        f.write_str(row.map_or("", |(_, word)| word))
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Search(predicate) => write!(f, "search {predicate}"),
            Self::Where(term) => write!(f, "where {term}"),
            Self::Keep(fields) => write!(f, "keep {}", names(fields)),
            Self::Drop(fields) => write!(f, "drop {}", names(fields)),
            Self::Rename(pairs) => {
                let pair = |(from, to): &(String, String)| format!("{} as {}", name_text(from), name_text(to));
                write!(f, "rename {}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
            }
            Self::Let(fields) => {
                let one = |(name, term): &(String, Term)| format!("{} = {term}", name_text(name));
                write!(f, "let {}", fields.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Self::Sort(keys) => write!(f, "sort {}", list(keys)),
            Self::Head(count) => write!(f, "head {count}"),
            Self::Tail(count) => write!(f, "tail {count}"),
            Self::Stats { measures, by: keys } => write!(f, "stats {}{}", list(measures), by(keys)),
            Self::Chart { measures, by: keys, every, over } => {
                write!(f, "chart {}{}", list(measures), by(keys))?;
                over.map_or(Ok(()), |over| write!(f, " over {}", duration_text(over)))?;
                every.map_or(Ok(()), |every| write!(f, " every {}", duration_text(every)))
            }
            Self::Top { count, fields, by: keys, rare } => {
                write!(f, "{} {count} {}{}", if *rare { "rare" } else { "top" }, names(fields), by(keys))
            }
            Self::Dedup(fields) => write!(f, "dedup {}", names(fields)),
            Self::Parse { how, from } => {
                match how {
                    Parsing::Pattern(pattern) => write!(f, "parse {}", quoted(pattern))?,
                    Parsing::Regex(regex) => write!(f, "rex {}", quoted(regex))?,
                    Parsing::Json => f.write_str("parse json")?,
                    Parsing::Logfmt => f.write_str("parse logfmt")?,
                    Parsing::Clf => f.write_str("parse clf")?,
                    Parsing::Syslog => f.write_str("parse syslog")?,
                }
                from.as_ref().map_or(Ok(()), |from| write!(f, " from {}", name_text(from)))
            }
            Self::Into(index) => write!(f, "into index {index}"),
            other => other.fmt_rarer(f),
        }
    }
}

impl Step {
    fn fmt_rarer(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session { by: keys, gap } => write!(f, "session{} gap {}", by(keys), duration_text(*gap)),
            Self::Sequence { terms, by: keys, within } => {
                let terms: Vec<String> = terms.iter().map(|term| inner(term, true)).collect();
                write!(f, "sequence {}{} within {}", terms.join(" then "), by(keys), duration_text(*within))
            }
            Self::Join { kind, on, plan } => {
                write!(f, "join {}{} [{plan}]", if *kind == JoinKind::Left { "left " } else { "" }, names(on))
            }
            Self::Append(plan) => write!(f, "append [{plan}]"),
            Self::Lookup { table, on, fields } if fields.is_empty() => write!(f, "lookup {table} {}", names(on)),
            Self::Lookup { table, on, fields } => write!(f, "lookup {table} {} -> {}", names(on), names(fields)),
            Self::Expand(field) => write!(f, "expand {}", name_text(field)),
            Self::Follow => f.write_str("follow"),
            Self::Context { before, after } => write!(f, "context before {before} after {after}"),
            Self::Patterns => f.write_str("patterns"),
            Self::Anomaly { measure, by: keys, every } => {
                write!(f, "anomaly {measure}{} every {}", by(keys), duration_text(*every))
            }
            Self::Fields => f.write_str("fields"),
            Self::Compare(span) => write!(f, "compare -{}", duration_text(*span)),
            Self::Alert { when, hold } => {
                write!(f, "alert when {when}")?;
                hold.map_or(Ok(()), |hold| write!(f, " for {}", duration_text(hold)))
            }
            Self::Export(format) => write!(f, "export {format}"),
            Self::View(name) => write!(f, "create view {}", name_text(name)),
            Self::Fill { fields, value } => write!(f, "fill {} with {value}", names(fields)),
            Self::Sample(one_in) => write!(f, "sample {one_in}"),
            Self::Replace { from, to, field } => {
                write!(f, "replace {} with {} in {}", quoted(from), quoted(to), name_text(field))
            }
            Self::Format { template, name } => write!(f, "format {} as {}", quoted(template), name_text(name)),
            Self::Running { measures, by: keys } => write!(f, "running {}{}", list(measures), by(keys)),
            Self::Annotate { measures, by: keys } => write!(f, "annotate {}{}", list(measures), by(keys)),
            Self::Delta { field, name } => write!(f, "delta {} as {}", name_text(field), name_text(name)),
            Self::Bin { field, width } => write!(f, "bin {} by {width}", name_text(field)),
            Self::Explain => f.write_str("explain"),
            // Everything else is written by `fmt`.
            _ => Ok(()),
        }
    }
}
