//! Figures of a whole installation on this machine; prints them and asserts nothing. `docs/guide/benchmarks.md` says what each means.
//!
//! `just bench [suite…] [--json]`; for the suite `index` also `--lines N`, `--corpus FILE` and `--no-peers`, for `stream`
//! `--rows N`, `--only WORD` and `--no-peers`. Without arguments, as `cargo test` runs it among the tests, it only says how it is used.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, stops at what it cannot do, and measures in wall time"
)]

#[path = "bench/alerting.rs"]
mod alerting;
#[path = "bench/broker.rs"]
mod broker;
#[path = "bench/exchange.rs"]
mod exchange;
#[path = "bench/figure.rs"]
mod figure;
#[path = "bench/index.rs"]
mod index;
#[path = "bench/jobs.rs"]
mod jobs;
#[path = "bench/publishing.rs"]
mod publishing;
#[path = "bench/resting.rs"]
mod resting;
#[path = "bench/segments.rs"]
mod segments;
#[path = "bench/stream.rs"]
mod stream;
#[path = "bench/tenants.rs"]
mod tenants;
#[path = "bench/visible.rs"]
mod visible;

use std::env;

use crate::figure::Figures;

const SUITES: [&str; 14] = [
    "publish", "ingest", "index", "visible", "alert", "job", "start", "rss", "segments", "wide", "tenants", "broker",
    "stream", "exchange",
];

fn main() {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.is_empty() {
        println!("bench: `just bench [{}] [--json]` measures; nothing was measured now", SUITES.join("|"));
        return;
    }
    let stream = stream::Options::take(&mut arguments).unwrap_or_else(|error| {
        println!("bench: {error}");
        std::process::exit(2);
    });
    let index = index::Options::take(&mut arguments).unwrap_or_else(|error| {
        println!("bench: {error}");
        std::process::exit(2);
    });
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|name| !SUITES.contains(name)) {
        println!("bench: there is no suite {unknown}; the suites are {}", SUITES.join(", "));
        std::process::exit(2);
    }
    let mut figures = Figures::new(arguments.iter().any(|word| word == "--json"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for suite in SUITES.into_iter().filter(|suite| named.is_empty() || named.contains(suite)) {
        let measured = runtime.block_on(async {
            match suite {
                "publish" => publishing::publish(&mut figures).await,
                "ingest" => publishing::ingest(&mut figures).await,
                "index" => index::run(&index, &mut figures).await,
                "visible" => visible::run(&mut figures).await,
                "alert" => alerting::run(&mut figures).await,
                "job" => jobs::run(&mut figures).await,
                "start" => resting::start(&mut figures).await,
                "segments" => segments::run(&mut figures).await,
                "tenants" => tenants::run(&mut figures).await,
                "wide" => segments::wide(&mut figures).await,
                "broker" => broker::run(&mut figures).await,
                "stream" => stream::run(&stream, &mut figures).await,
                "exchange" => exchange::run(&mut figures).await,
                _ => resting::memory(&mut figures).await,
            }
        });
        if let Err(error) = measured {
            figures.failed(suite, &error);
        }
    }
    figures.close();
}
