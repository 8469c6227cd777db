//! The failures that people meet, each with a number that never changes, and what to do about it.
//!
//! Numbers: 1000 streams and segments, 2000 jobs and tasks, 3000 indexes and credentials, 4000 rules and notifications,
//! 5000 HTTP and queries, 9000 what lies underneath. The pages in `docs/errors/` are generated from here.

mod rows;

use crate::{Code, Problem};

pub use rows::KINDS;

/// One kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its number, written `LB-nnnn`.
    pub number: u16,
    /// Its name: [`Problem::kind`].
    pub name: &'static str,
    /// Its class.
    pub code: Code,
    /// Whether the effect can have happened: `not applied`, `unknown`, or when which.
    pub outcome: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// The kind of this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

impl Problem {
    /// The number under which `docs/errors/` tells what to do, as `LB-nnnn`.
    pub fn lb_code(&self) -> Option<String> {
        kind(&self.kind).map(|kind| format!("LB-{:04}", kind.number))
    }
}

/// Titles of the pages, with the first number of each.
const PAGES: [(u16, &str, &str); 6] = [
    (1000, "streams", "Streams, segments, transactions, reader groups"),
    (2000, "jobs", "Jobs and tasks"),
    (3000, "indexes", "Indexes, bindings and credentials"),
    (4000, "alerts", "Rules and notifications"),
    (5000, "http", "HTTP, queries and ingest"),
    (9000, "platform", "What lies underneath"),
];

/// The reference pages: file name below `docs/errors/`, and text.
pub fn pages_markdown() -> Vec<(String, String)> {
    let mut index = String::from(
        "# Errors\n\nGenerated from `libs/wire`; change it there. Every failure carries a kind and a number; the number never changes.\n\n\
         | number | kind | status | page |\n|---|---|---|---|\n",
    );
    let mut out = Vec::new();
    for (first, file, title) in PAGES {
        let mut page = format!("# {title}\n\nGenerated from `libs/wire`; change it there.\n");
        for kind in KINDS.iter().filter(|k| k.number / 1000 == first / 1000) {
            let (number, name, status) = (kind.number, kind.name, kind.code.status());
            index += &format!("| LB-{number:04} | `{name}` | {status} | [{file}]({file}.md#lb-{number:04}) |\n");
            page += &format!(
                "\n## LB-{number:04}\n\n`{name}`, {:?} ({status}). Outcome: {}.\n\n{}\n\n**What to do.** {}\n",
                kind.code, kind.outcome, kind.meaning, kind.remedy
            );
        }
        out.push((format!("{file}.md"), page));
    }
    out.push(("README.md".to_owned(), index));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_in_order() {
        assert!(KINDS.windows(2).all(|w| w[0].number < w[1].number), "numbers ascend");
        let names: std::collections::BTreeSet<_> = KINDS.iter().map(|k| k.name).collect();
        assert_eq!(names.len(), KINDS.len());
        assert!(KINDS.iter().all(|k| PAGES.iter().any(|(first, ..)| k.number / 1000 == first / 1000)));
    }

    #[test]
    fn a_problem_knows_its_number() {
        assert_eq!(Problem::conflict("SegmentSealed", "x").lb_code().as_deref(), Some("LB-1003"));
        assert_eq!(Problem::conflict("Unheard", "x").lb_code(), None);
    }
}
