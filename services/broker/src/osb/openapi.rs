//! The OpenAPI document of what this broker really answers; the specification's own one lags behind its text.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::osb::{
    Answer, Method, Request,
    endpoints::{BY_CHANGES, BY_LEADER, Door, ENDPOINTS, EVERYWHERE, Endpoint, OPENAPI},
    route::not_allowed,
};

/// The document; it depends on nothing but this program.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// Answers a request for the document; `None` if it asks for something else.
///
/// Whoever may ask the broker may read it, so it needs credentials; generators and browsers send no version, so it needs none.
pub(crate) fn answer(request: &Request) -> Option<Answer> {
    if request.path != OPENAPI {
        return None;
    }
    Some(if request.method == Method::Get.word() {
        Answer { status: 200, headers: Vec::new(), body: DOCUMENT.clone() }
    } else {
        not_allowed(&request.method, Door::OpenApi)
    })
}

fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.word().to_ascii_lowercase()] = operation(endpoint);
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Logboom service broker",
            "description": "The Open Service Broker API as this broker speaks it. Every body is a JSON object, also of errors.",
            "version": "2.17",
        },
        "security": [{ "basic": [] }, { "bearer": [] }],
        "paths": paths,
        "components": { "securitySchemes": security(), "parameters": parameters(), "schemas": schemas() },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let ids = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let headers: &[&str] = match endpoint.door {
        Door::OpenApi => &["request_identity"],
        Door::Catalog => &["api_version", "originating_identity", "request_identity", "if_none_match"],
        _ => &["api_version", "originating_identity", "request_identity"],
    };
    let named = ids.chain(endpoint.query.iter().copied()).chain(headers.iter().copied());
    let parameters: Vec<Value> = named
        .map(|name| match (name, endpoint.method) {
            // Deleting says them; elsewhere they are hints.
            ("service_id" | "plan_id", Method::Get) => reference("parameters", &format!("{name}_hint")),
            _ => reference("parameters", name),
        })
        .collect();
    let responses: Map<String, Value> = answers(endpoint)
        .map(|(status, schema, meaning)| {
            let mut response = json!({ "description": meaning });
            if !schema.is_empty() {
                response["content"] = content(schema);
            }
            (status.to_string(), response)
        })
        .collect();
    let mut operation = json!({
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(schema) = endpoint.body {
        operation["requestBody"] = json!({ "required": true, "content": content(schema) });
    }
    operation
}

/// What an endpoint answers, with what is answered everywhere or by its kind.
fn answers(endpoint: &Endpoint) -> impl Iterator<Item = (u16, &'static str, &'static str)> {
    let is_plain = endpoint.door == Door::OpenApi;
    let checks = EVERYWHERE.into_iter().filter(move |(status, ..)| !is_plain || *status == 401);
    let led = !matches!(endpoint.door, Door::OpenApi | Door::Catalog);
    let by_leader = BY_LEADER.into_iter().filter(move |_| led);
    let changes = endpoint.method != Method::Get;
    let by_changes = BY_CHANGES.into_iter().filter(move |_| changes);
    endpoint.answers.iter().copied().chain(checks).chain(by_leader).chain(by_changes)
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn content(schema: &str) -> Value {
    json!({ "application/json": { "schema": reference("schemas", schema) } })
}

fn security() -> Value {
    json!({ "basic": { "type": "http", "scheme": "basic" }, "bearer": { "type": "http", "scheme": "bearer" } })
}

fn parameters() -> Value {
    let one = |place: &str, name: &str, required: bool, meaning: &str| json!({ "name": name, "in": place, "required": required, "description": meaning, "schema": { "type": "string" } });
    let id = "Any text, percent-encoded; a UUID by custom. An id that is no token of 1 to 128 of A-Z a-z 0-9 _ - is known by its digest.";
    json!({
        "instance_id": one("path", "instance_id", true, id),
        "binding_id": one("path", "binding_id", true, id),
        "service_id": one("query", "service_id", true, "The offering."),
        "plan_id": one("query", "plan_id", true, "The plan."),
        "service_id_hint": one("query", "service_id", false, "A hint, not looked at."),
        "plan_id_hint": one("query", "plan_id", false, "A hint, not looked at."),
        "operation": one("query", "operation", false, "The token of the operation; others are tolerated."),
        "accepts_incomplete": {
            "name": "accepts_incomplete", "in": "query", "required": false,
            "description": "Whether the platform is able to wait for an operation.", "schema": { "type": "boolean" },
        },
        "api_version": one("header", "X-Broker-API-Version", true, "2.11 or a later 2.x; newer fields are held back."),
        "originating_identity":
            one("header", "X-Broker-API-Originating-Identity", false, "A platform, a space, base64 of a JSON object."),
        "request_identity": one("header", "X-Broker-API-Request-Identity", false, "Is echoed."),
        "if_none_match": one("header", "If-None-Match", false, "ETags of catalogs that are known already."),
    })
}

fn schemas() -> Value {
    let text = json!({ "type": "string", "minLength": 1 });
    let id = json!({ "type": "string", "minLength": 1, "maxLength": 255 });
    let free = json!({ "type": "object" });
    let flag = json!({ "type": "boolean" });
    let object = |required: &[&str], properties: Value| {
        let mut schema = json!({ "type": "object", "properties": properties });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    };
    let maintenance = object(&[], json!({ "version": text, "description": text }));
    let metadata = object(&[], json!({ "labels": free, "attributes": free, "expires_at": text, "renew_before": text }));
    let dashboard = json!({ "type": "string", "nullable": true });
    let endpoint = object(
        &["host", "ports"],
        json!({
            "host": text, "ports": { "type": "array", "items": text },
            "protocol": { "type": "string", "enum": ["tcp", "udp", "all"] },
        }),
    );
    json!({
        "Document": free,
        "Empty": free,
        "Error": object(&["error", "description"], json!({ "error": text, "description": text })),
        "UpdateError": object(
            &["error", "description"],
            json!({ "error": text, "description": text, "instance_usable": flag, "update_repeatable": flag }),
        ),
        "Catalog": object(&["services"], json!({ "services": { "type": "array", "items": free } })),
        "Provision": object(
            &["service_id", "plan_id", "organization_guid", "space_guid"],
            json!({
                "service_id": id, "plan_id": id, "organization_guid": id, "space_guid": id,
                "context": free, "parameters": free, "maintenance_info": maintenance,
            }),
        ),
        "Provisioned": object(&[], json!({ "dashboard_url": dashboard, "operation": text, "metadata": metadata })),
        "Update": object(
            &["service_id"],
            json!({
                "service_id": id, "plan_id": id, "context": free, "parameters": free, "previous_values": free,
                "maintenance_info": maintenance,
            }),
        ),
        "Updated": object(&[], json!({ "dashboard_url": dashboard, "operation": text, "metadata": metadata })),
        "Instance": object(
            &["service_id", "plan_id"],
            json!({
                "service_id": id, "plan_id": id, "dashboard_url": dashboard, "parameters": free,
                "maintenance_info": maintenance, "metadata": metadata,
            }),
        ),
        "Bind": object(
            &[],
            json!({
                "service_id": id, "plan_id": id, "context": free, "parameters": free, "app_guid": id,
                "bind_resource": object(&[], json!({ "app_guid": id })),
                "predecessor_binding_id": id,
            }),
        ),
        "Binding": object(
            &["credentials"],
            json!({
                "credentials": { "type": "object", "additionalProperties": { "type": "string" } },
                "endpoints": { "type": "array", "items": endpoint }, "parameters": free, "metadata": metadata,
            }),
        ),
        "Operation": object(&[], json!({ "operation": text })),
        "LastOperation": object(
            &["state"],
            json!({
                "state": { "type": "string", "enum": ["in progress", "succeeded", "failed"] },
                "description": text, "instance_usable": flag, "update_repeatable": flag,
            }),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::osb::route;

    #[test]
    fn the_document_names_every_route_and_no_other() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let mut named = 0;
        for (path, methods) in paths {
            let real = path.replace("{instance_id}", "i").replace("{binding_id}", "b");
            for method in ["GET", "PUT", "PATCH", "DELETE", "POST", "OPTIONS"] {
                let routed = match path.as_str() {
                    OPENAPI => method == "GET",
                    _ => route(method, &real).is_ok(),
                };
                assert_eq!(methods.get(method.to_lowercase()).is_some(), routed, "{method} {path}");
                named += usize::from(routed);
            }
        }
        assert_eq!(named, ENDPOINTS.len());
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                    Some(text) if key == "$ref" => found.push(text.to_owned()),
                    _ => references(value, found),
                }),
                Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for (kind, all) in [("schemas", schemas()), ("parameters", parameters())] {
            for name in all.as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(found.contains(&reference), "nobody uses {reference}");
            }
        }
        let mut names: Vec<_> = ENDPOINTS.iter().map(|e| e.operation).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ENDPOINTS.len());
    }

    #[test]
    fn only_its_own_path_is_answered() {
        let request =
            |method: &str, path: &str| Request { method: method.into(), path: path.into(), ..Request::default() };
        assert!(answer(&request("GET", "/v2/catalog")).is_none());
        let found = answer(&request("GET", OPENAPI)).unwrap();
        let read: Value = serde_json::from_str(&found.body).unwrap();
        assert_eq!((found.status, read["openapi"].as_str()), (200, Some("3.0.3")));
        let refused = answer(&request("POST", OPENAPI)).unwrap();
        assert_eq!((refused.status, refused.headers), (405, vec![("Allow".to_owned(), "GET".to_owned())]));
    }
}
