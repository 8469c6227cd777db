//! Pages of listings: none is larger than what NATS carries.

use serde::{Deserialize, Serialize};

use crate::{Problem, encode};

/// Entries of one page, at most.
pub const PAGE_MAX: u32 = 1_000;

/// Bytes of one page, at most; a page has at least one entry, which may be larger. 768 KiB: NATS takes 1 MiB unless it is told otherwise.
pub const PAGE_BYTES_MAX: usize = 768 << 10;

/// How many entries a page has at most: 1 to [`PAGE_MAX`]. Whoever does not say gets as many as there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Page(pub u32);

impl Default for Page {
    fn default() -> Self {
        Self(PAGE_MAX)
    }
}

impl Page {
    /// Takes entries until the page is full, and says whether there are more.
    ///
    /// Bounds: as many entries as the page may have, and [`PAGE_BYTES_MAX`] as they are sent; one entry in any case.
    /// Errors: `InvalidPage` for a page of none, or of more than [`PAGE_MAX`].
    pub fn fill<T: Serialize>(self, entries: impl Iterator<Item = T>) -> Result<(Vec<T>, bool), Problem> {
        let most = (1..=PAGE_MAX).contains(&self.0).then(|| usize::try_from(self.0).ok()).flatten();
        let most = most.ok_or_else(|| {
            let message = format!("a page of {} was asked for; from 1 to {PAGE_MAX} are possible", self.0);
            Problem::bad_request("InvalidPage", message)
        })?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            bytes += encode(&entry).len();
            if page.len() >= most || (bytes > PAGE_BYTES_MAX && !page.is_empty()) {
                return Ok((page, true));
            }
            page.push(entry);
        }
        Ok((page, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_full_by_entries_or_by_bytes_and_never_empty() {
        let large = "x".repeat(PAGE_BYTES_MAX / 2);
        let huge = "x".repeat(2 * PAGE_BYTES_MAX);
        for (entries, limit, taken, more) in [
            (vec![], 1, 0, false),
            (vec!["a", "b"], 2, 2, false),
            (vec!["a", "b", "c"], 2, 2, true),
            (vec![&large, &large], 9, 1, true),
            (vec![&huge], 9, 1, false),
            (vec![&huge, "a"], 9, 1, true),
            (vec!["a", &huge], 9, 1, true),
        ] {
            let (page, rest) = Page(limit).fill(entries.iter()).unwrap();
            assert_eq!((page.len(), rest), (taken, more), "{} of {limit}", entries.len());
        }
        for limit in [0, PAGE_MAX + 1] {
            assert_eq!(Page(limit).fill([""].iter()).unwrap_err().kind, "InvalidPage");
        }
    }

    #[test]
    fn whoever_asks_for_jobs_or_rules_without_a_page_gets_the_first() {
        let asked = encode(&crate::Empty {});
        assert_eq!(crate::decode::<crate::job_manager::JobsOf>(&asked).unwrap().limit, Page(PAGE_MAX));
        assert_eq!(crate::decode::<crate::alerter::RulesOf>(&asked).unwrap().limit, Page(PAGE_MAX));
    }
}
