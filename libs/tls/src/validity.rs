//! What the TLS library does not show of a certificate: who signed it, and from when until when it is valid.

use std::time::Duration;

use der::{
    Decode, Reader, SliceReader, Tag,
    asn1::{GeneralizedTime, UtcTime},
};
use types::Timestamp;

/// Whoever renews by hand needs some days, and who renews by machine has done so by then.
const RENEWED_BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first instant.
    pub begins: Timestamp,
    /// Its last instant.
    pub ends: Timestamp,
}

impl Validity {
    /// From when on it should be renewed: 30 days before its end, or a third of its life where that is less.
    pub fn renewed_from(&self) -> Timestamp {
        self.ends - RENEWED_BEFORE.min(self.ends.since(self.begins) / 3)
    }
}

/// What is read of one certificate.
pub(crate) struct Facts {
    /// The name of who signed it, as it stands there.
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: Validity,
}

/// Reads the first fields of a certificate.
///
/// Source: RFC 5280, section 4.1: `tbsCertificate` is version, serial number, signature, issuer, validity, and more.
pub(crate) fn facts(certificate: &[u8]) -> der::Result<Facts> {
    SliceReader::new(certificate)?.sequence(|outer| {
        let facts = outer.sequence(|tbs| {
            if tbs.peek_tag()?.is_context_specific() {
                tbs.tlv_bytes()?;
            }
            for _serial_signature in 0..2 {
                tbs.tlv_bytes()?;
            }
            let issuer = tbs.tlv_bytes()?.to_vec();
            let (begins, ends) = tbs.sequence(|validity| Ok((time(validity)?, time(validity)?)))?;
            rest(tbs)?;
            Ok(Facts { issuer, validity: Validity { begins, ends } })
        })?;
        rest(outer)?;
        Ok(facts)
    })
}

/// Certificates that never end say the year 9999, which is later than our clock goes.
fn time<'a>(reader: &mut impl Reader<'a>) -> der::Result<Timestamp> {
    let since = match reader.peek_tag()? {
        Tag::UtcTime => UtcTime::decode(reader)?.to_unix_duration(),
        _ => GeneralizedTime::decode(reader)?.to_unix_duration(),
    };
    Ok(i64::try_from(since.as_nanos()).map_or(Timestamp::MAX, Timestamp::from_nanos))
}

/// A sequence must be read to its end.
fn rest<'a>(reader: &mut impl Reader<'a>) -> der::Result<()> {
    while !reader.is_finished() {
        reader.tlv_bytes()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: [u8; 5] = [0x30, 3, 0x02, 1, 9];

    /// A `Certificate` with nothing in it but what is read here.
    fn certificate(version: &[u8], end: &[u8]) -> Vec<u8> {
        let tlv = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()], body].concat();
        let begin = tlv(0x17, b"200101000000Z");
        let validity = tlv(0x30, &[begin.as_slice(), end].concat());
        let fields = [version, &tlv(0x02, &[1]), &tlv(0x30, &[]), &ISSUER, &validity, &tlv(0x30, &[])].concat();
        tlv(0x30, &[tlv(0x30, &fields), tlv(0x30, &[])].concat())
    }

    #[test]
    fn the_end_is_read_in_both_forms_of_time_and_both_forms_of_version() {
        let version = [0xa0, 3, 2, 1, 2];
        for (version, end, expected) in [
            (&version[..], &b"\x17\x0d300102030405Z"[..], Timestamp::from_millis(1_893_553_445_000)),
            (&[], b"\x17\x0d300102030405Z", Timestamp::from_millis(1_893_553_445_000)),
            (&version, b"\x18\x0f20600102030405Z", Timestamp::from_millis(2_840_238_245_000)),
            (&version, b"\x18\x0f99991231235959Z", Timestamp::MAX),
        ] {
            let read = facts(&certificate(version, end)).unwrap();
            assert_eq!((read.validity.ends, read.issuer.as_slice()), (expected, &ISSUER[..]), "{end:?}");
            assert_eq!(read.validity.begins, Timestamp::from_millis(1_577_836_800_000));
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = certificate(&[0xa0, 3, 2, 1, 2], b"\x17\x0d300102030405Z");
        for len in 0..whole.len() {
            assert!(facts(&whole[..len]).is_err(), "{len}");
        }
        assert!(facts(&certificate(&[], b"\x04\x0d300102030405Z")).is_err(), "a text is no time");
    }

    #[test]
    fn it_should_be_renewed_a_month_before_its_end_or_in_the_last_third_of_a_short_life() {
        let day = Duration::from_secs(24 * 3_600);
        let begins = Timestamp::from_millis(1_700_000_000_000);
        for (life, before) in [(365, 30), (90, 30), (30, 10), (3, 1), (0, 0)] {
            let ends = begins + day * life;
            assert_eq!(Validity { begins, ends }.renewed_from(), ends - day * before, "{life}");
        }
        let ends = Timestamp::MAX;
        assert_eq!(Validity { begins, ends }.renewed_from(), ends - day * 30);
    }
}
