//! Log queries: selectors, line filters, parsers, label filters, formats.

use super::{Unit, Unwrap};
use crate::{
    Comparison, Diagnostic,
    pipe::Cursor,
    plan::{MESSAGE, Network, Parsing, Pattern, PatternKind, Plan, Predicate, Step, Term, Value},
    quantity,
};

/// What events always have; `keep` speaks of labels only.
const OF_EVENTS: [&str; 6] = ["_time", "_received", "_msg", "severity", "_segment", "_offset"];

/// A log query and, inside a range aggregation, what it unwraps.
#[derive(Debug, Default)]
pub(super) struct LogQuery {
    pub(super) logs: Plan,
    pub(super) unwrap: Option<Unwrap>,
}

impl Cursor<'_> {
    /// `{a="b"} |= "c" | json | d > 5`
    pub(super) fn log_query(&mut self) -> Result<LogQuery, Diagnostic> {
        let mut query = LogQuery { logs: Plan { search: self.selector()?, ..Plan::default() }, unwrap: None };
        self.stages(&mut query)?;
        Ok(query)
    }

    pub(super) fn selector(&mut self) -> Result<Predicate, Diagnostic> {
        self.expect("{", "a selector: {label=\"value\"}")?;
        let mut matchers = Vec::new();
        while !self.eat("}") {
            if !matchers.is_empty() {
                self.expect(",", "a comma or the closing }")?;
                // A comma may stand at the end.
                if self.eat("}") {
                    break;
                }
            }
            self.bounded(&matchers)?;
            self.count()?;
            let label = self.label()?;
            let op = self.symbol(&["=~", "!~", "!=", "="]).ok_or_else(|| self.expected("one of = != =~ !~"))?;
            let value = self.string()?;
            matchers.push(matcher(label, op, value));
        }
        Ok(Predicate::all(matchers))
    }

    /// What follows a selector, up to what is no stage.
    pub(super) fn stages(&mut self, query: &mut LogQuery) -> Result<(), Diagnostic> {
        loop {
            if query.logs.steps.len() > crate::STEPS_MAX {
                return Err(self.complaint(format!("a query has at most {} stages", crate::STEPS_MAX)));
            }
            if let Some(op) = self.symbol(&["|=", "!=", "|~", "!~", "|>", "!>"]) {
                let filter = self.line_filter(op)?;
                search(&mut query.logs, filter);
            } else if self.eat("|") {
                self.stage(query)?;
            } else {
                return Ok(());
            }
        }
    }

    fn line_filter(&mut self, op: &str) -> Result<Predicate, Diagnostic> {
        let mut parts = Vec::new();
        loop {
            self.bounded(&parts)?;
            self.count()?;
            if self.word() == "ip" {
                return Err(self
                    .complaint("not yet here: ip() on lines")
                    .help("filter a label: | addr = ip(\"10.0.0.0/8\")"));
            }
            let text = self.string()?;
            let pattern = match op {
                "|=" | "!=" => Pattern::new(PatternKind::Part, text),
                "|~" | "!~" => Pattern::new(PatternKind::Regex, text),
                _ => {
                    let pieces: Vec<String> = text.split("<_>").map(crate::lower::escaped).collect();
                    Pattern::new(PatternKind::Regex, pieces.join(".*"))
                }
            };
            // An empty text is in every line.
            parts.push(match pattern.text.is_empty() {
                true => Predicate::Everything,
                false => Predicate::Text { field: None, pattern },
            });
            if !self.eat_word("or") {
                break;
            }
        }
        let found = if parts.contains(&Predicate::Everything) { Predicate::Everything } else { Predicate::any(parts) };
        Ok(if op.starts_with('!') { found.negated() } else { found })
    }

    fn stage(&mut self, query: &mut LogQuery) -> Result<(), Diagnostic> {
        let begin = {
            self.next();
            self.at
        };
        let word = self.word();
        self.at += word.len();
        let steps = &mut query.logs.steps;
        match word {
            "json" | "logfmt" => steps.push(self.unpacked(word)?),
            "unpack" => steps.push(Step::Parse { how: Parsing::Json, from: None }),
            "pattern" => steps.push(Step::Parse { how: Parsing::Pattern(self.string()?), from: None }),
            "regexp" => steps.push(Step::Parse { how: Parsing::Regex(self.string()?), from: None }),
            "decolorize" => {}
            "line_format" => {
                let template = self.template()?;
                steps.push(Step::Format { template, name: MESSAGE.to_owned() });
            }
            "label_format" => loop {
                let to = self.label()?;
                self.expect("=", "= and a label or a template")?;
                let step = match self.next() {
                    Some('"' | '`') => Step::Format { template: self.template()?, name: to },
                    _ => Step::Rename(vec![(self.label()?, to)]),
                };
                query.logs.steps.push(step);
                if !self.eat(",") {
                    break;
                }
            },
            "drop" | "keep" => steps.extend(self.kept(word)?),
            "unwrap" => query.unwrap = Some(self.unwrap()?),
            _ => {
                self.at = begin;
                let filter = self.label_filter()?;
                search(&mut query.logs, filter);
            }
        }
        Ok(())
    }

    /// `json` or `logfmt`, and the labels that it takes out under other names.
    fn unpacked(&mut self, word: &str) -> Result<Step, Diagnostic> {
        while self.eat("--") {
            self.label()?;
        }
        let mut fields = Vec::new();
        while self.next().is_some_and(|c| c.is_alphabetic() || c == '_') {
            self.bounded(&fields)?;
            let to = self.label()?;
            let from = if self.eat("=") { self.string()? } else { to.clone() };
            if from.is_empty() {
                return Err(self.complaint("the name of a field is missing"));
            }
            fields.push((to, Term::Field(from)));
            if !self.eat(",") {
                break;
            }
        }
        let layout = if word == "json" { Parsing::Json } else { Parsing::Logfmt };
        Ok(if fields.is_empty() { Step::Parse { how: layout, from: None } } else { Step::Let(fields) })
    }

    /// `drop` or `keep` with their labels; `None` where nothing is left to do.
    fn kept(&mut self, word: &str) -> Result<Option<Step>, Diagnostic> {
        let mut labels = Vec::new();
        loop {
            self.bounded(&labels)?;
            labels.push(self.label()?);
            if self.symbol(&["=~", "!~", "!=", "="]).is_some() {
                return Err(self.complaint(format!("not yet here: {word} with a value")));
            }
            if !self.eat(",") {
                break;
            }
        }
        labels.retain(|label| !label.starts_with("__"));
        if word == "keep" {
            labels.retain(|label| !OF_EVENTS.contains(&label.as_str()));
            let always = OF_EVENTS.iter().map(|field| (*field).to_owned());
            return Ok(Some(Step::Keep(always.chain(labels).collect())));
        }
        Ok(if labels.is_empty() { None } else { Some(Step::Drop(labels)) })
    }

    fn unwrap(&mut self) -> Result<Unwrap, Diagnostic> {
        let word = self.label()?;
        if !self.eat("(") {
            return Ok(Unwrap { label: word, unit: Unit::Number });
        }
        let unit = match word.as_str() {
            "duration" | "duration_seconds" => Unit::Duration,
            "bytes" => Unit::Bytes,
            _ => return Err(self.complaint(format!("there is no conversion {word}")).help("duration and bytes are")),
        };
        let label = self.label()?;
        self.expect(")", "the closing )")?;
        Ok(Unwrap { label, unit })
    }

    /// `a > 5 or b = "c" and d != 1s`; a comma, or nothing at all, means and.
    fn label_filter(&mut self) -> Result<Predicate, Diagnostic> {
        let mut any = Vec::new();
        loop {
            let mut all = vec![self.label_test()?];
            while self.eat(",") || self.eat_word("and") || self.label_follows() {
                self.bounded(&all)?;
                all.push(self.label_test()?);
            }
            any.push(Predicate::all(all));
            if !self.eat_word("or") {
                return Ok(Predicate::any(any));
            }
        }
    }

    /// Whether another test follows side by side.
    fn label_follows(&mut self) -> bool {
        matches!(self.next(), Some(c) if c == '(' || c.is_alphabetic() || c == '_')
            && !["or", "offset", "by", "without"].contains(&self.word())
    }

    fn label_test(&mut self) -> Result<Predicate, Diagnostic> {
        self.count()?;
        if self.eat("(") {
            let inner = self.deeper(Self::label_filter)?;
            self.expect(")", "the closing )")?;
            return Ok(inner);
        }
        let label = self.label()?;
        let op = self
            .symbol(&["=~", "!~", "!=", "==", ">=", "<=", "=", ">", "<"])
            .ok_or_else(|| self.expected("a comparison behind the label"))?;
        if matches!(self.next(), Some('"' | '`')) {
            let value = self.string()?;
            return match op {
                "=" | "!=" | "=~" | "!~" => Ok(matcher(label, op, value)),
                _ => Err(self.complaint(format!("{op} compares with a number")).help("write it without quotes")),
            };
        }
        if self.word() == "ip" {
            self.at += 2;
            self.expect("(", "( and an address")?;
            let text = self.string()?;
            self.expect(")", "the closing )")?;
            let (address, bits) = text.split_once('/').unwrap_or((&text, "32"));
            let network = address.parse().ok().zip(bits.parse().ok()).and_then(|(a, b)| Network::new(a, b));
            let Some(network) = network else {
                return Err(self.complaint(format!("not yet here: ip({text:?})")).help("write ip(\"10.0.0.0/8\")"));
            };
            let inside = Predicate::Network { field: label, network };
            return Ok(if op.starts_with('!') { inside.negated() } else { inside });
        }
        let value = self.amount()?;
        let op = match op {
            "=" | "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            ">" => Comparison::Above,
            ">=" => Comparison::AtLeast,
            "<" => Comparison::Below,
            "<=" => Comparison::AtMost,
            _ => return Err(self.complaint(format!("{op} takes a regular expression in quotes"))),
        };
        Ok(Predicate::Compare { field: label, op, value })
    }

    /// A number, a span of time or a size without quotes.
    fn amount(&mut self) -> Result<Value, Diagnostic> {
        self.next();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && !"._-".contains(c)).unwrap_or(rest.len());
        let token = &rest[..end];
        let value = token
            .parse::<i64>()
            .ok()
            .map(Value::Integer)
            .or_else(|| quantity::duration(token).map(Value::Duration))
            .or_else(|| quantity::bytes(token).map(Value::Bytes))
            .or_else(|| token.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Number));
        match value {
            Some(value) => {
                self.at += end;
                Ok(value)
            }
            None => Err(self.expected("a value").help("a text stands in quotes")),
        }
    }

    pub(super) fn label(&mut self) -> Result<String, Diagnostic> {
        let word = self.word();
        if word.is_empty() {
            return Err(self.expected("a label"));
        }
        self.at += word.len();
        Ok(word.to_owned())
    }

    /// The first of the symbols that stands here.
    pub(super) fn symbol(&mut self, symbols: &[&'static str]) -> Option<&'static str> {
        let found = symbols.iter().find(|symbol| {
            self.next();
            self.rest().starts_with(**symbol)
        })?;
        self.at += found.len();
        Some(found)
    }

    /// A text in `"` with Go's escapes, or in backticks without any.
    pub(super) fn string(&mut self) -> Result<String, Diagnostic> {
        let Some(quote) = self.next().filter(|c| matches!(c, '"' | '`')) else {
            return Err(self.expected("a text in quotes"));
        };
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += i + 1;
                    return Ok(out);
                }
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, 'r')) => out.push('\r'),
                    Some((_, c @ ('"' | '\\' | '\''))) => out.push(c),
                    _ => {
                        return Err(self
                            .complaint("an escape in the text is unknown")
                            .help("write \\\\ for one \\, or use backticks"));
                    }
                },
                c => out.push(c),
            }
        }
        Err(self.complaint("the quote is not closed").help(format!("write {quote} where the text ends")))
    }

    /// A template of Go with nothing but names of labels, as one of ours.
    fn template(&mut self) -> Result<String, Diagnostic> {
        self.next();
        let begin = self.at;
        let text = self.string()?;
        let braces = |plain: &str| plain.replace('{', "{{").replace('}', "}}");
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some((plain, more)) = rest.split_once("{{") {
            let inside = more.split_once("}}");
            let name = inside.and_then(|(name, _)| match name.trim() {
                "__line__" => Some(MESSAGE),
                "__timestamp__" => Some("_time"),
                name => name
                    .strip_prefix('.')
                    .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')),
            });
            let (Some(name), Some((_, after))) = (name, inside) else {
                return Err(self
                    .complaint_at(begin, "not yet here: templates with more than names of labels")
                    .help("write {{.label}}"));
            };
            out.push_str(&format!("{}{{{name}}}", braces(plain)));
            rest = after;
        }
        out.push_str(&braces(rest));
        if out.is_empty() { Err(self.complaint_at(begin, "the template is empty")) } else { Ok(out) }
    }
}

