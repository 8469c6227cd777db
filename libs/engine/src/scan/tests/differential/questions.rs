//! Questions of every kind, made by dice.

use super::super::{Dice, condition, question};

/// A question, and what of its answer is certain.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) text: String,
    pub(super) certain: Certain,
}

#[derive(Debug, Clone)]
pub(super) enum Certain {
    /// Its rows and their order.
    Order,
    /// Its rows.
    Rows,
    /// So many rows of those of another text.
    Some(String, usize),
}

/// Views that questions name, each behind those that it reads.
pub(super) const VIEWS: [(&str, &str); 4] = [
    ("shop.slow", "SELECT * FROM shop WHERE n > 3"),
    ("shop.slower", "SELECT * FROM shop.slow WHERE severity IS NOT NULL AND contains(_msg, 'p')"),
    ("shop.last", "SELECT * FROM shop ORDER BY _time DESC, _segment, _offset LIMIT 25"),
    (
        "shop.newest",
        "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY trace_id ORDER BY _time DESC, _segment, _offset) AS r \
         FROM shop) AS w WHERE r = 1",
    ),
];

const SCALARS: [&str; 18] = [
    "_offset",
    "n",
    "_time",
    "severity",
    "service",
    "upper(_msg)",
    "n + 1",
    "n * 2 - _offset",
    "coalesce(severity, 'none')",
    "CASE WHEN n > 3 THEN 'big' WHEN n IS NULL THEN severity ELSE service END",
    "date_trunc('minute', _time)",
    "length(_msg)",
    "severity IS NULL",
    "service || '-' || severity",
    "CAST(_offset AS TEXT)",
    "n IN (1, 2, 7)",
    "_offset % 3",
    "nullif(severity, 'info')",
];

const GROUPS: [&str; 13] = [
    "severity",
    "service",
    "trace_id",
    "n",
    "_segment",
    "date_trunc('minute', _time)",
    "date_bin(INTERVAL '30 seconds', _time)",
    "n > 3",
    "length(_msg)",
    "upper(severity)",
    "_offset % 4",
    "CASE WHEN n > 3 THEN 'big' ELSE severity END",
    "n + _offset",
];

const AGGREGATES: [&str; 28] = [
    "count(*)",
    "count(*)",
    "count(n)",
    "count(severity)",
    "sum(n)",
    "min(n)",
    "max(n)",
    "avg(n)",
    "sum(_offset)",
    "avg(_offset)",
    "min(_msg)",
    "max(_time)",
    "min(severity)",
    "max(n + 1)",
    "sum(n * n)",
    "sum(n) FILTER (WHERE severity = 'error')",
    "count(*) FILTER (WHERE n > 3)",
    "avg(n) FILTER (WHERE _offset > 5)",
    "max(_msg) FILTER (WHERE severity IS NULL)",
    "count(DISTINCT service)",
    "count(DISTINCT trace_id)",
    "count(DISTINCT n)",
    "sum(DISTINCT n)",
    "median(n)",
    "bool_or(n > 20)",
    "bool_and(severity = 'info')",
    "string_agg(severity, ',' ORDER BY _segment, _offset)",
    "first_value(_msg ORDER BY _time, _segment, _offset)",
];

/// Some question.
pub(super) fn any(dice: &mut Dice) -> Question {
    let certain = Certain::Order;
    match dice.roll(12) {
        0 => Question { text: question(dice), certain },
        1 | 2 => rows(dice),
        3..=5 => groups(dice),
        6 => distinct(dice),
        7 => windows(dice),
        8 => sets(dice),
        9 => joins(dice),
        10 => subqueries(dice),
        _ => stages(dice),
    }
}

