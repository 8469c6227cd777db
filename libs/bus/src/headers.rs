//! Reading and writing message headers without a way to break the protocol.

use async_nats::HeaderMap;

/// Sets a header; characters that would end the header line are replaced by spaces.
pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if value.contains(['\r', '\n']) {
        headers.insert(name, value.replace(['\r', '\n'], " ").as_str());
    } else {
        headers.insert(name, value);
    }
}

/// Reads a header.
pub(crate) fn get<'a>(headers: Option<&'a HeaderMap>, name: &'static str) -> Option<&'a str> {
    headers.and_then(|h| h.get(name)).map(|v| v.as_str())
}

/// Finds a header in the stored text form `NATS/1.0\r\nName: value\r\n\r\n`.
pub(crate) fn find(text: &str, name: &str) -> Option<String> {
    text.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_add_a_header() {
        let mut headers = HeaderMap::new();
        set(&mut headers, "Lb-Caller", "a\r\nEvil: 1");
        assert_eq!(get(Some(&headers), "Lb-Caller"), Some("a  Evil: 1"));
        assert_eq!(get(None, "Lb-Caller"), None);
    }

    #[test]
    fn stored_headers_are_found() {
        let text = "NATS/1.0\r\nNats-Msg-Id: a:b\r\nKV-Operation:DEL\r\n\r\n";
        assert_eq!(find(text, "Nats-Msg-Id").as_deref(), Some("a:b"));
        assert_eq!(find(text, "kv-operation").as_deref(), Some("DEL"));
        assert_eq!(find(text, "Other"), None);
    }
}
