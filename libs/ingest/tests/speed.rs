//! How fast lines are understood and mined, in CPU time of one thread: prints figures, asserts none.
//!
//! `cargo test --release -p ingest --test speed -- --ignored --nocapture`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its figures and fails by panicking")]

use std::{fs, path::PathBuf, time::Duration};

use ingest::{
    RawEvent, Source, Window, parse, sample,
    template::{BRANCHES, Dictionary, signature},
};
use types::Timestamp;

const RECEIVED: Timestamp = Timestamp::from_millis(1_514_764_799_000);

/// A figure is the mean over so much CPU time at least: the scheduler's count moves by ticks of some milliseconds.
const MEASURED_SECONDS: f64 = 0.5;

/// CPU time of this thread so far, from the scheduler's own count in nanoseconds.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn figures(name: &str, lines: &[String], mut each: impl FnMut(&str)) {
    let bytes: usize = lines.iter().map(String::len).sum();
    let (begun, mut rounds, mut seconds) = (cpu_seconds(), 0.0, 0.0);
    while seconds < MEASURED_SECONDS {
        lines.iter().for_each(|line| each(line));
        rounds += 1.0;
        seconds = cpu_seconds() - begun;
    }
    let of = |count: usize| f64::from(u32::try_from(count).unwrap()) * rounds / seconds / 1e6;
    let (lines_a_second, megabytes) = (of(lines.len()), of(bytes));
    println!("  {name:<34} {lines_a_second:>7.2} M lines {megabytes:>8.0} MB per CPU second");
}

fn measure(name: &str, lines: &[String]) {
    println!("{name}: {} lines", lines.len());
    figures("parse", lines, |line| {
        std::hint::black_box(parse(RawEvent { payload: line.as_bytes(), received: RECEIVED }));
    });
    let mut source = Source::new(Window::ANY);
    figures("parse, one source", lines, |line| {
        std::hint::black_box(source.parse(RawEvent { payload: line.as_bytes(), received: RECEIVED }));
    });
    // What is mined is the message.
    let message = |line: &String| parse(RawEvent { payload: line.as_bytes(), received: RECEIVED }).message.into_owned();
    let lines: Vec<_> = lines.iter().map(message).collect();
    figures("stage 1: signature, state not kept", &lines, |line| {
        std::hint::black_box(signature(line));
    });
    let mut dictionary = Dictionary::default();
    figures("stage 1: dictionary and variables", &lines, |line| {
        std::hint::black_box(dictionary.learn(line).variables().map(str::len).sum::<usize>());
    });
    let begun = cpu_seconds();
    let rounds = 50;
    let templates = (0..rounds).map(|_| dictionary.templates(BRANCHES).len()).max().unwrap_or(0);
    let (signatures, patterns) = (dictionary.signatures().len(), dictionary.patterns().count());
    let millis = (cpu_seconds() - begun) * 1e3 / f64::from(rounds);
    println!("  stage 2: {millis:.2} CPU ms; {templates} templates of {signatures} signatures of {patterns} patterns");
}

#[test]
#[ignore = "measures; run it alone and with optimisation"]
fn speed() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/loghub");
    match fs::read_dir(&folder) {
        Err(_) => println!("SKIPPED loghub: ../shared/data/loghub is not there"),
        Ok(sets) => {
            let mut lines = Vec::new();
            for set in sets {
                let name = set.unwrap().file_name().into_string().unwrap();
                let text = fs::read(folder.join(&name).join(format!("{name}_2k.log"))).unwrap_or_default();
                lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
            }
            measure("loghub", &lines);
        }
    }
    let start = Timestamp::from_millis(1_514_000_000_000);
    let samples: Vec<_> = sample::Generator::new(7, start, Duration::from_secs(3_600), 50_000).collect();
    for (software, _) in sample::SOFTWARE {
        let lines: Vec<_> =
            samples.iter().filter(|sample| sample.software == software).map(|sample| sample.payload.clone()).collect();
        measure(software, &lines);
    }
}
