//! Reads answers of the SQL door.

use anyhow::Context;
use serde_json::Value;

/// An answer with named columns; rows come as objects or as arrays.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Value>,
}

impl Table {
    /// Reads `{"columns": […], "rows": […]}`.
    pub(crate) fn of(answer: &Value) -> Self {
        let columns = answer["columns"].as_array().into_iter().flatten();
        Self {
            columns: columns.filter_map(|c| c["name"].as_str().or(c.as_str()).map(str::to_owned)).collect(),
            rows: answer["rows"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    fn cell(&self, row: usize, column: &str) -> anyhow::Result<&Value> {
        let row = self.rows.get(row).with_context(|| format!("the answer has no row {row}"))?;
        let place = self.columns.iter().position(|c| c == column);
        row.get(column)
            .or_else(|| row.get(place?))
            .with_context(|| format!("the answer has no column {column}: {}", self.columns.join(", ")))
    }

    /// A cell as text.
    pub(crate) fn text(&self, row: usize, column: &str) -> anyhow::Result<String> {
        Ok(match self.cell(row, column)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// A cell as a whole number.
    pub(crate) fn number(&self, row: usize, column: &str) -> anyhow::Result<u64> {
        let cell = self.cell(row, column)?;
        // A sum comes as a float that holds a whole number; its shortest text without a fraction is that number.
        let whole = cell.as_u64().or_else(|| format!("{:.0}", cell.as_f64()?).parse().ok());
        whole.or_else(|| cell.as_str()?.parse().ok()).with_context(|| format!("{column} is {cell}, not a number"))
    }
}
