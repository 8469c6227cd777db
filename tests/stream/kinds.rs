//! Every kind of continuous query: its text, and what it must answer.

use std::collections::BTreeMap;

use anyhow::Result;
use logboom_tests::{
    Api, Table,
    recompute::{self, Answer, Input, Windows},
    waves::millis,
};

/// How much disorder jobs wait for, in milliseconds.
pub(crate) const DELAY_MS: i64 = 2_000;

pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// `{from}` is the index, `{delay}` the watermark delay.
    select: &'static str,
    /// The columns of the sink, in the order of the recomputation's.
    columns: &'static [&'static str],
    pub(crate) recompute: fn(&Input) -> Answer,
}

/// What this release does not do yet. Whoever builds one takes it out here, which makes the tests cover it.
pub(crate) const NOT_COVERED: [&str; 0] = [];

const SUMS: &[&str] = &["window_start", "window_end", "key", "n", "total", "least", "most"];

pub(crate) const KINDS: [Kind; 9] = [
    Kind {
        name: "tumble",
        select: "SELECT key, window_start, window_end, count(*) AS n, sum(value) AS total, min(value) AS least, max(value) AS most \
                 FROM tumble({from}, INTERVAL '5 seconds', {delay}) WHERE value IS NOT NULL GROUP BY key, window_start, window_end",
        columns: SUMS,
        recompute: |input| recompute::aggregate(input, Windows::Tumble { size: 5_000 }, 0),
    },
    Kind {
        name: "hop",
        select: "SELECT key, window_start, window_end, count(*) AS n, sum(value) AS total, min(value) AS least, max(value) AS most \
                 FROM hop({from}, INTERVAL '2 seconds', INTERVAL '6 seconds', {delay}) WHERE value IS NOT NULL GROUP BY key, window_start, window_end",
        columns: SUMS,
        recompute: |input| recompute::aggregate(input, Windows::Hop { size: 6_000, slide: 2_000 }, 0),
    },
    Kind {
        name: "cumulate",
        select: "SELECT key, window_start, window_end, count(*) AS n, sum(value) AS total, min(value) AS least, max(value) AS most \
                 FROM cumulate({from}, INTERVAL '2 seconds', INTERVAL '6 seconds', {delay}) WHERE value IS NOT NULL GROUP BY key, window_start, window_end",
        columns: SUMS,
        recompute: |input| recompute::aggregate(input, Windows::Cumulate { size: 6_000, step: 2_000 }, 0),
    },
    Kind {
        name: "session",
        select: "SELECT key, window_start, window_end, count(*) AS n, sum(value) AS total, min(value) AS least, max(value) AS most \
                 FROM session({from}, INTERVAL '300 milliseconds', {delay}) WHERE value IS NOT NULL GROUP BY key, window_start, window_end",
        columns: SUMS,
        recompute: |input| recompute::sessions(input, 300),
    },
    Kind {
        name: "interval join",
        select: "SELECT a.key, a.id AS left_id, b.id AS right_id FROM stream({from}, {delay}) AS a JOIN stream({from}, {delay}) AS b \
                 ON a.key = b.key AND b._time BETWEEN a._time AND a._time + INTERVAL '200 milliseconds' WHERE a.mark = 'login' AND b.mark = 'error'",
        columns: &["key", "left_id", "right_id"],
        recompute: |input| {
            let of = |mark: &'static str| input.only(move |row| row.mark == mark);
            recompute::interval_join(&of("login"), &of("error"), 0, 200, false)
        },
    },
    Kind {
        name: "top rows of windows",
        select: "SELECT window_start, window_end, key, rank, value, id FROM (SELECT *, row_number() OVER (PARTITION BY window_start, window_end, key \
                 ORDER BY value DESC) AS rank FROM tumble({from}, INTERVAL '5 seconds', {delay}) WHERE value IS NOT NULL) WHERE rank <= 2",
        columns: &["window_start", "window_end", "key", "rank", "value", "id"],
        recompute: |input| recompute::top_rows(input, Windows::Tumble { size: 5_000 }, 2),
    },
    Kind {
        name: "first rows",
        select: "SELECT key, _time AS at, id FROM (SELECT *, row_number() OVER (PARTITION BY key ORDER BY _time) AS rank \
                 FROM stream({from}, {delay}) WHERE value IS NOT NULL) WHERE rank = 1",
        columns: &["key", "at", "id"],
        recompute: recompute::first_rows,
    },
    Kind {
        name: "running sums",
        select: "SELECT key, _time AS at, id, sum(value) OVER (PARTITION BY key ORDER BY _time ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS total \
                 FROM stream({from}, {delay}) WHERE value IS NOT NULL",
        columns: &["key", "at", "id", "total"],
        recompute: |input| recompute::running_sums(input, 3),
    },
    Kind {
        name: "sequence",
        select: "SELECT key, first_time AS at, last_time AS until FROM sequence({from}, INTERVAL '1 second', a => mark = 'login', \
                 b => mark = 'error', {delay}) GROUP BY key",
        columns: &["key", "at", "until"],
        recompute: |input| recompute::matches(input, &["login", "error"], 1_000).columns(&[0, 1, 3]),
    },
];

impl Kind {
    /// Whether this release runs it.
    pub(crate) fn is_built(&self) -> bool {
        !NOT_COVERED.contains(&self.name)
    }

    /// The name as a part of an id.
    pub(crate) fn word(&self) -> String {
        self.name.replace(' ', "-")
    }

    /// The job of a parallelism, and the index that it writes to.
    pub(crate) fn job(&self, parallelism: u16) -> String {
        format!("{}-{parallelism}", self.word())
    }

    /// Nothing is idle: what came behind a silence would be late by how the inputs interleave.
    pub(crate) fn text(&self, from: &str, into: &str) -> String {
        let delay = format!("watermark delay INTERVAL '{} seconds', idle after INTERVAL '1 day'", DELAY_MS / 1_000);
        // A name with a dash is one only in quotes.
        format!("INSERT INTO \"{into}\" {}", self.select.replace("{from}", from).replace("{delay}", &delay))
    }

    /// What a job has written to its index.
    pub(crate) async fn found(&self, api: &Api, job: &str) -> Result<BTreeMap<Vec<String>, u64>> {
        let answer = api.try_sql(&format!("SELECT {} FROM \"{job}\"", self.columns.join(", "))).await?;
        // Before the first row there are no columns.
        if answer.status == 400 && api.count(&format!("SELECT count(*) AS n FROM \"{job}\"")).await? == 0 {
            return Ok(BTreeMap::new());
        }
        self.rows(&Table::of(&answer.ok()?))
    }

    /// The rows of an answer as the recomputation writes them.
    fn rows(&self, table: &Table) -> Result<BTreeMap<Vec<String>, u64>> {
        let mut rows = BTreeMap::new();
        for row in 0..table.len() {
            let cells = self.columns.iter().map(|column| match *column {
                "window_start" | "window_end" | "at" | "until" => Ok(millis(&table.text(row, column)?)?.to_string()),
                "n" | "total" | "least" | "most" | "rank" | "value" => Ok(table.number(row, column)?.to_string()),
                _ => table.text(row, column),
            });
            *rows.entry(cells.collect::<Result<Vec<_>>>()?).or_default() += 1;
        }
        Ok(rows)
    }
}
