//! Where the programs under test are.

use std::{
    env,
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
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

/// The nats-server: `LB_NATS_SERVER`, else the pinned one among the tools, else the one on `PATH`.
pub fn nats_server() -> Result<PathBuf> {
    if let Some(set) = env::var_os("LB_NATS_SERVER") {
        let path = PathBuf::from(set);
        ensure!(path.is_file(), "LB_NATS_SERVER is {}, which is not a file", path.display());
        return Ok(path);
    }
    search_path("nats-server")
        .context("there is no nats-server: run `./justw tools`, or set LB_NATS_SERVER to its path")
}

/// A program among the tools or on `PATH`.
pub fn search_path(name: &str) -> Option<PathBuf> {
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    let pinned = [tools().join("bin"), root().join(".tools/bin")];
    pinned.into_iter().chain(env::split_paths(&path)).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Ports below those that the system gives to outgoing connections, so that nothing takes one between its choice and its use.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port on loopback that nothing listens on; never the same one twice in this process.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    let begin = u16::try_from(std::process::id() % u32::from(width)).unwrap_or(0);
    for _ in 0..width {
        let offset = (u32::from(begin) * 37 + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(width);
        let port = PORTS.start + u16::try_from(offset).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}
