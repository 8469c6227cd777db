//! A request as it arrived, and the checks that come before all others: credentials, version, identity.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::osb::Answer;

/// The oldest minor version that is spoken.
const MINOR_MIN: u32 = 11;

/// The version header.
pub(crate) const API_VERSION: &str = "x-broker-api-version";
/// Who asked the platform.
pub(crate) const ORIGINATING_IDENTITY: &str = "x-broker-api-originating-identity";
/// Names the request in the platform's logs.
pub(crate) const REQUEST_IDENTITY: &str = "x-broker-api-request-identity";

/// What a platform has of the catalog already.
const IF_NONE_MATCH: &str = "if-none-match";

/// Headers that mean something to us, besides the credentials, which never travel further.
pub(crate) const HEADERS: [&str; 4] = [API_VERSION, ORIGINATING_IDENTITY, REQUEST_IDENTITY, IF_NONE_MATCH];

/// A request without its credentials; what a replica forwards to the leader.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// As sent: still percent-encoded.
    pub(crate) path: String,
    /// As sent.
    pub(crate) query: String,
    /// [`HEADERS`] by lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    /// The name of the credential that let it in, for the audit.
    #[serde(default)]
    pub(crate) credential: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first value of a query field.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true).as_deref() == Some(name)).then(|| decode(value, true)).flatten()
        })
    }

    /// Whether the platform has what a tag names; a weak tag names the same content.
    pub(crate) fn knows(&self, etag: &str) -> bool {
        let tags = self.header(IF_NONE_MATCH).unwrap_or_default().split(',').map(str::trim);
        tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == etag || tag == "*")
    }

    /// Whether the platform is able to wait for an operation.
    pub(crate) fn accepts_incomplete(&self) -> Result<bool, Answer> {
        match self.query("accepts_incomplete").as_deref() {
            Some("true") => Ok(true),
            None | Some("false" | "") => Ok(false),
            Some(_) => Err(Answer::bad_request("accepts_incomplete must be true or false")),
        }
    }
}

/// Percent-decodes once; `None` if it is not UTF-8 afterwards or a `%` stands alone.
pub(crate) fn decode(text: &str, is_query: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if is_query => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// A spoken version: 2.`minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The second number.
    pub minor: u32,
}

impl Version {
    /// The versions that brought fields to the catalog, oldest first; the first of them is the oldest that is spoken.
    pub(crate) const GATES: [u32; 6] = [MINOR_MIN, 13, 14, 15, 16, 17];

    /// Reads the header; missing, empty, malformed or unsupported versions are refused alike.
    pub(crate) fn of(request: &Request) -> Result<Self, Answer> {
        let text = request.header(API_VERSION).unwrap_or_default().trim();
        let number = |n: &str| n.bytes().all(|b| b.is_ascii_digit()).then(|| n.parse::<u32>().ok()).flatten();
        let parsed = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        match parsed {
            Some((2, minor)) if minor >= MINOR_MIN => Ok(Self { minor }),
            _ => Err(Answer::refuse(
                412,
                "PreconditionFailed",
                format!("X-Broker-API-Version must be 2.{MINOR_MIN} or a later 2.x; the request has {text:?}"),
            )),
        }
    }

    /// Whether fields of the minor version may be sent.
    pub(crate) fn has(self, minor: u32) -> bool {
        self.minor >= minor
    }
}

/// On whose behalf the platform asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `kubernetes`, `cloudfoundry`, …
    pub platform: String,
    /// What the platform says of the user, as canonical JSON.
    pub user: String,
}

impl Identity {
    /// Reads the header; nobody is named if it is absent.
    pub(crate) fn of(request: &Request) -> Result<Option<Self>, Answer> {
        let Some(text) = request.header(ORIGINATING_IDENTITY) else { return Ok(None) };
        let parse = || {
            let (platform, encoded) = text.trim().split_once(' ')?;
            let json = BASE64.decode(encoded.trim().as_bytes()).ok()?;
            let user: Value = serde_json::from_slice(&json).ok()?;
            let named = !platform.is_empty() && user.is_object();
            named.then(|| Self { platform: platform.to_owned(), user: user.to_string() })
        };
        let identity = parse().ok_or_else(|| {
            Answer::bad_request("X-Broker-API-Originating-Identity must be a platform and base64 of a JSON object")
        })?;
        Ok(Some(identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(header: &str, value: Option<&str>) -> Request {
        let headers = value.map(|v| (header.to_owned(), v.to_owned())).into_iter().collect();
        Request { method: "GET".into(), path: "/".into(), headers, ..Request::default() }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (text, expected) in [
            (Some("2.11"), Some(11)),
            (Some("2.17"), Some(17)),
            (Some("2.100"), Some(100)),
            (Some("2.9"), None),
            (Some("3.0"), None),
            (Some("1.17"), None),
            (Some(""), None),
            (Some("2"), None),
            (Some("2.+14"), None),
            (Some("junk"), None),
            (None, None),
        ] {
            let read = Version::of(&request(API_VERSION, text));
            assert_eq!(read.as_ref().ok().map(|v| v.minor), expected, "{text:?}");
            assert!(read.is_ok() || read.unwrap_err().status == 412);
        }
    }

    #[test]
    fn an_identity_is_optional_but_never_malformed() {
        let good = format!("kubernetes {}", BASE64.encode(br#"{"username":"duke","uid":"1"}"#));
        let read = |text: Option<&str>| Identity::of(&request(ORIGINATING_IDENTITY, text));
        assert_eq!(read(None), Ok(None));
        assert_eq!(read(Some(&good)).unwrap().unwrap().platform, "kubernetes");
        let list = format!("kubernetes {}", BASE64.encode(b"[1]"));
        for bad in ["kubernetes", "kubernetes !!!", "", list.as_str()] {
            assert_eq!(read(Some(bad)).unwrap_err().status, 400, "{bad:?}");
        }
    }

    #[test]
    fn a_known_tag_is_found_in_a_list() {
        for (header, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"ab\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(request(IF_NONE_MATCH, Some(header)).knows("\"a\""), known, "{header}");
        }
        assert!(!request(IF_NONE_MATCH, None).knows("\"a\""));
    }

    #[test]
    fn query_fields_are_decoded_once() {
        let mut asked = request(API_VERSION, None);
        asked.query = "plan_id=a%2Bb&service_id=x+y&accepts_incomplete=true&bad=%zz&flag".into();
        assert_eq!(asked.query("plan_id").as_deref(), Some("a+b"));
        assert_eq!(asked.query("service_id").as_deref(), Some("x y"));
        assert_eq!(asked.query("flag").as_deref(), Some(""));
        assert_eq!((asked.query("bad"), asked.query("none")), (None, None));
        assert_eq!(asked.accepts_incomplete(), Ok(true));
        asked.query = "accepts_incomplete=maybe".into();
        assert_eq!(asked.accepts_incomplete().unwrap_err().status, 400);
    }
}