/// One to so many of these, each once.
fn some<'a>(dice: &mut Dice, all: &[&'a str], most: u64) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for _ in 0..=dice.roll(most) {
        let one = dice.of(all);
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

fn named(all: &[&str], prefix: &str) -> String {
    let named: Vec<String> = all.iter().enumerate().map(|(n, one)| format!("{one} AS {prefix}{n}")).collect();
    named.join(", ")
}

/// What stands behind FROM; it has the columns of the index.
fn source(dice: &mut Dice) -> String {
    let (one, other, limit) = (condition(dice, 1), condition(dice, 1), 1 + dice.roll(60));
    match dice.roll(14) {
        0 => "shop.slow AS s".to_owned(),
        1 => "shop.slower AS s".to_owned(),
        2 => "shop.last AS s".to_owned(),
        3 => "shop.newest AS s".to_owned(),
        4 => format!("(SELECT * FROM shop WHERE {one}) AS s"),
        5 => {
            format!(
                "(SELECT * FROM shop WHERE {one} ORDER BY _time DESC, _segment, _offset LIMIT {limit} OFFSET 2) AS s"
            )
        }
        6 => format!("(SELECT * FROM shop ORDER BY n NULLS FIRST, _segment, _offset LIMIT {limit}) AS s"),
        7 => format!("(SELECT * FROM shop WHERE {one} UNION ALL SELECT * FROM shop WHERE {other}) AS s"),
        8 => format!("(SELECT * FROM shop WHERE {one} UNION SELECT * FROM shop WHERE {other}) AS s"),
        9 => "shop AS s".to_owned(),
        _ => "shop".to_owned(),
    }
}

fn filter(dice: &mut Dice) -> String {
    match dice.roll(8) {
        0..=2 => String::new(),
        3 => " WHERE false".to_owned(),
        _ => format!(" WHERE {}", condition(dice, 2)),
    }
}

fn direction(dice: &mut Dice) -> &'static str {
    dice.of(&["", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST", " DESC"])
}

/// An order by some of so many columns, and then by what no two rows have in common.
fn order(dice: &mut Dice, columns: usize, last: &[String]) -> String {
    let mut keys: Vec<String> = Vec::new();
    for _ in 0..dice.roll(3) {
        if columns > 0 {
            let place = 1 + dice.roll(u64::try_from(columns).unwrap());
            keys.push(format!("{place}{}", direction(dice)));
        }
    }
    for one in last {
        keys.push(format!("{one}{}", direction(dice)));
    }
    format!(" ORDER BY {}", keys.join(", "))
}

fn limit(dice: &mut Dice) -> String {
    match dice.roll(5) {
        0 | 1 => format!(" LIMIT {}", dice.of(&[0, 1, 3, 7, 20, 1_000])),
        2 => format!(" LIMIT {} OFFSET {}", 1 + dice.roll(20), dice.roll(9)),
        3 => format!(" OFFSET {}", dice.roll(9)),
        _ => String::new(),
    }
}

fn places(columns: usize) -> Vec<String> {
    (1..=columns).map(|place| place.to_string()).collect()
}

/// The question with an order that leaves nothing open, or with none.
fn ended(dice: &mut Dice, text: String, columns: usize, last: &[String]) -> Question {
    match dice.roll(4) {
        0 if last.is_empty() => Question { text, certain: Certain::Rows },
        0 => {
            let number = dice.of(&[0, 1, 4, 9, 100]);
            Question { certain: Certain::Some(text.clone(), number), text: format!("{text} LIMIT {number}") }
        }
        1 => Question { text, certain: Certain::Rows },
        _ if last.is_empty() => Question { text: format!("{text}{}", limit(dice)), certain: Certain::Order },
        _ => {
            let (order, limit) = (order(dice, columns, last), limit(dice));
            Question { text: format!("{text}{order}{limit}"), certain: Certain::Order }
        }
    }
}

fn rows(dice: &mut Dice) -> Question {
    let columns = some(dice, &SCALARS, 4);
    let text = format!("SELECT {} FROM {}{}", named(&columns, "c"), source(dice), filter(dice));
    let mut last = vec!["_segment".to_owned(), "_offset".to_owned()];
    match dice.roll(4) {
        0 | 1 => last.insert(0, "_time".to_owned()),
        2 => last.insert(0, dice.of(&SCALARS).to_owned()),
        _ => {}
    }
    ended(dice, text, columns.len(), &last)
}

/// The text, how many columns it has, and how many of these are groups.
fn grouped(dice: &mut Dice) -> (String, usize, usize) {
    let groups = if dice.roll(4) == 0 { Vec::new() } else { some(dice, &GROUPS, 2) };
    let mut aggregates = some(dice, &AGGREGATES, 3);
    if !groups.is_empty() && dice.roll(8) == 0 {
        aggregates.clear();
    }
    let columns: Vec<String> =
        [named(&groups, "g"), named(&aggregates, "a")].into_iter().filter(|of| !of.is_empty()).collect();
    let mut text = format!("SELECT {} FROM {}{}", columns.join(", "), source(dice), filter(dice));
    if !groups.is_empty() {
        text.push_str(&format!(" GROUP BY {}", places(groups.len()).join(", ")));
    }
    if dice.roll(4) == 0 {
        let having = ["count(*) > 2", "max(n) IS NOT NULL", "sum(_offset) > 40", "min(severity) = 'error'", "false"];
        text.push_str(&format!(" HAVING {}", dice.of(&having)));
    }
    (text, groups.len() + aggregates.len(), groups.len())
}

fn groups(dice: &mut Dice) -> Question {
    let (text, columns, groups) = grouped(dice);
    ended(dice, text, columns, &places(groups))
}

fn distinct(dice: &mut Dice) -> Question {
    let columns = some(dice, &[SCALARS.as_slice(), GROUPS.as_slice()].concat(), 3);
    let text = format!("SELECT DISTINCT {} FROM {}{}", named(&columns, "c"), source(dice), filter(dice));
    ended(dice, text, columns.len(), &places(columns.len()))
}

fn window(dice: &mut Dice) -> String {
    let part = dice.of(&["", "PARTITION BY severity ", "PARTITION BY trace_id ", "PARTITION BY service, severity "]);
    let order = format!(
        "{part}ORDER BY {}_segment, _offset{}",
        dice.of(&["", "_time DESC, ", "n NULLS FIRST, ", "_msg, "]),
        direction(dice)
    );
    match dice.roll(10) {
        0 | 1 => format!("row_number() OVER ({order})"),
        2 => format!("rank() OVER ({part}ORDER BY n{})", direction(dice)),
        3 => format!("dense_rank() OVER ({part}ORDER BY severity)"),
        4 => format!("sum(n) OVER ({order} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)"),
        5 => format!("count(*) OVER ({part})"),
        6 => format!("lag(n, 2) OVER ({order})"),
        7 => format!("first_value(_msg) OVER ({order})"),
        8 => format!("max(n) OVER ({part})"),
        _ => format!("count(severity) OVER ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING)"),
    }
}

fn windows(dice: &mut Dice) -> Question {
    let columns = some(dice, &SCALARS, 2);
    let inner = format!("SELECT *, {} AS w FROM {}{}", window(dice), source(dice), filter(dice));
    match dice.roll(3) {
        0 => {
            let text = format!("SELECT {}, w FROM ({inner}) AS v", named(&columns, "c"));
            ended(dice, text, columns.len() + 1, &["_segment".to_owned(), "_offset".to_owned()])
        }
        1 => {
            let text = format!(
                "WITH v AS ({inner}) SELECT {} AS g0, count(*) AS a0, min(w) AS a1 FROM v WHERE {} GROUP BY 1",
                dice.of(&GROUPS),
                dice.of(&["w IS NOT NULL", "_offset > 3", "w = w", "severity = 'error'"])
            );
            ended(dice, text, 3, &places(1))
        }
        _ => {
            let text = format!(
                "SELECT {} AS g0, count(*) AS a0, max(count(*)) OVER () AS a1, row_number() OVER (ORDER BY {0}) AS a2 \
                 FROM {}{} GROUP BY 1",
                dice.of(&GROUPS),
                source(dice),
                filter(dice)
            );
            ended(dice, text, 4, &places(1))
        }
    }
}

fn sets(dice: &mut Dice) -> Question {
    let columns = dice.of(&["severity AS a, service AS b", "n AS a, severity AS b", "trace_id AS a, _offset AS b"]);
    let side = |dice: &mut Dice| format!("SELECT {columns} FROM {}{}", source(dice), filter(dice));
    let with = dice.of(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "UNION ALL"]);
    let text = format!("{} {with} {}", side(dice), side(dice));
    if dice.roll(2) == 0 {
        let text = format!("SELECT b AS g0, count(*) AS a0, max(a) AS a1 FROM ({text}) AS u GROUP BY 1");
        return ended(dice, text, 3, &places(1));
    }
    ended(dice, format!("SELECT a, b FROM ({text}) AS u"), 2, &places(2))
}

fn joins(dice: &mut Dice) -> Question {
    let (kind, few) = (dice.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]), dice.roll(60));
    if dice.roll(3) == 0 {
        let (one, other) = (dice.of(&GROUPS), dice.of(&AGGREGATES));
        let side = |dice: &mut Dice, of: &str| {
            format!("(SELECT {one} AS k, {of} AS v FROM {}{} GROUP BY 1)", source(dice), filter(dice))
        };
        let (left, right) = (side(dice, other), side(dice, "count(*)"));
        let text =
            format!("SELECT a.k AS k, b.k AS j, a.v AS v, b.v AS w FROM {left} AS a {kind} {right} AS b ON a.k = b.k");
        return ended(dice, text, 4, &places(4));
    }
    let side = |dice: &mut Dice| format!("(SELECT * FROM {}{})", source(dice), filter(dice));
    let (left, right) = (side(dice), side(dice));
    let on = dice.of(&["a.trace_id = b.trace_id", "a.n = b.n AND a.severity = b.severity", "a._time = b._time"]);
    let text = format!(
        "SELECT a._segment AS s, a._offset AS o, b._segment AS t, b._offset AS p, b.n AS n FROM {left} AS a {kind} {right} AS b \
         ON {on} AND b._offset < {few}"
    );
    if dice.roll(3) == 0 {
        let text =
            format!("SELECT s AS g0, count(*) AS a0, count(p) AS a1, sum(n) AS a2 FROM ({text}) AS j GROUP BY 1");
        return ended(dice, text, 4, &places(1));
    }
    ended(dice, text, 5, &places(5))
}

