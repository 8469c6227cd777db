//! Signature version 4 of AWS. Pure: time, request and key in, headers out.

use std::fmt::{self, Write as _};

use data_encoding::HEXLOWER;
use ring::{digest, hmac};
use types::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// An access key and what it is used for.
#[derive(Clone)]
pub(super) struct Signer {
    pub(super) key_id: String,
    pub(super) secret: String,
    pub(super) region: String,
    /// `s3` or `iam`.
    pub(super) service: &'static str,
}

/// What is signed of a request.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// Percent-encoded, once.
    pub(super) path: &'a str,
    /// As it is, in any order.
    pub(super) query: &'a [(String, String)],
    /// Lower-case names in ascending order, `host` and `x-amz-date` among them.
    pub(super) headers: &'a [(String, String)],
    pub(super) body: &'a [u8],
}

impl Signer {
    /// The value of the header `authorization`.
    ///
    /// Source: AWS, "Create a signed AWS API request".
    pub(super) fn authorization(&self, request: &Unsigned<'_>, at: Timestamp) -> String {
        let (instant, day) = (instant(at), day(at));
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let canonical = canonical(request, &names);
        let text = format!("{ALGORITHM}\n{instant}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mut key = hmac_of(format!("AWS4{}", self.secret).as_bytes(), day.as_bytes());
        for part in [self.region.as_str(), self.service, "aws4_request"] {
            key = hmac_of(key.as_ref(), part.as_bytes());
        }
        let signature = HEXLOWER.encode(hmac_of(key.as_ref(), text.as_bytes()).as_ref());
        format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.key_id)
    }
}

impl fmt::Debug for Signer {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key_id", &self.key_id).field("region", &self.region).finish_non_exhaustive()
    }
}

