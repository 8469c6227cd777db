//! The examples of `docs/guide/credentials.md` in Go, Java and Node, each with the client library of its language from its registry.
//!
//! Libraries and what is built with them are kept among the tools. Where a language or its registry is missing, its example is
//! skipped, and the test says so.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};

use logboom_tests::{Standalone, Workdir, root, search_path, tools};
use serde_json::Value;

use super::guide;

/// What a client of a registry says when the registry, or what it was asked for, cannot be had from here.
const UNREACHABLE: [&str; 14] = [
    "403 Forbidden",
    "404 Not Found",
    "410 Gone",
    "no such host",
    "dial tcp",
    "E403",
    "E404",
    "ENOTFOUND",
    "ECONNREFUSED",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "Could not transfer artifact",
    "UnknownHostException",
    "Could not find artifact",
];

/// A language of the guide.
struct Language {
    /// As people call it.
    name: &'static str,
    /// How the guide's block begins.
    fence: &'static str,
    /// Its folder beside this file, and among the tools.
    dir: &'static str,
    /// The file that the example is.
    source: &'static str,
    /// What pins its libraries.
    pins: &'static [&'static str],
    /// Brings the libraries into a folder with the pins, and builds the example that is there; `None` if something is missing.
    build: fn(&Path) -> Option<()>,
    /// How the built example begins.
    start: fn(&Path) -> Command,
}

const LANGUAGES: [Language; 3] = [
    Language {
        name: "Go",
        fence: "go",
        dir: "go",
        source: "main.go",
        pins: &["go.mod", "go.sum"],
        build: |home| {
            let mut go = Command::new(found("Go", "go")?);
            go.args(["build", "-o", "publish", "."]).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
            go.env("GOFLAGS", "-mod=readonly -modcacherw -buildvcs=false");
            go.env("GOMODCACHE", home.join("modules")).env("GOCACHE", home.join("cache"));
            brought("Go", go.current_dir(home))
        },
        start: |home| Command::new(home.join("publish")),
    },
    Language {
        name: "Java",
        fence: "java",
        dir: "java",
        source: "Publish.java",
        pins: &["pom.xml"],
        build: |home| {
            found("Java", "java")?;
            let (javac, mut maven) = (found("Java", "javac")?, Command::new(found("Java", "mvn")?));
            maven.args(["-B", "-q", "--strict-checksums", "dependency:copy-dependencies"]);
            brought("Java", maven.arg("-DoutputDirectory=lib").current_dir(home))?;
            let mut compile = Command::new(javac);
            brought("Java", compile.args(["-cp", "lib/*", "-d", "classes", "Publish.java"]).current_dir(home))
        },
        start: |home| {
            let mut java = Command::new(search_path("java").unwrap());
            let classes = format!("{}:{}", home.join("classes").display(), home.join("lib/*").display());
            // A program that says one word: the second compiler would only take time.
            java.args(["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", &classes, "Publish"]);
            java
        },
    },
    Language {
        name: "Node",
        fence: "js",
        dir: "node",
        source: "publish.mjs",
        pins: &["package.json", "package-lock.json"],
        build: |home| {
            found("Node", "node")?;
            let mut npm = Command::new(found("Node", "npm")?);
            brought("Node", npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(home))
        },
        start: |home| {
            let mut node = Command::new(search_path("node").unwrap());
            node.arg(home.join("publish.mjs"));
            node
        },
    },
];

fn found(language: &str, program: &str) -> Option<PathBuf> {
    let there = search_path(program);
    if there.is_none() {
        println!("SKIPPED the example for {language}: {program} is not there");
    }
    there
}

/// Runs a step of a build. That the registry is out of reach is no fault of ours; anything else is.
fn brought(language: &str, step: &mut Command) -> Option<()> {
    let Output { status, stdout, stderr } = step.output().unwrap_or_else(|error| panic!("{step:?}: {error}"));
    if status.success() {
        return Some(());
    }
    let words = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(UNREACHABLE.iter().any(|word| words.contains(word)), "{step:?}: {words}");
    println!("SKIPPED the example for {language}: {step:?} says: {}", words.trim());
    None
}

impl Language {
    /// The folder with the built example, made once for each text and each set of pins.
    fn built(&self) -> Option<PathBuf> {
        let home = tools().join("clients").join(self.dir);
        let [example] = guide::blocks(self.fence).try_into().expect("the guide has one example for each language");
        let mut wanted = example.clone();
        let pinned = root().join("tests/clients").join(self.dir);
        let pins: Vec<_> = self.pins.iter().map(|pin| (*pin, fs::read_to_string(pinned.join(pin)).unwrap())).collect();
        pins.iter().for_each(|(_, text)| wanted.push_str(text));
        let stamp = home.join("built");
        if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) && found(self.name, self.dir).is_some() {
            return Some(home);
        }
        if home.is_dir() {
            fs::remove_dir_all(&home).unwrap();
        }
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join(self.source), &example).unwrap();
        for (pin, text) in pins {
            fs::write(home.join(pin), text).unwrap();
        }
        (self.build)(&home)?;
        // Written last: what has none is made again.
        fs::write(stamp, wanted).unwrap();
        Some(home)
    }
}

/// Runs of an example that the server cuts off, or that gives up by itself: either waits two seconds for the other, and a Java that
/// begins while the machine has much else to do loads its signatures for longer. A pod is started again then, too.
const RUNS_MAX: usize = 5;

/// Runs the example and answers the last number that it says: the event's sequence.
fn sequence(language: &Language, home: &Path, dir: &Workdir, credentials: &Value) -> u64 {
    let run = || guide::run(&mut (language.start)(home), dir, credentials);
    let too_slow = |output: &Output| {
        let said = String::from_utf8_lossy(&output.stderr);
        ["Authentication Timeout", "connection timed out"].iter().any(|words| said.contains(words))
    };
    let mut output = run();
    for _ in 1..RUNS_MAX {
        if output.status.success() || !too_slow(&output) {
            break;
        }
        println!("{}: too slow for the server; again", language.name);
        output = run();
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let last = out.split_whitespace().chain(err.split_whitespace()).filter_map(|word| word.parse().ok()).next_back();
    last.unwrap_or_else(|| panic!("no sequence: {out}{err}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_in_go_java_and_node_do_what_they_say() {
    let up = Standalone::start().await.unwrap();
    let (up, turn) = (&up, &tokio::sync::Mutex::new(()));
    let each = LANGUAGES.iter().map(|language| async move {
        let Some(home) = tokio::task::spawn_blocking(|| language.built()).await.unwrap() else { return };
        let credentials = guide::credentials(up, language.dir).await;
        // One after the other: each begins with a burst of work.
        let _turn = turn.lock().await;
        let begun = Instant::now();
        let answers = tokio::task::spawn_blocking(move || {
            let dir = Workdir::new(language.dir).unwrap();
            fs::write(dir.path().join("nats.creds"), credentials["nats_creds"].as_str().unwrap()).unwrap();
            // Twice: what has an id is stored once.
            [0, 1].map(|_| sequence(language, &home, &dir, &credentials))
        });
        let [first, again] = answers.await.unwrap();
        println!("{}: acknowledged as {first} and {again} in {} ms", language.name, begun.elapsed().as_millis());
        let count = format!("SELECT count(*) AS n FROM {}", language.dir);
        assert_eq!(up.api.count(&count).await.unwrap(), 1, "{}", language.name);
    });
    futures::future::join_all(each).await;
}
