//! Text to tokens and statements, within limits that keep every later recursion shallow.

use sqlparser::{
    ast::{Expr, Ident, Statement},
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Word},
};
use types::IndexName;

use crate::{Diagnostic, nearest};

/// The longest text of a query.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Most operators and keywords that may follow one another without a comma between them.
///
/// Each may nest one level deeper, and planners walk what is nested by recursion: an unoptimised build takes 16 KiB of
/// stack for a level, so 256 of them fit a stack of 8 MiB with room to spare.
pub const OPERATORS_MAX: usize = 256;

/// Parentheses and subqueries may nest this deep.
const NESTING_MAX: usize = 40;

const DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// A complaint at a place in the text.
pub(crate) fn at(place: Location, message: impl Into<String>) -> Diagnostic {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Diagnostic::new(number(place.line), number(place.column), message)
}

/// A complaint at the end of the text.
fn at_end(text: &str, message: impl Into<String>) -> Diagnostic {
    let lines = text.trim_end().lines().count().max(1);
    let column = text.trim_end().lines().last().map_or(0, |line| line.chars().count()) + 1;
    Diagnostic::new(u32::try_from(lines).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX), message)
}

/// The tokens of a text without white space and comments, ending before a closing `;`; at least one.
///
/// Errors: empty, too long, too deep, more than one statement, or not made of tokens.
pub(crate) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, Diagnostic> {
    let tokens = all_tokens(text)?;
    if let Some(i) = tokens.iter().position(|t| t.token == Token::SemiColon) {
        let next = tokens.get(i + 1).unwrap_or(&tokens[i]);
        return Err(at(next.span.start, "there is a second statement").help("send one statement at a time"));
    }
    shallow(&tokens)?;
    Ok(tokens)
}

/// The tokens of each statement of a text; at least one statement, and each has a token.
///
/// Errors: as of [`tokens`]; more than `most` statements.
pub(crate) fn statements(text: &str, most: usize) -> Result<Vec<Vec<TokenWithSpan>>, Diagnostic> {
    let all = all_tokens(text)?;
    let parts = all.split(|token| token.token == Token::SemiColon).filter(|part| !part.is_empty());
    let found: Vec<Vec<TokenWithSpan>> = parts.map(<[_]>::to_vec).collect();
    if let Some(first) = found.get(most).and_then(|more| more.first()) {
        return Err(at(first.span.start, format!("there are more than {most} statements"))
            .help("submit some of them as a job of their own"));
    }
    found.iter().try_for_each(|tokens| shallow(tokens))?;
    Ok(found)
}

fn all_tokens(text: &str) -> Result<Vec<TokenWithSpan>, Diagnostic> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Diagnostic::new(
            1,
            1,
            format!("the text has {} bytes, {TEXT_BYTES_MAX} are the most a query may have", text.len()),
        ));
    }
    let all = Tokenizer::new(&DIALECT, text)
        .tokenize_with_location()
        .map_err(|error| at(error.location, error.message.clone()))?;
    let mut tokens: Vec<TokenWithSpan> =
        all.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
    while tokens.last().is_some_and(|t| t.token == Token::SemiColon) {
        tokens.pop();
    }
    if tokens.is_empty() {
        return Err(Diagnostic::new(1, 1, "the query is empty").help("begin with SELECT"));
    }
    Ok(tokens)
}

/// How deep the text between two parentheses can nest.
#[derive(Default)]
struct Level {
    /// Operators of the present item: each may hold the one before it.
    operators: usize,
    /// The deepest parentheses of the present item that are closed.
    inside: usize,
    /// The deepest item before the last comma.
    items: usize,
}

