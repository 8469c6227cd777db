//! The lines that every store is given: NDJSON as agents of a cluster send it.
//!
//! Seeded: a size gives the same lines every time but for their day.
//! The shape is that of logs whose statistics are published: 28 services, pods that come and go, 60 hosts, a trace id
//! that is new in a fifth of the lines, a daily rhythm with bursts, a few frequent messages and many rare ones.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use logboom_tests::Workdir;

use super::software::{ACTIONS, ACTORS, Level, OBJECTS, PATHS, SYSTEMS, System, USERS, WORDS};

const SEED: u64 = 20_260_101;
/// Mean pause between two lines: five million in a day.
const PAUSE_NANOS: f64 = 17.28e6;
/// A word that stands in so many lines of a corpus, whatever its size.
const RARE_WORD_LINES: u64 = 10;
pub(super) const RARE_WORD: &str = "quarkbeacon";
/// Messages of a system in the order in which it writes them; then it begins again.
const SCRIPT: usize = 1_500;
/// Rare messages of a system, and one in so many lines of its script that is one.
const RARE_MESSAGES: u64 = 150;
const RARE_EVERY: u64 = 25;
/// Things that the lines of a system are about at one time.
const THINGS: usize = 256;
const ADDRESSES: u64 = 4_000;
const HOSTS: u64 = 60;
/// Requests of a service that are under way at one time.
const TRACES: usize = 48;

/// A file of lines.
pub(super) struct Corpus {
    pub(super) path: PathBuf,
    pub(super) lines: u64,
    pub(super) bytes: u64,
    // The directory goes with it, where it is our own.
    _dir: Option<Workdir>,
}

impl Corpus {
    /// Generates one.
    pub(super) fn generate(lines: u64) -> Result<Self> {
        let dir = Workdir::new("corpus")?;
        let path = dir.path().join("corpus.ndjson");
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        // The day before yesterday: no store takes it for old, none for not yet.
        let day = Timestamp::now().to_zoned(TimeZone::UTC).start_of_day()?.checked_sub(2.days())?;
        let mut generator = Generator::new(SEED, i64::try_from(day.timestamp().as_nanosecond())?);
        let rare_every = (lines / RARE_WORD_LINES).max(1);
        let (mut line, mut bytes) = (String::new(), 0);
        for number in 0..lines {
            line.clear();
            generator.write(number % rare_every == rare_every / 2, &mut line)?;
            file.write_all(line.as_bytes())?;
            bytes += line.len() as u64;
        }
        file.flush()?;
        Ok(Self { path, lines, bytes, _dir: Some(dir) })
    }

    /// Takes a file that somebody else has made.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().with_context(|| format!("no corpus at {}", path.display()))?;
        let (mut lines, mut bytes) = (0, 0);
        for batch in (Batches { reader: reader(&path)? }) {
            let batch = batch?;
            bytes += batch.len() as u64;
            lines += batch.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        ensure!(lines > 0, "{} holds no lines", path.display());
        Ok(Self { path, lines, bytes, _dir: None })
    }

    /// The lines in pieces that fit a request.
    pub(super) fn batches(&self) -> Result<Batches> {
        Ok(Batches { reader: reader(&self.path)? })
    }

    pub(super) fn reader(&self) -> Result<BufReader<File>> {
        reader(&self.path)
    }
}

fn reader(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::with_capacity(1 << 20, File::open(path)?))
}

/// Whole lines, about [`BATCH_BYTES`] at a time.
pub(super) struct Batches {
    reader: BufReader<File>,
}

/// What an agent that is in a hurry sends at once.
const BATCH_BYTES: usize = 3 << 20;

impl Iterator for Batches {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Vec::with_capacity(BATCH_BYTES + (4 << 10));
        while batch.len() < BATCH_BYTES {
            match self.reader.read_until(b'\n', &mut batch) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
        (!batch.is_empty()).then_some(Ok(batch))
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).unwrap()
    }

    fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.place(from.len())]
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Low numbers are frequent, as in Zipf's law.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to bound")]
    fn skewed(&mut self, bound: u64) -> u64 {
        ((bound as f64).powf(self.unit()) as u64).min(bound) - 1
    }
}

fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn hashed(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mixed(hash ^ u64::from(byte)))
}

/// A system at work.
struct Running {
    of: &'static System,
    /// What it writes, in order; local order is what real logs have and shuffled ones lack.
    script: Vec<(Level, String)>,
    cursor: usize,
    things: Vec<u64>,
    services: Vec<Service>,
}

struct Service {
    name: &'static str,
    pods: u64,
    traces: Vec<[u64; 2]>,
}

struct Generator {
    random: Random,
    systems: Vec<Running>,
    nanos: i64,
    begun: i64,
    line: u64,
    /// Lines that are left of a burst.
    burst: u64,
}

impl Generator {
    fn new(seed: u64, nanos: i64) -> Self {
        let mut random = Random(seed);
        let systems = SYSTEMS.iter().map(|of| Running::new(of, &mut random)).collect();
        Self { random, systems, nanos, begun: nanos, line: 0, burst: 0 }
    }

    fn write(&mut self, rare: bool, out: &mut String) -> Result<()> {
        use std::fmt::Write;
        self.nanos += self.pause();
        let mut share = self.random.below(100);
        let place = self.systems.iter().position(|system| match share.checked_sub(system.of.share) {
            Some(left) => {
                share = left;
                false
            }
            None => true,
        });
        let (random, system) = (&mut self.random, &mut self.systems[place.context("shares are 100 in all")?]);
        let length = system.script.len();
        system.cursor = if random.below(16) == 0 { random.place(length) } else { (system.cursor + 1) % length };
        let mut message = String::new();
        let level = system.say(random, &mut message)?;
        if rare {
            write!(message, " {RARE_WORD}")?;
        }
        // What a message is about decides who writes it.
        let service = usize::try_from(hashed(&system.script[system.cursor].1) % system.services.len() as u64)?;
        let service = &mut system.services[service];
        let (pod, host) = service.pod(random.skewed(service.pods), self.line);
        let slot = random.place(TRACES);
        if random.below(5) == 0 {
            service.traces[slot] = [random.next(), random.next()];
        }
        let [high, low] = service.traces[slot];
        let time = Timestamp::from_nanosecond(i128::from(self.nanos))?;
        writeln!(
            out,
            "{{\"_time\":\"{time:.9}\",\"level\":\"{}\",\"service\":\"{}\",\"pod\":\"{pod}\",\"namespace\":\"{}\",\
             \"host\":\"{host}\",\"trace_id\":\"{high:016x}{low:016x}\",\"_msg\":{}}}",
            level.word(),
            service.name,
            system.of.namespace,
            serde_json::to_string(&message)?,
        )?;
        self.line += 1;
        Ok(())
    }

    /// Exponential, by a daily rhythm, with bursts of some thousand lines.
    #[allow(clippy::cast_possible_truncation, reason = "some seconds at most")]
    fn pause(&mut self) -> i64 {
        match self.burst {
            0 if self.random.below(40_000) == 0 => self.burst = 3_000,
            0 => {}
            _ => self.burst -= 1,
        }
        let hours = (self.nanos - self.begun) as f64 / 3.6e12;
        let daily = 1.0 + 0.5 * (hours / 24.0 * std::f64::consts::TAU).sin();
        let rate = daily * if self.burst > 0 { 8.0 } else { 1.0 };
        1 + (-self.random.unit().ln() * PAUSE_NANOS / rate) as i64
    }
}

