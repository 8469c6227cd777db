//! From method and path to what is asked for.

use crate::osb::{Answer, request::decode};

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

    fn methods(&self) -> &'static [(&'static str, Method)] {
        match self {
            Self::Catalog | Self::InstanceOperation { .. } | Self::BindingOperation { .. } => &[("GET", Method::Get)],
            Self::Instance { .. } => {
                &[("GET", Method::Get), ("PUT", Method::Put), ("PATCH", Method::Patch), ("DELETE", Method::Delete)]
            }
            Self::Binding { .. } => &[("GET", Method::Get), ("PUT", Method::Put), ("DELETE", Method::Delete)],
        }
    }
}

/// Finds the route; an unknown path is 404, an unknown method on a known path 405 with `Allow`.
///
/// The path is split before it is decoded, so an encoded slash belongs to an id.
pub(crate) fn route(method: &str, path: &str) -> Result<Route, Answer> {
    let parts: Option<Vec<String>> = path.trim_start_matches('/').split('/').map(|part| decode(part, false)).collect();
    let parts = parts.unwrap_or_default();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let subject = match parts[..] {
        ["v2", "catalog"] => Subject::Catalog,
        ["v2", "service_instances", instance, ref rest @ ..] if !instance.is_empty() => {
            let instance = instance.to_owned();
            match *rest {
                [] => Subject::Instance { instance },
                ["last_operation"] => Subject::InstanceOperation { instance },
                ["service_bindings", binding] if !binding.is_empty() => {
                    Subject::Binding { instance, binding: binding.to_owned() }
                }
                ["service_bindings", binding, "last_operation"] if !binding.is_empty() => {
                    Subject::BindingOperation { instance, binding: binding.to_owned() }
                }
                _ => return Err(Answer::not_found("there is no such path")),
            }
        }
        _ => return Err(Answer::not_found("there is no such path")),
    };
    match subject.methods().iter().find(|(name, _)| *name == method) {
        Some((_, method)) => Ok(Route { subject, method: *method }),
        None => {
            let allowed: Vec<_> = subject.methods().iter().map(|(name, _)| *name).collect();
            let refusal = Answer::refuse(405, "MethodNotAllowed", format!("{method} is not possible here"));
            Err(refusal.header("Allow", allowed.join(", ")))
        }
    }
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
            ("PATCH", "/v2/service_instances/a%2Fb", Ok(Subject::Instance { instance: i("a/b") })),
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
            ("TRACE", "/v2/service_instances/a", Err(405)),
            ("QUERY", "/v2/service_instances/a/last_operation", Err(405)),
            ("PATCH", "/v2/service_instances/a/service_bindings/b", Err(405)),
            ("GET", "/v2/service_instances/", Err(404)),
            ("GET", "/v2/service_instances/%zz", Err(404)),
            ("GET", "/v2/service_instances/a/service_bindings/", Err(404)),
            ("GET", "/v3/catalog", Err(404)),
            ("GET", "/", Err(404)),
        ] {
            let found = route(method, path);
            assert_eq!(found.map(|r| r.subject).map_err(|a| a.status), expected, "{method} {path}");
        }
        let refused = route("POST", "/v2/service_instances/a").unwrap_err();
        assert!(refused.headers.contains(&("Allow".into(), "GET, PUT, PATCH, DELETE".into())));
    }
}