/// Adds a test: to the search while no step changes the rows, else as a step.
fn search(logs: &mut Plan, filter: Predicate) {
    match logs.steps.last_mut() {
        None => logs.search = Predicate::all(vec![std::mem::take(&mut logs.search), filter]),
        Some(Step::Search(before)) => *before = Predicate::all(vec![std::mem::take(before), filter]),
        Some(_) => logs.steps.push(Step::Search(filter)),
    }
}

/// A label against a text; a label that is not there is empty.
fn matcher(field: String, op: &str, value: String) -> Predicate {
    let regex = |field: String, value: &str| {
        let pattern = Pattern::new(PatternKind::Regex, format!("^(?:{value})$"));
        Predicate::Text { field: Some(field), pattern }
    };
    // What is said about errors of parsing holds of every line: none is left out for them.
    if field.starts_with("__") {
        let empty = value.is_empty() || value == ".*";
        return if empty != op.starts_with('!') { Predicate::Everything } else { Predicate::Everything.negated() };
    }
    match (op, value.as_str()) {
        ("=", "") => Predicate::Exists(field).negated(),
        ("!=", "") | ("=~", ".+") => Predicate::Exists(field),
        ("=~", ".*") => Predicate::Everything,
        ("=", _) => Predicate::Compare { field, op: Comparison::Equal, value: Value::Text(value) },
        ("!=", _) => Predicate::Compare { field, op: Comparison::Equal, value: Value::Text(value) }.negated(),
        ("=~", _) => regex(field, &value),
        _ => regex(field, &value).negated(),
    }
}
