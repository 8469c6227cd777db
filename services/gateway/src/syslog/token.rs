//! The token that a message of RFC 5424 carries in its structured data; pure.

use std::ops::Range;

use bytes::Bytes;

/// The element with the token; private names have the number of an enterprise behind them, this one that of examples.
pub(crate) const ELEMENT: &str = "logboom@32473";
/// The parameter of the element.
const PARAMETER: &str = "token";
/// The words between the version and the structured data: time, host, program, process, kind of message.
const WORDS: usize = 5;
/// The longest token.
const TOKEN_BYTES_MAX: usize = 512;

/// What a message says about its token.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    /// Nothing.
    #[default]
    None,
    Given(String),
    /// There is an element for it which cannot be read: a token may stand in it, so the message must not be stored.
    Unreadable,
}

/// A message without its token, and the token.
///
/// The whole element is taken out, so that no secret is stored; where it was the only one a `-` stands in its place. What is no
/// message of RFC 5424, or holds no such element, stays as it is.
pub(crate) fn taken(message: Bytes) -> (Bytes, Token) {
    let (element, is_only, token) = match find(&message) {
        Ok(None) => return (message, Token::None),
        Ok(Some(Found { element, is_only, token })) => (element, is_only, token),
        Err(Unreadable) => return (message, Token::Unreadable),
    };
    let mut kept = Vec::with_capacity(message.len());
    kept.extend_from_slice(&message[..element.start]);
    if is_only {
        kept.push(b'-');
    }
    kept.extend_from_slice(&message[element.end..]);
    (kept.into(), Token::Given(token))
}

struct Unreadable;

struct Found {
    element: Range<usize>,
    is_only: bool,
    token: String,
}

fn find(message: &[u8]) -> Result<Option<Found>, Unreadable> {
    let Some(mut at) = data_start(message) else { return Ok(None) };
    let (mut found, mut count) = (None, 0);
    while message.get(at) == Some(&b'[') {
        let Some(end) = element_end(message, at) else {
            // Where quotes are wrong nobody knows what is an element and what is text.
            let (rest, begin) = (&message[at..], format!("[{ELEMENT}"));
            let may_hide = memchr::memmem::find_iter(rest, &begin).any(|own| is_own(&rest[own + 1..]));
            return if may_hide { Err(Unreadable) } else { Ok(None) };
        };
        count += 1;
        let element = &message[at + 1..end - 1];
        if is_own(element) {
            let token = token_of(element).filter(|_| found.is_none()).ok_or(Unreadable)?;
            found = Some((at..end, token));
        }
        at = end;
    }
    Ok(found.map(|(element, token)| Found { element, is_only: count == 1, token }))
}

/// Whether an element is the one for the token, whatever is in it; a longer name is another one's.
fn is_own(element: &[u8]) -> bool {
    let Some(rest) = element.strip_prefix(ELEMENT.as_bytes()) else { return false };
    rest.first().is_none_or(|next| !next.is_ascii_graphic() || matches!(next, b'=' | b']' | b'"'))
}

/// Where the structured data begins: behind `<13>1 ` and five words.
fn data_start(message: &[u8]) -> Option<usize> {
    let rest = message.strip_prefix(b"<")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = rest.get(digits..)?.strip_prefix(b">1 ")?;
    let mut at = message.len() - rest.len();
    for _ in 0..WORDS {
        at += memchr::memchr(b' ', message.get(at..)?)? + 1;
    }
    Some(at)
}

/// Behind the bracket that closes an element; brackets within quotes close nothing.
fn element_end(message: &[u8], start: usize) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in message.iter().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b']' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn token_of(element: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(element).ok()?;
    let parameters = text.strip_prefix(ELEMENT)?.strip_prefix(' ')?;
    let value = parameters.trim().strip_prefix(PARAMETER)?.strip_prefix("=\"")?.strip_suffix('"')?;
    let is_token = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | ']');
    (!value.is_empty() && value.len() <= TOKEN_BYTES_MAX && value.chars().all(is_token)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(message: &str, kept: &str, token: Option<&str>) {
        let (rest, found) = taken(Bytes::copy_from_slice(message.as_bytes()));
        let token = token.map_or(Token::None, |token| Token::Given(token.to_owned()));
        assert_eq!((std::str::from_utf8(&rest).unwrap(), found), (kept, token), "{message}");
    }

    #[test]
    fn the_token_is_taken_out() {
        let head = "<13>1 2026-01-02T03:04:05Z host app 7 -";
        let own = r#"[logboom@32473 token="lbt_a-B.9"]"#;
        check(&format!("{head} {own} it broke"), &format!("{head} - it broke"), Some("lbt_a-B.9"));
        check(&format!("{head} {own}"), &format!("{head} -"), Some("lbt_a-B.9"));
        let other = r#"[a@1 x="]\"]"][b]"#;
        check(&format!("{head} {other}{own} text"), &format!("{head} {other} text"), Some("lbt_a-B.9"));
        check(&format!("{head} {own}{other} text"), &format!("{head} {other} text"), Some("lbt_a-B.9"));
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for message in [
            "",
            "<13>",
            "<13>Jan  2 03:04:05 host app: [logboom@32473 token=\"x\"]",
            "<13>1 - - - - - - [logboom@32473 token=\"x\"] is text",
            "<13>1 - - - - - [other x=\"] text",
            "<13>1 - - - - - [other x=\"][logboom@324735 token=\"x",
            "<13>1 - - - - - [logboom@324735 token=\"x\"] text",
            "<13>1 - - - - - [other token=\"x\"] text",
            "13>1 - - - - - [logboom@32473 token=\"x\"] text",
            "<13>1 - - - -",
        ] {
            check(message, message, None);
        }
    }

    #[test]
    fn what_may_hide_a_token_is_told() {
        for data in [
            r#"[logboom@32473 token="x""#,
            r#"[logboom@32473 token=""] text"#,
            r#"[logboom@32473 token="a b"] text"#,
            r#"[logboom@32473 token="x" y="1"] text"#,
            r#"[logboom@32473 y="1" token="x"] text"#,
            r#"[a b="c"][logboom@32473 token=x] text"#,
            r#"[logboom@32473 token="x"][logboom@32473 token="y"] text"#,
            r#"[a b="c][logboom@32473 token="x"] text"#,
            "[logboom@32473] text",
            "[logboom@32473",
        ] {
            let message = format!("<13>1 - - - - - {data}");
            let (kept, token) = taken(Bytes::from(message.clone()));
            assert_eq!((kept.as_ref(), token), (message.as_bytes(), Token::Unreadable), "{data}");
        }
    }

    proptest! {
        #[test]
        fn nothing_else_is_lost(data in "(-|(\\[[a-z]{1,3}( [a-z]=\"[a-z \\]]{0,5}\"){0,2}\\]){0,3})", text in "[ -~]{0,30}") {
            let whole = format!("<13>1 - - - - - {data} {text}");
            let (rest, token) = taken(Bytes::from(whole.clone()));
            prop_assert_eq!((rest.as_ref(), token), (whole.as_bytes(), Token::None));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for message in [bytes.clone(), [b"<13>1 - - - - - [logboom@32473 token=\"".as_slice(), &bytes].concat()] {
                let length = message.len();
                prop_assert!(taken(message.into()).0.len() <= length);
            }
        }
    }
}
