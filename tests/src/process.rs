//! A child process of a test: its log, its signals, its end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

/// Lines of a log that an error shows.
const LOG_LINES_SHOWN: usize = 12;

/// A running child; it is killed, by its id, when this value goes.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output is appended to a log.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs; when it has ended, the error says how and shows its last words.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.last_words()),
        }
    }

    /// Kills it as a crash would: nothing is drained.
    pub fn kill9(&mut self) -> Result<()> {
        self.check().context("it should be running when it is killed")?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to drain (SIGTERM) and waits for its end.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(within).await
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) -> Result<()> {
        // The shell's own `kill`: a small container has no other.
        let script = format!("kill -{name} \"$0\"");
        let sent = Command::new("sh").args(["-c", &script, &self.pid().to_string()]).status()?;
        ensure!(sent.success(), "{} (pid {}) could not be sent SIG{name}", self.name, self.pid());
        Ok(())
    }

    /// Waits for its end.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(begun.elapsed() < within, "{} did not end within {within:?}:\n{}", self.name, self.last_words());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything that it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of what it has written.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Process {
    /// Kills it if it still runs.
    pub(crate) fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may have ended in between, which is as good.
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
