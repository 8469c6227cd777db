//! Each step as SQL.

use super::{
    ColumnKind, Lowering, Out, Rows,
    predicate::regex_groups,
    quote,
    term::{Typed, as_kind, constant, fields_of},
    text,
};
use crate::{
    Diagnostic,
    plan::{Direction, MESSAGE, Parsing, Step, Term, Value},
};

/// A piece of a template: text as it stands, or a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Field(String),
}

/// Reads `{method} {path}`; `{{` and `}}` are one brace each.
pub(crate) fn template(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("{{") || rest.starts_with("}}") {
            plain.push(c);
            rest = &rest[2..];
        } else if c == '{' {
            let Some((field, after)) = rest[1..].split_once('}') else {
                return Err("a brace is not closed".to_owned());
            };
            if field.is_empty() || field.contains('{') {
                return Err("no field stands between the braces".to_owned());
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Field(field.to_owned()));
            rest = after;
        } else if c == '}' {
            return Err("a brace closes nothing".to_owned());
        } else {
            plain.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

impl Lowering<'_> {
    /// One step, except `compare` and `context`, which look at the steps before them.
    pub(super) fn step(&mut self, rows: &mut Rows, step: &Step) -> Result<(), Diagnostic> {
        let lazy = matches!(
            step,
            Step::Keep(_)
                | Step::Drop(_)
                | Step::Rename(_)
                | Step::Let(_)
                | Step::Head(_)
                | Step::Tail(_)
                | Step::Search(_)
        );
        if !lazy && rows.columns.iter().any(|out| !out.plain) {
            self.settle(rows, None)?;
        }
        match step {
            Step::Search(predicate) => self.filter(rows, predicate),
            Step::Where(term) => {
                let sql = self.term(rows, term)?.condition();
                rows.filters.push(sql);
                Ok(())
            }
            Step::Keep(fields) => self.keep(rows, fields),
            Step::Drop(fields) => self.leave_out(rows, fields),
            Step::Rename(pairs) => self.rename(rows, pairs),
            Step::Let(fields) => fields.iter().try_for_each(|(to, term)| self.set(rows, to, term)),
            Step::Sort(keys) => {
                let order = keys.iter().map(|key| {
                    let column = self.column(rows, &key.field)?;
                    Ok((column.sql, key.direction == Direction::Descending))
                });
                let order = order.collect::<Result<Vec<_>, Diagnostic>>()?;
                rows.order_by(order);
                Ok(())
            }
            Step::Head(count) => self.settle(rows, Some(*count)),
            Step::Tail(count) => {
                rows.turn();
                self.settle(rows, Some(*count))?;
                rows.turn();
                Ok(())
            }
            Step::Stats { measures, by } => {
                let seconds = rows.seconds();
                self.group(rows, measures, by, None, seconds)
            }
            Step::Chart { measures, by, every, over } => self.chart(rows, measures, by, *every, *over),
            Step::Top { count, fields, by, rare } => self.top(rows, *count, fields, by, *rare),
            Step::Dedup(fields) => self.dedup(rows, fields),
            Step::Parse { how, from } => self.parse(rows, how, from.as_deref()),
            Step::Session { by, gap } => self.session(rows, by, *gap),
            Step::Join { kind, on, plan } => self.join(rows, *kind, on, plan),
            Step::Append(plan) => self.append(rows, plan),
            Step::Fields => self.facets(rows),
            Step::Patterns => self.patterns(rows),
            Step::Sequence { terms, by, within } => self.sequence(rows, terms, by, *within),
            Step::Anomaly { measure, by, every } => self.anomaly(rows, measure, by, *every),
            Step::Running { measures, by } => self.beside(rows, measures, by, true),
            Step::Annotate { measures, by } => self.beside(rows, measures, by, false),
            Step::Delta { field, name } => self.delta(rows, field, name),
            other => self.rarer(rows, other),
        }
    }

    fn rarer(&mut self, rows: &mut Rows, step: &Step) -> Result<(), Diagnostic> {
        match step {
            Step::Fill { fields, value } => {
                let value = constant(value);
                for field in fields {
                    let out = match rows.find(field) {
                        Some(out) => {
                            let column = Typed::new(out.sql.clone(), out.kind);
                            let same = out.kind == value.kind;
                            let (kind, one) =
                                if same { (out.kind, column.sql.clone()) } else { (ColumnKind::Text, column.text()) };
                            let sql = format!("coalesce({one}, {})", as_kind(&value, kind));
                            Out { name: field.clone(), sql, kind, plain: false }
                        }
                        None => Out { name: field.clone(), sql: value.sql.clone(), kind: value.kind, plain: false },
                    };
                    rows.set(out);
                }
                Ok(())
            }
            Step::Replace { from, to, field } => {
                let column = self.column(rows, field)?.text();
                let sql = format!("replace({column}, {}, {})", text(from), text(to));
                rows.set(Out { name: field.clone(), sql, kind: ColumnKind::Text, plain: false });
                Ok(())
            }
            Step::Format { template: written, name } => {
                let pieces = template(written).map_err(|found| self.complaint("format", found))?;
                let one = |piece: &Piece| match piece {
                    Piece::Text(plain) => Ok(text(plain)),
                    Piece::Field(field) => self.column(rows, field).map(|column| column.text()),
                };
                let list = pieces.iter().map(one).collect::<Result<Vec<_>, _>>()?.join(", ");
                rows.set(Out {
                    name: name.clone(),
                    sql: format!("concat({list})"),
                    kind: ColumnKind::Text,
                    plain: false,
                });
                Ok(())
            }
            Step::Bin { field, width } => self.bin(rows, field, width),
            // The same rows each time: what is computed on a sample can be computed again.
            Step::Sample(one_in) => {
                let place = self.column(rows, "_offset")?.sql;
                rows.filters.push(format!("{place} % {one_in} = 0"));
                Ok(())
            }
            Step::Lookup { table, on, fields } => self.lookup(rows, table, on, fields),
            Step::Expand(_) => Err(self.not_yet("expand")),
            Step::Follow => Err(self.not_yet("follow")),
            Step::Alert { .. } => Err(self.not_yet("alert")),
            Step::Into(_) => Err(self.not_yet("into")),
            Step::Export(_) => Err(self.not_yet("export")),
            Step::View(_) => Err(self.not_yet("create")),
            _ => Err(self.not_yet("explain")),
        }
    }

    fn keep(&self, rows: &mut Rows, fields: &[String]) -> Result<(), Diagnostic> {
        let there = |field: &&String| rows.find(field).is_some();
        if let Some(missing) = fields.iter().find(|field| !self.labels && !there(field)) {
            return Err(self.no_field(missing, rows.columns.iter().map(|out| out.name.as_str())));
        }
        rows.columns = fields.iter().filter_map(|field| rows.find(field).cloned()).collect();
        Ok(())
    }

    fn leave_out(&self, rows: &mut Rows, fields: &[String]) -> Result<(), Diagnostic> {
        if let Some(missing) = fields.iter().find(|field| !self.labels && rows.find(field).is_none()) {
            return Err(self.no_field(missing, rows.columns.iter().map(|out| out.name.as_str())));
        }
        rows.columns.retain(|out| !fields.contains(&out.name));
        if rows.columns.is_empty() { Err(self.complaint("drop", "no field is left")) } else { Ok(()) }
    }

    fn rename(&mut self, rows: &mut Rows, pairs: &[(String, String)]) -> Result<(), Diagnostic> {
        for (from, to) in pairs {
            let Some(mut out) = rows.find(from).cloned() else {
                if self.labels {
                    continue;
                }
                return Err(self.no_field(from, rows.columns.iter().map(|out| out.name.as_str())));
            };
            if from == to {
                continue;
            }
            rows.columns.retain(|other| other.name != *to);
            out.name.clone_from(to);
            if let Some(other) = rows.columns.iter_mut().find(|other| other.name == *from) {
                *other = out;
            }
            let renamed = rows.keys.iter_mut().flatten().filter(|key| *key == from);
            renamed.for_each(|key| key.clone_from(to));
        }
        Ok(())
    }

    /// One more column; what it reads must stand in the relation first.
    fn set(&mut self, rows: &mut Rows, to: &str, term: &Term) -> Result<(), Diagnostic> {
        let mut computed = false;
        fields_of(term, &mut |field| computed |= rows.find(field).is_some_and(|out| !out.plain));
        if computed {
            self.settle(rows, None)?;
        }
        let value = self.term(rows, term)?;
        rows.set(Out { name: to.to_owned(), sql: value.sql, kind: value.kind, plain: false });
        Ok(())
    }

    /// Fields out of a text. Whole lines of JSON, logfmt, access logs and syslog are taken apart when they come in.
    fn parse(&mut self, rows: &mut Rows, how: &Parsing, from: Option<&str>) -> Result<(), Diagnostic> {
        let regex = match how {
            Parsing::Regex(regex) => regex.clone(),
            Parsing::Pattern(pattern) => pattern_regex(pattern).map_err(|found| self.complaint("parse", found))?,
            _ if from.is_none() => return Ok(()),
            _ => return Err(self.not_yet("parse").help("write a pattern: parse \"<name>=<value>\" from field")),
        };
        let source = self.column(rows, from.unwrap_or(MESSAGE))?.text();
        let mut added = Vec::new();
        for (field, alone) in regex_groups(&regex) {
            let sql = format!("array_element(regexp_match({source}, {}), 1)", text(&alone));
            added.push(Out { name: field, sql, kind: ColumnKind::Text, plain: false });
        }
        added.into_iter().for_each(|out| rows.set(out));
        Ok(())
    }

    fn bin(&mut self, rows: &mut Rows, field: &str, width: &Value) -> Result<(), Diagnostic> {
        let column = self.column(rows, field)?;
        let (sql, kind) = match (width, column.kind) {
            (Value::Duration(width), ColumnKind::Time) => {
                (format!("date_bin({}, {})", quote::interval(*width), column.sql), ColumnKind::Time)
            }
            (_, ColumnKind::Time) => return Err(self.complaint("bin", "a time is rounded to a span: bin _time by 5m")),
            (width, _) => {
                let value = column.numeric();
                let whole = column.kind == ColumnKind::Integer && matches!(width, Value::Integer(_));
                let width = constant(width).sql;
                let rest = format!("{value} % {width}");
                let below = format!("CASE WHEN {rest} < 0 THEN {value} - {rest} - {width} ELSE {value} - {rest} END");
                (below, if whole { ColumnKind::Integer } else { ColumnKind::Number })
            }
        };
        rows.set(Out { name: field.to_owned(), sql, kind, plain: false });
        Ok(())
    }
}

/// `<ip> - <_> [<time>]` as a regular expression with named groups; a field ends where the text behind it begins.
fn pattern_regex(pattern: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = pattern;
    let mut after_field = false;
    while let Some((before, more)) = rest.split_once('<') {
        let Some((field, after)) = more.split_once('>') else { return Err("a < is not closed".to_owned()) };
        let named = field.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && field.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !named {
            return Err(format!("<{field}> is not a field: its name is of letters, digits and _"));
        }
        if before.is_empty() && after_field {
            return Err(format!("nothing stands between <{field}> and the field before it"));
        }
        out.push_str(&super::escaped(before));
        let last = after.is_empty();
        let anything = if last { ".*" } else { ".*?" };
        out.push_str(&if field == "_" { format!("(?:{anything})") } else { format!("(?<{field}>{anything})") });
        rest = after;
        after_field = true;
    }
    out.push_str(&super::escaped(rest));
    Ok(format!("(?s){out}"))
}
