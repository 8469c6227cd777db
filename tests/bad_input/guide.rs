//! Writes the guide.

use crate::row::Section;

const HEAD: &str = "# Bad input

What is refused, and how. This page is written from the rows of `tests/bad_input.rs`, each of which is tried on real processes by
`./justw test`; `UPDATE=1 cargo test --test bad_input guide` writes it again.

Four rules hold at every door:

- What is refused leaves nothing behind, and what was good beside it is kept.
- The text says what is wrong, where, and what to write instead. A text of yours that cannot be read comes back with its line and a caret.
- Codes: 4xx is yours to change, and nothing happened. 429 and 503 pass: send the same again after `Retry-After`. Of a 5xx answer with
  `\"outcome\": \"unknown\"` the effect may have happened: repeat with the same `Nats-Msg-Id` or `Idempotency-Key`, which is harmless.
- HTTP errors are `{\"error\": {\"code\", \"kind\", \"message\", …}}`; the broker's are the Open Service Broker's `{\"error\", \"description\"}`.
";

/// The page.
pub(crate) fn write(sections: &[Section]) -> String {
    let mut page = HEAD.to_owned();
    for section in sections {
        page += &format!(
            "\n## {}\n\n{}\n\n| Input | Answer | Says | Afterwards |\n|---|---|---|---|\n",
            section.title, section.words
        );
        for row in &section.rows {
            let says: Vec<_> = row.says.iter().map(|part| format!("`{}`", cell(part))).collect();
            page += &format!(
                "| {} | {} | {} | {} |\n",
                cell(row.input),
                cell(row.answer),
                says.join(" … "),
                cell(row.then)
            );
        }
    }
    page
}

/// A text that stays in its cell.
fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', " ")
}
