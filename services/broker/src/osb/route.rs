//! From method and path to what is asked for.

use data_encoding::HEXLOWER;
use ring::digest;
use types::TOKEN_BYTES_MAX;

use crate::osb::{
    Answer,
    endpoints::{Door, ENDPOINTS},
    request::decode,
};

/// How the names begin that stand for ids that are no tokens.
const DERIVED: &str = "id-";
/// Hex digits of such a name: 128 bits, so that no two ids meet.
const DERIVED_DIGITS: usize = 32;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Catalog,
    Instance { instance: String },
    InstanceOperation { instance: String },
    Binding { instance: String, binding: String },
    BindingOperation { instance: String, binding: String },
}

/// A subject with a method that it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) subject: Subject,
    pub(crate) method: Method,
}

/// The methods of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// As HTTP writes it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Subject {
    /// One word for metrics and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Instance { .. } => "instance",
            Self::InstanceOperation { .. } => "instance_operation",
            Self::Binding { .. } => "binding",
            Self::BindingOperation { .. } => "binding_operation",
        }
    }

    fn new(door: Door, ids: Vec<String>) -> Option<Self> {
        let mut ids = ids.into_iter();
        let mut next = || ids.next();
        Some(match door {
            Door::Catalog => Self::Catalog,
            Door::Instance => Self::Instance { instance: next()? },
            Door::InstanceOperation => Self::InstanceOperation { instance: next()? },
            Door::Binding => Self::Binding { instance: next()?, binding: next()? },
            Door::BindingOperation => Self::BindingOperation { instance: next()?, binding: next()? },
            // Served before the version is looked at, with which all routes of the specification begin.
            Door::OpenApi => return None,
        })
    }
}

/// Finds the route; an unknown path is 404, an unknown method on a known path 405 with `Allow`.
///
/// The path is split before it is decoded, so an encoded slash belongs to an id.
pub(crate) fn route(method: &str, path: &str) -> Result<Route, Answer> {
    let unknown = || Answer::not_found("there is no such path");
    let parts: Option<Vec<String>> = path.trim_start_matches('/').split('/').map(|part| decode(part, false)).collect();
    let parts = parts.ok_or_else(unknown)?;
    let here = |template: &str| matches(template, &parts);
    let (door, ids) = ENDPOINTS.iter().find_map(|e| Some((e.door, here(e.path)?))).ok_or_else(unknown)?;
    let subject = Subject::new(door, ids).ok_or_else(unknown)?;
    let methods = || ENDPOINTS.iter().filter(|e| e.door == door).map(|e| e.method);
    match methods().find(|known| known.word() == method) {
        Some(method) => Ok(Route { subject, method }),
        None => Err(not_allowed(method, door)),
    }
}

/// The answer to a method that a path does not have.
pub(crate) fn not_allowed(method: &str, door: Door) -> Answer {
    let allowed: Vec<_> = ENDPOINTS.iter().filter(|e| e.door == door).map(|e| e.method.word()).collect();
    let refusal = Answer::refuse(405, "MethodNotAllowed", format!("{method:.20} is not possible here"));
    refusal.header("Allow", allowed.join(", "))
}

/// The ids of a path that has the form of a template.
fn matches(template: &str, parts: &[String]) -> Option<Vec<String>> {
    let wanted: Vec<&str> = template.trim_start_matches('/').split('/').collect();
    if wanted.len() != parts.len() {
        return None;
    }
    let mut ids = Vec::new();
    for (wanted, part) in wanted.iter().zip(parts) {
        match wanted.starts_with('{') {
            true if part.is_empty() => return None,
            true => ids.push(own_id(part)),
            false if wanted != part => return None,
            false => {}
        }
    }
    Some(ids)
}

/// The id under which we know what a platform calls by this one.
///
/// The specification lets ids be any text of any length; ours are tokens, since they become parts of names elsewhere. A text that is
/// none is known by its digest, and so is a text that looks like such a digest.
pub(crate) fn own_id(text: &str) -> String {
    let is_token =
        text.len() <= TOKEN_BYTES_MAX && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let looks_derived = text.strip_prefix(DERIVED).is_some_and(|rest| {
        rest.len() == DERIVED_DIGITS && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    if is_token && !looks_derived {
        return text.to_owned();
    }
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    format!("{DERIVED}{}", &HEXLOWER.encode(digest.as_ref())[..DERIVED_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_find_their_route() {
        let (i, b) = (|s: &str| s.to_owned(), |s: &str| s.to_owned());
        for (method, path, expected) in [
            ("GET", "/v2/catalog", Ok(Subject::Catalog)),
            ("PUT", "/v2/service_instances/a", Ok(Subject::Instance { instance: i("a") })),
            ("PATCH", "/v2/service_instances/a%2Db", Ok(Subject::Instance { instance: i("a-b") })),
            ("GET", "/v2/service_instances/a/last_operation", Ok(Subject::InstanceOperation { instance: i("a") })),
            (
                "DELETE",
                "/v2/service_instances/a/service_bindings/b",
                Ok(Subject::Binding { instance: i("a"), binding: b("b") }),
            ),
            (
                "GET",
                "/v2/service_instances/a/service_bindings/b/last_operation",
                Ok(Subject::BindingOperation { instance: i("a"), binding: b("b") }),
            ),
            ("POST", "/v2/catalog", Err(405)),
            ("HEAD", "/v2/catalog", Err(405)),
            ("TRACE", "/v2/service_instances/a", Err(405)),
            ("QUERY", "/v2/service_instances/a/last_operation", Err(405)),
            ("PATCH", "/v2/service_instances/a/service_bindings/b", Err(405)),
            ("GET", "/v2/service_instances/", Err(404)),
            ("GET", "/v2/service_instances/%zz", Err(404)),
            ("GET", "/v2/service_instances/a/service_bindings/", Err(404)),
            ("GET", "/v2/catalog/", Err(404)),
            ("GET", "/v3/catalog", Err(404)),
            ("GET", "/", Err(404)),
        ] {
            let found = route(method, path);
            assert_eq!(found.map(|r| r.subject).map_err(|a| a.status), expected, "{method} {path}");
        }
        let refused = route("POST", "/v2/service_instances/a").unwrap_err();
        assert!(refused.headers.contains(&("Allow".into(), "GET, PUT, PATCH, DELETE".into())));
    }

    #[test]
    fn every_id_has_a_token_of_its_own() {
        let token = |path: &str| match route("GET", &format!("/v2/service_instances/{path}")).unwrap().subject {
            Subject::Instance { instance } => instance,
            other => panic!("{other:?}"),
        };
        let same = "8c7d1f64-90c2-4b0e-b1d3-6e4c9a2f5b02";
        assert_eq!(token(same), same);
        assert_eq!(token(&"a".repeat(128)), "a".repeat(128));
        let odd = ["a%2Fb", "a%2fc", "a.b", "%20", "%F0%9F%AA%B5", &"a".repeat(129), &"a".repeat(4000), "*", ".."];
        let mut seen = std::collections::BTreeSet::new();
        for path in odd {
            let id = token(path);
            id.parse::<types::InstanceId>().unwrap();
            assert!(seen.insert(id.clone()), "{path}");
            assert_ne!(token(&id), id, "nobody reaches it by guessing its token");
        }
        assert_eq!(token("a%2Fb"), token("a%2fb"), "decoded before it is named");
    }
}
