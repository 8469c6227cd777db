//! Clauses that SQL does not have, taken out of the tokens before the statement is read.

use std::time::Duration;

use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Word};

use super::{
    argument::interval,
    sink::{Target, target},
};
use crate::{
    Diagnostic,
    text::{at, expression, is_word},
};

/// The shortest time between two early results of a window.
const EMIT_MIN: Duration = Duration::from_millis(100);

/// What becomes of rows that cannot be computed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OnError {
    /// The job fails.
    Fail,
    /// The value is null.
    #[default]
    Null,
    /// The row goes there.
    Into(Target),
}

/// The clauses behind a statement.
#[derive(Debug, Default)]
pub(crate) struct Clauses {
    pub(crate) late_into: Option<(Target, Location)>,
    pub(crate) emit_every: Option<(Duration, Location)>,
    pub(crate) on_error: Option<(OnError, Location)>,
}

/// Takes `INSERT INTO <target>` away from the front.
pub(crate) fn take_insert(text: &str, tokens: &mut Vec<TokenWithSpan>) -> Result<Option<Target>, Diagnostic> {
    if !is_word(tokens.first(), "INSERT") {
        return Ok(None);
    }
    if !is_word(tokens.get(1), "INTO") {
        let place = tokens.get(1).map_or(tokens[0].span.end, |t| t.span.start);
        return Err(at(place, "INTO is missing").help("write INSERT INTO <index> SELECT …"));
    }
    let (target, next) = target(text, tokens, 2)?;
    tokens.drain(..next);
    Ok(Some(target))
}

/// Takes `LATE INTO …`, `EMIT EVERY …` and `ON ERROR …` away from the end.
pub(crate) fn take_clauses(text: &str, tokens: &mut Vec<TokenWithSpan>) -> Result<Clauses, Diagnostic> {
    let starts = |i: usize| {
        let (one, two) = (tokens.get(i), tokens.get(i + 1));
        (is_word(one, "LATE") && is_word(two, "INTO"))
            || (is_word(one, "EMIT") && is_word(two, "EVERY"))
            // `JOIN b ON error = …` is a condition.
            || (is_word(one, "ON")
                && is_word(two, "ERROR")
                && tokens.get(i + 2).is_none_or(|third| matches!(third.token, Token::Word(_))))
    };
    let mut depth = 0_i64;
    let begin = (0..tokens.len()).find(|&i| {
        depth += match tokens[i].token {
            Token::LParen => 1,
            Token::RParen => -1,
            _ => 0,
        };
        depth == 0 && starts(i)
    });
    let Some(begin) = begin else { return Ok(Clauses::default()) };
    let tail = tokens.split_off(begin);
    let mut found = Clauses::default();
    let mut i = 0;
    while i < tail.len() {
        let place = tail[i].span.start;
        let twice = |clause: &str| Err(at(place, format!("{clause} is there twice")));
        if is_word(tail.get(i), "LATE") && is_word(tail.get(i + 1), "INTO") {
            if found.late_into.is_some() {
                return twice("LATE INTO");
            }
            let (target, next) = target(text, &tail, i + 2)?;
            found.late_into = Some((target, place));
            i = next;
        } else if is_word(tail.get(i), "EMIT") && is_word(tail.get(i + 1), "EVERY") {
            if found.emit_every.is_some() {
                return twice("EMIT EVERY");
            }
            let ends = |j: &usize| ["LATE", "EMIT", "ON"].iter().any(|word| is_word(tail.get(*j), word));
            let next = (i + 2..tail.len()).find(ends).unwrap_or(tail.len());
            if next == i + 2 {
                return Err(
                    at(tail[i + 1].span.end, "the time is missing").help("write EMIT EVERY INTERVAL '1 second'")
                );
            }
            let (given, at_interval) = interval(&expression(text, tail[i + 2..next].to_vec())?, "EMIT EVERY")?;
            if given < EMIT_MIN {
                return Err(at(at_interval, format!("results come every {EMIT_MIN:?} at most")));
            }
            found.emit_every = Some((given, place));
            i = next;
        } else if is_word(tail.get(i), "ON") && is_word(tail.get(i + 1), "ERROR") {
            if found.on_error.is_some() {
                return twice("ON ERROR");
            }
            let (policy, next) = on_error(text, &tail, i + 2)?;
            found.on_error = Some((policy, place));
            i = next;
        } else {
            return Err(at(place, format!("this does not belong to what stands before it: {}", tail[i].token))
                .help("LATE INTO, EMIT EVERY and ON ERROR stand last"));
        }
    }
    Ok(found)
}

fn on_error(text: &str, tail: &[TokenWithSpan], from: usize) -> Result<(OnError, usize), Diagnostic> {
    if is_word(tail.get(from), "FAIL") {
        return Ok((OnError::Fail, from + 1));
    }
    if is_word(tail.get(from), "NULL") {
        return Ok((OnError::Null, from + 1));
    }
    if is_word(tail.get(from), "INTO") {
        let (target, next) = target(text, tail, from + 1)?;
        return Ok((OnError::Into(target), next));
    }
    let place = tail.get(from).map_or(tail[from - 1].span.end, |t| t.span.start);
    Err(at(place, "ON ERROR says what becomes of rows that cannot be computed")
        .help("write ON ERROR FAIL, ON ERROR NULL or ON ERROR INTO <index>"))
}

/// Makes named arguments of `watermark delay INTERVAL '…'`, `idle after INTERVAL '…'` and `lateness INTERVAL '…'`.
pub(crate) fn name_arguments(tokens: &mut Vec<TokenWithSpan>) -> Result<(), Diagnostic> {
    let mut i = 1;
    while i < tokens.len() {
        let follows = matches!(tokens[i - 1].token, Token::Comma | Token::LParen);
        let watermark = follows && is_word(tokens.get(i), "watermark");
        if watermark && !is_word(tokens.get(i + 1), "delay") {
            if tokens.get(i + 1).is_some_and(|t| matches!(t.token, Token::Word(_))) {
                return Err(at(tokens[i + 1].span.start, format!("expected DELAY, found {}", tokens[i + 1].token))
                    .help("write watermark delay INTERVAL '5 seconds'"));
            }
            i += 1;
            continue;
        }
        let lateness = follows && is_word(tokens.get(i), "lateness") && is_word(tokens.get(i + 1), "INTERVAL");
        let idle = follows && is_word(tokens.get(i), "idle") && is_word(tokens.get(i + 1), "after");
        if watermark || lateness || idle {
            let (name, words) = match (watermark, idle) {
                (true, _) => ("watermark_delay", 2),
                (false, true) => ("idle_after", 2),
                (false, false) => ("lateness", 1),
            };
            let word =
                Word { value: name.to_owned(), quote_style: None, keyword: sqlparser::keywords::Keyword::NoKeyword };
            let span = tokens[i].span;
            let named = [
                TokenWithSpan { token: Token::Word(word), span },
                TokenWithSpan { token: Token::RArrow, span: tokens[i + words - 1].span },
            ];
            tokens.splice(i..i + words, named);
            i += 1;
        }
        i += 1;
    }
    Ok(())
}
