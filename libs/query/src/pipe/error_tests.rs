use super::*;

/// Text, column of the caret, words of the complaint, words of the advice.
const COMPLAINTS: [(&str, u32, &str, &str); 44] = [
    ("error | stts count", 9, "no command stts", "did you mean stats?"),
    ("error | zzzz", 9, "no command zzzz", "the commands are search"),
    ("error | sum(x)", 9, "no command sum", "stats sum(…)"),
    ("error |", 8, "expected a command, the text ends", "stats count"),
    ("| stats cuont", 9, "no aggregate cuont", "did you mean count?"),
    ("| stats blurb(x)", 9, "no aggregate blurb", "the aggregates are"),
    ("| stats avg", 9, "avg needs a field", "avg(field)"),
    ("| stats avg(x", 14, "expected the closing )", "write stats"),
    ("| stats count by", 17, "expected a field", "backticks"),
    ("| stats count, count", 16, "two aggregates have the name count", "as"),
    ("| stats p100(x)", 9, "no aggregate p100", ""),
    ("| where lenn(x) > 1", 9, "no function lenn", "did you mean len?"),
    ("| where avg(x) > 1", 9, "no function avg", "aggregate"),
    ("| where substr(x)", 9, "takes 2 to 3 arguments, not 1", "character"),
    ("| where a >", 12, "expected a field or a value", "write where"),
    ("| where 5x > 1", 9, "5x is not a number", "units are"),
    ("| where by > 1", 9, "expected a field or a value", "`by`"),
    ("| let x", 8, "expected = and an expression", "let kb"),
    ("| head -5", 8, "expected the end of head", "head 10"),
    ("| head 0", 8, "a count from 1", "head 10"),
    ("| sort", 7, "expected a field", "backticks"),
    ("| rename a b", 12, "expected as and the new name, found b", "rename lvl"),
    ("| chart count every 5", 21, "expected a span of time, found 5", "30s"),
    ("| chart count every 1m every 2m", 24, "every stands here twice", "chart"),
    ("| parse \"abc\"", 9, "takes no field out", "<name>"),
    ("| rex \"abc\"", 12, "takes no field out", "(?<user>"),
    ("| join a", 9, "expected [ and another query", "join left"),
    ("| join a [error", 16, "expected the closing ]", "join left"),
    ("| export xml", 10, "csv, json or parquet, found xml", "export"),
    ("| into index Shop", 14, "is not an index name", "into"),
    ("| sequence a within 1m", 14, "expected then", "sequence"),
    ("| format \"{a\" as b", 10, "a brace is not closed", "{field}"),
    ("| keep a, a", 10, "a stands here twice", "keep"),
    ("\"abc", 1, "the quote is not closed", "\""),
    ("`abc", 1, "the backtick is not closed", "`"),
    ("(a or b", 8, "expected the closing )", ""),
    ("a)", 2, ") closes nothing", "quotes"),
    ("a or", 5, "expected something to search for", "*"),
    ("or a", 1, "expected something to search for, found or", "\"or\""),
    ("(since:1h a)", 2, "a setting of the whole query", "`since`"),
    ("since:abc", 7, "expected a time, found abc", "since:1h"),
    ("f in 10.0.0.300/8", 6, "not a network", "10.0.0.0/8"),
    ("f=", 3, "expected a value, the text ends", ""),
    ("a*b", 1, "a*b is neither", "regular expression"),
];

#[test]
fn complaints_point_at_the_place() {
    for (text, column, words, help) in COMPLAINTS {
        let found = parse_pipe(text).expect_err(text);
        let shown = found.render(text);
        assert_eq!((found.line, found.column), (1, column), "{shown}");
        assert!(found.message.contains(words), "{shown}");
        assert!(found.help.unwrap_or_default().contains(help), "{shown}");
    }
    let found = parse_pipe("error\n| stats count\n| haed 5").unwrap_err();
    assert_eq!((found.line, found.column, found.help.as_deref()), (3, 3, Some("did you mean head?")));
    let found = parse_pipe("\"ä ö\" | haed").unwrap_err();
    assert_eq!(found.column, 9, "columns count characters");
}