/// Bounds how deep the text can nest: operators follow one another within an item of a list, parentheses add up.
fn shallow(tokens: &[TokenWithSpan]) -> Result<(), Diagnostic> {
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::default();
    // Operators of the present items of all open levels.
    let mut open = 0;
    for token in tokens {
        match &token.token {
            Token::LParen => {
                outer.push(std::mem::take(&mut level));
                level.operators = 1;
                open += 1;
            }
            Token::RParen => {
                let deepest = level.items.max(level.operators + level.inside);
                open -= level.operators;
                level = outer.pop().unwrap_or_default();
                level.inside = level.inside.max(deepest);
            }
            Token::Comma => {
                open -= level.operators;
                level.items = level.items.max(level.operators + level.inside);
                (level.operators, level.inside) = (0, 0);
            }
            Token::Word(word) if word.keyword == Keyword::NoKeyword => {}
            Token::Period | Token::Number(..) | Token::SingleQuotedString(_) => {}
            _ => {
                level.operators += 1;
                open += 1;
            }
        }
        if outer.len() > NESTING_MAX {
            return Err(at(token.span.start, format!("parentheses nest deeper than {NESTING_MAX}")));
        }
        if open + level.inside > OPERATORS_MAX {
            return Err(at(
                token.span.start,
                format!("more than {OPERATORS_MAX} operators and keywords follow one another"),
            )
            .help("write x IN (1, 2, …) instead of x = 1 OR x = 2 OR …"));
        }
    }
    Ok(())
}

/// The one statement that the tokens make.
pub(crate) fn statement(text: &str, tokens: Vec<TokenWithSpan>) -> Result<Statement, Diagnostic> {
    let given = tokens.clone();
    let mut parser = Parser::new(&DIALECT).with_recursion_limit(NESTING_MAX + 10).with_tokens_with_locations(tokens);
    let statement = parser.parse_statement().map_err(|error| explain(text, &error))?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(statement),
        _ => Err(unexpected(&given, &next)),
    }
}

/// The one expression that the tokens make.
pub(crate) fn expression(text: &str, tokens: Vec<TokenWithSpan>) -> Result<Expr, Diagnostic> {
    let given = tokens.clone();
    let mut parser = Parser::new(&DIALECT).with_recursion_limit(NESTING_MAX + 10).with_tokens_with_locations(tokens);
    let expr = parser.parse_expr().map_err(|error| explain(text, &error))?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(expr),
        _ => Err(unexpected(&given, &next)),
    }
}

/// Something follows the statement: mostly a misspelt keyword, which SQL takes for an alias if it can (`SELECT * FORM shop`).
fn unexpected(tokens: &[TokenWithSpan], next: &TokenWithSpan) -> Diagnostic {
    const KEYWORDS: [&str; 7] = ["FROM", "WHERE", "GROUP", "ORDER", "LIMIT", "HAVING", "UNION"];
    let place = tokens.iter().position(|t| t.span == next.span).unwrap_or(0);
    for token in [place.checked_sub(1), Some(place)].into_iter().flatten().filter_map(|i| tokens.get(i)) {
        if let Token::Word(word) = &token.token
            && let Some(meant) = misspelt(word, &KEYWORDS)
        {
            return at(token.span.start, format!("{} is not expected here", word.value))
                .help(format!("did you mean {meant}?"));
        }
    }
    at(next.span.start, format!("this does not belong to what stands before it: {}", next.token))
}

/// The keyword that an unquoted word was probably meant to be.
pub(crate) fn misspelt<'a>(word: &Word, keywords: &[&'a str]) -> Option<&'a str> {
    (word.quote_style.is_none() && word.keyword == Keyword::NoKeyword)
        .then(|| nearest(&word.value, keywords.iter().copied()))
        .flatten()
}

/// The parser's complaint with its place taken out of the text.
fn explain(text: &str, error: &ParserError) -> Diagnostic {
    let said = match error {
        ParserError::TokenizerError(said) | ParserError::ParserError(said) => said.as_str(),
        ParserError::RecursionLimitExceeded => return Diagnostic::new(1, 1, "the query nests too deep"),
    };
    let Some((message, place)) = said.rsplit_once(" at Line: ") else {
        return at_end(text, lower(said.trim_end_matches(", found: EOF")));
    };
    let place = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    match place {
        Some(place) => at(place, lower(message)),
        None => at_end(text, lower(message)),
    }
}

