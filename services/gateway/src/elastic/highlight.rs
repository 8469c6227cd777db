//! Marks around the words of a hit that a query looked for. Pure.

use serde_json::{Map, Value, json};

use super::{
    clause::Test,
    field::{Field, shown},
    refused::{Refused, count, listed, object, text},
    shown::PATTERNS_MAX,
    words::{is_like, words},
};

/// As long is a fragment where nothing is said.
const FRAGMENT_CHARS: usize = 100;
/// So many fragments there are where nothing is said.
const FRAGMENTS: usize = 5;
const FRAGMENTS_MAX: usize = 1_000;
/// The longest mark.
const TAG_BYTES_MAX: usize = 256;
/// So many bytes of marks are put into a text beside as many as it has itself; what comes behind stays unmarked.
const MARKS_BYTES: usize = 4 << 10;

/// What shall be marked, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Highlight {
    fields: Vec<String>,
    before: String,
    after: String,
    fragment: usize,
    fragments: usize,
    wanted: Vec<(Field, Wanted)>,
}

/// What a query looks for in a field.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Word(String),
    /// A word, or of another field than the message the value, like a pattern.
    Like(String),
    Whole(String),
}

impl Highlight {
    pub(crate) fn read(members: &Map<String, Value>) -> Result<Self, Refused> {
        if members.contains_key("highlight_query") {
            return Err(Refused::absent("highlight_query"));
        }
        let fields: Vec<String> = match members.get("fields") {
            Some(Value::Object(fields)) => fields.keys().cloned().collect(),
            Some(Value::Array(all)) => {
                let keys = all.iter().map(|one| Ok(object(one, "fields")?.keys().cloned().collect::<Vec<_>>()));
                keys.collect::<Result<Vec<_>, Refused>>()?.concat()
            }
            _ => Vec::new(),
        };
        if fields.len() > PATTERNS_MAX {
            return Err(Refused::illegal(format!("[highlight] has more than {PATTERNS_MAX} fields")));
        }
        let tag = |name: &str, default: &str| {
            let first = members.get(name).and_then(|tags| listed(tags).first());
            let tag = first.map_or(Ok(default.to_owned()), |tag| text(tag, name))?;
            if tag.len() > TAG_BYTES_MAX {
                return Err(Refused::illegal(format!("[{name}] is longer than {TAG_BYTES_MAX} bytes")));
            }
            Ok(tag)
        };
        let number = |name: &str, default| members.get(name).map_or(Ok(default), |value| count(value, name));
        Ok(Self {
            fields,
            before: tag("pre_tags", "<em>")?,
            after: tag("post_tags", "</em>")?,
            fragment: number("fragment_size", FRAGMENT_CHARS)?,
            fragments: number("number_of_fragments", FRAGMENTS)?.min(FRAGMENTS_MAX),
            wanted: Vec::new(),
        })
    }

    /// Takes note of what a query looks for.
    pub(crate) fn look_for(&mut self, test: &Test) {
        match test {
            Test::Words { words, .. } => {
                self.wanted.extend(words.iter().map(|word| (Field::Message, Wanted::Word(word.clone()))));
            }
            Test::Phrase { words, open } => {
                for (number, word) in words.iter().enumerate() {
                    let begins = *open && number + 1 == words.len();
                    let wanted = if begins {
                        Wanted::Like(format!("{}*", super::clause::plain(word)))
                    } else {
                        Wanted::Word(word.clone())
                    };
                    self.wanted.push((Field::Message, wanted));
                }
            }
            Test::OneOf { field, values, .. } => {
                let whole =
                    |value: &Value| (field.clone(), Wanted::Whole(super::condition::shown(value).to_lowercase()));
                self.wanted.extend(values.iter().map(whole));
            }
            Test::Like { field, glob, .. } => self.wanted.push((field.clone(), Wanted::Like(glob.to_lowercase()))),
            Test::All(tests) | Test::Any { of: tests, .. } => tests.iter().for_each(|test| self.look_for(test)),
            _ => {}
        }
    }

    /// Whether a field may be marked.
    pub(crate) fn wants(&self, field: &str) -> bool {
        let plain = |pattern: &str| pattern.strip_suffix(".keyword").unwrap_or(pattern).to_owned();
        self.fields.iter().any(|pattern| is_like(&plain(pattern), field))
    }

    /// The marked fragments of a row's texts.
    pub(crate) fn of(&self, row: &Map<String, Value>) -> Map<String, Value> {
        let mut all = Map::new();
        for (column, value) in row {
            let (Some(field), Some(value)) = (shown(column), value.as_str()) else { continue };
            if column.starts_with('#') || matches!(column.as_str(), "_time" | "_received") || !self.wants(&field) {
                continue;
            }
            let fragments =
                if column == "_msg" { self.of_words(value) } else { self.of_value(&Field::of(&field), value) };
            if !fragments.is_empty() {
                all.insert(field, json!(fragments));
            }
        }
        all
    }

    fn of_value(&self, field: &Field, value: &str) -> Vec<String> {
        let lower = value.to_lowercase();
        let found = self.wanted.iter().any(|(of, wanted)| {
            of == field
                && match wanted {
                    Wanted::Word(word) | Wanted::Whole(word) => *word == lower,
                    Wanted::Like(glob) => is_like(glob, &lower),
                }
        });
        if found { vec![format!("{}{value}{}", self.before, self.after)] } else { Vec::new() }
    }

