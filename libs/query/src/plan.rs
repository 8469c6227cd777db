//! What a query asks, as plain data: one shape for every language in which it may be asked.

mod function;
mod print;
mod step;

use std::{net::Ipv4Addr, time::Duration};

use types::{IndexName, Timestamp};

use crate::{Comparison, ItemRef, TableName, reads::Reads};

pub use function::{Function, FunctionName};
pub use step::{Direction, Format, JoinKind, Measure, MeasureFunction, Parsing, SortKey, Step};

/// The column that a search for words looks into.
pub const MESSAGE: &str = "_msg";
/// The column of event times.
pub const TIME: &str = "_time";

/// One query: where its rows come from, which of them, and what becomes of them.
///
/// Its text form (`Display`) is the pipe language in one spelling only: settings first (`index:`, `since:`, `until:`), then
/// the search, then each step behind a `|`. Reading that text gives the same plan again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The indexes that it reads; empty where the text does not say.
    pub indexes: Vec<IndexName>,
    /// The views and lookups that it reads besides: `view:errors`.
    pub views: Vec<ItemRef>,
    /// The event times that it reads.
    pub span: Span,
    /// Which rows.
    pub search: Predicate,
    /// What becomes of them, in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Every index that the plan and the plans inside it name, each once, in order of appearance.
    pub fn all_indexes(&self) -> Vec<IndexName> {
        let mut found = Vec::new();
        self.visit(&mut |plan| {
            for index in &plan.indexes {
                if !found.contains(index) {
                    found.push(index.clone());
                }
            }
        });
        found
    }

    /// Every view and lookup that the plan and the plans inside it name, each once; those of which the index is known.
    pub fn all_items(&self) -> Vec<TableName> {
        let mut found: Vec<TableName> = Vec::new();
        self.visit(&mut |plan| {
            for name in plan.named_items().filter_map(ItemRef::table) {
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        });
        found
    }

    /// What the plan and the plans inside it read, as often as they do.
    pub(crate) fn reads(&self) -> Reads {
        let mut found = Reads::default();
        self.visit(&mut |plan| {
            plan.indexes.iter().for_each(|_| found.index());
            plan.named_items().filter_map(ItemRef::table).for_each(|name| found.item(name));
        });
        found
    }

    /// The views and lookups that the plan itself names, as often as it does.
    fn named_items(&self) -> impl Iterator<Item = &ItemRef> {
        let lookups = self.steps.iter().filter_map(|step| match step {
            Step::Lookup { table, .. } => Some(table),
            _ => None,
        });
        self.views.iter().chain(lookups)
    }

    /// Lets the plan read these indexes where its text names none; a plan inside another then reads what the other reads. A view or
    /// a lookup without an index is of the first index that the plan reads, or of the first of these.
    pub fn default_indexes(&mut self, indexes: &[IndexName]) {
        if self.indexes.is_empty() && self.views.is_empty() {
            self.indexes = indexes.to_vec();
        }
        let named = self.views.iter().find_map(|view| view.index.as_ref());
        let home = self.indexes.first().or(indexes.first()).or(named).cloned();
        self.views.iter_mut().for_each(|view| view.of(home.as_ref()));
        for step in &mut self.steps {
            if let Step::Lookup { table, .. } = step {
                table.of(home.as_ref());
            }
        }
        let outer = if self.views.is_empty() { &self.indexes } else { indexes };
        let indexes = outer.to_vec();
        let indexes = indexes.as_slice();
        let Self { search, steps, .. } = self;
        let mut inner = |plan: &mut Plan| plan.default_indexes(indexes);
        search.visit_mut(&mut inner);
        for step in steps {
            match step {
                Step::Search(predicate) => predicate.visit_mut(&mut inner),
                Step::Sequence { terms, .. } => terms.iter_mut().for_each(|term| term.visit_mut(&mut inner)),
                Step::Join { plan, .. } | Step::Append(plan) => inner(plan),
                _ => {}
            }
        }
    }

    /// How many plans it is together with those inside it.
    pub(crate) fn plan_count(&self) -> usize {
        let mut count = 0;
        self.visit(&mut |_| count += 1);
        count
    }

    /// Whether the query has no end: a `follow` stands in it.
    pub fn follows(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Follow))
    }

    /// Shows the plan and every plan inside it.
    fn visit(&self, see: &mut dyn FnMut(&Plan)) {
        see(self);
        self.search.visit(see);
        for step in &self.steps {
            match step {
                Step::Search(predicate) => predicate.visit(see),
                Step::Sequence { terms, .. } => terms.iter().for_each(|term| term.visit(see)),
                Step::Join { plan, .. } | Step::Append(plan) => plan.visit(see),
                _ => {}
            }
        }
    }
}

/// A range of event times: from `since`, included, to `until`, not included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// The begin; `None` for the first row there is.
    pub since: Option<Moment>,
    /// The end; `None` for the last row there is.
    pub until: Option<Moment>,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long before the query runs.
    Ago(Duration),
    /// An instant.
    At(Timestamp),
}

impl Moment {
    /// The instant, for a query that runs at `now`.
    pub fn instant(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(span) => now - span,
            Self::At(at) => at,
        }
    }
}

