//! The generated part of the page about the pipe language; written again when `UPDATE=1` is set.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use query::{
    Column, ColumnKind, Command, ItemRef, Plan, Surroundings, TableName, lower, lower_continuous, lower_over,
    parse_insert, parse_pipe, parse_select,
    plan::{Function, MeasureFunction},
};
use types::Timestamp;

const PAGE: &str = "../../docs/guide/pipe.md";
const BEGIN: &str = "<!-- generated from the tables of libs/query: change them there -->\n";

/// An index with the columns that a text names, and the two that every text needs: more would make long reading.
fn surroundings(text: &str) -> Surroundings {
    use ColumnKind::{Integer, Number, Text, Time};
    let figures = [("_time", Time), ("bytes", Integer), ("limit", Number), ("latency", Number), ("status", Integer)];
    let texts = ["_msg", "severity", "service", "host", "pid", "user", "plan", "url", "method", "path", "line", "lvl"];
    // These two look at where an event lies.
    let placed = ["context", "sample"].iter().any(|command| text.contains(command));
    let place = [("_segment", Text), ("_offset", Integer)].into_iter().filter(|_| placed);
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let columns: Vec<Column> = figures
        .into_iter()
        .chain(texts.map(|name| (name, Text)))
        .filter(|(name, _)| ["_time", "_msg"].contains(name) || words.contains(name))
        .chain(place)
        .map(|(name, kind)| Column { name: name.to_owned(), kind })
        .collect();
    let columns = ["shop", "users", "other"].map(|index| (index.parse().unwrap(), columns.clone()));
    // 2026-11-23T00:00:00Z
    let now = Timestamp::from_millis(1_795_392_000_000);
    Surroundings { now, columns: BTreeMap::from(columns), rows_max: 999 }
}

/// A lookup that somebody has uploaded.
fn tables() -> BTreeMap<TableName, Vec<Column>> {
    let name = "shop.hosts".parse::<ItemRef>().unwrap().table().unwrap();
    let column = |name: &str| Column { name: name.to_owned(), kind: ColumnKind::Text };
    BTreeMap::from([(name, ["host", "owner", "team"].map(column).to_vec())])
}

fn plan(text: &str) -> Plan {
    let mut plan = parse_pipe(text).unwrap_or_else(|found| panic!("{}", found.render(text)));
    plan.default_indexes(&["shop".parse().unwrap()]);
    plan
}

/// What the example of a command becomes.
fn example(command: &Command) -> String {
    let around = surroundings(command.usage);
    let asked = format!("since:1h | {}", command.usage);
    if command.name() == "explain" {
        return format!("As the last step, over HTTP:\n```\n{asked}\n```\n");
    }
    if let Ok(select) = lower_over(&plan(&asked), &asked, &around, &tables()) {
        return format!("```\n{asked}\n```\n```sql\n{}\n```\n", select.text);
    }
    let asked = format!("| {}", command.usage);
    if let Ok(ongoing) = lower_continuous(&plan(&asked), &asked, &around) {
        let condition = ongoing.condition.map_or_else(String::new, |said| format!("\n-- condition: {said}"));
        return format!("In a job or a rule:\n```\n{asked}\n```\n```sql\n{}{condition}\n```\n", ongoing.text);
    }
    let found = lower(&plan(&asked), &asked, &around).unwrap_err();
    assert!(found.message.contains("not yet here"), "{}", found.render(&asked));
    format!("Is read, and refused for now:\n```\n{asked}\n```\n")
}

fn others(words: &[&str]) -> String {
    words[1..].iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn also(words: &[&str]) -> String {
    if words.len() > 1 { format!(" Also {}.", others(words)) } else { String::new() }
}

fn generated() -> String {
    let mut page = String::from("\n## Commands\n");
    for command in Command::ALL {
        let (name, gives, also) = (command.name(), command.gives, also(command.words));
        write!(page, "\n### {name}\n\nGives {gives}.{also}\n\n{}", example(command)).unwrap();
    }
    page.push_str("\n## Aggregates\n\nPercentiles are `p50`, `p99.9`, `median`.\n\n| name | also |\n|---|---|\n");
    for (function, words) in MeasureFunction::WORDS {
        writeln!(page, "| `{}` | {} |", function.word(), others(words)).unwrap();
    }
    page.push_str("\n## Functions\n\n| name | arguments | gives |\n|---|---|---|\n");
    for Function { words, arguments: (least, most), gives, .. } in Function::ALL {
        let count = if least == most { least.to_string() } else { format!("{least} to {most}") };
        writeln!(page, "| `{}` | {count} | {gives}{} |", words[0], also(words)).unwrap();
    }
    page
}

#[test]
fn the_page_of_the_pipe_language_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (prose, table) = page.split_once(BEGIN).expect("the page says where the generated part begins");
    let generated = generated();
    #[allow(clippy::disallowed_methods, reason = "a switch of this test, not a setting")]
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{prose}{BEGIN}{generated}")).unwrap();
        return;
    }
    assert!(table == generated, "docs/guide/pipe.md is not current: run `./justw generate` and commit it");
}

/// Every query that the prose shows is one.
#[test]
fn examples_of_the_prose_are_read() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let prose = page.split_once(BEGIN).unwrap().0;
    let examples = prose.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let examples: Vec<String> = examples.map(|(text, _)| text.replace("\\|", "|")).collect();
    assert!(examples.len() > 25, "{examples:?}");
    for text in examples {
        if let Err(found) = lower(&plan(&text), &text, &surroundings(&text)) {
            panic!("{}", found.render(&text));
        }
    }
}

/// Every query that the page about libraries shows is one.
#[test]
fn examples_of_the_library_are_read() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/library.md")).unwrap();
    let mut read = 0;
    for block in page.split("```").skip(1).step_by(2) {
        let Some((language, text)) = block.split_once('\n') else { continue };
        let fault = match language {
            "sql" => parse_insert(text)
                .and_then(|insert| if insert.is_none() { parse_select(text).map(drop) } else { Ok(()) })
                .err(),
            "pipe" => parse_pipe(text.trim_end()).err(),
            _ => continue,
        };
        assert!(fault.is_none(), "{}", fault.unwrap().render(text));
        read += 1;
    }
    assert!(read >= 6, "{read}");
}
