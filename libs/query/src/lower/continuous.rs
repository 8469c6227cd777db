//! Plans as continuous queries: the same text over events as they come.

use types::IndexName;

use super::{Lowering, Rows, Surroundings, name, quote};
use crate::{
    Diagnostic,
    condition::Condition,
    parse_continuous,
    plan::{Measure, MeasureFunction, Operator, Plan, Span, Step, Term, Value},
};

/// A plan as a continuous query.
#[derive(Debug, Clone, PartialEq)]
pub struct Ongoing {
    /// What [`parse_continuous`] reads.
    pub text: String,
    /// What `alert when` says, as [`parse_condition`](crate::parse_condition) reads it.
    pub condition: Option<String>,
}

/// What a plan does, done to every event that comes; `text` is what the plan was read from.
///
/// Rows are searched, computed and chosen by `search where keep rename let parse rex fill replace format bin`. A `chart` counts
/// them in windows of its distance, under `window_start`. `into` says where rows go, or `alert` what is watched.
/// Errors: every other step; more than one index; a span of time; a computed field that a later step looks into.
pub fn lower_continuous(plan: &Plan, text: &str, around: &Surroundings) -> Result<Ongoing, Diagnostic> {
    let mut lowering = Lowering::new(text, around, false);
    let [index] = plan.indexes.as_slice() else {
        let found = lowering.complaint("index", "a continuous query reads one index");
        return Err(found.help("begin with index:name"));
    };
    if plan.span != Span::default() {
        let word = if plan.span.since.is_some() { "since" } else { "until" };
        let found = lowering.complaint(word, "a continuous query is about what comes, not about a span of time");
        return Err(found.help("take since: and until: away"));
    }
    let mut rows = lowering.source(plan, 0)?;
    lowering.filter(&mut rows, &plan.search)?;
    let mut shape = None;
    let mut end = End::Open;
    for step in &plan.steps {
        let closed = !matches!(end, End::Open);
        match step {
            Step::Follow if !closed => {}
            Step::Into(target) if !closed => end = End::Into(target),
            Step::Alert { when, hold } if !closed && shape.is_some() => {
                if hold.is_some() {
                    return Err(lowering.complaint("for", "not yet here: alert when … for"));
                }
                end = End::Alert(lowering.condition(when)?);
            }
            Step::Chart { measures, by, every, over } if !closed && shape.is_none() => {
                let Some(every) = every.filter(|every| over.is_none_or(|over| over == *every)) else {
                    let found = lowering.complaint("chart", "a continuous chart has windows side by side");
                    return Err(found.help("write every 1m, without over"));
                };
                shape = Some(lowering.windows(&rows, index, measures, by, &quote::interval(every))?);
            }
            step if !closed && shape.is_none() && by_row(step) => lowering.step(&mut rows, step)?,
            step => return Err(lowering.not_continuous(step)),
        }
    }
    let select = match shape {
        Some(select) => select,
        None => lowering.row_by_row(&rows)?,
    };
    if !lowering.stages.is_empty() {
        let found = Diagnostic::new(1, 1, "a step looks into a field that another one computes");
        return Err(found.help("a continuous query computes fields last: search first, then let"));
    }
    let (insert, condition) = match end {
        End::Open => (String::new(), None),
        End::Into(target) => (format!("INSERT INTO {} ", name(target.as_str())), None),
        End::Alert(condition) => (String::new(), Some(condition)),
    };
    let text = format!("{insert}{select}");
    parse_continuous(&text).map_err(|found| Diagnostic { line: 1, column: 1, ..found })?;
    Ok(Ongoing { text, condition })
}

/// Where rows go.
enum End<'a> {
    Open,
    Into(&'a IndexName),
    Alert(String),
}

/// Whether a step looks at one row at a time.
fn by_row(step: &Step) -> bool {
    matches!(
        step,
        Step::Search(_)
            | Step::Where(_)
            | Step::Keep(_)
            | Step::Rename(_)
            | Step::Let(_)
            | Step::Parse { .. }
            | Step::Fill { .. }
            | Step::Replace { .. }
            | Step::Format { .. }
            | Step::Bin { .. }
    )
}

