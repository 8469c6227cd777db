//! Reads what settings only refer to.

use settings::{Secret, SecretRef};
use types::ReplicaId;

use crate::StartError;

/// The secret behind a reference; `None` if there is none.
#[allow(clippy::disallowed_methods, reason = "a secret given as `env:NAME` is in the environment and nowhere else")]
pub(crate) fn resolve(secret: &Secret) -> Result<Option<String>, StartError> {
    secret.resolve(|reference| {
        let failed = |reason: String| StartError::Secret { reference: reference.to_string(), reason };
        match reference {
            SecretRef::File(path) => std::fs::read_to_string(path).map_err(|error| failed(error.to_string())),
            SecretRef::Env(name) => std::env::var(name).map_err(|error| failed(error.to_string())),
        }
    })
}

/// The replica's name: as set, else the host's name, else a random one.
pub(crate) fn replica(set: &str) -> Result<ReplicaId, StartError> {
    if !set.is_empty() {
        return set.parse().map_err(StartError::other);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let token: String =
        host.trim().chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    match token.parse() {
        Ok(replica) if token != "localhost" => Ok(replica),
        _ => uuid::Uuid::new_v4().simple().to_string().parse().map_err(StartError::other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_files_and_complaints_name_the_reference_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "deep\n").unwrap();
        let at = |path: &std::path::Path| Secret::at(SecretRef::File(path.display().to_string()));
        assert_eq!(resolve(&at(file.path())).unwrap().as_deref(), Some("deep"));
        assert_eq!(resolve(&Secret::default()).unwrap(), None);
        let missing = resolve(&Secret::at(SecretRef::Env("LB_NO_SUCH_VARIABLE".into()))).unwrap_err().to_string();
        assert!(missing.contains("env:LB_NO_SUCH_VARIABLE"), "{missing}");
        assert!(resolve(&at(std::path::Path::new("/no/such/file"))).is_err());
    }

    #[test]
    fn a_replica_always_has_a_name_that_is_a_token() {
        assert_eq!(replica("a-1").unwrap().as_str(), "a-1");
        assert!(replica("a.b").is_err());
        assert!(!replica("").unwrap().as_str().is_empty());
    }
}