impl Running {
    fn new(of: &'static System, random: &mut Random) -> Self {
        let total = of.messages.iter().map(|(share, ..)| share).sum();
        let rare: Vec<(Level, String)> = (0..RARE_MESSAGES).map(|_| rare(random)).collect();
        let one = |random: &mut Random| {
            if random.below(RARE_EVERY) == 0 {
                return rare[usize::try_from(random.skewed(RARE_MESSAGES)).unwrap()].clone();
            }
            let mut share = random.below(total);
            let found = of.messages.iter().find(|(own, ..)| match share.checked_sub(*own) {
                Some(left) => {
                    share = left;
                    false
                }
                None => true,
            });
            found.map(|(_, level, text)| (*level, (*text).to_owned())).unwrap()
        };
        let script = (0..SCRIPT).map(|_| one(random)).collect();
        let things = (0..THINGS).map(|_| random.next()).collect();
        let service = |name: &&'static str| {
            let traces = (0..TRACES).map(|n| [hashed(name), mixed(n as u64)]).collect();
            Service { name, pods: 4 + hashed(name) % 5 + of.share * 2, traces }
        };
        Self { of, script, cursor: 0, things, services: of.services.iter().map(service).collect() }
    }

    /// Writes the message at the cursor; what it is about is mostly one thing.
    fn say(&mut self, random: &mut Random, out: &mut String) -> Result<Level> {
        let (level, text) = &self.script[self.cursor];
        let thing = random.place(THINGS);
        let mut rest = text.as_str();
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open]);
            let inner = &rest[open + 1..];
            match inner.find(['{', '}']) {
                Some(end) if inner.as_bytes()[end] == b'}' => {
                    let place = if random.below(4) > 0 { thing } else { random.place(THINGS) };
                    if random.below(12) == 0 {
                        self.things[place] = random.next();
                    }
                    fill(&inner[..end], self.things[place], random, out)?;
                    rest = &inner[end + 1..];
                }
                // A bare brace of the text.
                _ => {
                    out.push('{');
                    rest = inner;
                }
            }
        }
        out.push_str(rest);
        Ok(*level)
    }
}

/// A message that a system writes seldom.
fn rare(random: &mut Random) -> (Level, String) {
    let level = [Level::Info, Level::Info, Level::Warn, Level::Debug, Level::Error][random.place(5)];
    let (actor, action) = (random.pick(&ACTORS), random.pick(&ACTIONS));
    (level, format!("{actor} {action} {} {}", random.pick(&OBJECTS), random.pick(&OBJECTS)))
}

fn fill(slot: &str, thing: u64, random: &mut Random, out: &mut String) -> Result<()> {
    use std::fmt::Write;
    match slot {
        "block" => write!(out, "blk_{}", thing.cast_signed())?,
        "size" if random.below(2) == 0 => out.push_str("67108864"),
        "size" => write!(out, "{}", 10_000_000 + random.below(57_000_000))?,
        "ip" => {
            let address = mixed(random.skewed(ADDRESSES) + 77);
            write!(out, "10.{}.{}.{}", address % 32, address / 32 % 256, address / 8_192 % 254 + 1)?;
        }
        "port" => write!(out, "{}", 1_024 + random.below(64_000))?,
        "number" => write!(out, "{}", random.skewed(1_000_000))?,
        "small" => write!(out, "{}", random.skewed(32))?,
        "id" => write!(out, "{}", thing % 1_000_000_000)?,
        "hex" => write!(out, "{thing:016x}")?,
        "uuid" => {
            let low = mixed(thing);
            let (a, b, c) = (thing >> 32, thing >> 16 & 0xffff, thing & 0xffff);
            write!(out, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff)?;
        }
        "host" => write!(out, "node-{:03}", thing % HOSTS)?,
        "user" => out.push_str(random.pick(&USERS)),
        "path" => out.push_str(random.pick(&PATHS)),
        "word" => out.push_str(random.pick(&WORDS)),
        other => anyhow::bail!("no slot is named {other}"),
    }
    Ok(())
}

impl Service {
    /// The names of a pod and its host: after some hundred thousand lines another pod has its place.
    fn pod(&self, number: u64, line: u64) -> (String, String) {
        let place = hashed(&format!("{}#{number}", self.name));
        let life = 400_000 + place % 2_000_000;
        let generation = (line + place / 7 % 2_000_000) / life;
        let pod = mixed(place ^ mixed(generation));
        let letters = |mut of: u64, count: usize| -> String {
            let letter = |_| {
                let letter = b"bcdfghjklmnpqrstvwxz2456789"[usize::try_from(of % 27).unwrap()];
                of /= 27;
                char::from(letter)
            };
            (0..count).map(letter).collect()
        };
        let name = format!("{}-{}-{}", self.name, letters(hashed(self.name), 10), letters(pod, 5));
        (name, format!("node-{:03}.eu-central.internal", pod / 97 % HOSTS))
    }
}
