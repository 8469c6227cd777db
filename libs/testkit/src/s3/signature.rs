//! Checks signature version 4 as a server does: from the request as it came.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::HEXLOWER;
use ring::{digest, hmac};
use types::Timestamp;

use super::Refusal;
use crate::bucket::Request;

/// A request may be so old, or so new.
const SKEW_MAX: Duration = Duration::from_secs(900);

/// The key that a request was made with.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) secret: String,
    /// `None` is the account itself.
    pub(super) user: Option<String>,
}

struct Authorization<'a> {
    key_id: &'a str,
    scope: &'a str,
    names: &'a str,
    signature: &'a str,
}

fn authorization(request: &Request) -> Option<Authorization<'_>> {
    let header = request.headers.get("authorization")?.strip_prefix("AWS4-HMAC-SHA256")?;
    let part = |name: &str| header.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let (key_id, scope) = part("Credential")?.split_once('/')?;
    Some(Authorization { key_id, scope, names: part("SignedHeaders")?, signature: part("Signature")? })
}

/// The service that a request was signed for.
pub(super) fn service(request: &Request) -> Option<&str> {
    authorization(request)?.scope.split('/').nth(2)
}

/// The key of a request that is signed as it must be.
pub(super) fn check(
    request: &Request,
    now: Timestamp,
    find: impl FnOnce(&str) -> Option<Known>,
) -> Result<Known, Refusal> {
    let denied = (403, "AccessDenied", "Access Denied");
    let auth = authorization(request).ok_or(denied)?;
    let instant = request.headers.get("x-amz-date").ok_or(denied)?;
    let at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", instant).map_err(|_| denied)?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| denied)?.timestamp();
    let at = Timestamp::from_millis(at.as_millisecond());
    if now.since(at).max(at.since(now)) > SKEW_MAX {
        return Err((
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the server's time is too large.",
        ));
    }
    let known = find(auth.key_id).ok_or((
        403,
        "InvalidAccessKeyId",
        "The access key Id you provided does not exist in our records.",
    ))?;
    let body = HEXLOWER.encode(digest::digest(&digest::SHA256, &request.body).as_ref());
    let claimed = request.headers.get("x-amz-content-sha256").map_or(body.as_str(), String::as_str);
    if claimed != body && claimed != "UNSIGNED-PAYLOAD" {
        return Err((400, "XAmzContentSHA256Mismatch", "The provided header does not match what was computed."));
    }
    let signs = |name: &str| auth.names.split(';').any(|signed| signed == name);
    let unsigned = request.headers.keys().any(|name| name.starts_with("x-amz-") && !signs(name));
    let wanted = sign(request, &auth, &known.secret, instant, claimed);
    if unsigned || !signs("host") || wanted != auth.signature {
        return Err((
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the one you provided.",
        ));
    }
    Ok(known)
}

fn sign(request: &Request, auth: &Authorization<'_>, secret: &str, instant: &str, body: &str) -> String {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    // Whatever way the caller wrote it, it is signed in one way.
    let mut query: Vec<String> =
        pairs(query).iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    query.sort();
    let headers: String = auth
        .names
        .split(';')
        .map(|name| format!("{name}:{}\n", request.headers.get(name).map_or("", |value| value.trim())))
        .collect();
    // So is the path: resolved, and written anew with its slashes as slashes; no step in it is taken.
    let path = decoded(path).split('/').map(encoded).collect::<Vec<_>>().join("/");
    let canonical = format!("{}\n{path}\n{}\n{headers}\n{}\n{body}", request.method, query.join("&"), auth.names);
    let digest = HEXLOWER.encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{instant}\n{}\n{digest}", auth.scope);
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in auth.scope.split('/') {
        key = mac(&key, part.as_bytes());
    }
    HEXLOWER.encode(&mac(&key, text.as_bytes()))
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
}

/// The pairs of a query or a form, in which a plus is a space.
pub(super) fn pairs(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let plain = |text: &str| decoded(&text.replace('+', " "));
    pairs.map(|(name, value)| (plain(name), plain(value))).collect()
}

fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Percent signs resolved.
pub(super) fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut parts = text.split('%');
    out.extend_from_slice(parts.next().unwrap_or("").as_bytes());
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(b'?'));
        out.extend_from_slice(part.get(2..).unwrap_or("").as_bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An instant as HTTP writes it.
pub(super) fn http_date(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.millis()).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
