//! Everything declared, as rows: documentation, permissions and the caller graph are made from them.

use crate::{
    Service, alerter, broker, coordinator, index_provisioner, job_manager, segment_store, subjects, task_worker,
};

/// One declared subject.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// `call`, `event` or `record`.
    pub kind: &'static str,
    /// The type's name.
    pub name: &'static str,
    /// The subject with `{holes}`.
    pub pattern: &'static str,
    /// Who answers a call, tells an event or keeps a record.
    pub owner: Service,
    /// The request or body type.
    pub request: &'static str,
    /// The reply type of a call.
    pub reply: &'static str,
    /// The retry rule of a call.
    pub retry: &'static str,
    /// What a program outside the platform needs to make a call; empty: it cannot.
    pub outer: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

/// Every row, in the order of the services.
pub fn registry() -> Vec<Row> {
    [
        coordinator::CALLS,
        segment_store::CALLS,
        index_provisioner::CALLS,
        broker::CALLS,
        job_manager::CALLS,
        task_worker::CALLS,
        alerter::CALLS,
        coordinator::EVENTS,
        segment_store::EVENTS,
        task_worker::EVENTS,
        subjects::RECORDS,
    ]
    .concat()
}

/// The reference page `docs/subjects.md`.
pub fn subjects_markdown() -> String {
    let mut out = String::from(
        "# Subjects\n\nGenerated from `libs/wire`; change it there. Bodies are MessagePack maps unless said otherwise.\n\n\
         Calls with an entry under `outside` can also be made with a binding's credentials, under `ext.v1.<index>.<binding>.<role>.` and \
         what follows `lb.v1.`, with the header `Lb-Delegation`; see decision 0009.\n\n\
         | kind | name | subject | owner | request or body | reply | repeat | outside | what it does |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in registry() {
        let cell = |s: &str| if s.is_empty() { String::new() } else { format!("`{s}`") };
        out += &format!(
            "| {} | {} | `{}` | {} | {} | {} | {} | {} | {} |\n",
            row.kind,
            cell(row.name),
            row.pattern,
            row.owner,
            cell(row.request),
            cell(row.reply),
            row.retry,
            row.outer.to_lowercase(),
            row.doc.trim()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_unique_and_follow_the_grammar() {
        let rows = registry();
        let mut seen = std::collections::BTreeSet::new();
        for row in &rows {
            assert!(seen.insert(row.pattern), "{} is declared twice", row.pattern);
            let ours = format!("lb.v1.{}.", row.owner);
            match row.kind {
                "call" => assert!(row.pattern.starts_with(&ours), "{}", row.pattern),
                "event" => assert!(row.pattern.starts_with(&format!("lb.v1.evt.{}.", row.owner)), "{}", row.pattern),
                _ => {}
            }
        }
    }
}
