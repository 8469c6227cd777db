//! The list of settings as people read it: comments of `default.toml` as entries, suggestions and a page.

use crate::DEFAULTS;

/// Endings of keys that hold secrets; a test asserts that `default.toml` documents exactly these as secret.
const SECRET_ENDINGS: [&str; 7] = ["_secret", "token", "password", "seed", "creds", "credentials", "_key"];

/// Edits beyond which a known key is not what was meant.
const EDITS_MAX: usize = 3;

/// One setting as `default.toml` lists it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) default: String,
    pub(crate) doc: String,
}

/// Whether the value of a setting is a reference to a secret.
pub(crate) fn is_secret(path: &str) -> bool {
    // A misspelt key may still carry a secret, so the ending of a near key counts as well.
    let key = path.rsplit('.').next().unwrap_or(path);
    SECRET_ENDINGS.iter().any(|ending| {
        let bare = ending.trim_start_matches('_');
        key.ends_with(ending) || key.split('_').any(|word| edits(word, bare) <= 1)
    })
}

/// The settings of a commented TOML text in its order.
pub(crate) fn entries(text: &str) -> Vec<Entry> {
    let (mut section, mut doc, mut all) = (String::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            doc.push(comment.trim());
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
            doc.clear();
        } else if let Some((key, value)) = line.split_once(" = ") {
            all.push(Entry { path: format!("{section}.{key}"), default: value.to_owned(), doc: doc.join(" ") });
            doc.clear();
        } else {
            doc.clear();
        }
    }
    all
}

/// The known setting that was probably meant.
pub(crate) fn nearest(path: &str, known: &[Entry]) -> Option<String> {
    let key = path.rsplit('.').next()?;
    let by_path = known.iter().map(|e| (edits(path, &e.path), e)).min_by_key(|(distance, _)| *distance);
    let same_key = || known.iter().find(|e| e.path.rsplit('.').next() == Some(key));
    match by_path {
        Some((distance, entry)) if distance <= EDITS_MAX => Some(entry.path.clone()),
        _ => same_key().map(|entry| entry.path.clone()),
    }
}

/// Levenshtein's distance in one row.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The page `docs/settings.md`, generated from the comments of `default.toml`.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         Generated from `deploy/settings/default.toml`; do not edit. A test fails when this page is behind and says how to regenerate it.\n\n\
         Later wins: the defaults below < `/etc/logboom/logboom.toml` and `conf.d/*.toml` < the environment\n\
         (`LOGBOOM__SEGMENT_STORE__FLUSH_BYTES=16MiB`) < `--set segment_store.flush_bytes=16MiB`. Unknown keys are errors.\n\
         `logboom settings print` shows each value and where it came from. A change takes effect at the next start.\n\n\
         Sizes are whole numbers with `B`, `KiB`, `MiB`, `GiB` or `TiB`; durations with `ms`, `s`, `m`, `h` or `d`. A secret is given by\n\
         reference: `file:PATH` or `env:NAME`.\n",
    );
    let mut current = "";
    let all = entries(DEFAULTS);
    for entry in &all {
        let (section, key) = entry.path.rsplit_once('.').unwrap_or(("", &entry.path));
        if section != current {
            current = section;
            let about = section_doc(section);
            page.push_str(&format!("\n## {section}\n\n{about}\n\n| key | default | meaning |\n|---|---|---|\n"));
        }
        page.push_str(&format!("| `{key}` | `{}` | {} |\n", entry.default, entry.doc.replace('|', "\\|")));
    }
    page
}

fn section_doc(section: &str) -> String {
    let header = format!("[{section}]");
    let before: Vec<&str> = DEFAULTS.lines().take_while(|line| *line != header).collect();
    let comments = before.iter().rev().take_while(|line| line.starts_with('#'));
    let mut about: Vec<&str> = comments.map(|line| line.trim_start_matches('#').trim()).collect();
    about.reverse();
    about.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_meaning_and_secrets_say_so() {
        let all = entries(DEFAULTS);
        assert!(all.len() > 50);
        for entry in &all {
            assert!(entry.doc.ends_with('.') && entry.doc.len() > 15, "{}: {:?}", entry.path, entry.doc);
            assert_eq!(entry.doc.starts_with("Secret:"), is_secret(&entry.path), "{}", entry.path);
            if is_secret(&entry.path) {
                assert_eq!(entry.default, "\"\"", "{}", entry.path);
            }
        }
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "abd", 1), ("flush", "lush", 1), ("ab", "ba", 2)]
        {
            assert_eq!(edits(a, b), expected, "{a} {b}");
            assert_eq!(edits(b, a), expected, "{b} {a}");
        }
    }
}
