//! Text to plan: what a person may ask, read without running it.
//!
//! Owns the grammars: one-off queries in SQL ([`parse_select`]), the pipe language ([`parse_pipe`]), the part of LogQL that
//! Loki's clients send ([`parse_logql`]), continuous queries ([`parse_stream`], and the part of them that rules have, [`parse_continuous`]) and rule conditions
//! ([`parse_condition`]), together a rule ([`parse_rule`]); queries that look at one event at a time ([`Sieve`]); the logical plan of the pipe language and of LogQL ([`Plan`]) and its way to SQL ([`lower`]); what
//! could come next while somebody writes ([`complete`]); and the one shape of a complaint about any of them
//! ([`Diagnostic`]), which points at a line and column and says what to write instead.
//! Deliberately does not know: which indexes and columns exist, how anything is executed, Arrow or DataFusion. Column
//! names are case-sensitive as fields of a log are; a field whose name holds a dot may be written plainly (`http.status`).
//!
//! ```
//! use query::{Shape, parse_condition, parse_continuous, parse_select};
//!
//! let select = parse_select("SELECT severity, count(*) FROM \"shop-frontend\" GROUP BY severity")?;
//! assert_eq!(select.tables[0].as_str(), "shop-frontend");
//!
//! let job = parse_continuous(
//!     "SELECT service, window_start, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') \
//!      WHERE severity = 'error' GROUP BY service, window_start",
//! )?;
//! let Shape::Windowed(window) = &job.shape else { panic!("a tumble is a window") };
//! assert_eq!((window.keys[0].name.as_str(), window.aggregates[0].name.as_str()), ("service", "n"));
//! assert!(parse_condition("n > 100")?.holds(101.0));
//!
//! let plan = query::parse_pipe("index:shop since:1h error | top 3 service")?;
//! assert_eq!(plan.to_string(), "index:shop since:1h error | top 3 service");
//!
//! let error = parse_select("SELECT *\nFORM shop").unwrap_err();
//! assert_eq!((error.line, error.column), (2, 1));
//! # Ok::<(), query::Diagnostic>(())
//! ```

mod condition;
mod continuous;
mod diagnostic;
mod expression;
mod library;
pub mod logql;
mod lower;
mod pipe;
pub mod plan;
mod quantity;
mod reads;
mod rule;
mod select;
mod sieve;
pub mod stream;
mod text;
mod tumble;
mod windowed;

pub use condition::{Comparison, Condition, parse_condition};
pub use continuous::{Continuous, OutputColumn, RESERVED_COLUMNS, Shape, parse_continuous};
pub use diagnostic::{Diagnostic, nearest};
pub use expression::{Expression, parse_expression};
pub use library::{Definition, Definitions, ITEMS_MAX, ItemRef, TableName, VIEWS_DEPTH_MAX, about_item, inside_view};
pub use logql::{Logql, parse_logql};
pub use lower::{Column, ColumnKind, Ongoing, Surroundings, lower, lower_continuous, lower_over, lower_view};
pub use pipe::{
    Command, Completion, CompletionKind, DEPTH_MAX, Known, LIST_MAX, STEPS_MAX, TESTS_MAX, complete, name_text,
    parse_pipe,
};
pub use plan::Plan;
pub use reads::RELATIONS_ALL_MAX;
pub use rule::{Rule, RuleError, parse_rule};
pub use select::{NamedView, Select, TABLES_MAX, parse_insert, parse_select};
pub use sieve::{Sieve, SieveStage, Sifted};
pub use sqlparser::ast::Statement;
pub use stream::{StreamPlan, parse_stream};
pub use text::{OPERATORS_MAX, TEXT_BYTES_MAX};
pub use tumble::{DELAY_DEFAULT, DELAY_MAX, SIZE_MAX, SIZE_MIN};
pub use windowed::{Aggregate, AggregateFunction, COLUMNS_MAX, KeyColumn, WINDOW_END, WINDOW_START, Windowed};
