//! What stands behind `FROM`: an index, another input, or a table function over one.

use std::time::Duration;

use sqlparser::{
    ast::{Expr, FunctionArg, FunctionArguments, Ident, Spanned, TableFactor},
    tokenizer::Location,
};

use super::{
    argument::Arguments,
    plan::{Window, WindowKind},
    source::{INPUTS, Input, input},
};
use crate::{
    DELAY_MAX, Diagnostic, SIZE_MAX, SIZE_MIN, nearest,
    text::{at, index_name},
};

/// Most windows of one row, and most steps of a cumulating one.
const OVERLAP_MAX: u32 = 1_000;

const SIZES: (Duration, Duration) = (SIZE_MIN, SIZE_MAX);
/// A session may be as short as its gap is told.
const GAPS: (Duration, Duration) = (Duration::from_millis(1), SIZE_MAX);
const DELAYS: (Duration, Duration) = (Duration::ZERO, DELAY_MAX);
const FUNCTIONS: [&str; 10] =
    ["tumble", "hop", "cumulate", "session", "stream", "sequence", "files", "datagen", "nexmark", "jetstream"];
const NAMES: [&str; 3] = ["watermark_delay", "idle_after", "lateness"];

const TUMBLE: &str = "write tumble(<index>, INTERVAL '10 seconds'), where the size may be followed by: watermark delay \
                      INTERVAL '5 seconds', and by: lateness INTERVAL '1 minute'";
const HOP: &str =
    "write hop(<index>, INTERVAL '2 seconds', INTERVAL '10 seconds'): from one window to the next, then the size";
const CUMULATE: &str =
    "write cumulate(<index>, INTERVAL '1 minute', INTERVAL '1 hour'): the step, then the size of the longest";
const SESSION: &str = "write session(<index>, INTERVAL '30 seconds'): the gap that ends a session";
const SEQUENCE: &str = "write sequence(<index>, INTERVAL '1 minute', a => <condition>, b => <condition>): the time from the \
                        first row to the last, then the steps in their order";
const STREAM: &str = "write stream(<index>, watermark delay INTERVAL '5 seconds')";
/// One table of a FROM.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) input: Input,
    pub(crate) patience: Patience,
    pub(crate) window: Option<Window>,
    pub(crate) sequence: Option<Sequence<'a>>,
}

/// How long is waited for rows, as far as it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Patience {
    /// How far the watermark stays behind the latest event time.
    pub(crate) delay: Option<Duration>,
    /// How long an input without rows is waited for.
    pub(crate) idle: Option<Duration>,
}

impl Patience {
    /// What is said here, else the longest of what is said elsewhere.
    pub(crate) fn or_longest(self, others: impl Iterator<Item = Self>) -> Self {
        let longest = others.fold(Self::default(), |longest, other| Self {
            delay: longest.delay.max(other.delay),
            idle: longest.idle.max(other.idle),
        });
        Self { delay: self.delay.or(longest.delay), idle: self.idle.or(longest.idle) }
    }
}

/// What `sequence(…)` looks for.
#[derive(Debug)]
pub(crate) struct Sequence<'a> {
    pub(crate) within: Duration,
    pub(crate) overlap: bool,
    pub(crate) gaps: bool,
    pub(crate) steps: Vec<(String, Location, &'a Expr)>,
}

/// Reads one table, whose name is `ident`.
pub(crate) fn read<'a>(ident: &'a Ident, factor: &'a TableFactor) -> Result<Table<'a>, Diagnostic> {
    match factor {
        TableFactor::Table { args: Some(args), .. } => function(ident, &args.args),
        _ => {
            let input = Input::Index(index_name(ident)?);
            Ok(Table { input, patience: Patience::default(), window: None, sequence: None })
        }
    }
}

/// The one name of a table.
pub(crate) fn name(factor: &TableFactor) -> Result<&Ident, Diagnostic> {
    let TableFactor::Table { name, .. } = factor else {
        let found = at(factor.span().start, "a continuous query reads an index, a table function or a subquery here");
        return Err(found);
    };
    let ident = match name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    };
    ident.ok_or_else(|| at(factor.span().start, format!("{name} is not an index: an index name has no schema")))
}

