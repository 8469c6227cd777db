//! Every kind of operator with state: how it is asked for, and what it must answer.

use std::time::Duration;

use flow::{
    AfterMatch, AggregateFunction, AggregateSpec, ChangelogMode, DedupSpec, Frame, JoinKind, JoinSide, JoinSpec,
    JoinType, Keep, Measure, MeasureValue, OperatorSpec, OverSpec, PatternSpec, PatternStep, SortKey, TopNSpec,
    WindowPlan, WindowShape, WindowSpec,
};
use logboom_tests::recompute::{self, Answer, Input, Judged, Row, Windows};
use types::DurationText;

/// What this release does not build. Whoever builds one takes it out here, which makes the tests cover it.
pub(crate) const NOT_BUILT: [&str; 0] = [];

/// Windows of the top rows; the input has their bounds as columns.
pub(crate) const TOP_WINDOW_MS: i64 = 5_000;

pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) spec: OperatorSpec,
    /// The columns by which rows are given to subtasks.
    pub(crate) key: &'static [&'static str],
    /// Which rows come by each input.
    pub(crate) inputs: Vec<fn(&Row) -> bool>,
    /// What the source takes away already, for the release that judged there.
    pub(crate) late_at_source: Option<fn(&Judged) -> bool>,
    /// Whether its state can be given to another number of subtasks.
    pub(crate) rescales: bool,
    /// The columns of the output, in the order of the recomputation's.
    pub(crate) columns: &'static [&'static str],
    pub(crate) recompute: fn(&[Input]) -> Answer,
}

const SUMS: &[&str] = &["window_start", "window_end", "key", "n", "total", "least", "most"];

fn ms(millis: u64) -> DurationText {
    DurationText(Duration::from_millis(millis))
}

fn key() -> Vec<String> {
    vec!["key".to_owned()]
}

fn sums() -> Vec<AggregateSpec> {
    let of = |function, name| AggregateSpec::of(function, "value", name);
    vec![
        AggregateSpec::count_all("n"),
        of(AggregateFunction::Sum, "total"),
        of(AggregateFunction::Min, "least"),
        of(AggregateFunction::Max, "most"),
    ]
}

fn any(_: &Row) -> bool {
    true
}

fn login(row: &Row) -> bool {
    row.mark == "login"
}

fn error(row: &Row) -> bool {
    row.mark == "error"
}

fn of_one(
    name: &'static str,
    spec: OperatorSpec,
    columns: &'static [&'static str],
    recompute: fn(&[Input]) -> Answer,
) -> Kind {
    Kind { name, spec, key: &["key"], inputs: vec![any], late_at_source: None, rescales: true, columns, recompute }
}

fn window(name: &'static str, shape: WindowShape, lateness: u64, recompute: fn(&[Input]) -> Answer) -> Kind {
    let plan = WindowPlan {
        keys: key(),
        aggregates: sums(),
        shape,
        lateness: ms(lateness),
        emit: Default::default(),
        early: None,
        phase: Default::default(),
    };
    of_one(name, OperatorSpec::Window(plan), SUMS, recompute)
}

fn join(name: &'static str, kind: JoinKind, how: JoinType, recompute: fn(&[Input]) -> Answer) -> Kind {
    let columns = |columns: &[(&str, &str)]| columns.iter().map(|(of, name)| ((*of).into(), (*name).into())).collect();
    let spec = JoinSpec {
        kind,
        how,
        left: JoinSide { keys: key(), columns: columns(&[("key", "key"), ("id", "left_id")]), types: Vec::new() },
        right: JoinSide { keys: key(), columns: columns(&[("id", "right_id")]), types: Vec::new() },
    };
    let spec = OperatorSpec::Join(spec);
    let inputs: Vec<fn(&Row) -> bool> = vec![login, error];
    Kind { inputs, ..of_one(name, spec, &["key", "left_id", "right_id"], recompute) }
}