impl Lowering<'_> {
    fn not_continuous(&self, step: &Step) -> Diagnostic {
        let text = step.to_string();
        let word = text.split_whitespace().next().unwrap_or_default();
        let found = self.complaint(word, format!("{word} cannot stand here in a continuous query"));
        found.help(match step {
            Step::Stats { .. } | Step::Top { .. } => "rows never end: write chart count by field every 1m",
            Step::Drop(_) => "say which fields stay: keep a, b",
            Step::Into(_) | Step::Alert { .. } => "it stands last, alert behind a chart",
            _ => "search and compute row by row, then chart … every 1m, then into index name",
        })
    }

    fn windows(
        &self,
        rows: &Rows,
        index: &IndexName,
        measures: &[Measure],
        by: &[String],
        every: &str,
    ) -> Result<String, Diagnostic> {
        use MeasureFunction::{Avg, Count, CountIf, Max, Min, Sum};
        let mut list = vec!["window_start".to_owned()];
        let mut groups = list.clone();
        for key in by {
            list.push(format!("{} AS {}", self.column(rows, key)?.sql, name(key)));
            groups.push(name(key));
        }
        for measure in measures {
            if !matches!(measure.function, Count | CountIf | Sum | Avg | Min | Max) {
                let word = measure.function.word();
                let found = self.complaint(&word, format!("{word} is not available in a continuous query"));
                return Err(found.help("count, countif, sum, avg, min and max are"));
            }
            list.push(format!("{} AS {}", self.measure(rows, measure, None)?.sql, name(&measure.name)));
        }
        let filters =
            if rows.filters.is_empty() { String::new() } else { format!(" WHERE {}", rows.filters.join(" AND ")) };
        Ok(format!(
            "SELECT {} FROM tumble({}, {every}){filters} GROUP BY {}",
            list.join(", "),
            name(index.as_str()),
            groups.join(", ")
        ))
    }

    fn row_by_row(&self, rows: &Rows) -> Result<String, Diagnostic> {
        let list = rows.list();
        if list.starts_with("*,") {
            let found = Diagnostic::new(1, 1, "a continuous query cannot add a field to all others");
            return Err(found.help("say which fields its rows have: | keep a, b"));
        }
        Ok(format!("SELECT {list} FROM {}", rows.filtered()))
    }

    /// A field compared with a number.
    fn condition(&self, when: &Term) -> Result<String, Diagnostic> {
        let wrong = || {
            let found = self.complaint("when", "an alert compares one figure of the chart with a number");
            found.help("for example alert when count > 100")
        };
        let Term::Binary { op: Operator::Compare(op), left, right } = when else { return Err(wrong()) };
        let (Term::Field(column), Term::Value(value)) = (&**left, &**right) else { return Err(wrong()) };
        let threshold: f64 = match value {
            Value::Integer(number) => number.to_string().parse().map_err(|_| wrong())?,
            Value::Number(number) => *number,
            _ => return Err(wrong()),
        };
        let plain = column.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && column.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let column = if plain { column.clone() } else { name(column) };
        Ok(Condition { column, op: *op, threshold }.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::surroundings, *};
    use crate::{Shape, parse_condition, parse_pipe};

    fn ongoing(text: &str) -> Result<Ongoing, Diagnostic> {
        lower_continuous(&parse_pipe(text)?, text, &surroundings("odd"))
    }

    #[test]
    fn rows_and_windows_become_continuous_queries() {
        for (text, expected) in [
            ("index:shop | into index other", "INSERT INTO \"other\" SELECT * FROM \"shop\""),
            (
                "index:shop user=a | keep _msg, user | let l = len(user) | into index other",
                "INSERT INTO \"other\" SELECT \"_msg\", \"user\", CAST(character_length(\"user\") AS BIGINT) AS \"l\" FROM \"shop\" WHERE \"user\" = 'a'",
            ),
            (
                "index:shop dur>1s | chart count, avg(dur) as mean by service every 10s | into index other",
                "INSERT INTO \"other\" SELECT window_start, \"service\" AS \"service\", count(*) AS \"count\", avg(\"dur\") AS \"mean\" \
                 FROM tumble(\"shop\", INTERVAL '10000 milliseconds') WHERE \"dur\" > 1.0 GROUP BY window_start, \"service\"",
            ),
        ] {
            let found = ongoing(text).unwrap_or_else(|found| panic!("{}", found.render(text)));
            assert_eq!((found.text.as_str(), found.condition), (expected, None), "{text}");
        }
    }

    #[test]
    fn an_alert_is_a_window_and_a_condition() {
        let found =
            ongoing("index:shop error | chart countif(dur > 1) as slow every 1m | alert when slow >= 3").unwrap();
        let read = parse_continuous(&found.text).unwrap();
        let Shape::Windowed(window) = read.shape else { panic!("{}", found.text) };
        assert_eq!((window.size.as_secs(), window.aggregates[0].name.as_str()), (60, "slow"));
        let condition = parse_condition(&found.condition.unwrap()).unwrap();
        assert_eq!((condition.column.as_str(), condition.holds(3.0), condition.holds(2.0)), ("slow", true, false));
    }

    #[test]
    fn what_never_ends_has_its_limits() {
        for (text, column, words) in [
            ("index:shop,other error", 1, "reads one index"),
            ("index:shop since:1h error", 12, "span of time"),
            ("index:shop | stats count", 14, "stats cannot stand"),
            ("index:shop | drop user", 14, "drop cannot stand"),
            ("index:shop | chart count every 1m | head 1", 37, "head cannot stand"),
            ("index:shop | alert when dur > 1", 14, "alert cannot stand"),
            ("index:shop | into index other | into index other", 14, "into cannot stand"),
            ("index:shop | chart p95(dur) every 1m", 20, "p95 is not available"),
            ("index:shop | chart count every 1m over 5m", 14, "side by side"),
            ("index:shop | chart count every 1m | alert when count > 1 for 5m", 58, "not yet here"),
            ("index:shop | let a = dur * 2 | where a > 1", 1, "computes"),
            ("index:shop | let a = dur * 2", 1, "add a field"),
            ("index:shop user in [index:other | keep user]", 1, ""),
        ] {
            let found = ongoing(text).expect_err(text);
            assert!(found.message.contains(words) && found.column == column, "{}", found.render(text));
        }
    }
}
