//! `simple_query_string`. Pure.

use serde_json::{Map, Value};

use super::{
    super::{
        clause::{Reading, Test, named, operator_is_and, phrase_in, words_of},
        field::Field,
        refused::{Refused, known, text, texts},
        words::lower_words,
    },
    bounded,
};

/// `simple_query_string`: `+` and, `|` or, `-` not, `"` phrases, `*` behind the begin of a word, parentheses. It refuses no text.
pub(crate) fn simple(reading: &Reading, members: &Map<String, Value>) -> Result<Test, Refused> {
    let names = [
        "query",
        "fields",
        "default_operator",
        "analyze_wildcard",
        "lenient",
        "flags",
        "minimum_should_match",
        "analyzer",
        "boost",
        "quote_field_suffix",
        "auto_generate_synonyms_phrase_query",
        "_name",
    ];
    known(members, &names, "simple_query_string")?;
    let query = members.get("query").ok_or_else(|| Refused::parsing("[simple_query_string] query text missing"))?;
    let query = text(query, "query")?;
    bounded(&query)?;
    let fields = members.get("fields").map_or(Ok(Vec::new()), |fields| texts(fields, "fields"))?;
    let fields = named(&fields)?;
    let every =
        members.get("default_operator").map_or(Ok(false), |op| operator_is_and(&text(op, "default_operator")?))?;
    let mut simple = Simple { reading, rest: &query, fields: &fields, every };
    let mut all = Vec::new();
    while !simple.rest.is_empty() {
        all.extend(simple.group(1)?);
        // One that closes nothing.
        simple.rest = simple.rest.strip_prefix(')').unwrap_or(simple.rest);
    }
    if all.is_empty() {
        Ok(Test::Nothing)
    } else if every {
        Ok(Test::all(all))
    } else {
        Ok(Test::any(all, 1))
    }
}

struct Simple<'a> {
    reading: &'a Reading,
    rest: &'a str,
    fields: &'a [Field],
    every: bool,
}

impl Simple<'_> {
    /// Clauses up to the end or a closing parenthesis; nothing where there is none.
    fn group(&mut self, mut depth: usize) -> Result<Option<Test>, Refused> {
        let mut found: Option<Test> = None;
        let (mut and, mut was_both) = (None, None);
        loop {
            self.rest = self.rest.trim_start();
            let Some(c) = self.rest.chars().next().filter(|c| *c != ')') else { return Ok(found) };
            if c == '+' || c == '|' {
                and = Some(c == '+');
                self.rest = &self.rest[1..];
                continue;
            }
            let mut negated = false;
            while let Some(rest) = self.rest.strip_prefix('-') {
                (negated, self.rest) = (!negated, rest.trim_start());
            }
            let Some(test) = self.one(depth)? else { continue };
            let test = if negated { test.not() } else { test };
            let both = and.take().unwrap_or(self.every);
            // Each change of the operator puts all that is in front into another one.
            if found.is_some() && was_both.replace(both).is_some_and(|was| was != both) {
                depth += 1;
            }
            found = Some(match found {
                None => test,
                Some(before) if both => Test::all(vec![before, test]),
                Some(before) => match before {
                    Test::Any { mut of, least: 1 } => {
                        of.push(test);
                        Test::any(of, 1)
                    }
                    before => Test::any(vec![before, test], 1),
                },
            });
        }
    }

    fn one(&mut self, depth: usize) -> Result<Option<Test>, Refused> {
        self.reading.clause(depth)?;
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            let found = self.group(depth + 1)?;
            self.rest = self.rest.strip_prefix(')').unwrap_or(self.rest);
            return Ok(found);
        }
        if let Some(rest) = self.rest.strip_prefix('"') {
            let (phrase, behind) = rest.split_once('"').unwrap_or((rest, ""));
            self.rest = behind;
            let each = self.fields.iter().map(|field| phrase_in(field, phrase, false, self.reading.now));
            return Ok(Some(Test::any(each.collect::<Result<_, _>>()?, 1)));
        }
        let end = self.rest.find(|c: char| c.is_whitespace() || "|()\"+".contains(c)).unwrap_or(self.rest.len());
        let (word, behind) = self.rest.split_at(end);
        self.rest = behind;
        let (word, open) = word.strip_suffix('*').map_or((word, false), |word| (word, true));
        if word.is_empty() {
            return Ok(open.then_some(Test::Everything));
        }
        let each = self.fields.iter().map(|field| match field {
            _ if open => phrase_in(field, word, true, self.reading.now),
            Field::Message => Ok(words_of(lower_words(word), 1)),
            field => self.reading.equal(field.clone(), word).or(Ok(Test::Nothing)),
        });
        Ok(Some(Test::any(each.collect::<Result<_, Refused>>()?, 1)))
    }
}
