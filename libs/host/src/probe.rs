//! What Kubernetes asks: is the process alive, does it take work, and how is it doing.

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, http::header::CONTENT_TYPE, web};

use crate::{Host, StartError};

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves `/livez`, `/readyz` and `/metrics`; must be called where actix runs.
pub(crate) fn serve(own: &Host, address: &str) -> Result<ServerHandle, StartError> {
    let host = web::Data::new(own.clone());
    let factory = move || {
        App::new()
            .app_data(host.clone())
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(metrics))
    };
    let server = HttpServer::new(factory).workers(1).disable_signals();
    let server = match own.https() {
        Some(config) => server.bind_rustls_0_23(address, config),
        None => server.bind(address),
    };
    let server = server.map_err(|source| StartError::Address { address: address.to_owned(), source })?;
    for bound in server.addrs() {
        own.listens("probes", bound);
    }
    let server = server.run();
    let handle = server.handle();
    drop(actix_rt::spawn(server));
    Ok(handle)
}

async fn livez(host: web::Data<Host>) -> HttpResponse {
    let live = host.is_live();
    let body = serde_json::json!({ "live": live, "service": host.service.as_str(), "replica": host.replica.as_str() });
    if live { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

async fn readyz(host: web::Data<Host>) -> HttpResponse {
    let reasons = host.unready_reasons();
    let ready = reasons.is_empty();
    let mut body = serde_json::json!({ "ready": ready, "reasons": reasons });
    let notes = host.notes();
    if !notes.is_empty() {
        body["notes"] = serde_json::json!(notes);
    }
    if ready { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

async fn metrics() -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, METRICS_TYPE)).body(telemetry::render())
}
