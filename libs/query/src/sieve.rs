//! Queries that look at one event at a time: which events somebody means, for a live tail and for what explores an index.
//!
//! The same text in any of the three languages, as long as no step of it needs to see all events. It is used in two ways:
//! over events as they come, as [stages](Sieve::stages) of a filter and columns; and over the past, as a
//! [relation](Sieve::select) that a statement is written upon.

use types::{IndexName, Timestamp};

use crate::{
    Column, Continuous, Diagnostic, Logql, OutputColumn, Select, Shape, Surroundings,
    lower::{ColumnKind, Lowering, complaint_in, name, place_of, timestamp},
    parse_continuous, parse_logql, parse_pipe,
    pipe::{Command, position},
    plan::{Plan, Step, TIME},
};

/// Which events of one index are meant.
#[derive(Debug, Clone)]
pub struct Sieve {
    text: String,
    index: IndexName,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// A plan of steps that look at one event, and whether its fields are labels of LogQL.
    Plan(Box<Plan>, bool),
    Sql(Box<Continuous>),
}

/// What is done to events at once: first the filter, then the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SieveStage {
    /// The condition, as SQL; `None` where all pass.
    pub filter: Option<String>,
    /// The columns, as SQL; none stands for every column as it is.
    pub columns: Vec<OutputColumn>,
}

/// The events that passed, as something a statement reads from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sifted {
    /// What stands behind `FROM`.
    pub from: String,
    /// The columns.
    pub columns: Vec<Column>,
}

impl Sieve {
    /// Every event of an index.
    pub fn everything(index: &IndexName) -> Self {
        let plan = Plan { indexes: vec![index.clone()], ..Plan::default() };
        Self { text: String::new(), index: index.clone(), what: What::Plan(Box::new(plan), false) }
    }

    /// Reads the pipe language; the text names this index or none.
    ///
    /// Errors: what is no query, and steps that look at more than one event, with their place.
    pub fn pipe(text: &str, index: &IndexName) -> Result<Self, Diagnostic> {
        Self::of_plan(parse_pipe(text)?, text, index, false)
    }

    /// Reads a log query of LogQL.
    ///
    /// Errors: as of [`pipe`](Self::pipe); queries for series.
    pub fn logql(text: &str, index: &IndexName) -> Result<Self, Diagnostic> {
        match parse_logql(text)? {
            Logql::Logs(plan) => Self::of_plan(plan, text, index, true),
            Logql::Metric(_) => {
                Err(Diagnostic::new(1, 1, "a series is no events").help("write a query for lines: {app=\"a\"}"))
            }
        }
    }

    /// Reads `SELECT … FROM <index> [WHERE …]`.
    ///
    /// Errors: everything else, as of [`parse_continuous`].
    pub fn sql(text: &str, index: &IndexName) -> Result<Self, Diagnostic> {
        let query = parse_continuous(text)?;
        if query.insert_into.is_some() {
            return Err(Diagnostic::new(1, 1, "nothing is written here").help("begin with SELECT"));
        }
        if matches!(query.shape, Shape::Windowed(_)) {
            return Err(complaint_in(text, "tumble", "a window looks at more than one event").help(ONE_BY_ONE));
        }
        if query.source != *index {
            return Err(other_index(text, &query.source, index));
        }
        Ok(Self { text: text.to_owned(), index: index.clone(), what: What::Sql(Box::new(query)) })
    }

