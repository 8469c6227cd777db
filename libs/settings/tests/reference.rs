//! `docs/settings.md` follows `deploy/settings/default.toml`.
#![allow(clippy::disallowed_methods, reason = "regenerating is asked for through the environment")]

use std::{env, fs, path::Path};

#[test]
fn the_page_of_settings_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let expected = settings::reference_markdown();
    if env::var_os("UPDATE").is_some() {
        fs::write(&page, &expected).unwrap();
    }
    let found = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == expected,
        "docs/settings.md is behind default.toml: run `UPDATE=1 cargo test --workspace --locked --test reference`"
    );
}
