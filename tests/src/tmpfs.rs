//! A small disk that a test may fill or make read-only.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use tokio::time::sleep;

/// What such a file system is called, before the id of the process that owns it.
const NAME: &str = "logboom-test-";
/// A file system that is written to refuses to become read-only; the next attempt may find a pause.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// A small file system in memory; unmounted with this value.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of so many MiB; `None` where that is not allowed, as for everybody but root.
    pub fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        unmount_orphans();
        std::fs::create_dir_all(path).ok()?;
        let name = format!("{NAME}{}", std::process::id());
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, &name]).arg(path).output().ok()?;
        mounted.status.success().then(|| Self(path.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it larger or smaller; never smaller than what is on it.
    pub fn resize(&self, mebibytes: u32) -> Result<()> {
        self.remount(&format!("size={mebibytes}m"))
    }

    /// Leaves no room: whoever writes is told that the disk is full.
    pub async fn fill(&self) -> Result<()> {
        for _ in 0..ATTEMPTS {
            // What is written between the measurement and the limit makes the limit too small.
            if self.remount(&format!("size={}k", self.used_kib()?)).is_ok() {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        self.remount(&format!("size={}k", self.used_kib()?))
    }

    /// Refuses every write.
    pub async fn read_only(&self) -> Result<()> {
        for _ in 0..ATTEMPTS {
            if self.remount("ro").is_ok() {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        self.remount("ro")
    }

    /// Takes writes again.
    pub fn writable(&self) -> Result<()> {
        self.remount("rw")
    }

    fn used_kib(&self) -> Result<u64> {
        let measured = Command::new("df").args(["-k", "--output=used"]).arg(&self.0).output()?;
        let text = String::from_utf8_lossy(&measured.stdout).into_owned();
        // Nothing at all would be no limit.
        Ok(text.lines().nth(1).unwrap_or_default().trim().parse::<u64>()?.max(1))
    }

    fn remount(&self, options: &str) -> Result<()> {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // What still has files open there has been killed; the mount goes with the last of them.
        let _gone = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// Takes away what tests have left that were killed themselves.
fn unmount_orphans() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for mount in mounts.lines() {
        let mut words = mount.split(' ');
        let owner = words.next().and_then(|name| name.strip_prefix(NAME));
        if let (Some(owner), Some(path)) = (owner, words.next())
            && !Path::new("/proc").join(owner).exists()
        {
            // Whoever may not unmount may not mount either, and the test says so.
            let _gone = Command::new("umount").args(["--lazy", path]).output();
        }
    }
}
