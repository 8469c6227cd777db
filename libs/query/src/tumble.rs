//! The table function of a continuous query: `tumble(<index>, INTERVAL '…' [, watermark delay INTERVAL '…'])`.

use std::time::Duration;

use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Word};

use crate::{
    Diagnostic,
    stream::argument::{duration, factor_ms},
    text::{at, index_at, is_word, misspelt},
};

/// The shortest window.
pub const SIZE_MIN: Duration = Duration::from_millis(100);
/// The longest window.
pub const SIZE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How far the watermark stays behind the latest event time when the query does not say.
pub const DELAY_DEFAULT: Duration = Duration::from_secs(1);
/// The longest watermark delay.
pub const DELAY_MAX: Duration = Duration::from_secs(86_400);

const SHAPE: &str = "write tumble(<index>, INTERVAL '10 seconds'), where the index may be followed by \
                     the size and by: watermark delay INTERVAL '5 seconds'";

/// One `tumble(…)` of a text.
#[derive(Debug)]
pub(crate) struct Tumble {
    pub(crate) size: Duration,
    pub(crate) delay: Duration,
}

/// Takes the `tumble(…)` after `FROM` out of the tokens and leaves the index in its place; `None` where there is none.
pub(crate) fn take(tokens: &mut Vec<TokenWithSpan>) -> Result<Option<Tumble>, Diagnostic> {
    let opens = |i: usize| tokens.get(i + 1).is_some_and(|t| t.token == Token::LParen);
    let from_function = |i: usize| i > 0 && is_word(tokens.get(i - 1), "FROM") && opens(i);
    let Some(begin) = (1..tokens.len()).find(|&i| from_function(i) && matches!(tokens[i].token, Token::Word(_))) else {
        return Ok(None);
    };
    known_function(&tokens[begin])?;
    let mut reader = Reader { tokens, next: begin + 2 };
    let (index, span) = index_at(reader.tokens, reader.next)?;
    reader.next += 1;
    reader.expect(&Token::Comma, "a comma and the window's size")?;
    let (size, place) = reader.interval("the window's size")?;
    bounded(place, "a window", size, SIZE_MIN, SIZE_MAX)?;
    let mut delay = DELAY_DEFAULT;
    let comma = reader.accept(&Token::Comma);
    if reader.accept_word("watermark") {
        if !reader.accept_word("delay") {
            return Err(reader.complain("DELAY"));
        }
        let (given, place) = reader.interval("the watermark delay")?;
        bounded(place, "a watermark delay", given, Duration::ZERO, DELAY_MAX)?;
        delay = given;
    } else if comma {
        return Err(reader.complain("WATERMARK DELAY INTERVAL '…'"));
    }
    reader.expect(&Token::RParen, "the closing parenthesis of tumble(…)")?;
    let end = reader.next;
    let word = Word {
        value: index.as_str().to_owned(),
        quote_style: Some('"'),
        keyword: sqlparser::keywords::Keyword::NoKeyword,
    };
    tokens.splice(begin..end, [TokenWithSpan { token: Token::Word(word), span }]);
    Ok(Some(Tumble { size, delay }))
}

fn known_function(name: &TokenWithSpan) -> Result<(), Diagnostic> {
    if is_word(Some(name), "tumble") {
        return Ok(());
    }
    let found = at(name.span.start, format!("there is no table function {}", name.token));
    match &name.token {
        Token::Word(word) if ["hop", "cumulate", "session"].contains(&word.value.to_lowercase().as_str()) => {
            Err(found.help("only tumble() is available"))
        }
        Token::Word(word) if misspelt(word, &["tumble"]).is_some() => Err(found.help("did you mean tumble?")),
        _ => Err(found.help(SHAPE)),
    }
}

fn bounded(place: Location, what: &str, given: Duration, min: Duration, max: Duration) -> Result<(), Diagnostic> {
    if given < min || given > max {
        return Err(at(place, format!("{what} lasts from {min:?} to {} days", max.as_secs() / 86_400)));
    }
    Ok(())
}

struct Reader<'a> {
    tokens: &'a [TokenWithSpan],
    next: usize,
}

impl Reader<'_> {
    fn accept(&mut self, wanted: &Token) -> bool {
        let found = self.tokens.get(self.next).is_some_and(|t| t.token == *wanted);
        self.next += usize::from(found);
        found
    }

    fn accept_word(&mut self, wanted: &str) -> bool {
        let found = is_word(self.tokens.get(self.next), wanted);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &Token, what: &str) -> Result<(), Diagnostic> {
        if self.accept(wanted) { Ok(()) } else { Err(self.complain(what)) }
    }

    fn complain(&self, wanted: &str) -> Diagnostic {
        match self.tokens.get(self.next) {
            Some(found) => at(found.span.start, format!("expected {wanted}, found {}", found.token)).help(SHAPE),
            None => {
                let end = self.tokens.last().map_or(Location { line: 1, column: 1 }, |t| t.span.end);
                at(end, format!("expected {wanted}, the text ends here")).help(SHAPE)
            }
        }
    }

    /// `INTERVAL '10 seconds'` or `INTERVAL '10' SECOND`, and where its value stands.
    fn interval(&mut self, what: &str) -> Result<(Duration, Location), Diagnostic> {
        if !self.accept_word("INTERVAL") {
            return Err(self.complain(&format!("INTERVAL '…' for {what}")));
        }
        let Some(TokenWithSpan { token: Token::SingleQuotedString(text), span }) = self.tokens.get(self.next) else {
            return Err(self.complain(&format!("a quoted duration for {what}, such as '10 seconds'")));
        };
        self.next += 1;
        let mut text = text.clone();
        if let Some(TokenWithSpan { token: Token::Word(unit), .. }) = self.tokens.get(self.next)
            && unit.quote_style.is_none()
            && factor_ms(&unit.value).is_some()
        {
            text = format!("{text} {}", unit.value);
            self.next += 1;
        }
        let duration = duration(&text).ok_or_else(|| {
            at(span.start, format!("{text:?} is not a duration"))
                .help("write a number and one of milliseconds, seconds, minutes, hours, days")
        })?;
        Ok((duration, span.start))
    }
}
