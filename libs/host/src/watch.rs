//! Files that change while a process runs: what is worth telling about them.

/// What was seen so far in files that are looked at again and again.
#[derive(Debug, Default)]
pub struct Watch {
    suspect: Option<String>,
    told: bool,
}

/// What a look at files found.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing to speak of.
    Same,
    /// Other contents, which are in use now.
    Changed,
    /// Files that were told to be broken are again those in use.
    Mended,
    /// Contents that cannot be used, and why; it is told once.
    Broken(String),
}

impl Watch {
    /// Takes the outcome of a look: whether other contents were taken, or why they were not.
    ///
    /// Files that do not fit are told when they are seen so twice: at the first look somebody may be about to write the second one.
    pub fn look(&mut self, outcome: Result<bool, String>) -> Seen {
        match outcome {
            Ok(changed) => match (changed, std::mem::take(self).told) {
                (true, _) => Seen::Changed,
                (false, true) => Seen::Mended,
                (false, false) => Seen::Same,
            },
            Err(reason) if self.suspect.as_ref() != Some(&reason) => {
                self.suspect = Some(reason);
                self.told = false;
                Seen::Same
            }
            Err(_) if self.told => Seen::Same,
            Err(reason) => {
                self.told = true;
                Seen::Broken(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_files_are_told_once_and_not_before_the_second_look() {
        let broken = |reason: &str| Err(reason.to_owned());
        let told = |reason: &str| Seen::Broken(reason.to_owned());
        let mut watch = Watch::default();
        for (outcome, expected) in [
            (Ok(false), Seen::Same),
            (Ok(true), Seen::Changed),
            (broken("half"), Seen::Same),
            (Ok(true), Seen::Changed),
            (broken("a"), Seen::Same),
            (broken("a"), told("a")),
            (broken("a"), Seen::Same),
            (broken("b"), Seen::Same),
            (broken("b"), told("b")),
            (Ok(false), Seen::Mended),
            (Ok(false), Seen::Same),
            (broken("b"), Seen::Same),
            (broken("b"), told("b")),
            (Ok(true), Seen::Changed),
        ] {
            assert_eq!(watch.look(outcome), expected);
        }
    }
}
