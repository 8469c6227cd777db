//! Files of jobs: all of them lie below one directory of the settings, and no path leads out of it.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::error::TaskError;

/// Files of one source; a directory with more is refused by name.
pub(crate) const FILES_MAX: usize = 1_024;

/// One file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its path below the root: the same on every worker.
    pub(crate) name: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
}

/// The directory below which jobs read and write.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

fn wrong(what: &str, problem: impl std::fmt::Display) -> TaskError {
    TaskError::Source { what: what.to_owned(), problem: problem.to_string() }
}

impl Folder {
    /// The root of the settings.
    ///
    /// Errors: `Source` if there is none.
    pub(crate) fn open(root: &Path) -> Result<Self, TaskError> {
        if root.as_os_str().is_empty() {
            return Err(wrong("files", "this worker reads and writes none: set task_worker.files_dir"));
        }
        root.canonicalize().map(Self).map_err(|e| wrong("task_worker.files_dir", e))
    }

    /// The files that a URL names: itself, or those of a directory in the order of their names. What begins with a dot or an underline is
    /// left out.
    ///
    /// Errors: `Source` for what lies outside, is not there, or is more than [`FILES_MAX`].
    pub(crate) fn list(&self, url: &str) -> Result<Vec<Found>, TaskError> {
        let at = self.within(url)?;
        if at.is_file() {
            return Ok(vec![self.found(&at, url)?]);
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&at).map_err(|e| wrong(url, e))? {
            let path = entry.map_err(|e| wrong(url, e))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(['.', '_']) || !path.is_file() {
                continue;
            }
            if files.len() == FILES_MAX {
                return Err(wrong(url, format_args!("it has more than {FILES_MAX} files: name a smaller directory")));
            }
            files.push(self.found(&path, url)?);
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// A file by the name that it had when it was listed.
    pub(crate) fn named(&self, name: &str) -> Result<Found, TaskError> {
        let path = self.within(name)?;
        Ok(Found { name: name.to_owned(), path })
    }

    /// The directory of a URL, made if it is not there.
    pub(crate) fn make(&self, url: &str) -> Result<PathBuf, TaskError> {
        let path = self.path(url)?;
        // What is there already may be a link to elsewhere.
        let there = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(&self.0);
        self.inside(there.canonicalize().map_err(|e| wrong(url, e))?, url)?;
        fs::create_dir_all(&path).map_err(|e| wrong(url, e))?;
        self.inside(path.canonicalize().map_err(|e| wrong(url, e))?, url)
    }

    fn found(&self, path: &Path, url: &str) -> Result<Found, TaskError> {
        let real = self.inside(path.canonicalize().map_err(|e| wrong(url, e))?, url)?;
        let name = real.strip_prefix(&self.0).ok().and_then(Path::to_str);
        let name = name.ok_or_else(|| wrong(url, "a file's name is not text in UTF-8"))?.to_owned();
        Ok(Found { name, path: real })
    }

    fn within(&self, url: &str) -> Result<PathBuf, TaskError> {
        let real = self.path(url)?.canonicalize().map_err(|e: io::Error| wrong(url, e))?;
        self.inside(real, url)
    }

    fn inside(&self, real: PathBuf, url: &str) -> Result<PathBuf, TaskError> {
        if real.starts_with(&self.0) {
            return Ok(real);
        }
        Err(wrong(url, "it does not lie below task_worker.files_dir"))
    }

    /// The path that a URL spells.
    fn path(&self, url: &str) -> Result<PathBuf, TaskError> {
        let path = match url.split_once("://") {
            Some(("file", path)) => path,
            Some((scheme, _)) => {
                return Err(wrong(url, format_args!("{scheme}:// is not built: use a path or file://")));
            }
            None => url,
        };
        let path = Path::new(path);
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(wrong(url, "a path may not hold '..'"));
        }
        Ok(self.0.join(path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_out() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("in/deep")).unwrap();
        for name in ["b.ndjson", "a.ndjson", ".hidden", "_SUCCESS"] {
            fs::write(at("in").join(name), "").unwrap();
        }
        fs::write(other.path().join("secret"), "").unwrap();
        symlink(other.path(), at("out")).unwrap();
        let folder = Folder::open(root.path()).unwrap();
        let names = |url: &str| folder.list(url).map(|files| files.into_iter().map(|f| f.name).collect::<Vec<_>>());
        let absolute = format!("file://{}", at("in").display());
        for url in ["in", "file://in", absolute.as_str()] {
            assert_eq!(names(url).unwrap(), ["in/a.ndjson", "in/b.ndjson"], "{url}");
        }
        assert_eq!(names("in/a.ndjson").unwrap(), ["in/a.ndjson"]);
        let outside = other.path().join("secret").display().to_string();
        for (url, why) in [
            (outside.as_str(), "below task_worker.files_dir"),
            ("out/secret", "below task_worker.files_dir"),
            ("in/../in", "'..'"),
            ("s3://bucket/x", "not built"),
            ("nowhere", "No such file"),
        ] {
            let found = names(url).unwrap_err().to_string();
            assert!(found.contains(why), "{url}: {found}");
            assert!(url == "nowhere" || folder.make(url).is_err(), "{url}");
        }
        symlink(other.path().join("secret"), at("in/link")).unwrap();
        assert!(names("in").is_err(), "a link in a listed directory is not followed out");
        assert!(folder.make("new/dir").unwrap().is_dir());
        assert!(folder.make("out/new").is_err() && !other.path().join("new").exists());
        assert!(Folder::open(Path::new("")).unwrap_err().to_string().contains("task_worker.files_dir"));
    }
}
