//! `logboom keys tls`: a private authority and one certificate for an installation, renewed by running it again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tls::{Authority, Files, Tls};
use types::Timestamp;

use crate::tools::index::write_private;

/// What every certificate is for besides the names that were asked for.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Most names of one certificate.
const HOSTS_MAX: usize = 100;
/// A certificate is renewed when less than this is left of it, and never earlier than in its last third.
const RENEWED_WITHIN_DAYS: u32 = 30;

/// The directory of an authority: `ca.pem`, `ca.key`, `certificate.pem`, `key.pem`, and `hosts`, for which the certificate is.
#[derive(Debug)]
pub(crate) struct CertificateDir {
    dir: PathBuf,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was good.
    Kept,
    /// The certificate is a new one.
    Issued,
    /// The authority is a new one too; the former stays trusted.
    Founded,
}

impl CertificateDir {
    /// The directory, which need not exist.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where a process finds what is in it.
    pub(crate) fn files(&self) -> Files {
        let at = |name: &str| Some(self.dir.join(name));
        Files { certificate: at("certificate.pem"), key: at("key.pem"), ca: at("ca.pem") }
    }

    /// Makes what is missing and renews what ends soon, for these hosts; without any, for those of the last time.
    pub(crate) fn ensure(&self, hosts: &[String], days: u32, now: Timestamp) -> anyhow::Result<Outcome> {
        ensure!((1..=3_650).contains(&days), "--days must be from 1 to 3650");
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let hosts = self.hosts(hosts)?;
        let soon = now + Duration::from_secs(u64::from(RENEWED_WITHIN_DAYS.min(days / 3)) * 24 * 3_600);
        let (authority, founded) = self.authority(now)?;
        let kept = fs::read_to_string(self.dir.join("certificate.pem")).unwrap_or_default();
        if !founded && authority.vouches(&kept, &hosts, soon) && Tls::open(self.files()).is_ok() {
            return Ok(Outcome::Kept);
        }
        let issued = authority.issue(&hosts, now, days)?;
        self.put("key.pem", &issued.key)?;
        self.put("certificate.pem", &issued.certificate)?;
        self.put("hosts", &(hosts.join("\n") + "\n"))?;
        Ok(if founded { Outcome::Founded } else { Outcome::Issued })
    }

    /// The hosts that the certificate is for.
    pub(crate) fn hosts(&self, asked: &[String]) -> anyhow::Result<Vec<String>> {
        let kept = fs::read_to_string(self.dir.join("hosts")).unwrap_or_default();
        let kept = kept.lines().map(str::to_owned).collect::<Vec<_>>();
        let mut all: Vec<String> = LOOPBACK.map(str::to_owned).to_vec();
        let others = |hosts: &[String]| hosts.iter().any(|host| !LOOPBACK.contains(&host.as_str()));
        for host in if others(asked) { asked } else { &kept } {
            if !all.contains(host) {
                all.push(host.clone());
            }
        }
        ensure!(
            all.len() <= HOSTS_MAX,
            "a certificate is for {HOSTS_MAX} hosts at most; a wildcard such as *.logs.example covers many"
        );
        Ok(all)
    }

    /// The authority that is kept, else a fresh one; the former stays trusted beside it.
    fn authority(&self, now: Timestamp) -> anyhow::Result<(Authority, bool)> {
        let (certificate, key) = (self.dir.join("ca.pem"), self.dir.join("ca.key"));
        let mut former = String::new();
        if certificate.exists() || key.exists() {
            let read = |path: &Path| {
                fs::read_to_string(path).with_context(|| {
                    format!(
                        "an authority is two files, and {} cannot be read; put it back, or remove both",
                        path.display()
                    )
                })
            };
            let (text, key) = (read(&certificate)?, read(&key)?);
            // Where a renewal was cut short the key is still that of the second.
            let all = text.split_inclusive("-----END CERTIFICATE-----");
            let fitting = all.map(|one| Authority::from_pem(one, &key)).find(Result::is_ok);
            let kept = fitting.unwrap_or_else(|| Authority::from_pem(&text, &key));
            let kept = kept.with_context(|| format!("{}", self.dir.display()))?;
            let soon = now + Duration::from_secs(u64::from(RENEWED_WITHIN_DAYS) * 24 * 3_600);
            if kept.expires()? > soon {
                return Ok((kept, false));
            }
            former = kept.certificate().to_owned();
        }
        let fresh = Authority::generate(now)?;
        // The certificates first: until the key is there too, the former pair goes on.
        self.put("ca.pem", &format!("{}{former}", fresh.certificate()))?;
        self.put("ca.key", &fresh.key()?)?;
        Ok((fresh, true))
    }

    /// Writes beside the place and moves there, so that nobody reads half a file.
    fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, beside) = (self.dir.join(name), self.dir.join(format!(".{name}.new")));
        write_private(&beside, text)?;
        fs::rename(&beside, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use bus::SystemClock;
    use types::Clock;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    #[test]
    fn what_is_good_is_kept_and_what_is_not_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let at = CertificateDir::at(&dir.path().join("tls"));
        let read = |name: &str| fs::read_to_string(dir.path().join("tls").join(name)).unwrap();
        let now = SystemClock.now();
        let hosts = ["nats".to_owned(), "*.logs.svc".to_owned()];
        assert_eq!(at.ensure(&hosts, 90, now).unwrap(), Outcome::Founded);
        let (first, authority) = (read("certificate.pem"), read("ca.pem"));
        for asked in [&hosts[..], &hosts[..1], &[]] {
            assert_eq!(at.ensure(asked, 90, now + 50 * DAY).unwrap(), Outcome::Kept, "{asked:?}");
        }
        assert_eq!(read("certificate.pem"), first);
        assert_eq!(at.ensure(&[], 90, now + 62 * DAY).unwrap(), Outcome::Issued, "ends soon");
        let second = read("certificate.pem");
        assert!(second != first && read("hosts").contains("*.logs.svc") && read("ca.pem") == authority);
        assert_eq!(at.ensure(&["elsewhere".to_owned()], 90, now).unwrap(), Outcome::Issued, "another host");
        fs::remove_file(dir.path().join("tls/key.pem")).unwrap();
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Issued, "the key is gone");
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Kept);
    }

    #[test]
    fn an_authority_that_ends_is_followed_by_another_that_trusts_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = CertificateDir::at(dir.path());
        let now = SystemClock.now();
        at.ensure(&[], 90, now - 3_640 * DAY).unwrap();
        let former = fs::read_to_string(dir.path().join("ca.pem")).unwrap();
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Founded);
        let both = fs::read_to_string(dir.path().join("ca.pem")).unwrap();
        assert!(both.ends_with(&former) && both.len() > former.len());
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Kept);
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let text = format!("{:#}", at.ensure(&[], 90, now).unwrap_err());
        assert!(text.contains("ca.key") && text.contains("remove both"), "{text}");
    }

    #[test]
    fn nonsense_is_refused_and_keys_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let at = CertificateDir::at(dir.path());
        let now = SystemClock.now();
        assert!(
            at.ensure(&["two words".to_owned()], 90, now).is_err() || at.ensure(&["ä".to_owned()], 90, now).is_err()
        );
        assert!(at.ensure(&[], 0, now).is_err() && at.ensure(&[], 4_000, now).is_err());
        assert!(at.ensure(&(0..200).map(|n| format!("h{n}")).collect::<Vec<_>>(), 90, now).is_err());
        at.ensure(&[], 90, now).unwrap();
        for name in ["ca.key", "key.pem"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
    }
}
