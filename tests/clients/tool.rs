//! Brings the foreign clients, pinned.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use logboom_tests::{root, search_path, tools};

/// The version of the `nats` command.
const NATS_COMMAND: &str = "github.com/nats-io/natscli/nats@v0.3.0";

/// rsyslog with its way to Elasticsearch, and what a small machine lacks for it.
const RSYSLOG_PACKAGES: [&str; 5] = ["rsyslog", "rsyslog-elasticsearch", "libestr0", "libfastjson4", "liblognorm5"];
/// syslog-ng with its way to HTTP, and what a small machine lacks for it.
const SYSLOG_NG_PACKAGES: [&str; 7] =
    ["syslog-ng-core", "syslog-ng-mod-http", "libivykis0", "libnet1", "libpcre3", "libjson-c5", "libwrap0"];

/// A Python with nats-py in an environment of its own, made once; every package is pinned by hash.
pub(crate) fn python() -> PathBuf {
    let (python, pip) = environment("py", "requirements.txt");
    pip.into_iter().for_each(|mut pip| run(&mut pip));
    stamped("py", "requirements.txt");
    python
}

/// A Python with the clients of other log stores; without its registry the test says that it is skipped.
pub(crate) fn agents_python() -> Option<PathBuf> {
    python_with("py-agents", "agents.txt", "the clients of other log stores")
}

/// A Python with the drivers of Flight SQL; without its registry the test says that it is skipped.
pub(crate) fn flight_python() -> Option<PathBuf> {
    python_with("py-flight", "flight.txt", "the drivers of Flight SQL")
}

fn python_with(name: &str, pins: &str, what: &str) -> Option<PathBuf> {
    let (python, pip) = environment(name, pins);
    if let Some(mut pip) = pip {
        let output = pip.output().unwrap_or_else(|error| panic!("{pip:?}: {error}"));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            // A registry that cannot be had, or does not have them, is no fault of ours; anything else is.
            let missing = ["No matching distribution", "Could not find a version", "Connection", "403", "404"];
            assert!(missing.iter().any(|word| words.contains(word)), "{pip:?}: {words}");
            println!("SKIPPED {what}: pip says: {}", words.trim());
            return None;
        }
    }
    stamped(name, pins);
    Some(python)
}

/// The Python of an environment, and what brings its packages unless they are there.
fn environment(name: &str, pins: &str) -> (PathBuf, Option<Command>) {
    let requirements = root().join("tests/clients").join(pins);
    let home = tools().join(name);
    let python = home.join("bin/python");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    if std::fs::read_to_string(home.join(pins)).is_ok_and(|there| there == wanted) {
        return (python, None);
    }
    let base = search_path("python3").expect("python3 is needed: the README asks for it");
    run(&mut Command::new(root().join("tools/install-python")));
    run(Command::new(base).args(["-m", "venv", "--clear"]).arg(&home));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]);
    pip.arg(&requirements);
    (python, Some(pip))
}

/// Takes note that an environment is whole: one without this is made again.
fn stamped(name: &str, pins: &str) {
    std::fs::copy(root().join("tests/clients").join(pins), tools().join(name).join(pins)).unwrap();
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

/// Loki's `logcli`: among the tools or on `PATH`; without it the test says that it is skipped.
pub(crate) fn logcli() -> Option<PathBuf> {
    let there = search_path("logcli");
    if there.is_none() {
        println!("SKIPPED logcli: it is not there; tools/install-loki-tool logcli builds it, which takes minutes");
    }
    there
}

/// Debian's packages, unpacked among the tools and not installed; without them the test says that it is skipped.
fn unpacked(name: &str, packages_of_it: &[&str]) -> Option<PathBuf> {
    let home = tools().join(name);
    let (packages, root) = (home.join("packages"), home.join("root"));
    // Of another list there may be something missing.
    let list = packages_of_it.join(" ");
    if std::fs::read_to_string(home.join("whole")).ok().as_ref() != Some(&list) {
        std::fs::create_dir_all(&packages).unwrap();
        let mut download = Command::new("apt-get");
        download.args(["download", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=0"]);
        let missing = match download.args(packages_of_it).current_dir(&packages).output() {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(words) = missing {
            println!("SKIPPED {name}: apt-get download says: {words}");
            return None;
        }
        for package in std::fs::read_dir(&packages).unwrap() {
            run(Command::new("dpkg-deb").arg("-x").arg(package.unwrap().path()).arg(&root));
        }
        std::fs::write(home.join("whole"), list).unwrap();
    }
    Some(root)
}

/// The folder of libraries in which there is such an entry: there is a folder for each kind of processor.
fn libraries(root: &Path, entry: &str) -> PathBuf {
    let folders =
        ["usr/lib", "lib"].into_iter().filter_map(|folder| std::fs::read_dir(root.join(folder)).ok()).flatten();
    let mut all = folders.map(|entry| entry.unwrap().path()).filter(|folder| folder.join(entry).exists());
    all.next().unwrap_or_else(|| panic!("no {entry} beside the libraries"))
}

/// rsyslog, or nothing where it cannot be had.
pub(crate) fn rsyslog() -> Option<Rsyslog> {
    let root = unpacked("rsyslog", &RSYSLOG_PACKAGES)?;
    Some(Rsyslog { program: root.join("usr/sbin/rsyslogd"), libraries: libraries(&root, "rsyslog") })
}

/// syslog-ng, or nothing where it cannot be had or does not start for want of a library.
pub(crate) fn syslog_ng() -> Option<SyslogNg> {
    let root = unpacked("syslog-ng", &SYSLOG_NG_PACKAGES)?;
    let home = root.join("usr/lib/syslog-ng");
    let modules = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
    let modules = modules.into_iter().find(|folder| folder.join("libhttp.so").exists()).expect("syslog-ng has modules");
    let shared = ["libivykis.so.0", "libpcre.so.3"].map(|library| libraries(&root, library));
    let libraries = [home].into_iter().chain(shared).collect();
    let found = SyslogNg { program: root.join("usr/sbin/syslog-ng"), modules, libraries };
    let output = found.command().arg("--version").output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    if !words.contains("http") {
        println!("SKIPPED syslog-ng: it lacks a library: {words}{}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(found)
}

/// Loki's `promtail`: among the tools or on `PATH`; without it the test says that it is skipped.
pub(crate) fn promtail() -> Option<PathBuf> {
    let there = search_path("promtail");
    if there.is_none() {
        println!("SKIPPED promtail: it is not there; tools/install-loki-tool promtail builds it, which takes minutes");
    }
    there
}

/// An rsyslog that finds its parts.
pub(crate) struct Rsyslog {
    program: PathBuf,
    libraries: PathBuf,
}

impl Rsyslog {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LD_LIBRARY_PATH", &self.libraries).arg("-M").arg(self.libraries.join("rsyslog"));
        command
    }
}

/// A syslog-ng that finds its parts.
pub(crate) struct SyslogNg {
    program: PathBuf,
    modules: PathBuf,
    libraries: Vec<PathBuf>,
}

impl SyslogNg {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let libraries = std::env::join_paths(&self.libraries).unwrap();
        command.env("LD_LIBRARY_PATH", libraries).arg("--module-path").arg(&self.modules);
        command
    }
}
