//! One child process with its log.

use std::{
    fs,
    path::PathBuf,
    process::{self, Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Lines of a log that an error shows.
const LINES_SHOWN: usize = 40;

/// A process that is killed, by its id, with this value.
pub(super) struct Child {
    name: &'static str,
    child: process::Child,
    log: PathBuf,
}

impl Child {
    pub(super) fn spawn(name: &'static str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = fs::File::create(&log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.with_context(|| format!("start {name}: {}", command.get_program().display()))?;
        Ok(Self { name, child, log })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// The end of what it has written.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
