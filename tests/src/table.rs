//! Answers of the SQL door.

use anyhow::{Context, Result};
use serde_json::Value;

/// An answer with named columns; rows come as objects or as arrays.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Value>,
}

impl Table {
    /// Reads `{"columns": […], "rows": […]}`.
    pub fn of(answer: &Value) -> Self {
        let columns = answer["columns"].as_array().into_iter().flatten();
        Self {
            columns: columns.filter_map(|c| c["name"].as_str().or(c.as_str()).map(str::to_owned)).collect(),
            rows: answer["rows"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A cell; `null` where the row has none.
    pub fn cell(&self, row: usize, column: &str) -> Result<&Value> {
        let row = self.rows.get(row).with_context(|| format!("the answer has no row {row}"))?;
        let place = self.columns.iter().position(|c| c == column);
        let place = place.with_context(|| format!("the answer has no column {column}: {}", self.columns.join(", ")))?;
        Ok(if row.is_array() { &row[place] } else { &row[column] })
    }

    /// A cell as text.
    pub fn text(&self, row: usize, column: &str) -> Result<String> {
        Ok(match self.cell(row, column)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// A cell as a number.
    pub fn float(&self, row: usize, column: &str) -> Result<f64> {
        let cell = self.cell(row, column)?;
        let number = cell.as_f64().or_else(|| cell.as_str()?.parse().ok());
        number.with_context(|| format!("{column} is {cell}, not a number"))
    }

    /// A cell as a whole number.
    pub fn number(&self, row: usize, column: &str) -> Result<i64> {
        let cell = self.cell(row, column)?;
        let whole = cell.as_i64().or_else(|| cell.as_str()?.parse().ok());
        let exact = |x: &f64| x.fract() == 0.0 && x.abs() < 9e15;
        // A sum of whole numbers comes as a float from a windowed job; below 2^53 it is exact.
        let whole = whole.or_else(|| cell.as_f64().filter(exact).and_then(|x| format!("{x:.0}").parse().ok()));
        whole.with_context(|| format!("{column} is {cell}, not a whole number"))
    }
}
