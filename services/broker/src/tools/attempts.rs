//! What operators see of the attempts at work that has not ended.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use wire::Problem;

use crate::state::Operation;

/// Problems that are remembered; when there are more, all are forgotten and the next attempts tell them anew.
const PROBLEMS_MAX: usize = 4096;
/// Characters of a problem that are remembered.
const PROBLEM_CHARS_MAX: usize = 500;

/// What the last attempt at each piece of work was told, if it failed; clones share it. It lives as long as its leader leads.
#[derive(Clone, Default)]
pub(crate) struct Problems(Arc<Mutex<BTreeMap<String, String>>>);

impl Problems {
    /// Takes down how an attempt ended.
    pub(crate) fn note<T>(&self, effect: &str, result: &Result<T, Problem>) {
        let mut all = self.0.lock();
        let work = work_of(effect);
        match result {
            Ok(_) => drop(all.remove(work)),
            Err(problem) => {
                if all.len() >= PROBLEMS_MAX && !all.contains_key(work) {
                    all.clear();
                }
                all.insert(work.to_owned(), problem.to_string().chars().take(PROBLEM_CHARS_MAX).collect());
            }
        }
    }

    /// What keeps an operation from ending.
    pub(super) fn of(&self, operation: &Operation) -> Option<String> {
        let all = self.0.lock();
        let known = [operation.token.clone(), operation.removal_token(), format!("{}-restore", operation.token)];
        known.iter().find_map(|work| all.get(work).cloned())
    }
}

/// The work of an effect, whatever the attempt.
fn work_of(effect: &str) -> &str {
    effect.split('~').next().unwrap_or(effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_known_until_an_attempt_succeeds() {
        let problems = Problems::default();
        let told = |effect: &str| problems.0.lock().get(effect).cloned();
        let failed = || Err::<(), _>(Problem::unavailable("NoResponders", "x".repeat(1000)));
        problems.note("provision-7", &failed());
        assert_eq!(told("provision-7").unwrap().chars().count(), PROBLEM_CHARS_MAX);
        problems.note("provision-7~1", &Ok(()));
        assert_eq!(told("provision-7"), None);
        for n in 0..=PROBLEMS_MAX {
            problems.note(&format!("bind-{n}"), &failed());
        }
        assert_eq!(problems.0.lock().len(), 1);
    }
}