pub(crate) fn kinds() -> Vec<Kind> {
    let zero = DurationText::default;
    let mut all = vec![
        Kind {
            late_at_source: Some(|judged| Windows::Tumble { size: 5_000 }.of(judged.row.time)[0].1 <= judged.watermark),
            rescales: false,
            ..of_one(
                "tumble, as older graphs have it",
                OperatorSpec::WindowAggregate(WindowSpec {
                    keys: key(),
                    aggregates: sums(),
                    size: ms(5_000),
                    early: None,
                }),
                SUMS,
                |inputs| recompute::aggregate(&inputs[0], Windows::Tumble { size: 5_000 }, 0),
            )
        },
        window("tumble", WindowShape::Tumble { size: ms(5_000), offset: zero() }, 0, |inputs| {
            recompute::aggregate(&inputs[0], Windows::Tumble { size: 5_000 }, 0)
        }),
        window("tumble with lateness", WindowShape::Tumble { size: ms(5_000), offset: zero() }, 3_000, |inputs| {
            recompute::aggregate(&inputs[0], Windows::Tumble { size: 5_000 }, 3_000)
        }),
        window("hop", WindowShape::Hop { size: ms(6_000), slide: ms(2_000), offset: zero() }, 0, |inputs| {
            recompute::aggregate(&inputs[0], Windows::Hop { size: 6_000, slide: 2_000 }, 0)
        }),
        window("cumulate", WindowShape::Cumulate { size: ms(6_000), step: ms(2_000), offset: zero() }, 0, |inputs| {
            recompute::aggregate(&inputs[0], Windows::Cumulate { size: 6_000, step: 2_000 }, 0)
        }),
        window("session", WindowShape::Session { gap: ms(300) }, 0, |inputs| recompute::sessions(&inputs[0], 300)),
    ];
    all.extend(joins());
    all.extend(by_order());
    all
}

fn joins() -> Vec<Kind> {
    let interval = JoinKind::Interval { lower_ms: -100, upper_ms: 400 };
    let shape = WindowShape::Tumble { size: ms(2_000), offset: DurationText::default() };
    vec![
        join("interval join", interval.clone(), JoinType::Inner, |inputs| {
            recompute::interval_join(&inputs[0], &inputs[1], -100, 400, false)
        }),
        join("interval join, left", interval, JoinType::Left, |inputs| {
            recompute::interval_join(&inputs[0], &inputs[1], -100, 400, true)
        }),
        join("window join", JoinKind::Window(shape), JoinType::Inner, |inputs| {
            // A pair lies in one window, so that its bounds can be left out.
            recompute::window_join(&inputs[0], &inputs[1], Windows::Tumble { size: 2_000 }).columns(&[2, 3, 4])
        }),
    ]
}

fn by_order() -> Vec<Kind> {
    let top = TopNSpec {
        keys: ["window_start", "window_end", "key"].map(str::to_owned).to_vec(),
        order: vec![SortKey { column: "value".into(), descending: true, nulls_first: false }],
        limit: 2,
        rank: Some("rank".into()),
        windowed: true,
        mode: ChangelogMode::Append,
    };
    let total = AggregateSpec::of(AggregateFunction::Sum, "value", "total");
    let step = |name: &str, condition: &str| PatternStep {
        name: name.into(),
        condition: condition.into(),
        least: 1,
        most: 1,
        absent: false,
    };
    let measure = |name: &str, step: &str, value| Measure { name: name.into(), step: step.into(), value };
    let pattern = PatternSpec {
        keys: key(),
        steps: vec![step("a", "is_login"), step("b", "is_error")],
        within: ms(1_000),
        after: AfterMatch::PastLast,
        gaps: true,
        measures: vec![
            measure("from_id", "a", MeasureValue::First("id".into())),
            measure("until_id", "b", MeasureValue::Last("id".into())),
        ],
    };
    vec![
        Kind {
            key: &["window_start", "window_end", "key"],
            ..of_one(
                "top rows of windows",
                OperatorSpec::TopN(top),
                &["window_start", "window_end", "key", "rank", "value", "id"],
                |inputs| recompute::top_rows(&inputs[0], Windows::Tumble { size: TOP_WINDOW_MS }, 2),
            )
        },
        of_one(
            "first rows",
            OperatorSpec::Deduplicate(DedupSpec { keys: key(), keep: Keep::First, ttl: None }),
            &["key", "_time", "id"],
            |inputs| recompute::first_rows(&inputs[0]),
        ),
        of_one(
            "running sums",
            OperatorSpec::Over(OverSpec { keys: key(), aggregates: vec![total], frame: Frame::Rows(3) }),
            &["key", "_time", "id", "total"],
            |inputs| recompute::running_sums(&inputs[0], 3),
        ),
        of_one("sequence", OperatorSpec::Pattern(pattern), &["key", "from_id", "until_id"], |inputs| {
            recompute::matches(&inputs[0], &["login", "error"], 1_000).columns(&[0, 2, 4])
        }),
    ]
}
