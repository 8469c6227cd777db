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
/// How long a new authority is only trusted before it signs: by then everybody has read `ca.pem`, in Kubernetes too.
const ANNOUNCED_FOR: Duration = Duration::from_secs(24 * 3_600);

/// The directory of an authority: `ca.pem`, `ca.key`, `certificate.pem`, `key.pem`, and `hosts`, for which the certificate is; while an
/// authority waits to follow another, also `next.key` and `next.since`.
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
    /// A new authority is trusted beside the one that ends, which still signs: a run a day later lets the new one sign.
    Announced,
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
        let (authority, change) = self.authority(now)?;
        let kept = fs::read_to_string(self.dir.join("certificate.pem")).unwrap_or_default();
        let is_signer = change != Some(Outcome::Founded);
        if is_signer && authority.vouches(&kept, &hosts, soon) && Tls::open(self.files()).is_ok() {
            return Ok(change.unwrap_or(Outcome::Kept));
        }
        let issued = authority.issue(&hosts, now, days)?;
        self.put("key.pem", &issued.key)?;
        self.put("certificate.pem", &issued.certificate)?;
        self.put("hosts", &(hosts.join("\n") + "\n"))?;
        Ok(change.unwrap_or(Outcome::Issued))
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

    /// The authority that signs now, and what became of it. One that ends soon is followed by another, and stays trusted beside it.
    fn authority(&self, now: Timestamp) -> anyhow::Result<(Authority, Option<Outcome>)> {
        let (certificate, key) = (self.dir.join("ca.pem"), self.dir.join("ca.key"));
        if !certificate.exists() && !key.exists() {
            let fresh = Authority::generate(now)?;
            self.put("ca.key", &fresh.key()?)?;
            self.put("ca.pem", fresh.certificate())?;
            return Ok((fresh, Some(Outcome::Founded)));
        }
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| {
                format!("an authority is two files, and {} cannot be read; put it back, or remove both", path.display())
            })
        };
        let (text, key) = (read(&certificate)?, read(&key)?);
        let kept = pair(&text, &key).with_context(|| format!("{}", self.dir.display()))?;
        let ends = kept.expires()?;
        if ends > now + Duration::from_secs(u64::from(RENEWED_WITHIN_DAYS) * 24 * 3_600) {
            return Ok((kept, None));
        }
        let may_wait = ends > now + ANNOUNCED_FOR;
        let next = fs::read_to_string(self.dir.join("next.key")).ok().and_then(|key| pair(&text, &key).ok());
        let next = match next {
            Some(next) if self.is_announced(now) || !may_wait => next,
            Some(_) => return Ok((kept, None)),
            None => {
                let fresh = Authority::generate(now)?;
                self.put("next.key", &fresh.key()?)?;
                self.put("next.since", &now.millis().to_string())?;
                // With this line it begins: a key without its certificate counts for nothing.
                self.put("ca.pem", &format!("{}{}", fresh.certificate(), kept.certificate()))?;
                if may_wait {
                    return Ok((kept, Some(Outcome::Announced)));
                }
                fresh
            }
        };
        let key = self.dir.join("next.key");
        fs::rename(&key, self.dir.join("ca.key")).with_context(|| format!("cannot move {}", key.display()))?;
        Ok((next, Some(Outcome::Founded)))
    }

    /// Whether the next authority has been trusted for long enough.
    fn is_announced(&self, now: Timestamp) -> bool {
        let since = fs::read_to_string(self.dir.join("next.since")).ok().and_then(|text| text.trim().parse().ok());
        since.is_none_or(|since| now.since(Timestamp::from_millis(since)) >= ANNOUNCED_FOR)
    }

    /// Writes beside the place and moves there, so that nobody reads half a file.
    fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, beside) = (self.dir.join(name), self.dir.join(format!(".{name}.new")));
        write_private(&beside, text)?;
        fs::rename(&beside, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The authority of a key, whose certificate is one of these.
fn pair(certificates: &str, key: &str) -> Result<Authority, tls::TlsError> {
    let each = certificates.split_inclusive("-----END CERTIFICATE-----");
    let fitting = each.map(|one| Authority::from_pem(one, key)).find(Result::is_ok);
    fitting.unwrap_or_else(|| Authority::from_pem(certificates, key))
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
    fn an_authority_that_ends_is_followed_by_another_that_is_trusted_first() {
        let dir = tempfile::tempdir().unwrap();
        let at = CertificateDir::at(dir.path());
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let now = SystemClock.now();
        at.ensure(&[], 90, now - 3_640 * DAY).unwrap();
        let former = read("ca.pem");
        let first = Authority::from_pem(&former, &read("ca.key")).unwrap();
        let is_signed_by = |authority: &Authority, at: Timestamp| {
            authority.vouches(&read("certificate.pem"), &["localhost".to_owned()], at)
        };
        // Ten days are left: the new one is trusted, and what others see is signed by the one that they know.
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Announced);
        let both = read("ca.pem");
        assert!(both.ends_with(&former) && both.len() > former.len());
        assert!(is_signed_by(&first, now));
        assert_eq!(at.ensure(&[], 90, now + DAY / 2).unwrap(), Outcome::Kept);
        assert!(is_signed_by(&first, now));
        // A day later everybody has read both.
        assert_eq!(at.ensure(&[], 90, now + DAY).unwrap(), Outcome::Founded);
        let second = Authority::from_pem(&both, &read("ca.key")).unwrap();
        assert!(is_signed_by(&second, now + DAY) && !is_signed_by(&first, now + DAY));
        assert_eq!(read("ca.pem"), both, "the former stays trusted");
        assert_eq!(at.ensure(&[], 90, now + DAY).unwrap(), Outcome::Kept);
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let text = format!("{:#}", at.ensure(&[], 90, now).unwrap_err());
        assert!(text.contains("ca.key") && text.contains("remove both"), "{text}");
    }

    #[test]
    fn a_renewal_that_was_cut_short_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let at = CertificateDir::at(dir.path());
        let now = SystemClock.now();
        at.ensure(&[], 90, now - 3_640 * DAY).unwrap();
        let (ca, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
        // The certificate of the new one was not written yet.
        let former = fs::read_to_string(&ca).unwrap();
        at.ensure(&[], 90, now).unwrap();
        fs::write(&ca, &former).unwrap();
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Announced);
        // It signs, and its first certificate was not written yet.
        fs::rename(dir.path().join("next.key"), &key).unwrap();
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Issued);
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Kept);
        // Nobody looked in time: there is nothing to wait for.
        let late = tempfile::tempdir().unwrap();
        let at = CertificateDir::at(late.path());
        at.ensure(&[], 90, now - 3_650 * DAY).unwrap();
        assert_eq!(at.ensure(&[], 90, now).unwrap(), Outcome::Founded);
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