    fn of_plan(mut plan: Plan, text: &str, index: &IndexName, labels: bool) -> Result<Self, Diagnostic> {
        plan.default_indexes(std::slice::from_ref(index));
        if let Some(other) = plan.all_indexes().iter().find(|named| *named != index) {
            return Err(other_index(text, other, index));
        }
        if !plan.views.is_empty() {
            return Err(
                complaint_in(text, "view", "events of an index are looked at here, not a view").help(ONE_BY_ONE)
            );
        }
        plan.steps.retain(|step| *step != Step::Follow);
        if let Some(step) = plan.steps.iter().find(|step| !looks_at_one(step)) {
            return Err(looks_at_more(text, step));
        }
        if plan.plan_count() > 1 {
            let (line, column) = position(text, text.find('[').unwrap_or_default());
            return Err(Diagnostic::new(line, column, "a query inside looks at more than one event").help(ONE_BY_ONE));
        }
        Ok(Self { text: text.to_owned(), index: index.clone(), what: What::Plan(Box::new(plan), labels) })
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether every event passes as it is.
    pub fn is_everything(&self) -> bool {
        let everything = Self::everything(&self.index);
        matches!((&self.what, &everything.what), (What::Plan(plan, _), What::Plan(all, _)) if plan == all)
    }

    /// One event in how many it looks at, by what its `sample` says.
    pub fn one_in(&self) -> u64 {
        let What::Plan(plan, _) = &self.what else { return 1 };
        plan.steps.iter().fold(1, |product, step| match step {
            Step::Sample(one_in) => product.saturating_mul(*one_in),
            _ => product,
        })
    }

    /// Whether it can be asked of an index that has these columns.
    ///
    /// Errors: a field that is none of the columns, with its place; LogQL takes it as a label without a value.
    pub fn check(&self, columns: &[Column], now: Timestamp) -> Result<(), Diagnostic> {
        let What::Plan(plan, labels) = &self.what else { return Ok(()) };
        let columns = [(self.index.clone(), columns.to_vec())].into();
        let around = Surroundings { now, columns, rows_max: 0 };
        Lowering::new(&self.text, &around, *labels).one_by_one(plan).map(drop)
    }

    /// What is done to events that have these columns, one stage after another; none where they pass as they are.
    ///
    /// A field that is none of the columns has no value: other events may have it. Errors: what fits no columns at all.
    pub fn stages(&self, columns: &[Column], now: Timestamp) -> Result<Vec<SieveStage>, Diagnostic> {
        let plan = match &self.what {
            What::Plan(plan, _) => plan,
            What::Sql(query) => {
                return Ok(vec![SieveStage { filter: query.filter.clone(), columns: query.row_columns() }]);
            }
        };
        let columns = [(self.index.clone(), columns.to_vec())].into();
        let around = Surroundings { now, columns, rows_max: 0 };
        Lowering::new(&self.text, &around, true).one_by_one(plan)
    }

    /// A statement that `over` writes upon the events that pass and are of a time: from, included, to, not included.
    ///
    /// Errors: as of [`lower`](crate::lower); columns of SQL other than `*`; what `over` complains about.
    pub fn select(
        &self,
        around: &Surroundings,
        span: Option<(Timestamp, Timestamp)>,
        over: &dyn Fn(&Sifted) -> Result<String, Diagnostic>,
    ) -> Result<Select, Diagnostic> {
        let time = name(TIME);
        let within = span
            .map(|(from, to)| vec![format!("{time} >= {}", timestamp(from)), format!("{time} < {}", timestamp(to))]);
        let within = within.unwrap_or_default();
        let empty = Vec::new();
        let labels = matches!(self.what, What::Plan(_, true));
        let mut lowering = Lowering::new(&self.text, around, labels);
        let sifted = match &self.what {
            What::Plan(plan, _) => {
                let mut rows = lowering.rows_from(plan, within)?;
                rows.order.clear();
                lowering.settle(&mut rows, None)?;
                let columns = rows.columns.iter().map(|out| Column { name: out.name.clone(), kind: out.kind });
                Sifted { columns: columns.collect(), from: rows.from }
            }
            What::Sql(query) => {
                if !query.row_columns().is_empty() {
                    return Err(Diagnostic::new(1, 1, "whole events are looked at here").help("write SELECT *"));
                }
                let filters = query.filter.iter().map(|filter| format!("({filter})")).chain(within);
                let filters: Vec<String> = filters.collect();
                let filters =
                    if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
                let from = lowering.stage(&format!("SELECT * FROM {}{filters}", name(self.index.as_str())))?;
                Sifted { from, columns: around.columns.get(&self.index).unwrap_or(&empty).clone() }
            }
        };
        let last = over(&sifted)?;
        lowering.select(&last)
    }
}

impl Sifted {
    /// A column.
    pub fn column(&self, column: &str) -> Option<&Column> {
        self.columns.iter().find(|known| known.name == column)
    }

