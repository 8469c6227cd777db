//! nginx access lines, combined log format.

use super::{
    Facts,
    fill::fill,
    rng::{Rng, Zipf},
    stamp::Civil,
};

/// Request and status, commonest first.
const SERVED: [(&str, u16); 14] = [
    ("GET /", 200),
    ("GET /api/v1/products/{id}", 200),
    ("GET /static/app.{hex}.js", 304),
    ("GET /api/v1/cart", 200),
    ("GET /api/v1/search?q={word}&page={small}", 200),
    ("POST /api/v1/cart/items", 201),
    ("GET /images/{id}.webp", 200),
    ("GET /healthz", 200),
    ("POST /api/v1/login", 200),
    ("GET /api/v1/orders/{id}", 200),
    ("PUT /api/v1/cart/items/{id}", 204),
    ("GET /old/{word}", 301),
    ("HEAD /", 200),
    ("DELETE /api/v1/cart/items/{id}", 204),
];

const FAILED: [(&str, u16); 7] = [
    ("GET /api/v1/products/{id}", 502),
    ("POST /api/v1/checkout", 500),
    ("GET /api/v1/orders/{id}", 504),
    ("GET /api/v1/cart", 503),
    ("GET /wp-login.php", 404),
    ("POST /api/v1/login", 401),
    ("GET /api/v1/search?q={word}", 429),
];

const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "kube-probe/1.34",
    "curl/8.14.1",
    "Go-http-client/2.0",
];

pub(super) fn line(rng: &mut Rng, zipf: &Zipf, time: Civil, failing: bool) -> (String, Facts) {
    let (request, status) = zipf.pick(rng, if failing { &FAILED[..] } else { &SERVED[..] });
    let agent = zipf.pick(rng, &AGENTS);
    let mut out = String::with_capacity(256);
    fill(rng, "{ip} - ", &mut out);
    let user = if rng.below(12) == 0 { "{user}" } else { "-" };
    fill(rng, user, &mut out);
    out.push_str(&format!(" [{}] \"", time.common()));
    fill(rng, request, &mut out);
    out.push_str(&format!(" HTTP/1.1\" {status} "));
    match status {
        204 | 304 => out.push('0'),
        _ => fill(rng, "{bytes}", &mut out),
    }
    let referer = if rng.below(3) == 0 { "\"https://shop.example/c/{word}\"" } else { "\"-\"" };
    out.push(' ');
    fill(rng, referer, &mut out);
    out.push_str(&format!(" \"{agent}\""));
    (out, Facts::default())
}
