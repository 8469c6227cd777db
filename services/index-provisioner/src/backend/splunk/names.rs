//! What things are called and made of in Splunk. Pure.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest;
use types::{IndexName, InstanceId, ScopeName};
use wire::{
    Problem,
    index_provisioner::{BindingDescription, IndexDescription},
};

use super::SOURCETYPE;
use crate::{backend::refused, mint::Mint};

/// What Splunk keeps where nobody says: its own defaults, which a change may come back to.
const DEFAULT_MIB: u64 = 500_000;
const DEFAULT_SECONDS: u64 = 188_697_600;
/// What Splunk Cloud keeps where nobody says; 0 is no limit.
const CLOUD_DEFAULT_DAYS: u64 = 90;
/// The largest number that Splunk takes in either place.
const NUMBER_MAX: u64 = 4_294_967_295;
const DAY_SECONDS: u64 = 86_400;
const MIB: u64 = 1 << 20;

/// The names and secrets of a binding.
pub(super) struct Names {
    /// Of its HEC token, its user and its role.
    pub(super) name: String,
    /// Says whose a user is.
    pub(super) real_name: String,
    pub(super) hec_token: String,
    pub(super) password: String,
}

impl Names {
    pub(super) fn of(mint: &Mint, binding: &BindingDescription) -> Self {
        let (id, issued) = (&binding.binding, binding.created);
        // Names of Splunk are short and in lower case, which ids need not be.
        let hash = digest::digest(&digest::SHA256, format!("{id}/{}", issued.nanos()).as_bytes());
        let password = BASE64URL_NOPAD.encode(&mint.derive("splunk/password", id, issued));
        Self {
            name: format!("lb-{}", HEXLOWER.encode(&hash.as_ref()[..10])),
            real_name: format!("Logboom binding {id}"),
            hec_token: uuid_of(&mint.derive("splunk/hec", id, issued)),
            // Rules for passwords want one of each kind.
            password: format!("lbp_{password}.A1a"),
        }
    }
}

/// The shape that Splunk gives to tokens.
fn uuid_of(bytes: &[u8; 32]) -> String {
    let hex = HEXLOWER.encode(&bytes[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The role that bears the mark of an index.
pub(super) fn mark(index: &IndexName) -> String {
    format!("lb-index-{index}")
}

/// What it says while the index belongs to a service instance.
pub(super) fn mark_filter(instance: &InstanceId) -> String {
    format!("logboom_instance={instance}")
}

/// What it says of an index that outlived its instance: nobody of another scope adopts it.
pub(super) fn retained_filter(scope: &ScopeName) -> String {
    format!("logboom_retained={scope}")
}

/// How much and how long an indexer keeps: MiB and seconds.
pub(super) fn limits(index: &IndexDescription) -> (u64, u64) {
    let mib = index.options.bytes_max.map_or(DEFAULT_MIB, |bytes| bytes.div_ceil(MIB));
    let seconds = index.retention_days.map_or(DEFAULT_SECONDS, |days| u64::from(days) * DAY_SECONDS);
    (mib, seconds)
}

/// How much and how long Splunk Cloud keeps: MiB and days.
pub(super) fn cloud_limits(index: &IndexDescription) -> (u64, u64) {
    let mib = index.options.bytes_max.map_or(0, |bytes| bytes.div_ceil(MIB));
    (mib, index.retention_days.map_or(CLOUD_DEFAULT_DAYS, u64::from))
}

/// What Splunk would refuse or misunderstand.
pub(super) fn check(index: &IndexDescription) -> Result<(), Problem> {
    if index.index.as_str().contains("kvstore") {
        return Err(refused("the name of an index of Splunk must not contain kvstore"));
    }
    let (mib, seconds) = limits(index);
    if mib > NUMBER_MAX || seconds > NUMBER_MAX {
        return Err(refused("Splunk keeps at most 49710 days and 4294967295 MiB"));
    }
    for (name, value) in &index.options.backend {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b":_-.".contains(&b);
        match name.as_str() {
            SOURCETYPE if !value.is_empty() && value.bytes().all(plain) => {}
            SOURCETYPE => return Err(refused("a sourcetype has letters, digits, : _ - and .")),
            _ => return Err(refused(format_args!("the back-end splunk has no option {name:?}, only sourcetype"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bus::keys::Keyring;
    use types::Timestamp;
    use wire::{index_provisioner::IndexOptions, views::Role};

    use super::*;

    fn index(name: &str, retention_days: Option<u32>, options: IndexOptions) -> IndexDescription {
        IndexDescription {
            instance: "i".parse().unwrap(),
            scope: "team".parse().unwrap(),
            index: name.parse().unwrap(),
            backend: "splunk".into(),
            segment_count: 1,
            retention_days,
            options,
            created: Timestamp::default(),
        }
    }

    fn names(binding: &str, issued: i64) -> Names {
        let ring = Keyring::generate(Timestamp::from_nanos(1)).unwrap();
        let mint = Mint::new(&ring.tenants_seed, "0123456789abcdef0123456789abcdef").unwrap();
        let binding = BindingDescription {
            binding: binding.parse().unwrap(),
            instance: "i".parse().unwrap(),
            index: "shop".parse().unwrap(),
            role: Role::Admin,
            created: Timestamp::from_nanos(issued),
            expires: None,
        };
        Names::of(&mint, &binding)
    }

    #[test]
    fn a_binding_always_has_the_same_names_and_no_other_has_them() {
        let (first, again) = (names("B", 1), names("B", 1));
        assert_eq!((&first.name, &first.hec_token, &first.password), (&again.name, &again.hec_token, &again.password));
        for other in [names("C", 1), names("B", 2)] {
            assert_ne!(first.name, other.name);
            assert_ne!(first.hec_token, other.hec_token);
            assert_ne!(first.password, other.password);
        }
        assert!(
            first.name.len() == 23
                && first.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        );
        let parts: Vec<usize> = first.hec_token.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn limits_are_whole_and_fall_back_to_the_defaults() {
        let bytes = |bytes_max| IndexOptions { bytes_max, ..IndexOptions::default() };
        for (days, most, expected, cloud) in [
            (None, None, (500_000, 188_697_600), (0, 90)),
            (Some(7), Some(1), (1, 604_800), (1, 7)),
            (Some(1), Some(3 * MIB + 1), (4, 86_400), (4, 1)),
        ] {
            assert_eq!(limits(&index("shop", days, bytes(most))), expected);
            assert_eq!(cloud_limits(&index("shop", days, bytes(most))), cloud);
        }
    }

    #[test]
    fn what_splunk_cannot_do_is_refused_before_it_is_asked() {
        let option = |name: &str, value: &str| IndexOptions {
            backend: [(name.to_owned(), value.to_owned())].into(),
            ..IndexOptions::default()
        };
        assert!(check(&index("shop", Some(49_710), option("sourcetype", "app:json"))).is_ok());
        for (bad, why) in [
            (index("mykvstore", None, IndexOptions::default()), "kvstore"),
            (index("shop", Some(49_711), IndexOptions::default()), "49710"),
            (index("shop", None, IndexOptions { bytes_max: Some(u64::MAX), ..IndexOptions::default() }), "MiB"),
            (index("shop", None, option("sourcetype", "a b")), "letters"),
            (index("shop", None, option("sourcetype", "")), "letters"),
            (index("shop", None, option("datatype", "metric")), "datatype"),
        ] {
            let problem = check(&bad).unwrap_err();
            assert!(problem.kind == "BackendRefused" && problem.message.contains(why), "{problem}");
        }
    }
}