/// Which rows: a tree of tests, each true or not true of a row.
///
/// A test of a field is not true of a row without that field; `Not` makes it true there.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Predicate {
    /// Every row.
    #[default]
    Everything,
    /// A pattern in the message or in a field.
    Text {
        /// The field; `None` for the message.
        field: Option<String>,
        /// What is looked for.
        pattern: Pattern,
    },
    /// The field has a value.
    Exists(String),
    /// The field as a whole is like a text in which `*` stands for anything.
    Like {
        /// The field.
        field: String,
        /// The text, with at least one `*`.
        glob: String,
    },
    /// The field compared with a value.
    Compare {
        /// The field.
        field: String,
        /// How.
        op: Comparison,
        /// The value.
        value: Value,
    },
    /// The field is one of the values.
    In {
        /// The field.
        field: String,
        /// The values, at least one.
        values: Vec<Value>,
    },
    /// The field is among the values that another query answers.
    InPlan {
        /// The field.
        field: String,
        /// The query; it answers one column, or one of the field's name.
        plan: Box<Plan>,
    },
    /// The field is an address in the network.
    Network {
        /// The field.
        field: String,
        /// The network.
        network: Network,
    },
    /// What it holds is not true.
    Not(Box<Predicate>),
    /// Each is true; at least two, none of them `All`.
    All(Vec<Predicate>),
    /// One or more are true; at least two, none of them `Any`.
    Any(Vec<Predicate>),
}

impl Predicate {
    /// Each of them; what needs no combination stays alone.
    pub fn all(parts: Vec<Predicate>) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::Everything => {}
                Self::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Self::Everything,
            1 => flat.swap_remove(0),
            _ => Self::All(flat),
        }
    }

    /// One or more of them; `parts` is not empty.
    pub fn any(parts: Vec<Predicate>) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::Any(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.swap_remove(0) } else { Self::Any(flat) }
    }

    /// The opposite.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    fn visit(&self, see: &mut dyn FnMut(&Plan)) {
        match self {
            Self::Not(inner) => inner.visit(see),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.visit(see)),
            Self::InPlan { plan, .. } => plan.visit(see),
            _ => {}
        }
    }

    fn visit_mut(&mut self, change: &mut dyn FnMut(&mut Plan)) {
        match self {
            Self::Not(inner) => inner.visit_mut(change),
            Self::All(parts) | Self::Any(parts) => parts.iter_mut().for_each(|part| part.visit_mut(change)),
            Self::InPlan { plan, .. } => change(plan),
            _ => {}
        }
    }
}

/// What is looked for in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// How it is meant.
    pub kind: PatternKind,
    /// The word, phrase, part or expression; not empty.
    pub text: String,
    /// Whether the case of letters does not matter.
    pub any_case: bool,
}

impl Pattern {
    /// A pattern in which the case of letters matters.
    pub fn new(kind: PatternKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), any_case: false }
    }
}

/// How a pattern is meant. A word ends where a character follows that is neither a letter nor a digit nor `_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternKind {
    /// `foo`: a whole word.
    Word,
    /// `"a b"`: the text, from the begin of a word to the end of one.
    Phrase,
    /// `foo*`: the begin of a word.
    Prefix,
    /// `*foo*`: anywhere.
    Part,
    /// `~"re"`: a regular expression of Rust's crate regex, anywhere.
    Regex,
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A decimal number, finite.
    Number(f64),
    /// A span of time: `5s`.
    Duration(Duration),
    /// A size: `10MB`.
    Bytes(u64),
    /// `true` or `false`.
    Boolean(bool),
}

/// An IPv4 network: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub address: Ipv4Addr,
    /// How many leading bits all its addresses share, at most 32.
    pub bits: u8,
}

impl Network {
    /// The network of an address; the bits behind the first `bits` are cleared.
    pub fn new(address: Ipv4Addr, bits: u8) -> Option<Self> {
        let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
        (bits <= 32).then(|| Self { address: Ipv4Addr::from(u32::from(address) & mask), bits })
    }
}

/// An expression over one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// A field.
    Field(String),
    /// A constant.
    Value(Value),
    /// `-x`
    Minus(Box<Term>),
    /// `not x`
    Not(Box<Term>),
    /// `a + b`
    Binary {
        /// The operator.
        op: Operator,
        /// Its left side.
        left: Box<Term>,
        /// Its right side.
        right: Box<Term>,
    },
    /// `x in (1, 2)`
    In {
        /// What is looked for.
        term: Box<Term>,
        /// Where, at least one.
        values: Vec<Value>,
    },
    /// `lower(x)`
    Call {
        /// The function.
        function: FunctionName,
        /// Its arguments, as many as it takes.
        arguments: Vec<Term>,
    },
}

/// An operator with two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `or`
    Or,
    /// `and`
    And,
    /// A comparison.
    Compare(Comparison),
    /// `~`: the left text matches the regular expression on the right.
    Matches,
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`
    By,
    /// `%`
    Modulo,
}

impl Operator {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Compare(comparison) => comparison.as_str(),
            Self::Matches => "~",
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::By => "/",
            Self::Modulo => "%",
        }
    }

    /// How closely it binds; what binds closer has the higher number. `not` stands between `and` and comparisons at 3.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Compare(_) | Self::Matches => 4,
            Self::Plus | Self::Minus => 5,
            Self::Times | Self::By | Self::Modulo => 6,
        }
    }
}
