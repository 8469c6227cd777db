//! Prints what sealing costs: `cargo test -p encryption --test cost -- --ignored --nocapture`.

use encryption::{DataKey, Trailer, seal};

const NAME: &str = "1-0-0/a.parquet.sealed";
const MEBIBYTES: usize = 4;
const ROUNDS: usize = 64;

/// Nanoseconds that this thread has computed: others on the machine do not count.
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
fn computed() -> u64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    spent.split(' ').next().unwrap().parse().unwrap()
}

#[allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test shows what it measured")]
fn print(what: &str, begun: u64) {
    let mebibytes = u64::try_from(ROUNDS * MEBIBYTES).unwrap();
    println!("{what}: {} us of CPU a MiB", (computed() - begun) / mebibytes / 1_000);
}

#[test]
#[ignore = "prints figures"]
#[allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and shows what it measured")]
fn cost_of_a_mebibyte() {
    let key = DataKey::new(1, [7; 32]);
    let chunk: Vec<u8> = (0..MEBIBYTES << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let begun = computed();
    let mut sealed = seal(&key, NAME, &[9; 32], &chunk).unwrap();
    for _ in 1..ROUNDS {
        sealed = seal(&key, NAME, &[9; 32], &chunk).unwrap();
    }
    print("sealed", begun);
    let begun = computed();
    for _ in 0..ROUNDS {
        let opener = Trailer::read(&sealed, sealed.len() as u64).unwrap().opener(&key, NAME).unwrap();
        assert_eq!(opener.open(0..chunk.len() as u64, &sealed).unwrap().len(), chunk.len());
    }
    print("opened", begun);
    println!("{} bytes are {} sealed", chunk.len(), sealed.len());
}
