//! A directory of one test.

use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

/// A temporary directory that stays, with its path printed, when the test that owns it fails.
#[derive(Debug)]
pub struct Workdir {
    dir: Option<TempDir>,
}

impl Workdir {
    /// A fresh one.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Self { dir: Some(tempfile::Builder::new().prefix(&format!("lb-{name}-")).tempdir()?) })
    }

    /// Makes it stay; answers where it is.
    pub fn keep(&mut self) -> std::path::PathBuf {
        self.dir.take().map_or_else(std::path::PathBuf::new, TempDir::keep)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new("."), TempDir::path)
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("data and logs of the failed test are kept in {}", dir.keep().display());
        }
    }
}
