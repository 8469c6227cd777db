//! Operators between metrics as SQL.

use super::{
    Grouping, MetricOperator,
    lower::{POINT, Part, Series, VALUE, Work},
};
use crate::{Diagnostic, lower::name};

impl Work<'_, '_> {
    /// Two parts as one.
    pub(super) fn binary(
        &mut self,
        op: MetricOperator,
        boolean: bool,
        matching: Option<&Grouping>,
        left: Part,
        right: Part,
    ) -> Result<Part, Diagnostic> {
        if matches!(op, MetricOperator::And | MetricOperator::Or | MetricOperator::Unless) {
            return Err(self.lowering.not_yet(op.as_str()));
        }
        let (left, right) = match (left, right) {
            (Part::Constant(a, one), Part::Constant(b, other)) => {
                return self.constants(op, boolean, (a, one), (b, other));
            }
            sides => sides,
        };
        if op == MetricOperator::Power {
            return Err(self.lowering.not_yet("^"));
        }
        let number = |number: f64| format!("CAST('{number}' AS DOUBLE)");
        let (from, labels, a, b) = match (left, right) {
            (Part::Series(a), Part::Constant(b, _)) => (a.from, a.labels, format!("\"{VALUE}\""), number(b)),
            (Part::Constant(a, _), Part::Series(b)) => (b.from, b.labels, number(a), format!("\"{VALUE}\"")),
            (left, right) => {
                let (left, right) = (self.series(left)?, self.series(right)?);
                return self.joined(op, boolean, matching, &left, &right);
            }
        };
        let keys: String = labels.iter().map(|label| format!(", {}", name(label))).collect();
        let (value, filter) = computed(op, boolean, &a, &b, &format!("\"{VALUE}\""));
        let sql = format!("SELECT \"{POINT}\"{keys}, {value} AS \"{VALUE}\" FROM {from}{filter}");
        Ok(Part::Series(Series { from: self.lowering.stage(&sql)?, labels }))
    }

    fn constants(
        &mut self,
        op: MetricOperator,
        boolean: bool,
        a: (f64, bool),
        b: (f64, bool),
    ) -> Result<Part, Diagnostic> {
        let holds = match op {
            MetricOperator::Equal => a.0 == b.0,
            MetricOperator::NotEqual => a.0 != b.0,
            MetricOperator::AtLeast => a.0 >= b.0,
            MetricOperator::AtMost => a.0 <= b.0,
            MetricOperator::Above => a.0 > b.0,
            _ => a.0 < b.0,
        };
        let vector = a.1 || b.1;
        Ok(match op {
            MetricOperator::Plus => Part::Constant(a.0 + b.0, vector),
            MetricOperator::Minus => Part::Constant(a.0 - b.0, vector),
            MetricOperator::Times => Part::Constant(a.0 * b.0, vector),
            MetricOperator::By => Part::Constant(a.0 / b.0, vector),
            MetricOperator::Modulo => Part::Constant(a.0 % b.0, vector),
            MetricOperator::Power => Part::Constant(a.0.powf(b.0), vector),
            _ if boolean || !vector => Part::Constant(f64::from(u8::from(holds)), vector),
            _ if holds => Part::Constant(a.0, true),
            _ => {
                let points = self.points(a.0)?;
                let from = self.lowering.stage(&format!("SELECT * FROM {points} WHERE FALSE"))?;
                Part::Series(Series { from, labels: Vec::new() })
            }
        })
    }

    /// Points of equal labels with one another.
    fn joined(
        &mut self,
        op: MetricOperator,
        boolean: bool,
        matching: Option<&Grouping>,
        left: &Series,
        right: &Series,
    ) -> Result<Part, Diagnostic> {
        let labels: Vec<String> = match matching {
            Some(on) if !on.without => on.labels.clone(),
            Some(ignored) => left.labels.iter().filter(|label| !ignored.labels.contains(label)).cloned().collect(),
            None => left.labels.clone(),
        };
        let mut on = format!("l.\"{POINT}\" = r.\"{POINT}\"");
        let mut keys = String::new();
        for label in &labels {
            let column = name(label);
            if !left.labels.contains(label) || !right.labels.contains(label) {
                return Err(self
                    .lowering
                    .complaint(label, format!("{label} is not a label of both sides"))
                    .help(format!("group both by it: sum by ({label}) (…)")));
            }
            on.push_str(&format!(" AND l.{column} IS NOT DISTINCT FROM r.{column}"));
            keys.push_str(&format!(", l.{column} AS {column}"));
        }
        let (a, b) = (format!("l.\"{VALUE}\""), format!("r.\"{VALUE}\""));
        let (value, filter) = computed(op, boolean, &a, &b, &a);
        let sql = format!(
            "SELECT l.\"{POINT}\" AS \"{POINT}\"{keys}, {value} AS \"{VALUE}\" FROM {} AS l JOIN {} AS r ON {on}{filter}",
            left.from, right.from
        );
        Ok(Part::Series(Series { from: self.lowering.stage(&sql)?, labels }))
    }
}

/// The value and the filter of an operator between two numbers; a comparison keeps `kept` where it holds.
fn computed(op: MetricOperator, boolean: bool, a: &str, b: &str, kept: &str) -> (String, String) {
    let sign = match op {
        MetricOperator::Equal => "=",
        MetricOperator::NotEqual => "<>",
        other => other.as_str(),
    };
    if !op.compares() {
        return (format!("({a} {sign} {b})"), String::new());
    }
    if boolean {
        return (format!("CASE WHEN {a} {sign} {b} THEN 1.0 ELSE 0.0 END"), String::new());
    }
    (kept.to_owned(), format!(" WHERE {a} {sign} {b}"))
}
