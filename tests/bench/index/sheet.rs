//! What was measured of each store, side by side.

use super::SUITE;
use crate::figure::{Figure, Figures, Goal};

struct Row {
    name: String,
    unit: &'static str,
    goal: Option<Goal>,
    values: Vec<Option<f64>>,
}

/// A table: a row for each figure, a column for each store; the first is ours.
#[derive(Default)]
pub(super) struct Sheet {
    stores: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Sheet {
    pub(super) fn column(&mut self, store: &'static str) {
        self.stores.push(store);
    }

    /// Notes a figure of the newest column; only our own has goals.
    pub(super) fn put(&mut self, name: &str, value: f64, unit: &'static str, goal: Option<Goal>) {
        let column = self.stores.len().saturating_sub(1);
        let place = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), unit, goal: None, values: Vec::new() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[place];
        row.goal = row.goal.or(goal.filter(|_| column == 0));
        row.values.resize(column + 1, None);
        row.values[column] = Some(value);
    }

    /// Every figure of ours, against each store that has it: one object each for programs, a table for people.
    pub(super) fn print(&self, figures: &mut Figures) {
        if !figures.is_json() {
            self.print_table();
            return;
        }
        for row in &self.rows {
            let Some(Some(ours)) = row.values.first() else { continue };
            let figure = |name: String| Figure { goal: row.goal, ..Figure::new(name, *ours, row.unit) };
            let mut alone = true;
            for (store, peer) in self.stores.iter().zip(&row.values).skip(1) {
                if let Some(peer) = peer {
                    alone = false;
                    figures.add(SUITE, &figure(format!("{}; peer {store}", row.name)).peer(*peer));
                }
            }
            if alone {
                figures.add(SUITE, &figure(row.name.clone()));
            }
        }
    }

    fn print_table(&self) {
        print!("\n{:34} {:8} {:>18}", "figure", "unit", "goal");
        self.stores.iter().for_each(|store| print!(" {store:>24}"));
        println!("\n{:62} (in parentheses: ours divided by theirs)", "");
        for row in &self.rows {
            let ours = row.values.first().copied().flatten();
            let goal = match (row.goal, ours) {
                (Some(goal), Some(ours)) => goal.words(ours),
                _ => "-".to_owned(),
            };
            print!("{:34} {:8} {goal:>18}", row.name, row.unit);
            for (column, value) in row.values.iter().enumerate() {
                let ratio = ours.zip(*value).filter(|(_, value)| column > 0 && *value != 0.0);
                let ratio = ratio.map(|(ours, value)| format!(" ({:.2})", ours / value)).unwrap_or_default();
                let value = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}{ratio}"));
                print!(" {value:>24}");
            }
            println!();
        }
    }
}
