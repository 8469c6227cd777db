//! How often format inference and template mining are right: on lines of our own always, and on the public loghub sets
//! where they lie beside the workspace (`../shared/data/loghub`); where they do not, that part says SKIPPED.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test prints its table and fails by panicking")]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
};

use ingest::{
    RawEvent, Source, Window, parse,
    template::{BRANCHES, Dictionary},
};
use types::{Severity, Timestamp};

/// All dates without a year are in the year before.
const RECEIVED: Timestamp = Timestamp::from_millis(1_514_764_799_000); // 2017-12-31 23:59:59 UTC

/// The shares of right lines, in hundredths of a percent.
const TIMES_MIN: usize = 9_950;
const SEVERITIES_MIN: usize = 9_900;
const GROUPS_MIN: f64 = 0.95;

type Row = HashMap<String, String>;

/// The set's lines with what is true of each.
struct Set {
    name: &'static str,
    lines: Vec<String>,
    rows: Vec<Row>,
}

/// Where the time stands in the columns of each set: date, then time of day with a fraction.
type Stated = fn(&Row) -> (i64, i64, i64, String);

const SETS: [(&str, Stated, bool); 10] = [
    ("Android", |row| (2017, number(&row["Date"][..2]), number(&row["Date"][3..]), row["Time"].clone()), true),
    (
        "Apache",
        |row| {
            let words: Vec<_> = row["Time"].split_whitespace().collect();
            (number(words[4]), month(words[1]), number(words[2]), words[3].to_owned())
        },
        true,
    ),
    // Its other times are local ones; seconds since 1970 leave no doubt.
    ("BGL", |row| (1970, 1, 1, row["Timestamp"].clone()), true),
    (
        "HDFS",
        |row| {
            let (date, time) = (format!("{:0>6}", row["Date"]), format!("{:0>6}", row["Time"]));
            let clock = format!("{}:{}:{}", &time[..2], &time[2..4], &time[4..]);
            (2000 + number(&date[..2]), number(&date[2..4]), number(&date[4..]), clock)
        },
        true,
    ),
    ("Linux", |row| (2017, month(&row["Month"]), number(&row["Date"]), row["Time"].clone()), false),
    ("OpenSSH", |row| (2017, month(&row["Date"]), number(&row["Day"]), row["Time"].clone()), false),
    (
        "OpenStack",
        |row| {
            let date = &row["Date"];
            (number(&date[..4]), number(&date[5..7]), number(&date[8..]), row["Time"].clone())
        },
        true,
    ),
    (
        "Proxifier",
        |row| {
            let time = &row["Time"];
            (2017, number(&time[..2]), number(&time[3..5]), time[6..].to_owned())
        },
        false,
    ),
    (
        "Spark",
        |row| {
            let date = &row["Date"];
            (2000 + number(&date[..2]), number(&date[3..5]), number(&date[6..]), row["Time"].clone())
        },
        true,
    ),
    (
        "Zookeeper",
        |row| {
            let date = &row["Date"];
            (number(&date[..4]), number(&date[5..7]), number(&date[8..]), row["Time"].clone())
        },
        true,
    ),
];

fn number(text: &str) -> i64 {
    text.trim().parse().unwrap()
}

fn month(name: &str) -> i64 {
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    i64::try_from(names.iter().position(|month| *month == name).unwrap()).unwrap() + 1
}

/// The instant, counted the slow way; a time of day without colons is seconds.
fn instant((year, month, day, clock): (i64, i64, i64, String)) -> Timestamp {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut days = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum::<i64>();
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    days += lengths[..usize::try_from(month - 1).unwrap()].iter().sum::<i64>() + day - 1;
    let (whole, fraction) = clock.split_once([',', '.']).unwrap_or((&clock, "0"));
    let seconds = whole.split(':').fold(0, |sum, part| sum * 60 + number(part));
    Timestamp::from_nanos((days * 86_400 + seconds) * 1_000_000_000 + number(&format!("{fraction:0<9}")))
}

fn read_set(name: &'static str) -> Option<Set> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/loghub").join(name);
    let text = |end: &str| fs::read(folder.join(format!("{name}_2k.log{end}"))).ok();
    let lines = String::from_utf8_lossy(&text("")?).lines().map(str::to_owned).collect();
    let mut records = csv(&String::from_utf8_lossy(&text("_structured.csv")?)).into_iter();
    let header = records.next()?;
    let rows = records.map(|record| header.iter().cloned().zip(record).collect()).collect();
    Some(Set { name, lines, rows })
}

/// Records of comma-separated values with quotes.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '\r' if !quoted => {}
            c => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}

/// Grouping accuracy: the share of lines whose group is exactly a true one, as LogPAI defines it; and the F1 measure of
/// groups found whole.
fn grouping<A: Ord, B: Ord>(found: &[A], truth: &[B]) -> (f64, f64) {
    let (mut by_found, mut by_truth) = (BTreeMap::<&A, Vec<usize>>::new(), BTreeMap::<&B, Vec<usize>>::new());
    for (line, (found, truth)) in found.iter().zip(truth).enumerate() {
        by_found.entry(found).or_default().push(line);
        by_truth.entry(truth).or_default().push(line);
    }
    let whole: Vec<_> = by_found.values().filter(|lines| by_truth[&truth[lines[0]]] == **lines).collect();
    let lines: usize = whole.iter().map(|lines| lines.len()).sum();
    let (groups, of_found, of_truth) = (share(whole.len()), share(by_found.len()), share(by_truth.len()));
    (share(lines) / share(found.len()), 2.0 * groups / (of_found + of_truth))
}

