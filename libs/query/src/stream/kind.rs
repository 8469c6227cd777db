//! Types of declared columns, and of expressions over them as far as they are certain.

use serde::{Deserialize, Serialize};
use sqlparser::ast::{BinaryOperator, DataType, Expr, UnaryOperator, Value};

use super::argument::Arguments;
use crate::{Diagnostic, text::at};

/// The type of a declared column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueKind {
    /// Whole numbers of 64 bits.
    Integer,
    /// Floating-point numbers of 64 bits.
    Float,
    /// Text.
    Text,
    /// True or false.
    Boolean,
    /// Instants.
    Time,
}

/// The declared columns, in order.
pub type Columns = Vec<(String, ValueKind)>;

/// Most declared columns.
const DECLARED_MAX: usize = 1024;

impl ValueKind {
    /// As SQL casts to it.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Integer => "BIGINT",
            Self::Float => "DOUBLE",
            Self::Text => "TEXT",
            Self::Boolean => "BOOLEAN",
            Self::Time => "TIMESTAMP",
        }
    }

    fn word(word: &str) -> Option<Self> {
        Some(match word.to_lowercase().as_str() {
            "bigint" | "integer" | "int" | "int8" | "smallint" => Self::Integer,
            "double" | "float" | "float8" | "real" => Self::Float,
            "text" | "varchar" | "string" => Self::Text,
            "boolean" | "bool" => Self::Boolean,
            "timestamp" | "timestamptz" => Self::Time,
            _ => return None,
        })
    }
}

/// Reads `schema => 'k bigint, v double'`; without it nothing is declared.
pub(crate) fn schema(arguments: &mut Arguments<'_>) -> Result<Columns, Diagnostic> {
    let Some((text, place)) = arguments.text("schema")? else { return Ok(Vec::new()) };
    let mut columns = Columns::new();
    for column in text.split(',') {
        let wrong = |problem: String| {
            Err(at(place, problem).help("write schema => 'name type, …' with bigint, double, text, boolean, timestamp"))
        };
        let Some((name, kind)) = column.trim().rsplit_once(char::is_whitespace) else {
            return wrong(format!("{:?} is not a column and its type", column.trim()));
        };
        let name = name.trim().trim_matches('"').to_owned();
        let Some(kind) = ValueKind::word(kind) else {
            return wrong(format!("there is no type {kind}"));
        };
        if columns.iter().any(|(other, _)| *other == name) {
            return wrong(format!("two columns have the name {name}"));
        }
        columns.push((name, kind));
    }
    if columns.len() > DECLARED_MAX {
        return Err(at(place, format!("a schema has at most {DECLARED_MAX} columns")));
    }
    Ok(columns)
}

/// The type of an expression over columns, whose types `of` tells; `None` where it is not certain.
pub(crate) fn kind_of(expr: &Expr, of: &dyn Fn(&str) -> Option<ValueKind>) -> Option<ValueKind> {
    match expr {
        Expr::Identifier(ident) if ident.value == "_time" || ident.value == "_received" => Some(ValueKind::Time),
        Expr::Identifier(ident) => of(&ident.value),
        Expr::Nested(inner) => kind_of(inner, of),
        Expr::Cast { data_type, .. } => match data_type {
            DataType::BigInt(_)
            | DataType::Int(_)
            | DataType::Integer(_)
            | DataType::SmallInt(_)
            | DataType::Int8(_) => Some(ValueKind::Integer),
            DataType::Double(_) | DataType::DoublePrecision | DataType::Float(_) | DataType::Real => {
                Some(ValueKind::Float)
            }
            DataType::Text | DataType::Varchar(_) | DataType::String(_) => Some(ValueKind::Text),
            DataType::Boolean | DataType::Bool => Some(ValueKind::Boolean),
            DataType::Timestamp(..) => Some(ValueKind::Time),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => kind_of(expr, of),
        Expr::BinaryOp { left, op, right } => {
            use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
            if matches!((op, &**right), (Plus | Minus, Expr::Interval(_))) {
                return kind_of(left, of).filter(|kind| *kind == ValueKind::Time);
            }
            let sides = (kind_of(left, of)?, kind_of(right, of)?);
            match (op, sides) {
                (Plus | Minus | Multiply | Divide | Modulo, (ValueKind::Integer, ValueKind::Integer)) => {
                    Some(ValueKind::Integer)
                }
                (
                    Plus | Minus | Multiply | Divide | Modulo,
                    (ValueKind::Integer | ValueKind::Float, ValueKind::Integer | ValueKind::Float),
                ) => Some(ValueKind::Float),
                _ => None,
            }
        }
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) if number.parse::<i64>().is_ok() => Some(ValueKind::Integer),
            Value::Number(..) => Some(ValueKind::Float),
            Value::SingleQuotedString(_) => Some(ValueKind::Text),
            Value::Boolean(_) => Some(ValueKind::Boolean),
            _ => None,
        },
        _ => None,
    }
}
