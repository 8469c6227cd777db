//! Every target of `cargo fuzz` over its dictionary, and over damaged pieces of it: that it is built, and that it holds for what is
//! likely to be wrong. What is unlikely is `just fuzz`'s to find.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the dictionaries"
)]

use std::{fs, path::Path};

use logboom_fuzzed as targets;

/// Inputs that each target is given, made from words of its dictionary.
const INPUTS: u64 = 400;
/// The most words that an input is made of.
const WORDS_MAX: u64 = 12;

/// Numbers that are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn at(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

/// The words of a dictionary in libFuzzer's form: `name="word"`, with `\\`, `\"` and `\xAB` in it.
fn words(name: &str) -> Vec<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/dictionaries").join(name).with_extension("txt");
    let Ok(text) = fs::read_to_string(file) else { return vec![b"word".to_vec(), vec![0, 1, 2, 255]] };
    let quoted = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (from, to) = (line.find('"')?, line.rfind('"')?);
        line.get(from + 1..to)
    });
    quoted.map(unescaped).collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), word.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some((&escaped, after)) = rest.split_first() else { break };
        rest = after;
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match (escaped, rest.get(..2).and_then(hex)) {
            (b'x', Some(value)) => {
                out.push(value);
                rest = &rest[2..];
            }
            _ => out.push(escaped),
        }
    }
    out
}

/// Some words one after the other, cut off or with a byte exchanged now and then.
fn input(words: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let count = 1 + numbers.below(WORDS_MAX);
    let mut bytes: Vec<u8> = (0..count).flat_map(|_| words[numbers.at(words.len())].clone()).collect();
    match numbers.below(4) {
        0 if !bytes.is_empty() => bytes.truncate(numbers.at(bytes.len())),
        1 if !bytes.is_empty() => {
            let at = numbers.at(bytes.len());
            bytes[at] = u8::try_from(numbers.below(256)).unwrap();
        }
        _ => {}
    }
    bytes
}

fn holds(name: &str, target: fn(&[u8])) {
    let words = words(name);
    assert!(!words.is_empty(), "{name} has an empty dictionary");
    let mut numbers = Numbers(1);
    target(b"");
    for word in &words {
        target(word);
    }
    for _ in 0..INPUTS {
        target(&input(&words, &mut numbers));
    }
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// The names of all of them.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            holds(stringify!($name), targets::$name);
        })*
    };
}

targets![
    chunk_read,
    door_elastic,
    door_hec,
    door_jsonline,
    door_loki,
    door_otlp,
    frame_decode,
    ingest_lines,
    osb_body,
    osb_path,
    query_parse,
    search_elastic,
    settings,
    syslog_stream,
    wire_decode,
];

#[test]
fn none_is_forgotten() {
    let there = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets")).unwrap();
    let mut there: Vec<String> = there
        .map(|entry| Path::new(&entry.unwrap().file_name()).file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    there.sort();
    assert_eq!(there, NAMES);
}
