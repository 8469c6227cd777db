//! Templates with holes: `user {id} paid {cents} cents`.

use std::fmt::Write as _;

use super::rng::Rng;

const USERS: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];
const NAMESPACES: [&str; 5] = ["shop", "payments", "search", "platform", "default"];
const WORKLOADS: [&str; 8] = ["checkout", "cart", "catalog", "ledger", "indexer", "mailer", "gateway", "session"];
const TABLES: [&str; 6] = ["orders", "order_lines", "customers", "sessions", "stock", "payments"];
const WORDS: [&str; 8] = ["shoes", "lamp", "kettle", "tent", "jacket", "desk", "bottle", "radio"];

/// Writes the template with every hole filled; a hole that is not known stays as it is.
pub(super) fn fill(rng: &mut Rng, template: &str, out: &mut String) {
    let mut rest = template;
    while let Some((text, hole, tail)) = next_hole(rest) {
        out.push_str(text);
        write_hole(rng, hole, out);
        rest = tail;
    }
    out.push_str(rest);
}

fn next_hole(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (hole, after) = rest.split_once('}')?;
    Some((before, hole, after))
}

/// Writing to a string cannot fail, hence the ignored results.
fn write_hole(rng: &mut Rng, hole: &str, out: &mut String) {
    let word: &[&str] = match hole {
        "user" => &USERS,
        "namespace" => &NAMESPACES,
        "workload" => &WORKLOADS,
        "table" => &TABLES,
        "word" => &WORDS,
        _ => &[],
    };
    if !word.is_empty() {
        return out.push_str(rng.pick(word));
    }
    let written = match hole {
        "id" => write!(out, "{}", 1_000 + rng.below(90_000)),
        "small" => write!(out, "{}", 1 + rng.below(40)),
        "bytes" => write!(out, "{}", 200 + rng.below(300) * rng.below(300)),
        "ms" => write!(out, "{}.{:03}", rng.below(40) * rng.below(40), rng.below(1_000)),
        "port" => write!(out, "{}", 30_000 + rng.below(30_000)),
        "ip" => write!(out, "10.{}.{}.{}", rng.below(4), rng.below(256), 1 + rng.below(254)),
        "hex" => write!(out, "{:08x}", rng.below(1 << 32)),
        "trace" => write!(out, "{:016x}{:016x}", rng.next(), rng.next()),
        "pod" => {
            let workload = rng.pick(&WORKLOADS);
            write!(out, "{workload}-{:09x}-{:05x}", rng.below(1 << 36), rng.below(1 << 20))
        }
        "lsn" => write!(out, "{:X}/{:X}", rng.below(64), rng.below(1 << 32)),
        unknown => {
            debug_assert!(false, "no hole is named {unknown}");
            write!(out, "{{{unknown}}}")
        }
    };
    debug_assert!(written.is_ok(), "a string takes any text");
}
