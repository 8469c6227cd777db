//! The rules of the house: floors, files, words, dependencies. Reads `cargo metadata` and the sources; takes no part in the product.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also outside of its test functions")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

/// Longest source file: what is longer cannot be read in one sitting.
const LINES_MAX: usize = 600;
/// Nine in ten files are shorter than this.
const LINES_AIM: usize = 400;

/// The floors of the house. An edge goes strictly down; crates on one floor never know each other.
const FLOORS: [&[&str]; 7] = [
    &["types"],
    &["wire", "settings", "query", "ingest", "chunk", "flow", "formats", "snapshot", "quota", "encryption"],
    &["bus", "store", "exchange", "sandbox", "telemetry", "tls", "kubernetes"],
    &["host", "engine", "client", "testkit"],
    &[
        "broker",
        "index-provisioner",
        "segment-store",
        "coordinator",
        "job-manager",
        "task-worker",
        "alerter",
        "gateway",
    ],
    &["logboom"],
    &["logboom-fuzzed", "logboom-tests"],
];

/// What floors 0 and 1 never say outside of tests: they hold the thinking and touch nothing.
const OUTSIDE: [&str; 11] = [
    "tokio",
    "actix",
    "std::fs",
    "fs::",
    "std::net",
    "TcpStream",
    "SystemTime",
    "Instant::now",
    "std::env",
    "std::thread",
    "std::process",
];

/// Names that only one crate of the house may say.
const OWNED: [(&str, &str); 5] = [
    ("async_nats", "libs/bus/"),
    ("sled", "libs/store/"),
    ("object_store", "libs/store/"),
    ("kube", "libs/kubernetes/"),
    ("k8s_openapi", "libs/kubernetes/"),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    path: Option<PathBuf>,
    kind: Option<String>,
}

impl Dependency {
    /// A room's own tests may stand in a world of `testkit`; no product code sees it, so no circle can come of it.
    fn is_test_world(&self) -> bool {
        self.name == "testkit" && self.kind.as_deref() == Some("dev")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn metadata() -> Metadata {
    // Packages for other systems are not downloaded and would be asked for.
    let rustc = Command::new("rustc").arg("-vV").current_dir(root()).output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn members(all: &Metadata) -> impl Iterator<Item = &Package> {
    all.packages.iter().filter(|package| all.workspace_members.contains(&package.id))
}

/// Every Rust source below the given folders with its path from the root, sorted.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != "node_modules" {
                walk(&path, found);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    folders.iter().for_each(|folder| walk(&root().join(folder), &mut found));
    found.sort();
    let named = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text)
    };
    found.into_iter().map(named).collect()
}

