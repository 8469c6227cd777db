//! `docs/subjects.md` and `docs/errors/` are generated: these tests compare them, and write them when `UPDATE=1` is set.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{fs, path::Path};

/// Compares a generated page below `docs/` with the committed one, or writes it.
fn check(file: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file);
    #[allow(clippy::disallowed_methods, reason = "a switch of this test, not a setting")]
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/{file} is not current: run `./justw generate` and commit it");
}

#[test]
fn the_reference_page_of_subjects_is_current() {
    check("subjects.md", &wire::subjects_markdown());
}

#[test]
fn the_pages_of_errors_are_current() {
    wire::pages_markdown().iter().for_each(|(file, page)| check(&format!("errors/{file}"), page));
}