fn share(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// The signature and the template of each line; each line can be told from its pattern and its variables.
fn mine<'l>(lines: impl Iterator<Item = &'l str> + Clone) -> (Vec<u64>, Vec<u64>) {
    let mut dictionary = Dictionary::default();
    let mut signatures = Vec::new();
    for line in lines {
        let mined = dictionary.learn(line);
        let (pattern, variables) = (mined.pattern, mined.variables().collect::<Vec<_>>());
        signatures.push(mined.signature);
        assert_eq!(dictionary.pattern(pattern).unwrap().rebuild(variables).as_deref(), Some(line));
    }
    let templates = dictionary.templates(BRANCHES);
    let template_of: HashMap<u64, u64> =
        templates.iter().flat_map(|t| t.signatures.iter().map(|signature| (*signature, t.id.0))).collect();
    let templates = signatures.iter().map(|signature| template_of[signature]).collect();
    (signatures, templates)
}

#[test]
fn public_log_sets() {
    println!(
        "{:<10} {:>6} {:>8} {:>9} {:>12} {:>12} {:>6}",
        "set", "lines", "times %", "levels %", "stage 1 GA", "GA", "FGA"
    );
    let (mut accuracies, mut seen) = (Vec::new(), 0);
    let mut wrong = Vec::new();
    for (name, stated, leveled) in SETS {
        let Some(set) = read_set(name) else {
            println!("SKIPPED {name}: ../shared/data/loghub/{name} is not there");
            continue;
        };
        seen += 1;
        assert_eq!(set.lines.len(), set.rows.len(), "{}: each line has its row", set.name);
        let (mut times, mut levels) = (0, 0);
        let mut source = Source::new(Window::ANY);
        for (line, row) in set.lines.iter().zip(&set.rows) {
            let event = RawEvent { payload: line.as_bytes(), received: RECEIVED };
            let record = source.parse(event);
            assert_eq!(record, parse(event), "a source reads what anyone reads");
            let time = instant(stated(row));
            if record.time == time {
                times += 1;
            } else {
                wrong.push(format!("{name}: time {} is not {time}: {line:.90}", record.time));
            }
            if leveled {
                let level: Severity = row["Level"].parse().unwrap();
                if record.severity == Some(level) {
                    levels += 1;
                } else {
                    wrong.push(format!("{name}: level {:?} is not {level}: {line:.120}", record.severity));
                }
            }
        }
        let (signatures, templates) = mine(set.rows.iter().map(|row| row["Content"].as_str()));
        let truth: Vec<_> = set.rows.iter().map(|row| row["EventId"].as_str()).collect();
        let (of_stage_1, _) = grouping(&signatures, &truth);
        let (accuracy, f1) = grouping(&templates, &truth);
        accuracies.push(accuracy);
        let percent = |right: usize| share(right * 100) / share(set.lines.len());
        println!(
            "{name:<10} {:>6} {:>8.2} {:>9} {of_stage_1:>12.3} {accuracy:>12.3} {f1:>6.3}",
            set.lines.len(),
            percent(times),
            if leveled { format!("{:.2}", percent(levels)) } else { "-".to_owned() },
        );
        wrong.iter().take(5).for_each(|line| println!("  {line}"));
        wrong.clear();
        assert!(
            times * 10_000 >= TIMES_MIN * set.lines.len(),
            "{name}: {times} times of {} are right",
            set.lines.len()
        );
        assert!(!leveled || levels * 10_000 >= SEVERITIES_MIN * set.lines.len(), "{name}: {levels} levels are right");
    }
    if seen == 0 {
        return;
    }
    let mean = accuracies.iter().sum::<f64>() / share(accuracies.len());
    println!("mean grouping accuracy of {seen} sets: {mean:.3}");
    assert!(mean >= GROUPS_MIN, "grouping accuracy {mean:.3} is below {GROUPS_MIN}");
}

/// Lines like those of the sets and of others, with their time in UTC, their level and the group of their message.
const OWN: &str = include_str!("lines.tsv");

#[test]
fn lines_of_our_own() {
    let rows: Vec<Vec<&str>> = OWN.lines().map(|line| line.split('\t').collect()).collect();
    assert!(rows.len() >= 30);
    for row in &rows {
        let [time, level, _, line] = row[..] else { panic!("{row:?}") };
        let record = parse(RawEvent { payload: line.as_bytes(), received: RECEIVED });
        let (date, clock) = time.split_once('T').unwrap();
        let expected = (number(&date[..4]), number(&date[5..7]), number(&date[8..]), clock.to_owned());
        assert_eq!(record.time, instant(expected), "{line}");
        assert_eq!(record.severity.map_or("-", Severity::as_str), level, "{line}");
    }
    let (_, templates) = mine(rows.iter().map(|row| row[3]));
    let (accuracy, _) = grouping(&templates, &rows.iter().map(|row| row[2]).collect::<Vec<_>>());
    assert!(accuracy >= GROUPS_MIN, "{accuracy}");
}
