//! What could come next at a place in a query.

use super::{
    command::Command,
    cursor::{SETTINGS, field_text, in_name, name_text, quoted},
};
use crate::plan::{Function, MeasureFunction};

/// Most completions at one place.
const COMPLETIONS_MAX: usize = 50;

/// What there is, as the caller knows it.
pub struct Known<'a> {
    /// The indexes that may be read.
    pub indexes: &'a [String],
    /// The fields of the index that is read.
    pub fields: &'a [String],
    /// The values of a field, commonest first.
    pub values: &'a dyn Fn(&str) -> Vec<String>,
}

/// What a completion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionKind {
    /// A command behind a `|`.
    Command,
    /// A function of expressions.
    Function,
    /// An aggregate.
    Aggregate,
    /// A field.
    Field,
    /// A value of a field.
    Value,
    /// A setting, an index, or a word that belongs to a command.
    Word,
}

/// One text that could stand at the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// What it is.
    pub kind: CompletionKind,
    /// From which byte of the text on it replaces what stands there, up to the cursor.
    pub from: usize,
    /// What to write.
    pub text: String,
    /// What it gives, for people; may be empty.
    pub help: String,
}

/// Where the cursor stands.
struct Spot<'t> {
    /// The segment between pipes, up to the word at the cursor.
    before: &'t str,
    /// Whether the segment is a search: the first of a query.
    search: bool,
    /// The begin of a word at the cursor; may be empty.
    word: &'t str,
    from: usize,
}

/// What could stand at the cursor, a byte offset into the text; what begins like the word there comes first.
///
/// Bounds: 50 completions. A cursor outside of the text or within a character stands at the end.
pub fn complete(text: &str, cursor: usize, known: &Known<'_>) -> Vec<Completion> {
    let before = text.get(..cursor).unwrap_or(text);
    let Some(spot) = spot(before) else { return Vec::new() };
    let mut found = Vec::new();
    let mut add =
        |kind, text: String, help: &str| found.push(Completion { kind, from: spot.from, text, help: help.to_owned() });
    if let Some(field) = field_before(spot.before) {
        if field.eq_ignore_ascii_case("index") {
            known.indexes.iter().for_each(|index| add(CompletionKind::Word, index.clone(), ""));
        } else if ["since", "until"].iter().any(|setting| field.eq_ignore_ascii_case(setting)) {
            ["5m", "15m", "1h", "24h", "7d"]
                .iter()
                .for_each(|span| add(CompletionKind::Word, (*span).to_owned(), "ago"));
        } else {
            (known.values)(field).iter().for_each(|value| add(CompletionKind::Value, value_text(value), ""));
        }
    } else if spot.search {
        known.fields.iter().for_each(|field| add(CompletionKind::Field, field_text(field), ""));
        SETTINGS[..3].iter().for_each(|setting| add(CompletionKind::Word, format!("{setting}:"), "of the whole query"));
    } else {
        match spot.before.split_whitespace().next() {
            None => {
                Command::ALL
                    .iter()
                    .for_each(|command| add(CompletionKind::Command, command.name().to_owned(), command.gives));
            }
            Some(command) => of_command(command, spot.before, known, &mut add),
        }
    }
    best(found, spot.word)
}

fn of_command(command: &str, before: &str, known: &Known<'_>, add: &mut dyn FnMut(CompletionKind, String, &str)) {
    let name = Command::of(command).map_or("", Command::name);
    let grouped = before.split_whitespace().any(|word| word == "by");
    let measures = ["stats", "chart", "running", "annotate", "anomaly"].contains(&name);
    if measures && !grouped {
        for (function, words) in MeasureFunction::WORDS {
            let call = if function == MeasureFunction::Count || function == MeasureFunction::Rate { "" } else { "(" };
            add(CompletionKind::Aggregate, format!("{}{call}", words[0]), "");
        }
        ["median(", "p95(", "p99("].iter().for_each(|word| add(CompletionKind::Aggregate, (*word).to_owned(), ""));
    }
    let words: &[&str] = match name {
        "stats" | "top" | "rare" | "running" | "annotate" => &["by"],
        "chart" | "anomaly" => &["by", "every", "over"],
        "sequence" => &["then", "by", "within"],
        "session" => &["by", "gap"],
        "parse" => &["json", "logfmt", "clf", "syslog", "from"],
        "alert" => &["when", "for"],
        "rename" | "format" | "delta" => &["as"],
        "fill" => &["with"],
        "replace" => &["with", "in"],
        "into" => &["index"],
        "create" => &["view"],
        "export" => &["csv", "json", "parquet"],
        "context" => &["before", "after"],
        _ => &[],
    };
    words.iter().for_each(|word| add(CompletionKind::Word, (*word).to_owned(), ""));
    if name == "into" {
        known.indexes.iter().for_each(|index| add(CompletionKind::Word, index.clone(), ""));
    }
    if !["head", "tail", "follow", "patterns", "explain", "export", "into", "create", "sample", "compare"]
        .contains(&name)
    {
        known.fields.iter().for_each(|field| add(CompletionKind::Field, name_text(field), ""));
    }
    if ["where", "let", "alert"].contains(&name) || (measures && !grouped) {
        for function in Function::ALL {
            add(CompletionKind::Function, format!("{}(", function.words[0]), function.gives);
        }
    }
}

