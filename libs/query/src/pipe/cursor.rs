//! A place in a text, and the small pieces that can be read from there.

use crate::{Diagnostic, plan::Value, quantity};

use super::{DEPTH_MAX, LIST_MAX, TESTS_MAX};

/// Words that mean something behind a command; a field of that name stands in backticks.
pub(crate) const RESERVED: [&str; 20] = [
    "and", "or", "not", "in", "by", "as", "every", "over", "within", "gap", "then", "when", "for", "from", "with",
    "true", "false", "left", "inner", "outer",
];

/// Words that mean something only where `=` follows them at once, as in other languages.
const ASSIGNED: [&str; 3] = ["span", "maxspan", "maxpause"];

/// Names that are settings where they stand before `:` or `=` in a search.
pub(crate) const SETTINGS: [&str; 5] = ["index", "since", "until", "earliest", "latest"];

/// What names a view, with a `:` behind it.
pub(crate) const VIEW: &str = "view";

/// A place in a text.
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
    depth: usize,
    tests: usize,
}

/// Whether a name may begin so.
fn begins_name(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '@'
}

/// Whether a name may go on so.
pub(crate) fn in_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '@' | '.')
}

/// Line and column of a place in a text.
pub(crate) fn position(text: &str, at: usize) -> (u32, u32) {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// A text in quotes, as a query writes it.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The name of a field as the pipe language writes it, in backticks where it needs them.
pub fn name_text(name: &str) -> String {
    let plain = name.starts_with(begins_name) && name.chars().all(in_name);
    let reserved = RESERVED.iter().any(|word| word.eq_ignore_ascii_case(name));
    if plain && !reserved { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}

/// The name of a field in a search, where settings have names too and the word `search` may stand in front.
pub(crate) fn field_text(name: &str) -> String {
    let taken = SETTINGS.iter().chain(&["search", VIEW]).any(|word| word.eq_ignore_ascii_case(name));
    if taken { format!("`{name}`") } else { name_text(name) }
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, tests: 0 }
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next character behind white space.
    pub(crate) fn next(&mut self) -> Option<char> {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.rest().chars().next()
    }

    /// The next character, white space or not.
    pub(crate) fn touching(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Goes past a symbol behind white space, where it stands there.
    pub(crate) fn eat(&mut self, symbol: &str) -> bool {
        self.next();
        let there = self.rest().starts_with(symbol);
        if there {
            self.at += symbol.len();
        }
        there
    }

    /// The word behind white space; empty where none begins.
    pub(crate) fn word(&mut self) -> &'a str {
        self.next();
        let rest = self.rest();
        if !rest.starts_with(begins_name) {
            return "";
        }
        &rest[..rest.find(|c| !in_name(c)).unwrap_or(rest.len())]
    }

    /// Goes past a word, where it stands there, in any case of letters.
    pub(crate) fn eat_word(&mut self, wanted: &str) -> bool {
        let there = self.word().eq_ignore_ascii_case(wanted);
        if there {
            self.at += wanted.len();
        }
        there
    }

    /// Goes past a word and the `=` that touches it, where both stand there.
    pub(crate) fn eat_assigned(&mut self, wanted: &str) -> bool {
        let word = self.word();
        let there = word.eq_ignore_ascii_case(wanted) && self.rest()[word.len()..].starts_with('=');
        if there {
            self.at += word.len() + 1;
        }
        there
    }

    /// Whether a word with a meaning of its own follows.
    pub(crate) fn reserved(&mut self) -> bool {
        let word = self.word();
        let is = |other: &&str| other.eq_ignore_ascii_case(word);
        let assigned = self.rest()[word.len()..].starts_with('=');
        RESERVED.iter().any(is) || (assigned && ASSIGNED.iter().any(is))
    }

    /// Whether a step, a list or the text ends here.
    pub(crate) fn ended(&mut self) -> bool {
        self.next().is_none_or(|c| matches!(c, '|' | ')' | ']'))
    }

    pub(crate) fn complaint_at(&self, at: usize, message: impl Into<String>) -> Diagnostic {
        let (line, column) = position(self.text, at);
        Diagnostic::new(line, column, message)
    }

    pub(crate) fn complaint(&self, message: impl Into<String>) -> Diagnostic {
        self.complaint_at(self.at, message)
    }

    /// Something else stands where this was expected.
    pub(crate) fn expected(&mut self, what: &str) -> Diagnostic {
        let found = match self.next() {
            None => "the text ends".to_owned(),
            Some(_) => {
                let rest = self.rest();
                let end = rest.char_indices().find(|(i, c)| *i > 0 && (c.is_whitespace() || "|()[],".contains(*c)));
                let end = end.map_or(rest.len(), |(i, _)| i);
                let shown: String = rest[..end].chars().take(30).collect();
                format!("found {shown}")
            }
        };
        self.complaint(format!("expected {what}, {found}"))
    }

    pub(crate) fn expect(&mut self, symbol: &str, what: &str) -> Result<(), Diagnostic> {
        if self.eat(symbol) { Ok(()) } else { Err(self.expected(what)) }
    }

    /// Runs a part that may hold more of its kind.
    pub(crate) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Diagnostic>) -> Result<T, Diagnostic> {
        if self.depth == DEPTH_MAX {
            return Err(self.complaint(format!("the query nests deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Counts one test or operator.
    pub(crate) fn count(&mut self) -> Result<(), Diagnostic> {
        self.tests += 1;
        if self.tests > TESTS_MAX {
            return Err(self
                .complaint(format!("the query has more than {TESTS_MAX} tests and operators"))
                .help("write f in (a, b, …) instead of f=a or f=b or …"));
        }
        Ok(())
    }

    /// Complains about a list that is too long.
    pub(crate) fn bounded<T>(&self, list: &[T]) -> Result<(), Diagnostic> {
        if list.len() < LIST_MAX {
            return Ok(());
        }
        Err(self.complaint(format!("a list has at most {LIST_MAX} elements")))
    }

    /// The text in `"` or `'` that begins here, if one does.
    pub(crate) fn quoted(&mut self) -> Result<Option<String>, Diagnostic> {
        let Some(quote) = self.touching().filter(|c| matches!(c, '"' | '\'')) else { return Ok(None) };
        let begin = self.at;
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((i, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += i + 1;
                    return Ok(Some(out));
                }
                '\\' => match chars.next_if(|(_, next)| *next == quote || *next == '\\' || *next == '"') {
                    Some((_, next)) => out.push(next),
                    None => out.push('\\'),
                },
                c => out.push(c),
            }
        }
        Err(self.complaint_at(begin, "the quote is not closed").help(format!("write {quote} where the text ends")))
    }

    /// The name of a field behind white space, if one stands there; `dashes` may be within it where nothing is subtracted.
    pub(crate) fn name(&mut self, dashes: bool) -> Result<Option<String>, Diagnostic> {
        if self.next() == Some('`') {
            return self.backticks().map(Some);
        }
        let rest = self.rest();
        if !rest.starts_with(begins_name) {
            return Ok(None);
        }
        let mut end = rest.len();
        let mut chars = rest.char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            let inner_dash = dashes && c == '-' && chars.peek().is_some_and(|(_, next)| next.is_alphanumeric());
            if !in_name(c) && !inner_dash {
                end = i;
                break;
            }
        }
        self.at += end;
        Ok(Some(rest[..end].to_owned()))
    }

    fn backticks(&mut self) -> Result<String, Diagnostic> {
        let begin = self.at;
        let mut out = String::new();
        self.at += 1;
        loop {
            let rest = self.rest();
            let Some(end) = rest.find('`') else {
                self.at = begin;
                return Err(self.complaint("the backtick is not closed").help("write ` where the name ends"));
            };
            out.push_str(&rest[..end]);
            self.at += end + 1;
            if self.touching() != Some('`') {
                break;
            }
            out.push('`');
            self.at += 1;
        }
        if out.is_empty() { Err(self.complaint_at(begin, "a field has a name")) } else { Ok(out) }
    }
}

/// What a text without quotes means as a value.
pub(crate) fn value_of(text: &str) -> Value {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.starts_with(|c: char| c.is_ascii_digit()) {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Integer(number);
        }
        if let Some(span) = quantity::duration(text) {
            return Value::Duration(span);
        }
        if let Some(size) = quantity::bytes(text).filter(|_| text.ends_with(['B', 'b'])) {
            return Value::Bytes(size);
        }
        let decimal = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
        let whole = digits.bytes().all(|b| b.is_ascii_digit());
        if let Some(number) = text.parse::<f64>().ok().filter(|number| decimal && !whole && number.is_finite()) {
            return Value::Number(number);
        }
    }
    match text {
        "true" => Value::Boolean(true),
        "false" => Value::Boolean(false),
        text => Value::Text(text.to_owned()),
    }
}
