//! Terms, phrases, patterns and ranges of a text. Pure.

use super::{
    super::{clause::Edge, refused::Refused},
    Parser,
};

impl Parser<'_> {
    /// A term: its text without escapes, or with those of a pattern if it is one.
    pub(super) fn word(&mut self) -> Result<(String, bool), Refused> {
        let (mut plain, mut pattern, mut is_pattern) = (String::new(), String::new(), false);
        let begin = self.at;
        let mut chars = self.rest().char_indices();
        let mut end = self.rest().len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => {
                    let (_, escaped) = chars.next().ok_or_else(|| self.wrong("a character behind \\"))?;
                    plain.push(escaped);
                    pattern.extend(['\\', escaped]);
                    continue;
                }
                '*' | '?' => is_pattern = true,
                ':' | '(' | ')' | '[' | ']' | '{' | '}' | '"' | '^' | '~' => {
                    end = at;
                    break;
                }
                '/' | '<' | '>' | '=' | '!' | '+' | '-' | '|' | '&' => {}
                c if c.is_whitespace() => {
                    end = at;
                    break;
                }
                _ => {}
            }
            plain.push(c);
            pattern.push(c);
        }
        self.at = begin + end;
        if plain.is_empty() {
            Err(self.wrong("a term"))
        } else {
            Ok((if is_pattern { pattern } else { plain }, is_pattern))
        }
    }

    /// The text up to a sign that closes it.
    pub(super) fn until(&mut self, close: char) -> Result<String, Refused> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            if c == close {
                self.at += at + c.len_utf8();
                return Ok(out);
            }
            out.push(if c == '\\' { chars.next().map_or('\\', |(_, c)| c) } else { c });
        }
        Err(self.wrong(&format!("[{close}]")))
    }

    pub(super) fn regex(&mut self) -> Result<String, Refused> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '/' => {
                    self.at += at + 1;
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, '/')) => out.push('/'),
                    Some((_, c)) => out.extend(['\\', c]),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(self.wrong("[/]"))
    }

    /// `[a TO b}`
    pub(super) fn range(&mut self) -> Result<(Option<Edge>, Option<Edge>), Refused> {
        let from_included = self.take("[") || !self.take("{");
        let from = self.edge()?;
        self.space();
        if !self.take_word("TO") {
            return Err(self.wrong("[TO]"));
        }
        let to = self.edge()?;
        self.space();
        let to_included = self.take("]");
        if !to_included && !self.take("}") {
            return Err(self.wrong("[]] or [}]"));
        }
        let edge = |value: String, included| (value != "*").then(|| Edge { value: value.into(), included });
        Ok((edge(from, from_included), edge(to, to_included)))
    }

    fn edge(&mut self) -> Result<String, Refused> {
        self.space();
        if self.take("\"") {
            return self.until('"');
        }
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "]}".contains(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.wrong("a bound"));
        }
        self.at += end;
        Ok(rest[..end].replace('\\', ""))
    }
}