/// The code of a file: without comments and without the tests at its bottom.
fn code(text: &str) -> String {
    let above_tests = text.split("#[cfg(test)]\nmod ").next().unwrap_or("");
    let lines = above_tests.lines().map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether `word` stands in `code` as a word of its own.
fn says(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(part);
        let after = word.ends_with(part) && code[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

fn none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn an_edge_goes_strictly_down() {
    let floor_of = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    let all = metadata();
    let mut wrong = Vec::new();
    for package in members(&all) {
        let Some(floor) = floor_of(&package.name) else {
            wrong.push(format!("{} stands on no floor: add it to FLOORS", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.path.is_some() && !d.is_test_world()) {
            if floor_of(&dependency.name).is_none_or(|below| below >= floor) {
                wrong.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    none("an edge goes strictly down at least one floor (DESIGN: the house)", wrong);
}

#[test]
fn floors_0_and_1_touch_nothing() {
    let mut wrong = Vec::new();
    for name in FLOORS[0].iter().chain(FLOORS[1]) {
        for (path, text) in sources(&[&format!("libs/{name}/src")]) {
            let code = code(&text);
            let said = OUTSIDE.iter().filter(|word| says(&code, word));
            wrong.extend(said.map(|word| format!("{path} says {word}")));
        }
    }
    none("floors 0 and 1 are sans-I/O: take time, bytes and texts as arguments", wrong);
}

#[test]
fn each_outside_system_has_one_owner() {
    let mut wrong = Vec::new();
    for (path, text) in sources(&["libs", "services"]).iter().filter(|(path, _)| path.contains("/src/")) {
        let code = code(text);
        for (word, owner) in OWNED {
            let path_use = ["::", ";", " as ", "{"].iter().any(|next| says(&code, &format!("{word}{next}")));
            if path_use && !path.starts_with(owner) {
                wrong.push(format!("{path} says {word}: only {owner} may"));
            }
        }
    }
    none("one crate speaks to each outside system", wrong);
}

#[test]
fn every_crate_says_what_it_owns() {
    let all = metadata();
    let mut wrong = Vec::new();
    for package in members(&all) {
        let folder = package.manifest_path.parent().unwrap().join("src");
        let file = ["lib.rs", "main.rs"].iter().map(|name| folder.join(name)).find(|path| path.exists()).unwrap();
        let text = fs::read_to_string(file).unwrap();
        let doc = text.lines().take_while(|line| line.starts_with("//!")).count();
        if doc < 3 {
            wrong.push(format!("{}: its doc has {doc} lines", package.name));
        }
    }
    none("a crate begins with its doc: what it owns, what it deliberately does not know, one example", wrong);
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let all = sources(&["libs", "services", "tests"]);
    let lengths: Vec<_> = all.iter().map(|(path, text)| (path, text.lines().count())).collect();
    let long = lengths.iter().filter(|(_, lines)| *lines > LINES_MAX);
    none("no file is longer than 600 lines", long.map(|(path, lines)| format!("{path}: {lines}")).collect());
    let above: Vec<_> = lengths.iter().filter(|(_, lines)| *lines > LINES_AIM).map(|(path, _)| path).collect();
    assert!(above.len() * 10 <= lengths.len(), "more than one file in ten is longer than {LINES_AIM} lines: {above:?}");
}

#[test]
fn modules_are_named_by_their_field() {
    let banned = ["util", "utils", "common", "helper", "helpers", "misc", "mod"];
    let all = sources(&["libs", "services", "tests"]);
    let wrong = all.iter().filter(|(path, _)| {
        // What the tests of a crate share must be `<word>/mod.rs`: cargo would take `tests/<word>.rs` for a test.
        let shared_by_tests = path.contains("/tests/") && path.ends_with("/mod.rs");
        let name = if shared_by_tests { path.trim_end_matches("/mod.rs") } else { path.as_str() };
        Path::new(name).with_extension("").iter().any(|part| banned.contains(&part.to_string_lossy().as_ref()))
    });
    none(
        "a module is named by its field, and foo.rs stands beside foo/",
        wrong.map(|(path, _)| path.clone()).collect(),
    );
}

#[test]
fn manifests_inherit_from_the_workspace() {
    let all = metadata();
    let mut wrong = Vec::new();
    for package in members(&all) {
        let text = fs::read_to_string(&package.manifest_path).unwrap();
        if !text.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{}: [lints] workspace = true is missing", package.name));
        }
        let own = text.lines().filter(|line| line.contains("version = \"") || line.contains("path = \"../"));
        wrong.extend(own.map(|line| format!("{}: {line}", package.name)));
    }
    none("every version stands once, in the root manifest", wrong);
}

#[test]
fn the_readme_names_the_two_commands() {
    let readme = text("README.md");
    for command in ["./justw up", "./justw test"] {
        assert!(readme.contains(command), "README.md does not name `{command}`");
    }
    let justfile = text("justfile");
    for recipe in ["\nup ", "\ntest "] {
        assert!(justfile.contains(recipe), "justfile has no recipe{recipe}");
    }
    assert!(text(".ci/run").contains("./justw test"), ".ci/run runs what the README's test command runs");
}

/// `deny.toml` as this test reads it.
#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
    duplicates: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    name: String,
    version: Option<String>,
    reason: String,
}

fn deny() -> Deny {
    let list = config::File::from_str(&text("deny.toml"), config::FileFormat::Toml);
    config::Config::builder().add_source(list).build().unwrap().try_deserialize().unwrap()
}

/// Whether a licence expression can be met with the allowed licences; `/` is the old way to write OR.
fn met(expression: &str, allowed: &impl Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = any(&tokens, &mut at, allowed);
    result && at == tokens.len()
}

fn any(tokens: &[&str], at: &mut usize, allowed: &impl Fn(&str) -> bool) -> bool {
    let mut result = every(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        result |= every(tokens, at, allowed);
    }
    result
}

fn every(tokens: &[&str], at: &mut usize, allowed: &impl Fn(&str) -> bool) -> bool {
    let mut result = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(tokens, at, allowed);
    }
    result
}

fn one(tokens: &[&str], at: &mut usize, allowed: &impl Fn(&str) -> bool) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if *token == "(" {
        let result = any(tokens, at, allowed);
        let closed = tokens.get(*at) == Some(&")");
        *at += 1;
        return result && closed;
    }
    if tokens.get(*at) == Some(&"WITH") {
        *at += 2;
        return allowed(&format!("{token} WITH {}", tokens.get(*at - 1).unwrap_or(&"")));
    }
    allowed(token)
}

#[test]
fn dependencies_have_allowed_licences() {
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT/GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("GPL-3.0 AND MIT OR ISC", true),
        ("MIT AND (GPL-3.0 OR AGPL-3.0)", false),
        ("X WITH Y", true),
        ("MIT MIT", false),
        ("(MIT", false),
    ] {
        let allowed = |licence: &str| ["MIT", "ISC", "X WITH Y"].contains(&licence);
        assert_eq!(met(expression, &allowed), expected, "{expression}");
    }
    let list = deny().licenses;
    let wrong = metadata().packages.into_iter().filter_map(|package| {
        let exception = list.exceptions.iter().find(|exception| exception.name == package.name);
        let allowed = |licence: &str| {
            list.allow.contains(licence) || exception.is_some_and(|exception| exception.allow.contains(licence))
        };
        let licence = package.license.unwrap_or_default();
        (!met(&licence, &allowed)).then(|| format!("{} {}: {licence:?}", package.name, package.version))
    });
    none("licences that deny.toml does not allow", wrong.collect());
}

#[test]
fn dependencies_that_are_banned_stay_out() {
    // A version is banned from a major number on: ">=60".
    let banned = |ban: &Ban, version: &str| {
        ban.version.as_ref().is_none_or(|from| {
            let from: u64 = from.strip_prefix(">=").and_then(|major| major.parse().ok()).expect("bans read >=MAJOR");
            version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u64| major >= from)
        })
    };
    let sixty = Ban { name: String::new(), version: Some(">=60".into()), reason: String::new() };
    assert!(banned(&sixty, "60.1.0") && !banned(&sixty, "59.3.2"));
    let bans = deny().bans.deny;
    let mut wrong = Vec::new();
    for package in metadata().packages {
        let hits = bans.iter().filter(|ban| ban.name == package.name && banned(ban, &package.version));
        wrong.extend(hits.map(|ban| format!("{} {}: {}", package.name, package.version, ban.reason)));
    }
    none("banned dependencies; `cargo tree -i NAME` says who brings them", wrong);
}

#[test]
fn dependencies_are_built_once_unless_listed() {
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    for package in metadata().packages {
        versions.entry(package.name).or_default().insert(package.version);
    }
    let twice: BTreeSet<_> = versions.into_iter().filter(|(_, all)| all.len() > 1).map(|(name, _)| name).collect();
    let listed: BTreeSet<_> = deny().duplicates.into_values().flatten().collect();
    none("built in several versions and not listed in deny.toml", twice.difference(&listed).cloned().collect());
    none("listed in deny.toml and no longer built twice: remove it", listed.difference(&twice).cloned().collect());
}

/// Packages of a lock file with their versions.
fn locked(path: &str) -> BTreeSet<(String, String)> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let text = text(path);
    text.split("[[package]]").skip(1).map(|block| (value(block, "name = "), value(block, "version = "))).collect()
}

#[test]
fn what_is_fuzzed_is_what_is_shipped() {
    let manifest = text("tests/fuzz/Cargo.toml");
    let targets = sources(&["tests/fuzz/fuzz_targets"]);
    let declared = manifest.matches("[[bin]]").count();
    assert!(declared > 0 && declared == targets.len(), "{declared} targets are declared, {} are there", targets.len());
    for (path, target) in targets {
        let name = Path::new(&path).file_stem().unwrap().to_string_lossy().into_owned();
        let stands = manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\""));
        assert!(
            stands && target.contains(&format!("logboom_fuzzed::{name}(")),
            "{name} is a target under its own name"
        );
    }
    let shipped = locked("Cargo.lock");
    let other = locked("tests/fuzz/Cargo.lock").into_iter().filter(|package| !shipped.contains(package));
    let other = other.filter(|(name, _)| shipped.iter().any(|(known, _)| known == name));
    none(
        "other versions are fuzzed than are shipped: copy Cargo.lock over tests/fuzz/Cargo.lock and run `cargo fetch` there",
        other.map(|(name, version)| format!("{name} {version}")).collect(),
    );
}
