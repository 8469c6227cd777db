//! How answers look on a terminal: tables for people, JSON for programs.

use std::io::{IsTerminal, Write};

use serde_json::Value;

/// Writes to standard output; a closed pipe ends the writing silently, as `head` expects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    json: bool,
}

impl Screen {
    /// A screen that prints JSON when asked to.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether answers are for a program.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person watches, so that progress bars make sense.
    pub(crate) fn is_watched(self) -> bool {
        !self.json && std::io::stderr().is_terminal()
    }

    /// One line.
    pub(crate) fn line(self, text: impl std::fmt::Display) {
        let mut out = std::io::stdout().lock();
        let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// The answer as JSON.
    pub(crate) fn value(self, value: &Value) {
        self.line(serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()));
    }

    /// The answer: JSON as it came, or a table of the named fields of each row.
    pub(crate) fn rows(self, rows: &[Value], columns: &[&str]) {
        if self.json {
            self.value(&Value::Array(rows.to_vec()));
            return;
        }
        let cells = rows.iter().map(|row| columns.iter().map(|c| cell(&field(row, c))).collect()).collect();
        self.table(columns, cells);
    }

    /// A table with aligned columns.
    pub(crate) fn table(self, columns: &[&str], rows: Vec<Vec<String>>) {
        let mut widths: Vec<usize> = columns.iter().map(|c| c.chars().count()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count().min(CELL_CHARS_MAX));
            }
        }
        let row_line = |cells: Vec<String>| {
            cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{:<width$}", cell.chars().take(CELL_CHARS_MAX).collect::<String>()))
                .collect::<Vec<_>>()
                .join("  ")
                .trim_end()
                .to_owned()
        };
        self.line(row_line(columns.iter().map(|c| c.to_uppercase()).collect()));
        for row in rows {
            self.line(row_line(row));
        }
    }
}

/// Wider cells are cut in tables; `--json` shows them whole.
const CELL_CHARS_MAX: usize = 100;

/// A field by its dotted path.
fn field(row: &Value, path: &str) -> Value {
    path.split('.').fold(row.clone(), |value, part| value.get(part).cloned().unwrap_or(Value::Null))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace('\n', "⏎"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_path_and_shown_on_one_line() {
        let row = serde_json::json!({"a": {"b": 3}, "c": "x\ny"});
        assert_eq!(cell(&field(&row, "a.b")), "3");
        assert_eq!(cell(&field(&row, "c")), "x⏎y");
        assert_eq!(cell(&field(&row, "missing.deeper")), "-");
    }
}
