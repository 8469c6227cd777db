//! The rules of both stages one by one, and that nothing of a line is lost.

use proptest::prelude::*;

use super::{signature::TOKENS_MAX, *};

/// The tokens of a line, blanks between them.
fn tokens(line: &str) -> String {
    let mut dictionary = Dictionary::default();
    dictionary.learn(line);
    let entry = &dictionary.signatures()[0];
    entry.tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_a_word_and_what_is_a_variable() {
    for (line, expected) in [
        // White space and delimiters.
        ("a  b\tc", "a b c"),
        ("a=b,c", "a = b , c"),
        ("f(a)[b]{c}\"d\"'e';|<f>:", "f ( a ) [ b ] { c } \" d \" ' e ' ; | < f > :"),
        // Digits, paths, dotted names, the calendar.
        ("x9 y", "<*> y"),
        ("at /usr/lib:x=y,z done", "at <*> done"),
        ("a / b", "a / b"),
        ("a/b c", "a/b c"),
        ("a/b/c d", "<*> d"),
        ("a.b c", "a.b c"),
        ("a.b.c d", "<*> d"),
        ("on Mon in Jan UTC or Monday", "on <*> in <*> or Monday"),
        // Asides, comparisons, units.
        ("sent (1234) on", "sent on"),
        ("call() done", "call done"),
        ("call(x) done", "call ( x ) done"),
        ("in <1 sec on", "in <*> on"),
        ("a < 1", "a < <*>"),
        ("took 5 ms on", "took <*> on"),
        ("took ms on", "took ms on"),
        ("5174 bytes (5.05 KB) received", "<*> bytes received"),
        // Hosts with ports.
        ("to a.tld:80 on", "to <*> on"),
        ("to a.tld: 80 on", "to a.tld : <*> on"),
        ("to tld:80 on", "to tld : <*> on"),
        // Runs.
        ("1 2 3 x", "<*> x"),
        ("1, 2:3|4;5 x", "<*> x"),
        ("1 = 2", "<*> = <*>"),
        ("1 (2) 3 x", "<*> x"),
        // Dots at the end.
        ("done.", "done"),
    ] {
        assert_eq!(tokens(line), expected, "{line:?}");
    }
    let many = "a ".repeat(TOKENS_MAX + 10);
    assert_eq!(tokens(&many).split(' ').count(), TOKENS_MAX + 1);
    assert_eq!(tokens(&format!("{} b", "a".repeat(129))), "<*> b");
}

#[test]
fn signatures_depend_on_words_alone_and_never_change() {
    assert_eq!(signature("a  17 b"), signature("a 4 KB b"));
    for (a, b) in [("a b", "b a"), ("a", "a a"), ("a 1", "1 a"), ("a=b", "a b"), ("aaaaaaaab", "aaaaaaaac"), ("", "a")]
    {
        assert_ne!(signature(a), signature(b), "{a:?} {b:?}");
    }
    // Stored with data: a change would make every known pattern a new one.
    assert_eq!(signature(""), GOLDEN[0]);
    assert_eq!(signature("Accepted password for ann from 10.0.0.7 port 22"), GOLDEN[1]);
    assert_eq!(signature("f(a)[b]={c}\"d\"'e';|<f>: interoperability."), GOLDEN[2]);
}

const GOLDEN: [u64; 3] = [0xf834_b40e_5491_6a2f, 0xcf4e_ca2e_1073_c6b7, 0x0541_f904_aeec_79f5];

fn learn(dictionary: &mut Dictionary, line: &str) -> (PatternId, Vec<String>) {
    let mined = dictionary.learn(line);
    (mined.pattern, mined.variables().map(str::to_owned).collect())
}

fn rebuilt(dictionary: &Dictionary, (pattern, variables): &(PatternId, Vec<String>)) -> String {
    let pattern = dictionary.pattern(*pattern).unwrap();
    pattern.rebuild(variables.iter().map(String::as_str)).unwrap()
}

#[test]
fn patterns_keep_every_byte() {
    let mut dictionary = Dictionary::default();
    let lines = [
        "size   12 of x",
        "size 4000 of x",
        "size 7    of x",
        "a (1) b",
        "a b",
        "a  b",
        "a <5 b",
        "a </5 b",
        "a 5.",
        "a 5..",
        "",
        " ",
        "7",
        "x\ty 1\n",
        "h\u{e9} 9 \u{1f600}",
    ];
    let rows: Vec<_> = lines.iter().map(|line| learn(&mut dictionary, line)).collect();
    for (line, row) in lines.iter().zip(&rows) {
        assert_eq!(rebuilt(&dictionary, row), *line);
    }
    assert!(rows[0].0 == rows[1].0 && rows[1].0 == rows[2].0, "aligned columns are one pattern");
    assert_eq!(rows[0].1, ["  12"]);
    assert_eq!(rows[3].1, ["1"], "what an aside holds is kept");
    assert_ne!(rows[3].0, rows[4].0, "though its signature is that of the line without");
    let pattern = dictionary.pattern(rows[0].0).unwrap();
    assert_eq!((pattern.holes(), pattern.pieces().collect::<Vec<_>>()), (1, vec!["size ", " of x"]));
    assert_eq!(pattern.rebuild([]), None);
    assert_eq!(pattern.rebuild(["1", "2"]), None);
}

#[test]
fn lines_without_room_are_one_variable() {
    let mut dictionary = Dictionary::default();
    let long = "x ".repeat(LINE_BYTES_MAX);
    assert_eq!(learn(&mut dictionary, &long), (WHOLE, vec![long.clone()]));
    // Each takes as much room as a line can, its tokens included.
    let room = DICTIONARY_BYTES_MAX / (LINE_BYTES_MAX * 2);
    let rows: Vec<_> = (0..room + 8)
        .map(|n| {
            let name: String = n.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect();
            let line = format!("{name} {}", "-".repeat(LINE_BYTES_MAX - name.len() - 1));
            let row = learn(&mut dictionary, &line);
            assert_eq!(rebuilt(&dictionary, &row), line);
            row.0
        })
        .collect();
    let whole = rows.iter().filter(|id| **id == WHOLE).count();
    assert!((8..16).contains(&whole), "{whole}");
    assert_eq!(dictionary.unmined(), u64::try_from(whole + 1).unwrap());
    assert_ne!(learn(&mut dictionary, "what is known").0, rows[0]);
}

#[test]
fn patterns_beyond_the_limit_find_no_room() {
    let mut dictionary = Dictionary::default();
    let name = |mut n: usize| {
        let mut name = String::new();
        for _ in 0..5 {
            name.push(char::from(b'a' + u8::try_from(n % 26).unwrap()));
            n /= 26;
        }
        name
    };
    let rows: Vec<_> = (0..PATTERNS_MAX + 3).map(|n| learn(&mut dictionary, &name(n)).0).collect();
    assert_eq!(rows.iter().filter(|id| **id == WHOLE).count(), 4);
    assert_eq!(learn(&mut dictionary, &name(5)).0, rows[5], "known ones are still found");
}

#[test]
fn dictionaries_merge_and_come_back() {
    let (mut a, mut b) = (Dictionary::default(), Dictionary::default());
    for line in ["x 1", "y 2", "x 3"] {
        a.learn(line);
    }
    let rows = ["z", "y 7", "z", "y 8"].map(|line| learn(&mut b, line));
    let ids = a.merge(&b);
    for (row, line) in rows.iter().zip(["z", "y 7", "z", "y 8"]) {
        assert_eq!(rebuilt(&a, &(ids[row.0 as usize], row.1.clone())), line);
    }
    let counts: Vec<_> = a.signatures().iter().map(|entry| entry.count).collect();
    assert_eq!(counts, [2, 3, 2]);
    let mut kept = Dictionary::default();
    for (pattern, _, count) in a.patterns().skip(1) {
        kept.learn_times(pattern.example(), count);
    }
    assert!(kept.patterns().eq(a.patterns()));
    assert_eq!(kept.signatures(), a.signatures());
}

fn templates(lines: &[(&str, u64)], branches: usize) -> Vec<(String, u64)> {
    let mut dictionary = Dictionary::default();
    for (line, count) in lines {
        dictionary.learn_times(line, *count);
    }
    dictionary.templates(branches).into_iter().map(|template| (template.text, template.count)).collect()
}

#[test]
fn values_without_digits_are_found_by_their_number() {
    let users = ["ann", "bob", "cy", "dan", "eve", "fay"];
    let lines: Vec<_> = users.iter().map(|user| (format!("user {user} logged in"), 10)).collect();
    let mut lines: Vec<_> = lines.iter().map(|(line, count)| (line.as_str(), *count)).collect();
    lines.push(("disk sda is full", 3));
    let full = ("disk sda is full".to_owned(), 3);
    assert_eq!(templates(&lines, 6), [("user <*> logged in".to_owned(), 60), full.clone()]);
    // With fewer words than branches each is a template, and so the slider goes.
    assert_eq!(templates(&lines, 7).len(), 7);
    assert_eq!(templates(&lines[..5], 6).len(), 5);
    assert_eq!(templates(&lines[..5], 5), [("user <*> logged in".to_owned(), 50)]);
    lines.reverse();
    assert_eq!(templates(&lines, 6), [("user <*> logged in".to_owned(), 60), full]);
}

#[test]
fn texts_of_templates_read_well_and_are_one_for_one() {
    for (line, expected) in [
        ("open( a=1 , \"b  c\" ) ;x", "open (a=<*>, \"b c\"); x"),
        ("[x]:{y}", "[x]: {y}"),
        ("a<*>b", "a < * > b"),
        ("a 1 b", "a <*> b"),
        ("", ""),
    ] {
        assert_eq!(templates(&[(line, 1)], 6), [(expected.to_owned(), 1)], "{line:?}");
    }
    let mut dictionary = Dictionary::default();
    dictionary.learn("a 1 b");
    assert_eq!(dictionary.templates(6)[0].id.to_string(), format!("{:016x}", types::hash64(b"a <*> b")));
}

proptest! {
    #[test]
    fn a_pattern_and_its_variables_are_the_line(lines in proptest::collection::vec(line(), 1..30)) {
        let mut dictionary = Dictionary::default();
        let rows: Vec<_> = lines.iter().map(|line| learn(&mut dictionary, line)).collect();
        for (line, row) in lines.iter().zip(&rows) {
            prop_assert_eq!(&rebuilt(&dictionary, row), line);
            prop_assert_eq!(dictionary.learn(line).signature, signature(line));
            prop_assert_eq!(dictionary.learn(line).pattern, row.0);
        }
        let split: u64 = dictionary.templates(BRANCHES).iter().map(|template| template.count).sum();
        prop_assert_eq!(split, u64::try_from(lines.len()).unwrap() * 3);
    }

    #[test]
    fn the_order_of_lines_changes_no_template(lines in proptest::collection::vec(line(), 1..20)) {
        let derive = |lines: &mut dyn Iterator<Item = &String>| {
            let mut dictionary = Dictionary::default();
            for line in lines {
                dictionary.learn(line);
            }
            let mut templates = dictionary.templates(BRANCHES);
            templates.sort_by_key(|template| template.id);
            templates
        };
        prop_assert_eq!(derive(&mut lines.iter()), derive(&mut lines.iter().rev()));
    }
}

/// Lines of the parts that the rules look at, and any text.
fn line() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just(" "),
        Just("  "),
        Just("a"),
        Just("bc"),
        Just("1"),
        Just("x9"),
        Just("("),
        Just(")"),
        Just("<"),
        Just(">"),
        Just(","),
        Just(":"),
        Just("|"),
        Just(";"),
        Just("="),
        Just("/"),
        Just("/p/q"),
        Just("."),
        Just("a.b"),
        Just("KB"),
        Just("ms"),
        Just("Mon"),
        Just("UTC"),
        Just("\t"),
        Just("\n"),
        Just("\u{e9}"),
        Just("\""),
    ];
    prop_oneof![proptest::collection::vec(part, 0..16).prop_map(|parts| parts.concat()), any::<String>(),]
}
