//! What is wrong with a configuration, all of it at once.

use std::{fmt, ops::RangeInclusive};

/// Findings that are kept; the rest is only counted.
pub const FINDINGS_MAX: usize = 100;

/// One thing that is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The setting as `section.key`; empty if a whole file cannot be read.
    pub path: String,
    /// The refused value as written; `***` for a secret.
    pub value: String,
    /// Where the value came from: `default`, a file name, `environment` or `--set`.
    pub origin: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.origin, self.message)
        } else {
            write!(f, "{} = {} (from {}): {}", self.path, self.value, self.origin, self.message)
        }
    }
}

/// Everything that is wrong with a configuration; displayed as one finding a line.
///
/// Bounds: the first [`FINDINGS_MAX`] are kept, the rest is counted in the last line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    kept: Vec<Finding>,
    dropped_count: usize,
}

impl Findings {
    /// Adds what is wrong with a key of the section being validated; value and origin are filled in by [`crate::Settings`].
    pub fn add(&mut self, key: &str, message: impl Into<String>) {
        self.push(Finding {
            path: key.to_owned(),
            value: String::new(),
            origin: String::new(),
            message: message.into(),
        });
    }

    /// Adds a finding unless `holds`.
    pub fn require(&mut self, holds: bool, key: &str, message: impl Into<String>) {
        if !holds {
            self.add(key, message);
        }
    }

    /// Adds a finding unless `value` lies in the allowed range.
    pub fn range<T: PartialOrd + fmt::Display>(&mut self, key: &str, value: T, allowed: RangeInclusive<T>) {
        if !allowed.contains(&value) {
            self.add(key, format!("must be from {} to {}", allowed.start(), allowed.end()));
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The findings that were kept, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.kept.iter()
    }

    /// Takes over the findings of another section.
    pub fn extend(&mut self, other: Self) {
        self.dropped_count += other.dropped_count;
        other.kept.into_iter().for_each(|finding| self.push(finding));
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        } else {
            self.dropped_count += 1;
        }
    }

    pub(crate) fn each(&mut self, change: impl Fn(&mut Finding)) {
        self.kept.iter_mut().for_each(change);
    }

    pub(crate) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, finding) in self.kept.iter().enumerate() {
            let newline = if number == 0 { "" } else { "\n" };
            write!(f, "{newline}{finding}")?;
        }
        if self.dropped_count > 0 {
            write!(f, "\nand {} more", self.dropped_count)?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_beyond_the_bound_are_counted() {
        let mut found = Findings::default();
        (0..FINDINGS_MAX + 7).for_each(|n| found.add("key", n.to_string()));
        assert_eq!(found.iter().count(), FINDINGS_MAX);
        assert!(found.to_string().ends_with("\nand 7 more"));
    }

    #[test]
    fn a_range_names_its_ends() {
        let mut found = Findings::default();
        found.range("slots", 5, 1..=256);
        assert!(found.is_empty());
        found.range("slots", 0, 1..=256);
        assert_eq!(found.iter().next().unwrap().message, "must be from 1 to 256");
    }
}
