//! `docs/subjects.md` is generated: this test compares it, and writes it when `UPDATE=1` is set.

#[test]
fn the_reference_page_of_subjects_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/subjects.md");
    let page = wire::subjects_markdown();
    #[allow(clippy::disallowed_methods, reason = "a switch of this test, not a setting")]
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == page, "docs/subjects.md is not current: run `UPDATE=1 cargo test -p wire` and commit it");
}