/// Where the text ends; `None` inside of quotes that hold no value.
fn spot(before: &str) -> Option<Spot<'_>> {
    let (mut begin, mut search, mut quote) = (0, true, None);
    // Begin and kind of the segments that an open [ interrupts.
    let mut outer: Vec<(usize, bool)> = Vec::new();
    for (i, c) in before.char_indices() {
        match (quote, c) {
            (Some((open, _)), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some((c, i)),
            (None, '|') => (begin, search) = (i + 1, false),
            (None, '[') => {
                outer.push((begin, search));
                (begin, search) = (i + 1, true);
            }
            (None, ']') => (begin, search) = outer.pop().unwrap_or((begin, search)),
            _ => {}
        }
    }
    let from = match quote {
        Some((_, at)) => at,
        None => {
            let word = before[begin..]
                .rfind(|c| !in_name(c) && c != '-')
                .map_or(0, |at| at + before[begin + at..].chars().next().map_or(1, char::len_utf8));
            let from = begin + word;
            // A sign is no part of the word behind it.
            from + before[from..].len() - before[from..].trim_start_matches('-').len()
        }
    };
    let spot =
        Spot { before: &before[begin..from], search, word: before[from..].trim_start_matches(['"', '\'', '`']), from };
    (quote.is_none() || field_before(spot.before).is_some()).then_some(spot)
}

/// The field whose value begins at the end of the text: behind `f=`, `f:`, or inside `f in (`.
fn field_before(before: &str) -> Option<&str> {
    let name = |text: &'_ str| -> Option<usize> {
        let end = text.trim_end();
        let begin = end
            .rfind(|c| !in_name(c) && c != '-')
            .map_or(0, |at| at + end[at..].chars().next().map_or(1, char::len_utf8));
        (begin < end.len()).then_some(begin)
    };
    if let Some((list, values)) = before.rsplit_once('(')
        && !values.contains(')')
        && let Some(field) = list.trim_end().strip_suffix("in").filter(|field| field.ends_with(char::is_whitespace))
    {
        let field = field.trim_end();
        return name(field).map(|begin| &field[begin..]);
    }
    let compared = before.trim_end().trim_end_matches(['=', '!', '<', '>', '~', ':']);
    let compared = if compared.len() < before.trim_end().len() { compared.trim_end() } else { return None };
    name(compared).map(|begin| &compared[begin..])
}

/// A value, in quotes where it needs them.
fn value_text(value: &str) -> String {
    let plain = !value.is_empty() && value.chars().all(|c| in_name(c) || matches!(c, '-' | '/'));
    if plain { value.to_owned() } else { quoted(value) }
}

/// The completions that begin with the word, then those that hold it.
fn best(mut found: Vec<Completion>, word: &str) -> Vec<Completion> {
    let word = word.to_lowercase();
    let place = |completion: &Completion| {
        completion.text.to_lowercase().trim_start_matches(['"', '`']).find(&word).map(|at| usize::from(at > 0))
    };
    found.retain(|completion| place(completion).is_some());
    found.sort_by_key(|completion| place(completion));
    found.truncate(COMPLETIONS_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let indexes = ["shop".to_owned(), "cart".to_owned()];
        let fields = ["service".to_owned(), "severity".to_owned(), "http.status".to_owned(), "odd name".to_owned()];
        let values = |field: &str| match field {
            "service" => vec!["cart".to_owned(), "check out".to_owned()],
            _ => Vec::new(),
        };
        let known = Known { indexes: &indexes, fields: &fields, values: &values };
        let cursor = text.find('^').expect("a cursor");
        let text = text.replace('^', "");
        let found = complete(&text, cursor, &known);
        found.into_iter().map(|one| format!("{}{}", &text[..one.from], one.text)).collect()
    }

    #[test]
    fn what_comes_next() {
        for (text, wanted) in [
            ("se^", "service"),
            ("error se^", "error severity"),
            ("error odd^", "error `odd name`"),
            ("in^", "index:"),
            ("index:sh^", "index:shop"),
            ("since:^", "since:1h"),
            ("service=^", "service=cart"),
            ("service=ch^", "service=\"check out\""),
            ("service=\"ch^", "service=\"check out\""),
            ("error service in (cart, c^", "error service in (cart, \"check out\""),
            ("error -ser^", "error -service"),
            ("| st^", "| stats"),
            ("error | ^", "error | stats"),
            ("error | stats c^", "error | stats count"),
            ("error | stats avg(http^", "error | stats avg(http.status"),
            ("error | stats count by s^", "error | stats count by service"),
            ("error | where lo^", "error | where lower("),
            ("error | sort -s^", "error | sort -service"),
            ("| join service [se^", "| join service [service"),
            ("| export p^", "| export parquet"),
        ] {
            assert!(texts(text).contains(&wanted.to_owned()), "{text}: {:?}", texts(text));
        }
        assert_eq!(texts("| stats^")[0], "| stats", "what begins so comes first");
        assert_eq!(texts("\"in a phrase se^"), Vec::<String>::new());
        assert_eq!(texts("| follow s^"), Vec::<String>::new());
    }
}
