//! The keys of a test's servers, and files with what services need of them.

use std::{fs, path::Path};

use anyhow::Result;
use bus::{
    SystemClock,
    keys::{self, Keyring, UserSpec},
};
use types::Clock;

/// Writes credentials and seeds of a key ring into a directory.
pub(crate) fn write(keyring: &Keyring, dir: &Path) -> Result<()> {
    let now = SystemClock.now();
    let files = [
        ("platform.creds", keys::issue_creds(|key| UserSpec::platform("platform", key), &keyring.platform_seed, now)?),
        ("tenants.creds", keys::issue_creds(|key| UserSpec::front_door("tenants", key), &keyring.tenants_seed, now)?),
        ("system.creds", keys::issue_creds(|key| UserSpec::system("system", key), &keyring.system_seed, now)?),
        ("operator.seed", keyring.operator_seed.clone()),
        ("tenants.seed", keyring.tenants_seed.clone()),
    ];
    for (name, text) in files {
        fs::write(dir.join(name), text)?;
    }
    Ok(())
}
