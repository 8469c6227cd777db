//! Brings the foreign clients, pinned.

use std::{env, path::PathBuf, process::Command};

use logboom_tests::{root, search_path, tools};

/// The version of the `nats` command.
const NATS_COMMAND: &str = "github.com/nats-io/natscli/nats@v0.3.0";

/// A Python with nats-py in an environment of its own, made once; every package is pinned by hash.
pub(crate) fn python() -> PathBuf {
    let requirements = root().join("tests/clients/requirements.txt");
    let home = tools().join("py");
    let python = home.join("bin/python");
    let stamp = home.join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    if std::fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return python;
    }
    let base = search_path("python3").expect("python3 is needed: the README asks for it");
    run(&mut Command::new(root().join("tools/install-python")));
    run(Command::new(base).args(["-m", "venv", "--clear"]).arg(&home));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]);
    run(pip.arg(&requirements));
    // Written last: an environment without it is made again.
    std::fs::write(stamp, wanted).unwrap();
    python
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The `nats` command: among the tools, on `PATH`, else built with Go; without it the test says that it is skipped.
pub(crate) fn nats_command() -> Option<PathBuf> {
    if let Some(there) = search_path("nats") {
        return Some(there);
    }
    let Some(go) = search_path("go") else {
        println!("SKIPPED the nats command: it is not there, and neither is Go to build it");
        return None;
    };
    let bin = tools().join("bin");
    let mut install = Command::new(go);
    install.args(["install", NATS_COMMAND]).env("GOBIN", &bin).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
    match install.output() {
        Ok(output) if output.status.success() => Some(bin.join("nats")),
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            // A mirror that does not serve the module is no fault of ours; anything else is.
            let denied = ["403 Forbidden", "404 Not Found", "410 Gone", "no such host", "dial tcp"];
            let denied = denied.iter().any(|word| words.contains(word));
            assert!(denied || env::var_os("CI").is_none(), "go install {NATS_COMMAND}: {words}");
            println!("SKIPPED the nats command: go install {NATS_COMMAND} says: {}", words.trim());
            None
        }
        Err(error) => panic!("go: {error}"),
    }
}
