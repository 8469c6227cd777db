//! Words of a text, and patterns with `*` and `?`. Pure.

use std::ops::Range;

/// The words of a text, about as Elasticsearch's standard analyzer finds them: letters, digits and `_`; a point or an apostrophe
/// between two of them joins, and a comma between digits.
pub(crate) fn words(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut open: Option<Range<usize>> = None;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if in_word(c) {
            open = Some(open.take().map_or(at..end, |word| word.start..end));
        } else if let Some(word) = open.take() {
            let next = text[end..].chars().next().unwrap_or(' ');
            let joins = match c {
                '.' | '\'' => in_word(next),
                ',' => before.is_ascii_digit() && next.is_ascii_digit(),
                _ => false,
            };
            if joins {
                open = Some(word);
            } else {
                found.push(word);
            }
        }
        before = c;
    }
    found.extend(open);
    found
}

/// The same in small letters.
pub(crate) fn lower_words(text: &str) -> Vec<String> {
    words(text).into_iter().map(|word| text[word].to_lowercase()).collect()
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text as a regular expression that matches it alone.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Is(char),
}

fn parts(glob: &str) -> Vec<Part> {
    let mut chars = glob.chars();
    let mut all = Vec::new();
    while let Some(c) = chars.next() {
        all.push(match c {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Is(chars.next().unwrap_or('\\')),
            c => Part::Is(c),
        });
    }
    all
}

/// A pattern with `*` and `?` as a regular expression, `any` and `one` being what these stand for.
pub(crate) fn glob_regex(glob: &str, any: &str, one: &str) -> String {
    let mut out = String::new();
    for part in parts(glob) {
        match part {
            Part::Any => out.push_str(any),
            Part::One => out.push_str(one),
            Part::Is(c) => out.push_str(&escaped(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

/// Whether the whole text is like the pattern.
pub(crate) fn is_like(glob: &str, text: &str) -> bool {
    if !glob.contains(['*', '?', '\\']) {
        return glob == text;
    }
    let (parts, text): (Vec<Part>, Vec<char>) = (parts(glob), text.chars().collect());
    // Where the last `*` stands, and how much of the text it has taken.
    let (mut at, mut place, mut star) = (0, 0, None);
    while place < text.len() {
        match parts.get(at) {
            Some(Part::Any) => {
                star = Some((at, place));
                at += 1;
            }
            Some(Part::One) => (at, place) = (at + 1, place + 1),
            Some(Part::Is(c)) if *c == text[place] => (at, place) = (at + 1, place + 1),
            _ => match star {
                Some((from, taken)) => {
                    star = Some((from, taken + 1));
                    (at, place) = (from + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    parts[at..].iter().all(|part| *part == Part::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_standard_analyzer() {
        for (text, words) in [
            ("", vec![]),
            ("GET /api/v1 took 1,5s", vec!["get", "api", "v1", "took", "1,5s"]),
            ("user's 10.0.0.1: foo-bar_baz.", vec!["user's", "10.0.0.1", "foo", "bar_baz"]),
            ("Größe=ÄB, a,b", vec!["größe", "äb", "a", "b"]),
        ] {
            assert_eq!(lower_words(text), words, "{text}");
        }
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (glob, text, like) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*d*", "abcde", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("host.*", "host.name", true),
        ] {
            assert_eq!(is_like(glob, text), like, "{glob} {text}");
        }
        assert_eq!(glob_regex(r"a.*\*?", ".*", "."), r"a\..*\*.");
    }
}
