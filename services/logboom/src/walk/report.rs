//! What the walk prints: one line a step, and what went wrong in full.

use std::time::Instant;

use crate::screen::Screen;

/// Counts right and wrong steps and prints each as it ends.
#[derive(Debug)]
pub(crate) struct Report {
    screen: Screen,
    number: u32,
    wrong: u32,
    begun: Instant,
}

impl Report {
    /// An empty report.
    #[allow(clippy::disallowed_methods, reason = "shows a person how long steps took")]
    pub(crate) fn new(screen: Screen) -> Self {
        Self { screen, number: 0, wrong: 0, begun: Instant::now() }
    }

    /// Runs one step and prints its result, or why it is wrong.
    #[allow(clippy::disallowed_methods, reason = "shows a person how long steps took")]
    pub(crate) async fn step<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> anyhow::Result<T> {
        self.number += 1;
        let begun = Instant::now();
        match work.await {
            Ok((value, result)) => {
                let took = begun.elapsed().as_millis();
                self.screen.line(format_args!("  ✓ {:>2}  {name:<28} {result}  ({took} ms)", self.number));
                Ok(value)
            }
            Err(error) => {
                self.wrong += 1;
                self.screen.line(format_args!("  ✗ {:>2}  {name:<28} {error:#}", self.number));
                Err(error)
            }
        }
    }

    /// The closing line; true if every step was right.
    pub(crate) fn close(&self) -> bool {
        let seconds = self.begun.elapsed().as_secs_f32();
        let right = self.number - self.wrong;
        self.screen.line(format_args!("{right} steps right, {} wrong, {seconds:.1} s", self.wrong));
        self.wrong == 0
    }
}
