//! Where etcd, kube-apiserver and kubectl are, and what a test does where they cannot be had.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

/// Set to 1, a test that cannot have its API server fails; otherwise it says so and is skipped.
const REQUIRED: &str = "LOGBOOM_REQUIRE_KUBERNETES";

/// The folder of the programs; `None` where they cannot be had, which has then been said.
pub(super) async fn find() -> Result<Option<PathBuf>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/install-kubernetes");
    let command = Command::new(&script);
    let found = tokio::task::spawn_blocking(move || ask(command)).await??;
    match found {
        Ok(bin) if bin.join("kube-apiserver").is_file() => Ok(Some(bin)),
        Ok(bin) => bail!("{} did not name a folder with kube-apiserver: {}", script.display(), bin.display()),
        Err(why) => {
            #[allow(clippy::disallowed_methods, reason = "whoever runs the tests says it through the environment")]
            let is_required = env::var_os(REQUIRED).is_some_and(|set| set == "1");
            let test = thread::current().name().unwrap_or("a test").to_owned();
            // On a line of its own, where whoever sums up looks for it.
            tell(&format!("\n{}", skipped(&test, &why, is_required)?));
            Ok(None)
        }
    }
}

/// Runs the script; what it says on the way is seen at once, and the last of it is the reason where it fails.
fn ask(mut script: Command) -> Result<Result<PathBuf, String>> {
    let named = format!("run {}", script.get_program().display());
    let mut child = script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(named)?;
    let mut last = String::new();
    for line in BufReader::new(child.stderr.take().context("it has a standard error")?).lines() {
        last = line?;
        tell(&last);
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim())));
    }
    Ok(Err(if last.is_empty() { format!("install-kubernetes ended with {}", output.status) } else { last }))
}

/// What to say of a test that is skipped; an error where that is not to be.
fn skipped(test: &str, why: &str, is_required: bool) -> Result<String> {
    if is_required {
        bail!("{test} wants a real API server of Kubernetes, and {REQUIRED} is set: {why}");
    }
    Ok(format!(
        "SKIPPED {test}, which wants a real API server of Kubernetes: {why} ({REQUIRED}=1 makes this a failure.)"
    ))
}

/// Past the test harness, which shows what a test prints only when it fails.
fn tell(line: &str) {
    // Nobody is left to tell when standard error is closed.
    let _told = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

    use super::*;

    /// A time that no build of these tests takes.
    const AMPLE: u32 = 60;

    /// Runs the real script with its own folder of tools, this as `go`, and so many seconds.
    fn installed(tools: &Path, go: &str, seconds: u32) -> Result<PathBuf, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/install-kubernetes");
        let programs = tools.join("programs");
        fs::create_dir_all(&programs).unwrap();
        let file = programs.join("go");
        fs::write(&file, format!("#!/bin/sh\n[ \"$1\" = env ] && echo go1.25.0 && exit\n{go}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(script);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
        command.env("PATH", path).env("LOGBOOM_TOOLS", tools).env("LOGBOOM_KUBERNETES_SECONDS", seconds.to_string());
        ask(command).unwrap()
    }

    #[test]
    fn a_build_that_hangs_is_ended_and_not_begun_again_at_once() {
        let tools = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let why = installed(tools.path(), "sleep 60", 1).unwrap_err();
        assert!(why.contains("etcd was not built within 1 s") && begun.elapsed().as_secs() < 30, "{why}");
        let why = installed(tools.path(), "sleep 60", 1).unwrap_err();
        assert!(why.contains("a few minutes ago"), "{why}");
    }

    #[test]
    fn a_build_that_fails_says_so() {
        let tools = tempfile::tempdir().unwrap();
        let why = installed(tools.path(), "echo 'no proxy' >&2; exit 1", AMPLE).unwrap_err();
        assert!(why.contains("etcd could not be built"), "{why}");
    }

    #[test]
    fn a_build_that_was_cut_short_goes_on() {
        const COMPILES: &str = r#"mkdir -p "$GOCACHE"
            [ -e "$GOCACHE/part" ] || { touch "$GOCACHE/part"; exit 1; }
            while [ "$1" != -o ]; do shift; done
            touch "$2" && chmod +x "$2""#;
        let tools = tempfile::tempdir().unwrap();
        installed(tools.path(), COMPILES, AMPLE).unwrap_err();
        let names = || {
            let all = fs::read_dir(tools.path().join("kubernetes")).unwrap().map(|entry| entry.unwrap().file_name());
            all.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
        };
        let failed = names().into_iter().find(|name| name.ends_with(".failed")).unwrap();
        fs::remove_file(tools.path().join("kubernetes").join(failed)).unwrap();
        let bin = installed(tools.path(), COMPILES, AMPLE).unwrap();
        assert!(bin.join("kube-apiserver").is_file() && !bin.join("bin").exists());
        assert_eq!(names().len(), 2, "the lock and the folder: {:?}", names());
        assert_eq!(installed(tools.path(), "exit 1", AMPLE).unwrap(), bin);
    }

    #[test]
    fn whoever_waits_for_another_build_waits_for_a_time() {
        let tools = tempfile::tempdir().unwrap();
        let folder = tools.path().join("kubernetes");
        fs::create_dir_all(&folder).unwrap();
        let held = fs::File::create(folder.join("lock")).unwrap();
        held.lock().unwrap();
        let why = installed(tools.path(), "exit 1", 1).unwrap_err();
        assert!(why.contains("somebody else has held") && why.contains("for 1 s"), "{why}");
    }

    #[test]
    fn a_test_is_skipped_loudly_or_fails() {
        let line = skipped("walk", "there is no go.", false).unwrap();
        assert!(line.starts_with("SKIPPED walk") && line.contains("there is no go.") && !line.contains('\n'), "{line}");
        let error = skipped("walk", "there is no go.", true).unwrap_err().to_string();
        assert!(error.contains("walk") && error.contains(REQUIRED) && error.contains("there is no go."), "{error}");
    }
}