fn subqueries(dice: &mut Dice) -> Question {
    let (inner, found) = (source(dice), condition(dice, 1));
    let filter = match dice.roll(6) {
        0 => format!("trace_id IN (SELECT trace_id FROM {inner} WHERE {found})"),
        1 => format!("trace_id NOT IN (SELECT trace_id FROM {inner} WHERE {found})"),
        2 => format!("severity NOT IN (SELECT severity FROM {inner} WHERE {found})"),
        3 => format!("n > (SELECT avg(n) FROM {inner} WHERE {found})"),
        4 => format!("_time = (SELECT max(_time) FROM {inner} WHERE {found})"),
        _ => format!("EXISTS (SELECT 1 FROM {inner} WHERE {found}) AND {}", condition(dice, 1)),
    };
    let outer = source(dice);
    if dice.roll(2) == 0 {
        let text = format!("SELECT {} AS g0, count(*) AS a0 FROM {outer} WHERE {filter} GROUP BY 1", dice.of(&GROUPS));
        return ended(dice, text, 2, &places(1));
    }
    let text = format!("SELECT _offset AS c0, _segment AS c1, n AS c2 FROM {outer} WHERE {filter}");
    ended(dice, text, 3, &places(2))
}

/// Groups of groups, and what is done with groups row by row.
fn stages(dice: &mut Dice) -> Question {
    let (inner, _, groups) = grouped(dice);
    if groups == 0 {
        return Question { text: inner, certain: Certain::Rows };
    }
    let text = match dice.roll(4) {
        0 => format!("SELECT count(*) AS c, count(g0) AS d FROM ({inner}) AS x"),
        1 => {
            let text = format!("WITH x AS ({inner}) SELECT g0 AS k, count(*) AS c FROM x GROUP BY g0");
            return ended(dice, text, 2, &places(1));
        }
        2 => format!("SELECT count(DISTINCT g0) AS c, max(g0) AS d FROM ({inner} LIMIT 100000) AS x"),
        _ => {
            let order = places(groups).join(", ");
            let few = 1 + dice.roll(6);
            format!("SELECT count(*) AS c, min(g0) AS d FROM ({inner} ORDER BY {order} LIMIT {few}) AS x")
        }
    };
    Question { text, certain: Certain::Order }
}