    /// A column as SQL, as it is.
    pub fn name_of(&self, column: &str) -> String {
        name(column)
    }

    /// A column as SQL: its text, `NULL` where it is not there.
    pub fn text_of(&self, column: &str) -> String {
        match self.column(column) {
            Some(Column { kind: ColumnKind::Text, .. }) => name(column),
            Some(_) => format!("CAST({} AS TEXT)", name(column)),
            None => "CAST(NULL AS TEXT)".to_owned(),
        }
    }
}

/// What to write where a step looks at more than one event.
const ONE_BY_ONE: &str =
    "search where keep drop rename let parse rex replace format fill bin sample look at one event at a time";

/// Whether a step looks at one event at a time.
fn looks_at_one(step: &Step) -> bool {
    matches!(
        step,
        Step::Search(_)
            | Step::Where(_)
            | Step::Keep(_)
            | Step::Drop(_)
            | Step::Rename(_)
            | Step::Let(_)
            | Step::Parse { .. }
            | Step::Fill { .. }
            | Step::Replace { .. }
            | Step::Format { .. }
            | Step::Bin { .. }
            | Step::Sample(_)
    )
}

fn looks_at_more(text: &str, step: &Step) -> Diagnostic {
    let printed = step.to_string();
    let own = printed.split_whitespace().next().unwrap_or_default();
    // It may stand there under a name of another language.
    let words = Command::of(own).map_or(&[][..], |command| command.words);
    let lower = text.to_ascii_lowercase();
    let word = words.iter().find(|word| place_of(&lower, word).is_some()).copied().unwrap_or(own);
    complaint_in(&lower, word, format!("{word} looks at more than one event")).help(ONE_BY_ONE)
}

fn other_index(text: &str, named: &IndexName, index: &IndexName) -> Diagnostic {
    complaint_in(text, named.as_str(), format!("the events are those of {index}, not of {named}"))
        .help(format!("take the index away, or ask {named}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> IndexName {
        "shop".parse().unwrap()
    }

    fn columns() -> Vec<Column> {
        let of = |name: &str, kind| Column { name: name.to_owned(), kind };
        vec![
            of("_time", ColumnKind::Time),
            of("_offset", ColumnKind::Integer),
            of("_msg", ColumnKind::Text),
            of("user", ColumnKind::Text),
            of("dur", ColumnKind::Number),
        ]
    }

    fn stages(sieve: &Sieve) -> Vec<(Option<String>, Vec<String>)> {
        let all = sieve.stages(&columns(), Timestamp::from_millis(0)).unwrap();
        let column = |column: OutputColumn| format!("{}={}", column.name, column.expr);
        all.into_iter().map(|stage| (stage.filter, stage.columns.into_iter().map(column).collect())).collect()
    }

    #[test]
    fn steps_of_single_events_become_stages() {
        let filter = |text: &str| Some(text.to_owned());
        let long = ["_time=\"_time\"", "_offset=\"_offset\"", "_msg=\"_msg\"", "user=\"user\"", "dur=\"dur\""];
        let mut doubled: Vec<String> = long.map(str::to_owned).to_vec();
        doubled.push("d=(\"dur\" * 2)".to_owned());
        for (text, expected) in [
            ("", vec![]),
            ("index:shop | follow", vec![]),
            ("error user=a", vec![(filter("\"_msg\" ~ '\\berror\\b' AND \"user\" = 'a'"), vec![])]),
            (
                "user=a or user=b | keep user",
                vec![(filter("(\"user\" = 'a' OR \"user\" = 'b')"), vec!["user=\"user\"".into()])],
            ),
            ("| drop _time, _offset, _msg, dur", vec![(None, vec!["user=\"user\"".into()])]),
            (
                "| let d = dur * 2 | where d > 4 | keep d",
                vec![(None, doubled), (filter("(\"d\" > 4)"), vec!["d=\"d\"".into()])],
            ),
        ] {
            let sieve = Sieve::pipe(text, &index()).unwrap_or_else(|found| panic!("{}", found.render(text)));
            assert_eq!(stages(&sieve), expected, "{text}");
            assert_eq!(sieve.is_everything(), expected.is_empty(), "{text}");
        }
        let sieve = Sieve::sql("SELECT * FROM shop WHERE dur > 1", &index()).unwrap();
        assert_eq!(stages(&sieve), [(filter("dur > 1"), vec![])]);
        let sieve = Sieve::logql("{app=\"a\"} |= \"x\"", &index()).unwrap();
        assert_eq!(
            stages(&sieve)[0].0,
            filter("CAST(NULL AS TEXT) = 'a' AND contains(\"_msg\", 'x')"),
            "a label that no event has"
        );
        assert_eq!(Sieve::pipe("| sample 10 | sample 3", &index()).unwrap().one_in(), 30);
    }

    #[test]
    fn what_looks_at_more_than_one_event_is_refused_with_its_place() {
        for (text, column, words) in [
            ("error | stats count by user", 9, "stats looks at"),
            ("error | timechart count every 1m", 9, "timechart looks at"),
            ("| sort -dur", 3, "sort looks at"),
            ("| head 5", 3, "head looks at"),
            ("user in [error | keep user]", 9, "a query inside"),
            ("index:other error", 7, "not of other"),
            ("index:shop,other error", 12, "not of other"),
        ] {
            let found = Sieve::pipe(text, &index()).expect_err(text);
            assert!(found.message.contains(words) && found.column == column, "{}", found.render(text));
        }
        for text in [
            "SELECT count(*) FROM shop",
            "SELECT * FROM shop ORDER BY dur",
            "SELECT * FROM other",
            "INSERT INTO shop SELECT * FROM shop",
            "SELECT count(*) AS n FROM tumble(shop, INTERVAL '1 s') GROUP BY window_start",
        ] {
            assert!(Sieve::sql(text, &index()).is_err(), "{text}");
        }
        assert!(Sieve::logql("count_over_time({a=\"b\"}[1m])", &index()).is_err());
        let missing = Sieve::pipe("usr=a", &index()).unwrap();
        let found = missing.check(&columns(), Timestamp::from_millis(0)).unwrap_err();
        assert!(found.help.unwrap().contains("user"));
        assert_eq!(stages(&missing), [(Some("CAST(NULL AS TEXT) = 'a'".to_owned()), vec![])]);
    }

    #[test]
    fn a_statement_stands_upon_what_passes() {
        let around =
            Surroundings { now: Timestamp::from_millis(0), columns: [(index(), columns())].into(), rows_max: 10 };
        let span = Some((Timestamp::from_millis(0), Timestamp::from_millis(1_000)));
        let over = |sifted: &Sifted| Ok(format!("SELECT count(*), {} FROM {}", sifted.text_of("dur"), sifted.from));
        let time = "\"_time\" >= TIMESTAMP '1970-01-01 00:00:00' AND \"_time\" < TIMESTAMP '1970-01-01 00:00:01'";
        let tail = "SELECT count(*), CAST(\"dur\" AS TEXT) FROM \"P1\"";
        let select = Sieve::pipe("user=a", &index()).unwrap().select(&around, span, &over).unwrap();
        assert_eq!(
            select.text,
            format!("WITH \"P1\" AS (SELECT * FROM \"shop\" WHERE {time} AND \"user\" = 'a') {tail}")
        );
        let select = Sieve::sql("SELECT * FROM shop WHERE a = 1 OR b = 2", &index()).unwrap();
        assert_eq!(
            select.select(&around, span, &over).unwrap().text,
            format!("WITH \"P1\" AS (SELECT * FROM \"shop\" WHERE (a = 1 OR b = 2) AND {time}) {tail}")
        );
        assert!(Sieve::sql("SELECT a FROM shop", &index()).unwrap().select(&around, span, &over).is_err());
    }
}