fn function<'a>(ident: &'a Ident, args: &'a [FunctionArg]) -> Result<Table<'a>, Diagnostic> {
    let name = ident.value.to_lowercase();
    let begin = ident.span.start;
    let shape = match name.as_str() {
        "tumble" => TUMBLE,
        "hop" => HOP,
        "cumulate" => CUMULATE,
        "session" => SESSION,
        "stream" => STREAM,
        "sequence" => SEQUENCE,
        name if INPUTS.contains(&name) => {
            let input = input(name, begin, args)?;
            return Ok(Table { input, patience: Patience::default(), window: None, sequence: None });
        }
        _ => {
            let found = at(begin, format!("there is no table function {ident}"));
            return Err(match nearest(&name, FUNCTIONS) {
                Some(meant) => found.help(format!("did you mean {meant}?")),
                None => found.help(format!("there are {}", FUNCTIONS.join(", "))),
            });
        }
    };
    let mut given = Arguments::of(&name, begin, args, shape)?;
    let input = over(given.next("an index, or files(…)")?)?;
    let mut kind = WindowKind::Tumble;
    let mut size = Duration::ZERO;
    match name.as_str() {
        "tumble" => size = given.next_interval("the window's size", SIZES)?,
        "hop" => {
            let slide = given.next_interval("the time from one window to the next", SIZES)?;
            size = given.next_interval("the window's size", SIZES)?;
            divides(begin, slide, size, shape)?;
            kind = WindowKind::Hop { slide };
        }
        "cumulate" => {
            let step = given.next_interval("the step", SIZES)?;
            size = given.next_interval("the window's size", SIZES)?;
            divides(begin, step, size, shape)?;
            kind = WindowKind::Cumulate { step };
        }
        "session" => {
            size = given.next_interval("the gap", GAPS)?;
            kind = WindowKind::Session;
        }
        "sequence" => size = given.next_interval("the time from the first row to the last", GAPS)?,
        _ => {}
    }
    let patience = Patience {
        delay: given.interval("watermark_delay", "a watermark delay", DELAYS)?,
        idle: given.interval("idle_after", "the time after which an input is idle", GAPS)?,
    };
    let windowed = ["tumble", "hop", "cumulate", "session"].contains(&name.as_str());
    let lateness = if windowed && kind != WindowKind::Session {
        given.interval("lateness", "a lateness", DELAYS)?.unwrap_or_default()
    } else {
        Duration::ZERO
    };
    let mut sequence = None;
    if name == "sequence" {
        let overlap = given.flag("overlap")?.unwrap_or(false);
        let gaps = given.flag("gaps")?.unwrap_or(true);
        sequence = Some(Sequence { within: size, overlap, gaps, steps: given.rest() });
    }
    given.end(&NAMES)?;
    let window = windowed.then_some(Window { kind, size, lateness });
    Ok(Table { input, patience, window, sequence })
}

fn divides(place: Location, part: Duration, size: Duration, shape: &'static str) -> Result<(), Diagnostic> {
    let (part, whole) = (part.as_millis(), size.as_millis());
    if part > whole || whole % part != 0 {
        return Err(at(place, format!("{size:?} is no multiple of what windows are apart")).help(shape));
    }
    if whole / part > u128::from(OVERLAP_MAX) {
        return Err(at(place, format!("a row belongs to {} windows, {OVERLAP_MAX} are the most", whole / part))
            .help("take windows that are further apart"));
    }
    Ok(())
}

/// What a table function is over.
fn over(expr: &Expr) -> Result<Input, Diagnostic> {
    match expr {
        Expr::Identifier(ident) => Ok(Input::Index(index_name(ident)?)),
        Expr::Function(call) if INPUTS.contains(&call.name.to_string().to_lowercase().as_str()) => {
            let (name, place) = (call.name.to_string().to_lowercase(), call.name.span().start);
            let FunctionArguments::List(list) = &call.args else {
                return Err(at(place, format!("{name} needs its arguments")));
            };
            input(&name, place, &list.args)
        }
        other => Err(at(other.span().start, format!("expected the name of an index, found {other}"))
            .help("or one of files(…), datagen(…), nexmark(…), jetstream(…)")),
    }
}
