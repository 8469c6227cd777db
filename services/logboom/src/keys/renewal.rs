//! `logboom keys tls --kubernetes`: the private authority and its certificate as Secrets of the namespace that the pod runs in.
//!
//! It does in an empty directory what `keys tls` does in its own, between reading the Secrets and writing what has changed. Of two runs
//! at once one is refused, since a Secret is only exchanged as it was read; and the authority is written before the certificate, so that
//! a run cut short in between only makes another certificate. The ServiceAccount needs `create` of Secrets, `get` and `update` of both.

use std::{fs, io, path::Path};

use anyhow::{Context, ensure};
use bus::SystemClock;
use types::Clock;

use super::{
    CertificateDir, Outcome,
    cluster::{ClusterArgs, Data, Secrets},
    random_hex,
};
use crate::tools::index::write_private;

/// The authority, with its key, which no pod but this one reads.
const AUTHORITY: &str = "logboom-ca";
/// What services and nats-server mount, in the form of cert-manager.
pub(super) const CERTIFICATE: &str = "logboom-tls";
/// The files of [`AUTHORITY`]; the last two only while an authority waits to follow another.
const OF_AUTHORITY: [&str; 5] = ["ca.pem", "ca.key", "hosts", "next.key", "next.since"];
/// The keys of [`CERTIFICATE`] and their files.
const OF_CERTIFICATE: [(&str, &str); 3] =
    [("tls.crt", "certificate.pem"), ("tls.key", "key.pem"), ("ca.crt", "ca.pem")];

/// Makes what is missing and renews what ends soon.
pub(super) async fn renew(args: &ClusterArgs, dir: &Path, hosts: &[String], days: u32) -> anyhow::Result<Outcome> {
    let secrets = Secrets::of(args)?;
    let (authority, certificate) = (secrets.read(AUTHORITY).await?, secrets.read(CERTIFICATE).await?);
    ensure!(
        authority.is_some() || certificate.is_none(),
        "Secret {CERTIFICATE} is there and Secret {AUTHORITY} is not, so it was made elsewhere: renew it there, or delete it"
    );
    // What a run before left in the pod's volume counts for nothing.
    let own = dir.join(format!("renewal-{}", random_hex()));
    fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    let held =
        |kept: &Option<super::cluster::Kept>, key: &str| kept.as_ref().and_then(|kept| kept.data.get(key).cloned());
    let there = OF_AUTHORITY.map(|name| (name, held(&authority, name)));
    let signed = OF_CERTIFICATE[..2].iter().map(|(key, name)| (*name, held(&certificate, key)));
    for (name, text) in there.into_iter().chain(signed) {
        if let Some(text) = text {
            write_private(&own.join(name), &text)?;
        }
    }
    let outcome = CertificateDir::at(&own).ensure(hosts, days, SystemClock.now())?;
    let (of_authority, of_certificate) =
        (read(&own, OF_AUTHORITY.map(|name| (name, name)))?, read(&own, OF_CERTIFICATE)?);
    fs::remove_dir_all(&own).with_context(|| format!("cannot remove {}", own.display()))?;
    secrets.put(AUTHORITY, authority, &of_authority).await?;
    secrets.put(CERTIFICATE, certificate, &of_certificate).await?;
    Ok(outcome)
}

/// The files that there are, by the keys of a Secret.
fn read<const N: usize>(dir: &Path, files: [(&str, &str); N]) -> anyhow::Result<Data> {
    let mut data = Data::new();
    for (key, name) in files {
        match fs::read_to_string(dir.join(name)) {
            Ok(text) => drop(data.insert(key.to_owned(), text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        }
    }
    Ok(data)
}
