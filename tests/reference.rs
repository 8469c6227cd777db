//! `docs/metrics.md` is generated from the declarations in the sources; written again when `UPDATE=1` is set.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A declared metric: kind, label, help.
type Row = (String, String, String);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") && path.components().any(|c| c.as_os_str() == "src") {
            out.push(path);
        }
    }
}

/// The text between the first pair of quotes, and what comes after.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once('"')?;
    rest.split_once('"')
}

/// Reads `NAME: Kind["label"] = "lb_…", "help";` declarations out of `metrics! { … }` blocks.
fn declared(text: &str, out: &mut BTreeMap<String, Row>) {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    for block in product.split("metrics! {").skip(1) {
        let block = block.split("\n}").next().unwrap_or_default();
        for line in block.split(';') {
            let Some((left, right)) = line.split_once(" = ") else { continue };
            let Some((_, kind)) = left.split_once(": ") else { continue };
            let Some((name, rest)) = quoted(right).filter(|(name, _)| name.starts_with("lb_")) else { continue };
            let Some((help, _)) = quoted(rest) else { continue };
            let label = quoted(kind).map_or("", |(label, _)| label);
            let kind = kind.split('[').next().unwrap_or_default().trim().to_lowercase();
            out.insert(name.to_owned(), (kind, label.to_owned(), help.to_owned()));
        }
    }
}

#[test]
fn the_reference_page_of_metrics_is_current() {
    let mut files = Vec::new();
    for dir in ["libs", "services"] {
        sources(&root().join(dir), &mut files);
    }
    let mut rows = BTreeMap::new();
    for path in files.iter().filter(|p| !p.ends_with("telemetry/src/lib.rs")) {
        declared(&fs::read_to_string(path).unwrap(), &mut rows);
    }
    assert!(rows.len() > 20, "only {} metrics were found: did the form of a declaration change?", rows.len());
    let mut page = String::from(
        "# Metrics\n\nGenerated from the `metrics!` blocks of the sources; change them there. Every service answers `/metrics` on its `probe_address`.\n\n\
         | metric | kind | label | what it says |\n|---|---|---|---|\n",
    );
    for (name, (kind, label, help)) in &rows {
        let label = if label.is_empty() { String::new() } else { format!("`{label}`") };
        page += &format!("| `{name}` | {kind} | {label} | {help} |\n");
    }
    let path = root().join("docs/metrics.md");
    #[allow(clippy::disallowed_methods, reason = "a switch of this test, not a setting")]
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/metrics.md is not current: run `./justw generate` and commit it");
}