fn lower(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Whether the token is that unquoted keyword.
pub(crate) fn is_word(token: Option<&TokenWithSpan>, wanted: &str) -> bool {
    matches!(token, Some(TokenWithSpan { token: Token::Word(word), .. })
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// The index that an identifier names.
pub(crate) fn index_name(ident: &Ident) -> Result<IndexName, Diagnostic> {
    ident.value.parse::<IndexName>().map_err(|invalid| {
        let lower = ident.value.to_lowercase();
        let found = at(ident.span.start, format!("{:?} is not an index name: {}", ident.value, invalid.rule));
        if lower.parse::<IndexName>().is_ok() {
            found.help(format!("index names are lower case: {lower}"))
        } else {
            found
        }
    })
}

/// The index named by the tokens from `from` on, and how many they are; a name with `-` must stand in quotes.
pub(crate) fn index_at(tokens: &[TokenWithSpan], from: usize) -> Result<(IndexName, Span), Diagnostic> {
    let Some(token) = tokens.get(from) else {
        let end = tokens.last().map_or(Location { line: 1, column: 1 }, |t| t.span.end);
        return Err(at(end, "the name of an index is missing"));
    };
    dashed(tokens, from)?;
    match &token.token {
        Token::Word(word) => {
            let ident = Ident { value: word.value.clone(), quote_style: word.quote_style, span: token.span };
            Ok((index_name(&ident)?, token.span))
        }
        other => Err(at(token.span.start, format!("expected the name of an index, found {other}"))),
    }
}

/// Complains about `FROM shop-frontend`, which SQL reads as a subtraction.
pub(crate) fn dashed(tokens: &[TokenWithSpan], from: usize) -> Result<(), Diagnostic> {
    let piece = |i: usize| match tokens.get(i).map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.clone()),
        Some(Token::Number(number, _)) => Some(number.clone()),
        Some(Token::Minus) => Some("-".to_owned()),
        _ => None,
    };
    let adjoins = |i: usize| tokens.get(i).is_some_and(|t| tokens[i - 1].span.end == t.span.start);
    let Some(mut name) = piece(from) else { return Ok(()) };
    let mut next = from + 1;
    while adjoins(next) {
        let Some(more) = piece(next) else { break };
        name.push_str(&more);
        next += 1;
    }
    let odd = name.contains('-') || name.starts_with(|c: char| c.is_ascii_digit());
    if odd && name.parse::<IndexName>().is_ok() {
        return Err(at(tokens[from].span.start, format!("the index name {name} must stand in double quotes"))
            .help(format!("write \"{name}\"")));
    }
    Ok(())
}

/// A dotted name as one quoted column, because fields of nested objects are columns like `http.status`.
pub(crate) fn dotted(parts: &[Ident]) -> Expr {
    Expr::Identifier(joined(parts))
}

/// The name of that column.
pub(crate) fn joined(parts: &[Ident]) -> Ident {
    let value = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
    let span = parts.iter().map(|part| part.span).reduce(|a, b| a.union(&b)).unwrap_or_else(Span::empty);
    Ident { value, quote_style: Some('"'), span }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_say_what_they_are() {
        let long = format!("SELECT '{}'", "x".repeat(TEXT_BYTES_MAX));
        let wide = format!("SELECT 1{}", "+1".repeat(OPERATORS_MAX));
        let deep = format!("SELECT {}1{}", "(".repeat(NESTING_MAX + 1), ")".repeat(NESTING_MAX + 1));
        for (text, words) in [
            (long.as_str(), "are the most a query may have"),
            (wide.as_str(), "more than 256 operators"),
            (deep.as_str(), "nest deeper than 40"),
            ("  -- nothing\n ;", "the query is empty"),
            ("SELECT 1; SELECT 2", "second statement"),
            ("SELECT 'abc", "Unterminated string literal"),
        ] {
            let found = tokens(text).unwrap_err();
            assert!(found.message.contains(words), "{}", found.message);
        }
        let list = format!("SELECT a IN ({})", vec!["1"; 5000].join(","));
        assert!(tokens(&list).is_ok(), "a long list is not deep");
        let items = format!("SELECT {}", vec!["(a + 1) AS b"; 500].join(", "));
        assert!(tokens(&items).is_ok(), "many items are not deep");
        let half = format!("({})", vec!["1"; OPERATORS_MAX / 2].join("+"));
        assert!(tokens(&format!("SELECT {half}, {half}, {half}")).is_ok(), "items do not add up");
        assert!(
            tokens(&format!("SELECT {half}{}", "+1".repeat(OPERATORS_MAX / 2))).is_err(),
            "a chain adds up with its deepest part"
        );
        assert!(tokens("SELECT 1)))) + ((1,").is_ok(), "balance is the parser's business");
    }
}
