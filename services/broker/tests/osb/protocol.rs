//! Headers, credentials, routes, bodies, catalog.

use anyhow::Result;
use serde_json::json;

use crate::{Fixture, answer, binding, instance, provision_body};

const API: &str = "X-Broker-API-Version";

#[actix_rt::test]
async fn credentials_come_first_then_version_then_route() -> Result<()> {
    let f = Fixture::start().await?;
    let paths = [
        ("GET", "/v2/catalog".to_owned()),
        ("PUT", instance("i")),
        ("PATCH", instance("i")),
        ("DELETE", instance("i")),
        ("GET", instance("i")),
        ("GET", format!("{}/last_operation", instance("i"))),
        ("PUT", binding("i", "b")),
        ("GET", binding("i", "b")),
        ("DELETE", binding("i", "b")),
        ("GET", format!("{}/last_operation", binding("i", "b"))),
        ("GET", "/nowhere".to_owned()),
    ];
    for (method, path) in &paths {
        // 1, 2: credentials on every door, before anything else.
        for request in [
            f.bare(0, method, path),
            f.bare(0, method, path).header(API, "junk"),
            f.bare(0, method, path).basic_auth("admin", Some("wrong")).header(API, "2.17"),
            f.bare(0, method, path).bearer_auth("open sesame").header(API, "2.17"),
        ] {
            assert_eq!(answer(request).await.0, 401, "{method} {path}");
        }
        // 1, 4, 5: then the version, even without a body.
        for version in [None, Some(""), Some("junk"), Some("1.17"), Some("2.9"), Some("3.0")] {
            let mut request = f.bare(0, method, path).basic_auth("admin", Some("open sesame"));
            if let Some(version) = version {
                request = request.header(API, version);
            }
            assert_eq!(answer(request).await.0, 412, "{method} {path} {version:?}");
        }
    }
    let unauthorized = f.bare(0, "GET", "/v2/catalog").send().await?;
    assert!(unauthorized.headers()["www-authenticate"].to_str()?.starts_with("Basic "));
    // 15: then the route.
    assert_eq!(f.ask("GET", "/nowhere", None).await.0, 404);
    for method in ["POST", "TRACE", "QUERY", "PATCH"] {
        let refused = f.request(0, method, "/v2/catalog").send().await?;
        assert_eq!((refused.status().as_u16(), refused.headers()["allow"].to_str()?), (405, "GET"), "{method}");
    }
    f.stop().await
}

#[actix_rt::test]
async fn identities_are_echoed_and_checked() -> Result<()> {
    let f = Fixture::start().await?;
    // 7: also on errors.
    for request in
        [f.request(0, "GET", "/v2/catalog"), f.request(0, "GET", "/nowhere"), f.bare(0, "GET", "/v2/catalog")]
    {
        let answered = request.header("X-Broker-API-Request-Identity", "r-17").send().await?;
        assert_eq!(answered.headers()["x-broker-api-request-identity"], "r-17");
    }
    // 6
    for (identity, status) in [("kubernetes eyJ1c2VybmFtZSI6ImR1a2UifQ==", 200), ("kubernetes", 400), ("x !!!", 400)] {
        let request = f.request(0, "GET", "/v2/catalog").header("X-Broker-API-Originating-Identity", identity);
        assert_eq!(answer(request).await.0, status, "{identity}");
    }
    f.stop().await
}

#[actix_rt::test]
async fn bodies_are_objects_within_a_limit() -> Result<()> {
    let f = Fixture::start().await?;
    // A leader answers from here on.
    assert_eq!(f.ask("GET", &instance("i"), None).await.0, 404);
    // 9, 15
    for body in ["", "null", "[]", "7", "{", "\"x\""] {
        for path in [instance("i"), binding("i", "b")] {
            let request = f.request(0, "PUT", &path).body(body);
            assert_eq!(answer(request).await.0, 400, "{path} {body}");
        }
    }
    // 15, 34: known fields have their type; 8: unknown ones are ignored.
    for (key, value) in [
        ("service_id", json!(7)),
        ("parameters", json!([])),
        ("parameters", json!(null)),
        ("context", json!("x")),
        ("maintenance_info", json!("1.0.0")),
    ] {
        let mut body = provision_body(json!({}));
        body[key] = value;
        assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 400, "{key}");
    }
    let mut body = provision_body(json!({}));
    (body["unknown"], body["context"]["unknown"]) = (json!([1]), json!({}));
    assert_eq!(f.ask("PUT", &instance("i"), Some(&body)).await.0, 201);
    // 18
    let large = f.request(0, "PUT", &instance("i")).body("x".repeat(1024 * 1024 + 1));
    assert_eq!(answer(large).await.0, 413);
    // 16
    assert_eq!(f.ask("PUT", &format!("{}?accepts_incomplete=maybe", instance("i")), Some(&body)).await.0, 400);
    f.stop().await
}

#[actix_rt::test]
async fn the_catalog_is_gated_and_has_a_tag() -> Result<()> {
    let f = Fixture::start().await?;
    let (status, catalog) = f.ask("GET", "/v2/catalog", None).await;
    assert_eq!((status, catalog["services"][0]["name"].as_str()), (200, Some("log-index")));
    // 20: one client reads a missing `free` as false.
    assert_eq!(catalog["services"][0]["plans"][0]["free"], true);
    // 30
    let old = f.bare(0, "GET", "/v2/catalog").basic_auth("admin", Some("open sesame")).header(API, "2.11");
    let (_, old) = answer(old).await;
    assert!(old["services"][0].get("bindings_retrievable").is_none());
    // 29
    let first = f.request(0, "GET", "/v2/catalog").send().await?;
    let tag = first.headers()["etag"].clone();
    let second = f.request(0, "GET", "/v2/catalog").header("If-None-Match", tag).send().await?;
    assert_eq!(second.status().as_u16(), 304);
    f.stop().await
}