    fn of_words(&self, value: &str) -> Vec<String> {
        let is_wanted = |word: &str| {
            let lower = word.to_lowercase();
            self.wanted.iter().any(|(of, wanted)| {
                *of == Field::Message
                    && match wanted {
                        Wanted::Word(word) => *word == lower,
                        Wanted::Like(glob) => is_like(glob, &lower),
                        Wanted::Whole(_) => false,
                    }
            })
        };
        let whole = self
            .wanted
            .iter()
            .any(|(of, wanted)| *of == Field::MessageWhole && *wanted == Wanted::Whole(value.to_lowercase()));
        if whole {
            return vec![format!("{}{value}{}", self.before, self.after)];
        }
        let added = (self.before.len() + self.after.len()).max(1);
        let marks = words(value).into_iter().filter(|word| is_wanted(&value[word.clone()]));
        let marks: Vec<_> = marks.take((value.len() + MARKS_BYTES) / added).collect();
        // Where no fragments are wanted, or one holds it all, the text stays whole.
        let is_whole = self.fragments == 0 || value.chars().count() <= self.fragment;
        let mut fragments: Vec<String> = Vec::new();
        let mut at = 0;
        while at < marks.len() {
            if !is_whole && fragments.len() == self.fragments {
                break;
            }
            let (begin, end) = if is_whole { (0, value.len()) } else { self.around(value, marks[at].start) };
            let (mut out, mut place, first) = (String::new(), begin, at);
            // The first is in it, if need be cut.
            while let Some(mark) = marks.get(at).filter(|mark| at == first || mark.end <= end) {
                let to = mark.end.min(end);
                out.push_str(&value[place..mark.start]);
                out.push_str(&self.before);
                out.push_str(&value[mark.start..to]);
                out.push_str(&self.after);
                (place, at) = (to, at + 1);
            }
            out.push_str(&value[place..end]);
            fragments.push(out);
        }
        fragments
    }

    /// A piece of a text around a place, of whole characters, that begins before the place by a quarter of its length.
    fn around(&self, value: &str, place: usize) -> (usize, usize) {
        let length = self.fragment.max(1);
        let before = value[..place].char_indices().rev().take(length / 4).last().map_or(place, |(at, _)| at);
        let end = value[before..].char_indices().nth(length).map_or(value.len(), |(at, _)| before + at);
        (before, end)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::condition::reading, *};

    fn marked(highlight: Value, query: Value, row: Value) -> Value {
        let mut highlight = Highlight::read(highlight.as_object().unwrap()).unwrap();
        highlight.look_for(&reading().query(&query).unwrap());
        Value::Object(highlight.of(row.as_object().unwrap()))
    }

    #[test]
    fn words_are_marked() {
        let every = json!({"fields": {"*": {}}, "fragment_size": 2_147_483_647, "pre_tags": ["<"], "post_tags": [">"]});
        let row = json!({"_msg": "Time-out of a timer: timed out", "host.name": "Time", "took": 3, "_time": "x"});
        for (query, expected) in [
            (json!({"match": {"message": "time OUT"}}), json!({"message": ["<Time>-<out> of a timer: timed <out>"]})),
            (json!({"query_string": {"query": "time*"}}), json!({"message": ["<Time>-out of a <timer>: <timed> out"]})),
            (
                json!({"match_phrase_prefix": {"message": "a tim"}}),
                json!({"message": ["<Time>-out of <a> <timer>: <timed> out"]}),
            ),
            (json!({"term": {"host.name": "Time"}}), json!({"host.name": ["<Time>"]})),
            (json!({"bool": {"must_not": {"match": {"message": "out"}}}}), json!({})),
            (json!({"match_all": {}}), json!({})),
        ] {
            assert_eq!(marked(every.clone(), query.clone(), row.clone()), expected, "{query}");
        }
    }

    #[test]
    fn marks_are_bounded() {
        let tag = |name: &str, length: usize| json!({"fields": {"*": {}}, "fragment_size": 1_000_000, name: ["x".repeat(length)]});
        let many =
            |count: usize| json!({"fields": [(0..count).map(|n| (n.to_string(), json!({}))).collect::<Value>()]});
        for (highlight, words) in [
            (tag("pre_tags", TAG_BYTES_MAX), None),
            (tag("pre_tags", TAG_BYTES_MAX + 1), Some("[pre_tags]")),
            (tag("post_tags", TAG_BYTES_MAX + 1), Some("[post_tags]")),
            (many(PATTERNS_MAX), None),
            (many(PATTERNS_MAX + 1), Some("fields")),
        ] {
            let refused = Highlight::read(highlight.as_object().unwrap()).err().map(|refused| refused.reason);
            assert_eq!(refused.is_some(), words.is_some());
            assert!(words.is_none_or(|words| refused.unwrap().contains(words)), "{words:?}");
        }
        let text = "a ".repeat(10_000);
        let found = marked(tag("pre_tags", 256), json!({"match": {"message": "a"}}), json!({"_msg": text}));
        let marked = found["message"][0].as_str().unwrap();
        assert!(marked.len() > text.len() && marked.len() <= 2 * text.len() + MARKS_BYTES, "{}", marked.len());
        assert!(marked.ends_with("a a "));
    }

    #[test]
    fn long_texts_become_fragments() {
        let long = format!("{} needle {} needle end", "ä ".repeat(100), "b ".repeat(100));
        let short = json!({"fields": {"message": {}}, "fragment_size": 20, "number_of_fragments": 2});
        let found = marked(short, json!({"match": {"message": "needle"}}), json!({"_msg": long}));
        let fragments = found["message"].as_array().unwrap();
        assert_eq!(fragments.len(), 2);
        for fragment in fragments {
            let plain = fragment.as_str().unwrap().replace("<em>", "").replace("</em>", "");
            assert!(
                fragment.as_str().unwrap().contains("<em>needle</em>") && plain.chars().count() <= 20,
                "{fragment}"
            );
        }
    }
}
