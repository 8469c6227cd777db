//! Where the programs under test are.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Where pinned tools are kept.
pub fn tools() -> PathBuf {
    env::var_os("LOGBOOM_TOOLS").map_or_else(|| root().join(".tools"), PathBuf::from)
}

/// The binary under test: the one that was built beside this test.
pub fn logboom() -> Result<PathBuf> {
    let test = env::current_exe()?;
    // target/<profile>/deps/<test> beside target/<profile>/logboom
    let binary = test.ancestors().nth(2).context("the test stands in no target directory")?.join("logboom");
    let release = if binary.components().any(|part| part.as_os_str() == "release") { " --release" } else { "" };
    ensure!(binary.is_file(), "{} is not built: run `cargo build --workspace --bins{release}` first", binary.display());
    Ok(binary)
}

/// A program among the tools or on `PATH`.
pub fn search_path(name: &str) -> Option<PathBuf> {
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    let pinned = [tools().join("bin"), root().join(".tools/bin")];
    pinned.into_iter().chain(env::split_paths(&path)).map(|dir| dir.join(name)).find(|path| path.is_file())
}
