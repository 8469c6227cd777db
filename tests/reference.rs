//! `docs/metrics.md` is generated from the declarations in the sources; written again when `UPDATE=1` is set. Every kind of failure has a page.

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

/// Constructors of a problem, and what stands before the name of its kind.
const NAMED: [&str; 7] =
    ["bad_request(", "not_found(", "conflict(", "unavailable(", "throttled(", "forbidden(", "(Code::"];

/// The kinds that a source gives to its problems.
fn kinds(text: &str, out: &mut BTreeMap<String, String>, path: &str) {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String =
        product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for constructor in NAMED {
        for rest in code.split(constructor).skip(1) {
            // A code stands before the name: `Code::Conflict, "SegmentSealed"`.
            let rest = if constructor == "(Code::" { rest.split_once(',').map_or("", |(_, rest)| rest) } else { rest };
            let Some(name) = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                continue;
            };
            let camel = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(char::is_alphanumeric);
            if camel {
                out.insert(name.to_owned(), path.to_owned());
            }
        }
    }
}

#[test]
fn every_kind_of_failure_has_a_number_and_a_page() {
    let mut files = Vec::new();
    for dir in ["libs", "services"] {
        sources(&root().join(dir), &mut files);
    }
    let mut found = BTreeMap::new();
    for path in files.iter().filter(|p| !p.to_string_lossy().contains("test") && !p.ends_with("fake.rs")) {
        kinds(&fs::read_to_string(path).unwrap(), &mut found, &path.to_string_lossy());
    }
    assert!(found.len() > 80, "only {} kinds were found: did the form of a problem change?", found.len());
    let missing: Vec<_> = found.iter().filter(|(name, _)| wire::kind(name).is_none()).collect();
    assert!(missing.is_empty(), "kinds without a row in libs/wire/src/kind/rows.rs: {missing:?}");
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
