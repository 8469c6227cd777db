//! The search: tests that rows must pass.

use types::IndexName;

use super::{
    STEPS_MAX,
    cursor::{Cursor, RESERVED, value_of},
};
use crate::{
    Comparison, Diagnostic, ItemRef,
    plan::{MESSAGE, Moment, Pattern, PatternKind, Plan, Predicate, Value},
    quantity,
};

/// Where a search stands, and what it has set.
pub(super) struct Place<'p> {
    /// Words that end it.
    stops: &'static [&'static str],
    /// The plan whose settings it may hold.
    plan: Option<&'p mut Plan>,
    /// Whether parentheses or negations are open.
    inside: bool,
}

/// A character that a word without quotes may hold.
fn in_word(c: char) -> bool {
    !c.is_whitespace() && !"|()[]\"`=<>~*".contains(c)
}

impl Cursor<'_> {
    /// One whole query, up to the end or to what closes it.
    pub(super) fn plan(&mut self) -> Result<Plan, Diagnostic> {
        let mut plan = Plan::default();
        let start = self.at;
        if !self.eat_word("search") || self.touching().is_some_and(|c| !c.is_whitespace()) {
            self.at = start;
        }
        if !self.ended() {
            let mut place = Place { stops: &[], plan: Some(&mut plan), inside: false };
            let search = self.any(&mut place)?;
            plan.search = search;
        }
        while self.eat("|") {
            if plan.steps.len() == STEPS_MAX {
                return Err(self.complaint(format!("a query has at most {STEPS_MAX} steps")));
            }
            let step = self.step()?;
            plan.steps.push(step);
        }
        Ok(plan)
    }

    /// A search without settings, which ends before one of the words.
    pub(super) fn predicate(&mut self, stops: &'static [&'static str]) -> Result<Predicate, Diagnostic> {
        self.any(&mut Place { stops, plan: None, inside: true })
    }

    fn any(&mut self, place: &mut Place<'_>) -> Result<Predicate, Diagnostic> {
        let mut parts = Vec::new();
        loop {
            let begin = self.at;
            let part = self.every(place)?;
            let more = self.eat_word("or") || self.eat("||");
            match part {
                Some(part) => parts.push(part),
                None if more || !parts.is_empty() => {
                    return Err(self
                        .complaint_at(begin, "a setting is no test that something could be an alternative to")
                        .help("write settings first: since:1h (a or b)"));
                }
                None => return Ok(Predicate::Everything),
            }
            if !more {
                return Ok(Predicate::any(parts));
            }
        }
    }

    /// Tests side by side; `None` where there were only settings.
    fn every(&mut self, place: &mut Place<'_>) -> Result<Option<Predicate>, Diagnostic> {
        let mut parts = Vec::new();
        let mut read = 0;
        loop {
            if read > 0 {
                let word = self.word();
                if self.ended() || word.eq_ignore_ascii_case("or") || self.rest().starts_with("||") {
                    break;
                }
                if place.stops.iter().any(|stop| word.eq_ignore_ascii_case(stop)) {
                    break;
                }
                if !self.eat_word("and") {
                    self.eat("&&");
                }
            }
            parts.extend(self.test(place)?);
            read += 1;
        }
        Ok(if parts.is_empty() { None } else { Some(Predicate::all(parts)) })
    }

    /// One test; `None` for a setting.
    fn test(&mut self, place: &mut Place<'_>) -> Result<Option<Predicate>, Diagnostic> {
        self.count()?;
        let Some(c) = self.next().filter(|c| !matches!(c, '|' | ')' | ']')) else {
            return Err(self.expected("something to search for").help("write * for every row"));
        };
        let word = self.word();
        if ["and", "or"].iter().any(|operator| word.eq_ignore_ascii_case(operator)) {
            return Err(self
                .expected("something to search for")
                .help(format!("to search for the word, write \"{word}\"")));
        }
        if matches!(c, '-' | '!') || word.eq_ignore_ascii_case("not") {
            self.at += if word.is_empty() { 1 } else { word.len() };
            let outer = std::mem::replace(&mut place.inside, true);
            let inner = self.deeper(|cursor| cursor.test(place))?;
            place.inside = outer;
            return Ok(inner.map(Predicate::negated));
        }
        if c == '(' {
            self.at += 1;
            let outer = std::mem::replace(&mut place.inside, true);
            let inner = self.deeper(|cursor| cursor.any(place))?;
            place.inside = outer;
            self.expect(")", "the closing )")?;
            return Ok(Some(inner));
        }
        if c == '~' {
            self.at += 1;
            return self.regex(None).map(Some);
        }
        if let Some(test) = self.of_field(place)? {
            return Ok(test);
        }
        self.pattern().map(|pattern| match pattern {
            None => Some(Predicate::Everything),
            Some(pattern) => Some(Predicate::Text { field: None, pattern }),
        })
    }

    /// A test that begins with a name; the outer `None` where what stands here is none.
    fn of_field(&mut self, place: &mut Place<'_>) -> Result<Option<Option<Predicate>>, Diagnostic> {
        let begin = self.at;
        let ticks = self.touching() == Some('`');
        let Some(field) = self.name(true)? else { return Ok(None) };
        let setting = !ticks
            && ["index", "since", "until", super::cursor::VIEW].iter().any(|name| name.eq_ignore_ascii_case(&field));
        let rest = self.rest();
        let meant = |rest: &str| !rest.starts_with("//") && rest.starts_with(|c| in_word(c) || matches!(c, '"' | '*'));
        if rest.strip_prefix(':').is_some_and(meant) {
            self.at += 1;
            if setting {
                return self.setting(&field, begin, place).map(|()| Some(None));
            }
            let pattern = self.pattern()?;
            let named = (field != MESSAGE).then(|| field.clone());
            return Ok(Some(Some(match pattern {
                Some(pattern) => Predicate::Text { field: named, pattern },
                None => Predicate::Exists(field),
            })));
        }
        if let Some(op) = self.operator() {
            if op == "=" && !ticks && super::cursor::SETTINGS.iter().any(|name| name.eq_ignore_ascii_case(&field)) {
                return self.setting(&field, begin, place).map(|()| Some(None));
            }
            return self.comparison(field, op).map(|test| Some(Some(test)));
        }
        if self.eat_word("in")
            && let Some(test) = self.membership(&field)?
        {
            return Ok(Some(Some(test)));
        }
        if ticks {
            return Err(self
                .expected("a comparison behind the field")
                .help(format!("write `{field}`=…, or * for any value")));
        }
        self.at = begin;
        Ok(None)
    }

    /// The operator of a test behind white space, if one stands there.
    fn operator(&mut self) -> Option<&'static str> {
        let begin = self.at;
        self.next();
        let rest = self.rest();
        let known = [("!=", "!="), ("!~", "!~"), (">=", ">="), ("<=", "<="), ("==", "="), ("=~", "~")];
        let one = [("=", "="), (">", ">"), ("<", "<"), ("~", "~")];
        let found = known.iter().chain(&one).find(|(written, _)| rest.starts_with(written));
        match found {
            Some((written, op)) => {
                self.at += written.len();
                Some(op)
            }
            None => {
                self.at = begin;
                None
            }
        }
    }

    fn comparison(&mut self, field: String, op: &str) -> Result<Predicate, Diagnostic> {
        let has = Predicate::Exists(field.clone());
        let op = match op {
            "~" => return self.regex(Some(field)),
            "!~" => return Ok(Predicate::all(vec![has, self.regex(Some(field))?.negated()])),
            "=" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            ">" => Comparison::Above,
            ">=" => Comparison::AtLeast,
            "<" => Comparison::Below,
            _ => Comparison::AtMost,
        };
        self.next();
        let begin = self.at;
        let (pieces, bare) = self.pieces(|c| !c.is_whitespace() && !"|()[]\"`*".contains(c))?;
        let [first, more @ ..] = pieces.as_slice() else { return Err(self.expected("a value")) };
        if more.is_empty() {
            let value = if bare { value_of(first) } else { Value::Text(first.clone()) };
            return Ok(Predicate::Compare { field, op, value });
        }
        if pieces.iter().any(|piece| piece.contains('*')) {
            return Err(self
                .complaint_at(begin, "a * in quotes stands beside one that stands for anything")
                .help(format!("write {field}~\"…\", a regular expression")));
        }
        let like = match pieces.iter().all(String::is_empty) {
            true => has.clone(),
            false => Predicate::Like { field, glob: pieces.join("*") },
        };
        match op {
            Comparison::Equal => Ok(like),
            Comparison::NotEqual if like == has => Ok(has.negated()),
            Comparison::NotEqual => Ok(Predicate::all(vec![has, like.negated()])),
            op => Err(self.complaint_at(begin, format!("{} compares with one value, not with a pattern", op.as_str()))),
        }
    }

    /// The pieces between stars of something without white space outside of quotes, and whether no quotes stood in it.
    pub(super) fn pieces(&mut self, inside: fn(char) -> bool) -> Result<(Vec<String>, bool), Diagnostic> {
        let (mut pieces, mut bare, begin) = (vec![String::new()], true, self.at);
        loop {
            let last = pieces.len() - 1;
            if let Some(text) = self.quoted()? {
                pieces[last].push_str(&text);
                bare = false;
            } else if self.touching() == Some('*') {
                // Two stars stand for no more than one.
                if last == 0 || !pieces[last].is_empty() {
                    pieces.push(String::new());
                }
                self.at += 1;
            } else {
                let rest = self.rest();
                let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
                if end == 0 {
                    break;
                }
                pieces[last].push_str(&rest[..end]);
                self.at += end;
            }
        }
        if self.at == begin {
            pieces.clear();
        }
        Ok((pieces, bare))
    }

    fn regex(&mut self, field: Option<String>) -> Result<Predicate, Diagnostic> {
        self.next();
        let text = match self.quoted()? {
            Some(text) => text,
            None => {
                let rest = self.rest();
                let end = rest.find(|c: char| !in_word(c) && c != '*').unwrap_or(rest.len());
                self.at += end;
                rest[..end].to_owned()
            }
        };
        if text.is_empty() {
            return Err(self.expected("a regular expression").help("write it in quotes: ~\"time(out)?\""));
        }
        let field = field.filter(|field| field != MESSAGE);
        Ok(Predicate::Text { field, pattern: Pattern::new(PatternKind::Regex, text) })
    }

    /// A word, phrase, prefix or part; `None` for `*`.
    fn pattern(&mut self) -> Result<Option<Pattern>, Diagnostic> {
        let rest = self.rest();
        if rest.starts_with("i(") {
            self.at += 2;
            self.next();
            let pattern = self.pattern()?;
            self.expect(")", "the closing )")?;
            let any_case = |pattern| Pattern { any_case: true, ..pattern };
            return pattern.map(any_case).map(Some).ok_or_else(|| self.complaint("* is the same in any case"));
        }
        let begin = self.at;
        let (pieces, bare) = self.pieces(in_word)?;
        let kind = match pieces.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [word] if bare && !word.is_empty() => {
                // Words that would be read otherwise when the plan is written.
                let phrase =
                    ["in", "search"].iter().chain(&RESERVED[..4]).any(|other| other.eq_ignore_ascii_case(word));
                if phrase || word.starts_with(['-', '!', '\'']) || *word == "i" {
                    PatternKind::Phrase
                } else {
                    PatternKind::Word
                }
            }
            ["", ""] => return Ok(None),
            [text] if !text.is_empty() => PatternKind::Phrase,
            [text, ""] if !text.is_empty() => PatternKind::Prefix,
            ["", text, ""] if !text.is_empty() => PatternKind::Part,
            [] | [""] => return Err(self.expected("something to search for").help("write * for every row")),
            _ => {
                let shown = &self.text[begin..self.at];
                return Err(self
                    .complaint_at(begin, format!("{shown} is neither the begin of a word nor a part"))
                    .help("write foo* or *foo*, or a regular expression: ~\"foo.*bar\""));
            }
        };
        let text = pieces.concat();
        Ok(Some(Pattern::new(kind, text)))
    }

    fn setting(&mut self, name: &str, begin: usize, place: &mut Place<'_>) -> Result<(), Diagnostic> {
        let misplaced = format!("{name} is a setting of the whole query");
        let Some(plan) = place.plan.as_deref_mut().filter(|_| !place.inside) else {
            return Err(self
                .complaint_at(begin, misplaced)
                .help(format!("write it first, outside of parentheses; for a field of that name write `{name}`")));
        };
        self.next();
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "|()[]".contains(c)).unwrap_or(rest.len());
        let token = rest[..end].trim_matches(['"', '\'']);
        if name.eq_ignore_ascii_case("index") {
            for name in token.split(',') {
                if name.contains('.') {
                    self.view(plan, name)?;
                    continue;
                }
                let index: IndexName = name.parse().map_err(|invalid: types::Invalid| {
                    self.complaint(format!("{name:?} is not an index name: {}", invalid.rule))
                })?;
                if !plan.indexes.contains(&index) {
                    plan.indexes.push(index);
                }
            }
            self.at += end;
            return Ok(());
        }
        if name.eq_ignore_ascii_case(super::cursor::VIEW) {
            for name in token.split(',') {
                self.view(plan, name)?;
            }
            self.at += end;
            return Ok(());
        }
        let moment = match token {
            "now" => Some(Moment::Ago(std::time::Duration::ZERO)),
            token => quantity::duration(token.strip_prefix('-').unwrap_or(token)).map(Moment::Ago),
        };
        let Some(moment) = moment.or_else(|| quantity::instant(token).map(Moment::At)) else {
            return Err(self.expected("a time").help(format!("write {name}:1h or {name}:2026-11-22T05:00:00Z")));
        };
        let since = ["since", "earliest"].iter().any(|word| word.eq_ignore_ascii_case(name));
        let slot = if since { &mut plan.span.since } else { &mut plan.span.until };
        if slot.replace(moment).is_some() {
            return Err(self.complaint_at(begin, format!("{name} is set twice")));
        }
        self.at += end;
        Ok(())
    }

    fn view(&self, plan: &mut Plan, name: &str) -> Result<(), Diagnostic> {
        let view: ItemRef = name.parse().map_err(|invalid: types::Invalid| {
            let found = self.complaint(format!("{name:?} is not the name of a view: {}", invalid.rule));
            found.help("write view:errors, or index:shop.errors; for a field of that name write `view`")
        })?;
        if !plan.views.contains(&view) {
            plan.views.push(view);
        }
        Ok(())
    }
}
