//! Stage 2: which distinct signatures differ in values alone. In the manner of Brain (IEEE TSC 2023), with counts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use types::hash64;

use super::{SignatureEntry, Token};

/// At how many different words a position is taken for a value rather than for the names of different templates.
pub const BRANCHES: usize = 6;

/// Names a template: a hash of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateId(pub u64);

impl TemplateId {
    /// The id of a text.
    pub fn of(text: &str) -> Self {
        Self(hash64(text.as_bytes()))
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Signatures that are one message with different values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The hash of `text`.
    pub id: TemplateId,
    /// The words that all signatures share, `<*>` where they differ or have variables.
    pub text: String,
    /// The signatures, in ascending order.
    pub signatures: Vec<u64>,
    /// How many lines have them.
    pub count: u64,
}

/// Splits signatures into templates, most lines first.
///
/// A position within a group is a value, `<*>`, once it has `branches` different words or more; with fewer each word is
/// a template of its own. The order of `entries` does not matter.
pub(super) fn templates(entries: &[SignatureEntry], branches: usize) -> Vec<Template> {
    let mut shapes: HashMap<Vec<u8>, Vec<&SignatureEntry>> = HashMap::new();
    for entry in entries {
        shapes.entry(shape(&entry.tokens)).or_default().push(entry);
    }
    let mut found: BTreeMap<String, Template> = BTreeMap::new();
    for group in shapes.values().flat_map(|members| split(members, branches)) {
        let text = text(&group);
        let id = TemplateId::of(&text);
        let template =
            found.entry(text.clone()).or_insert_with(|| Template { id, text, signatures: Vec::new(), count: 0 });
        template.signatures.extend(group.iter().map(|entry| entry.signature));
        template.count = group.iter().fold(template.count, |sum, entry| sum.saturating_add(entry.count));
    }
    let mut templates: Vec<_> = found.into_values().collect();
    templates.iter_mut().for_each(|template| template.signatures.sort_unstable());
    templates.sort_by_key(|template| std::cmp::Reverse(template.count));
    templates
}

/// One byte a token: its delimiter, or 0.
fn shape(tokens: &[Token]) -> Vec<u8> {
    tokens.iter().map(|token| if let Token::Delimiter(byte) = token { *byte } else { 0 }).collect()
}

type Group<'e> = Vec<&'e SignatureEntry>;

/// How many lines of a shape have a word, by position.
type Counts<'e> = Vec<HashMap<&'e str, u64>>;

/// The words of a signature that are about as frequent as its most frequent one, and how frequent they are.
type Root<'e> = (u64, Vec<(usize, &'e str)>);

fn word(entry: &SignatureEntry, position: usize) -> Option<&str> {
    if let Some(Token::Word(word)) = entry.tokens.get(position) { Some(word) } else { None }
}

fn words(entry: &SignatureEntry) -> impl Iterator<Item = (usize, &str)> {
    (0..entry.tokens.len()).filter_map(|position| Some((position, word(entry, position)?)))
}

/// Splits the signatures of one shape.
fn split<'e>(members: &[&'e SignatureEntry], branches: usize) -> Vec<Group<'e>> {
    let length = members.first().map_or(0, |entry| entry.tokens.len());
    let mut counts: Counts<'e> = vec![HashMap::new(); length];
    for entry in members {
        for (position, word) in words(entry) {
            let count = counts[position].entry(word).or_insert(0);
            *count = u64::saturating_add(*count, entry.count);
        }
    }
    let mut groups: BTreeMap<Root<'e>, Group<'e>> = BTreeMap::new();
    for &entry in members {
        groups.entry(root(entry, &counts)).or_default().push(entry);
    }
    groups.into_iter().flat_map(|(root, group)| branch(&root, group, &counts, branches)).collect()
}

fn root<'e>(entry: &'e SignatureEntry, counts: &Counts<'e>) -> Root<'e> {
    let frequency = |position: usize, word: &str| counts[position].get(word).copied().unwrap_or(0);
    let highest = words(entry).map(|(position, word)| frequency(position, word)).max().unwrap_or(0);
    let mut by_frequency: BTreeMap<u64, Vec<(usize, &str)>> = BTreeMap::new();
    for (position, word) in words(entry) {
        let count = frequency(position, word);
        if count >= highest.div_ceil(2) {
            by_frequency.entry(count).or_default().push((position, word));
        }
    }
    // Of sets of one size the last, which has the higher frequency.
    by_frequency.into_iter().max_by_key(|(_, words)| words.len()).unwrap_or_default()
}

/// Splits a group of one root at the positions whose words look like names.
fn branch<'e>(root: &Root<'e>, group: Group<'e>, counts: &Counts<'e>, branches: usize) -> Vec<Group<'e>> {
    let (root_frequency, root_words) = root;
    let mut children: Vec<(usize, usize)> = Vec::new();
    for (position, counts) in counts.iter().enumerate() {
        if root_words.iter().any(|(at, _)| *at == position) {
            continue;
        }
        let distinct: Option<BTreeSet<&str>> = group.iter().map(|entry| word(entry, position)).collect();
        // A variable or a delimiter.
        let Some(distinct) = distinct else { continue };
        if !distinct.iter().any(|word| counts.get(word).is_some_and(|count| count > root_frequency)) {
            children.push((distinct.len(), position));
        }
    }
    children.sort_unstable();
    let mut groups = vec![group];
    for (_, position) in children {
        groups = groups.into_iter().flat_map(|group| split_at(group, position, branches)).collect();
    }
    groups
}

fn split_at(group: Group<'_>, position: usize, branches: usize) -> Vec<Group<'_>> {
    let mut by_word: BTreeMap<Option<&str>, Group<'_>> = BTreeMap::new();
    for &entry in &group {
        by_word.entry(word(entry, position)).or_default().push(entry);
    }
    if by_word.len() < branches { by_word.into_values().collect() } else { vec![group] }
}

/// The text of a template: a canonical one, whatever the white space of the lines.
fn text(group: &Group<'_>) -> String {
    let Some((first, others)) = group.split_first() else { return String::new() };
    let mut text = String::new();
    let (mut open, mut glued) = (false, true);
    for (position, token) in first.tokens.iter().enumerate() {
        let agreed = others.iter().all(|entry| entry.tokens[position] == *token);
        let token = if agreed { token } else { &Token::Variable };
        let (before, after) = match token {
            Token::Delimiter(b'"') => {
                open = !open;
                (open, !open)
            }
            Token::Delimiter(byte) => (SPACED_BEFORE.contains(byte), SPACED_AFTER.contains(byte)),
            Token::Word(_) | Token::Variable => (true, true),
        };
        if before && !glued {
            text.push(' ');
        }
        text.push_str(&token.to_string());
        glued = !after;
    }
    text
}

/// Delimiters with a blank before them, and those with one behind them; `=` and `'` have none.
const SPACED_BEFORE: &[u8] = b"([{<>|";
const SPACED_AFTER: &[u8] = b")]},;:<>|";
