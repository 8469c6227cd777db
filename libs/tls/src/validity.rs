//! When a certificate ends: the one field that the TLS library does not show.

use der::{
    Decode, Reader, SliceReader, Tag,
    asn1::{GeneralizedTime, UtcTime},
};
use types::Timestamp;

/// The end of a certificate's validity.
///
/// Source: RFC 5280, section 4.1: `tbsCertificate` is version, serial number, signature, issuer, validity, and more.
pub(crate) fn not_after(certificate: &[u8]) -> der::Result<Timestamp> {
    SliceReader::new(certificate)?.sequence(|outer| {
        let end = outer.sequence(|tbs| {
            if tbs.peek_tag()?.is_context_specific() {
                tbs.tlv_bytes()?;
            }
            for _serial_signature_issuer in 0..3 {
                tbs.tlv_bytes()?;
            }
            let end = tbs.sequence(|validity| {
                validity.tlv_bytes()?;
                time(validity)
            })?;
            rest(tbs)?;
            Ok(end)
        })?;
        rest(outer)?;
        Ok(end)
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

    /// A `Certificate` with nothing in it but what is read here.
    fn certificate(version: &[u8], end: &[u8]) -> Vec<u8> {
        let tlv = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()], body].concat();
        let begin = tlv(0x17, b"200101000000Z");
        let validity = tlv(0x30, &[begin.as_slice(), end].concat());
        let fields = [version, &tlv(0x02, &[1]), &tlv(0x30, &[]), &tlv(0x30, &[]), &validity, &tlv(0x30, &[])].concat();
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
            assert_eq!(not_after(&certificate(version, end)).unwrap(), expected, "{end:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = certificate(&[0xa0, 3, 2, 1, 2], b"\x17\x0d300102030405Z");
        for len in 0..whole.len() {
            assert!(not_after(&whole[..len]).is_err(), "{len}");
        }
        assert!(not_after(&certificate(&[], b"\x04\x0d300102030405Z")).is_err(), "a text is no time");
    }
}