fn canonical(request: &Unsigned<'_>, names: &str) -> String {
    let mut text = format!("{}\n{}\n{}\n", request.method, request.path, query(request.query));
    for (name, value) in request.headers {
        text.push_str(&format!("{name}:{}\n", value.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    text.push_str(&format!("\n{names}\n{}", sha256(request.body)));
    text
}

/// A query as it is signed and sent: encoded and in order.
pub(super) fn query(pairs: &[(String, String)]) -> String {
    let mut pairs: Vec<_> = pairs.iter().map(|(name, value)| (encoded(name, false), encoded(value, false))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-encoded but for the unreserved characters and, in a path, the slash.
pub(super) fn encoded(text: &str, path: bool) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if path => out.push('/'),
            // Writing into a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

/// A path as it is sent: what is signed, but that no client or proxy on the way takes `.` and `..` between slashes for steps.
///
/// A slash beside such a segment is sent as `%2F`; servers resolve that before they look at the path and before they check what was
/// signed, where it is a slash.
pub(super) fn sent(signed: &str) -> String {
    let segments: Vec<&str> = signed.split('/').collect();
    let is_step = |segment: &str| matches!(segment, "." | "..");
    let mut path = String::with_capacity(signed.len());
    for (number, segment) in segments.iter().enumerate() {
        // The first two slashes are before the bucket and before the key: the second stays, unless the key is nothing but a step.
        if number > 0 {
            let in_key = number > 2 && (is_step(segment) || is_step(segments[number - 1]));
            let whole_key = number == 2 && segments.len() == 3 && is_step(segment);
            path.push_str(if in_key || whole_key { "%2F" } else { "/" });
        }
        path.push_str(segment);
    }
    path
}

/// `yyyymmddThhmmssZ`.
pub(super) fn instant(at: Timestamp) -> String {
    formatted(at, "%Y%m%dT%H%M%SZ")
}

fn day(at: Timestamp) -> String {
    formatted(at, "%Y%m%d")
}

fn formatted(at: Timestamp, format: &str) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(at.nanos())).unwrap_or_default();
    at.strftime(format).to_string()
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac_of(key: &[u8], bytes: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, path, query, headers, body, service, signature.
    type Vector = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
        &'static str,
    );

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn check(secret: &str, key_id: &str, at: &str, vectors: &[Vector]) {
        let at: jiff::Timestamp = at.parse().unwrap();
        let at = Timestamp::from_nanos(i64::try_from(at.as_nanosecond()).unwrap());
        for (method, path, query, headers, body, service, expected) in vectors {
            let signer = Signer { key_id: key_id.into(), secret: secret.into(), region: "us-east-1".into(), service };
            let (query, headers) = (owned(query), owned(headers));
            let request = Unsigned { method, path, query: &query, headers: &headers, body: body.as_bytes() };
            let header = signer.authorization(&request, at);
            assert!(header.ends_with(&format!("Signature={expected}")), "{method} {path} {query:?}: {header}");
        }
    }

    /// Source: AWS, the signature version 4 test suite and the worked example of IAM's ListUsers.
    #[test]
    fn the_vectors_of_the_test_suite_hold() {
        const PLAIN: &[(&str, &str)] = &[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        const FORM: &[(&str, &str)] = &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ];
        const IAM: &[(&str, &str)] = &[
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ];
        let users: &[(&str, &str)] = &[("Action", "ListUsers"), ("Version", "2010-05-08")];
        let order: &[(&str, &str)] = &[("Param2", "value2"), ("Param1", "value1")];
        let vectors: &[Vector] = &[
            ("GET", "/", &[], PLAIN, "", "service", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            (
                "GET",
                "/",
                order,
                PLAIN,
                "",
                "service",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "POST",
                "/",
                &[],
                FORM,
                "Param1=value1",
                "service",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            ("GET", "/", users, IAM, "", "iam", "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"),
        ];
        check("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "AKIDEXAMPLE", "2015-08-30T12:36:00Z", vectors);
    }

    /// Source: AWS, "Signature calculations for the Authorization header" of S3.
    #[test]
    fn the_examples_of_s3_hold() {
        const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        const PLAIN: &[(&str, &str)] = &[
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ];
        const RANGE: &[(&str, &str)] = &[
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let lifecycle: &[(&str, &str)] = &[("lifecycle", "")];
        let list: &[(&str, &str)] = &[("prefix", "J"), ("max-keys", "2")];
        let vectors: &[Vector] = &[
            (
                "GET",
                "/test.txt",
                &[],
                RANGE,
                "",
                "s3",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "GET",
                "/",
                lifecycle,
                PLAIN,
                "",
                "s3",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            ("GET", "/", list, PLAIN, "", "s3", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ];
        check("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "AKIAIOSFODNN7EXAMPLE", "2013-05-24T00:00:00Z", vectors);
    }

    #[test]
    fn no_segment_of_a_key_is_sent_as_a_step() {
        for (signed, expected) in [
            ("/", "/"),
            ("/b", "/b"),
            ("/b/a/c", "/b/a/c"),
            ("/b/a//c/", "/b/a//c/"),
            ("/b/a/../c", "/b/a%2F..%2Fc"),
            ("/b/./x", "/b/.%2Fx"),
            ("/b/../x", "/b/..%2Fx"),
            ("/b/..", "/b%2F.."),
            ("/b/a/.", "/b/a%2F."),
            ("/b/...", "/b/..."),
            ("/b/.hidden/..x", "/b/.hidden/..x"),
            ("/b/a/./../c", "/b/a%2F.%2F..%2Fc"),
        ] {
            assert_eq!(sent(signed), expected, "{signed}");
            let url = reqwest::Url::parse(&format!("https://host{}", sent(signed))).unwrap();
            assert_eq!(url.path(), expected, "what the client makes of it");
        }
    }

    #[test]
    fn a_secret_is_never_shown_and_keys_are_encoded_byte_by_byte() {
        let signer = Signer { key_id: "id".into(), secret: "hunter2".into(), region: "r".into(), service: "s3" };
        assert!(!format!("{signer:?}").contains("hunter2"));
        assert_eq!(encoded("a b/ü~+", true), "a%20b/%C3%BC~%2B");
        assert_eq!(encoded("a/b", false), "a%2Fb");
    }
}
