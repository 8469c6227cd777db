use proptest::prelude::*;
use sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Token, Tokenizer},
};

use super::*;
use crate::parse_pipe;

pub(super) fn surroundings(more: &str) -> Surroundings {
    let text = ["_msg", "severity", "_segment", "service", "user", more];
    let mut columns: Vec<Column> =
        text.iter().map(|name| Column { name: (*name).to_owned(), kind: ColumnKind::Text }).collect();
    columns.push(Column { name: "_time".to_owned(), kind: ColumnKind::Time });
    columns.push(Column { name: "_offset".to_owned(), kind: ColumnKind::Integer });
    columns.push(Column { name: "dur".to_owned(), kind: ColumnKind::Number });
    let columns = BTreeMap::from([("shop".parse().unwrap(), columns.clone()), ("other".parse().unwrap(), columns)]);
    Surroundings { now: Timestamp::from_millis(1_000_000), columns, rows_max: 100 }
}

fn sql(text: &str) -> Result<String, Diagnostic> {
    lower(&parse_pipe(text)?, text, &surroundings("odd")).map(|select| select.text)
}

#[test]
fn what_a_query_becomes() {
    let newest =
        "ORDER BY \"_time\" DESC NULLS LAST, \"_segment\" DESC NULLS LAST, \"_offset\" DESC NULLS LAST LIMIT 101";
    for (text, expected) in [
        ("index:shop", format!("SELECT * FROM \"shop\" {newest}")),
        (
            "index:shop since:1m error | keep user",
            format!(
                "SELECT \"user\" FROM \"shop\" WHERE \"_time\" >= TIMESTAMP '1970-01-01 00:15:40' AND \"_msg\" ~ '\\berror\\b' {newest}"
            ),
        ),
        (
            "index:shop | stats count by service",
            "WITH \"P1\" AS (SELECT \"service\" AS \"service\", count(*) AS \"count\" FROM \"shop\" GROUP BY 1) \
             SELECT * FROM \"P1\" ORDER BY \"service\" ASC NULLS LAST LIMIT 101"
                .to_owned(),
        ),
        (
            "index:shop dur>5s | rename dur as d | drop user, service, severity, odd, _msg",
            format!(
                "SELECT \"_segment\", \"_time\", \"_offset\", \"dur\" AS \"d\" FROM \"shop\" WHERE \"dur\" > 5.0 {newest}"
            ),
        ),
    ] {
        assert_eq!(sql(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn complaints_name_the_place() {
    for (text, column, words, help) in [
        ("error", 1, "names no index", "index:name"),
        ("index:nothing error", 7, "there is no index nothing", ""),
        ("index:shop srvice=a", 12, "there is no field srvice", "did you mean service?"),
        ("index:shop | stats avg(zzzzzz)", 24, "there is no field zzzzzz", "the fields are"),
        ("index:shop | keep user | where dur > 1", 32, "there is no field dur", "user"),
        ("index:shop | follow", 14, "not yet here: follow", ""),
        ("index:shop | stats count | context 5", 28, "context follows a search", "head 5"),
        ("index:shop | lookup t user", 21, "of which index is t?", "in front"),
        ("index:shop | expand user", 14, "not yet here: expand", ""),
        ("index:shop | stats count | alert when count > 1", 28, "not yet here: alert", ""),
        ("index:shop | into index x", 14, "not yet here: into", ""),
        ("index:shop | export csv", 14, "not yet here: export", ""),
        ("index:shop | create view x", 14, "not yet here: create", ""),
        ("index:shop | stats count | sample 10", 1, "there is no field _offset", ""),
        ("index:shop | explain", 14, "not yet here: explain", ""),
        ("index:shop | parse json from user", 14, "not yet here: parse", "pattern"),
        ("index:shop | stats rate", 20, "needs a span of time", "since:1h"),
        ("index:shop | chart count", 14, "needs a distance", "every 1m"),
        ("index:shop | head 1 | compare -1d", 23, "follows stats or chart", ""),
        ("index:shop | stats count | compare -1d", 28, "needs a begin", "since:1h"),
        ("index:shop _time>5", 12, "compared with a time", "since:1h"),
    ] {
        let found = sql(text).expect_err(text);
        assert_eq!((found.line, found.column), (1, column), "{}", found.render(text));
        assert!(found.message.contains(words), "{}", found.render(text));
        assert!(found.help.clone().unwrap_or_default().contains(help), "{}", found.render(text));
    }
    let long = format!("index:shop {}", "| head 5 | where dur > 1 ".repeat(16));
    assert!(sql(&long).is_ok());
    let many: Vec<String> = (0..200).map(|i| format!("w{i}")).collect();
    let found = sql(&format!("index:shop {}", many.join(" or "))).unwrap_err();
    assert!(found.message.contains("too large as SQL"), "{found}");
}

#[test]
fn a_plan_that_names_no_index_reads_the_one_it_is_given() {
    let mut plan = parse_pipe(
        "error user in [plan=a | keep user] | append [index:c | join user [b]] | search -(x in [* | keep x])",
    )
    .unwrap();
    plan.default_indexes(&["a".parse().unwrap()]);
    assert_eq!(
        plan.to_string(),
        "index:a error user in [index:a plan=\"a\" | keep user] | append [index:c | join user [index:c b]] \
         | search -x in [index:a | keep x]"
    );
}

#[test]
fn groups_of_expressions_stand_alone() {
    for (regex, expected) in [
        ("(?<a>x)", vec![("a", "(x)")]),
        (
            "(a)(?P<b>c(?:d)(e))[(?<x>]\\((?<y>z)",
            vec![("b", "(?:a)(c(?:d)(?:e))[(?<x>]\\((?:z)"), ("y", "(?:a)(?:c(?:d)(?:e))[(?<x>]\\((z)")],
        ),
        ("(?i)x(?<n>\\d)?", vec![("n", "(?i)x(\\d)?")]),
        ("(?<=x)y", vec![]),
        ("\\", vec![]),
    ] {
        let found = predicate::regex_groups(regex);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, regex)| (name.as_str(), regex.as_str())).collect();
        assert_eq!(found, expected, "{regex}");
    }
}

/// The tokens of a statement without what stands in quotes.
fn shape(sql: &str) -> Vec<String> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap();
    let kind = |token: &Token| match token {
        Token::SingleQuotedString(_) => "'text'".to_owned(),
        Token::Word(word) if word.quote_style.is_some() => "\"name\"".to_owned(),
        other => other.to_string(),
    };
    tokens.iter().map(kind).collect()
}

/// A query full of one text: as a phrase, a value, a name, a pattern, an alias, a template.
fn full_of(text: &str) -> String {
    let quoted = crate::pipe::quoted(text);
    let field = crate::pipe::name_text(text);
    let braces = crate::pipe::quoted(&text.replace('{', "{{").replace('}', "}}"));
    let begin = crate::pipe::quoted(&format!("a {text}"));
    // A star in quotes cannot stand beside one without.
    let like = crate::pipe::quoted(&format!("a {}", text.replace('*', "")));
    format!(
        "index:shop {begin} user={quoted} {field}=\"1\" {field}~{quoted} service in ({quoted}, \"x\") *{begin}* user={like}*\"b\" \
         user in [index:other {field}={quoted} | keep user] \
         | let {field} = concat({field}, {quoted}), other = replace(user, \"x\", {quoted}) | where {field} = {quoted} \
         | format {braces} as {field} | replace {begin} with {quoted} in {field} | fill user with {begin} \
         | rex \"(?<word>.)\" from {field} | append [index:other {begin}] | stats count, max({field}) as `max {}` by {field} \
         | sort -{field}",
        text.replace('`', "``")
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn hostile_text_never_becomes_sql(text in prop_oneof![
        any::<String>(),
        "[a-z'\"\\\\;() -]{1,12}",
        Just("'; DROP TABLE shop; --".to_owned()),
        Just("\" OR 1=1 --".to_owned()),
        Just("\\' OR '1'='1".to_owned()),
        Just("/* */ $$ x $$".to_owned()),
    ]) {
        // An empty name is none, and the names that columns have here are others'.
        let text = format!("{text}\u{e9}");
        let lowered = |text: &str| {
            let query = full_of(text);
            let plan = parse_pipe(&query).map_err(|found| TestCaseError::fail(found.render(&query)))?;
            let select = lower(&plan, &query, &surroundings(text)).map_err(|found| TestCaseError::fail(found.render(&query)))?;
            Ok::<_, TestCaseError>(select.text)
        };
        let (hostile, plain) = (lowered(&text)?, lowered("plain")?);
        prop_assert_eq!(shape(&hostile), shape(&plain), "{}", hostile);
    }
}
