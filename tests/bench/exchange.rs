//! What batches cost between two task workers of this machine: Unix socket, TCP, TLS.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::figure::{Figure, Figures, Goal};

/// CPU seconds of both ends for one GB.
const COST: Goal = Goal::AtMost(0.8);
/// Seconds until a stopped worker is noticed.
const NOTICED: Goal = Goal::AtMost(1.0);

/// Shows the figures of the exchange's own example, which is built in release mode whatever this is.
pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let example = ["run", "--quiet", "--release", "-p", "exchange", "--example", "figures"];
    let output = Command::new(env!("CARGO")).current_dir(env!("CARGO_MANIFEST_DIR")).args(example).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8(output.stdout)?.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let [name, value, unit] = parts[..] else { anyhow::bail!("{line:?} is no figure") };
        let value = value.parse().with_context(|| format!("{line:?} is no figure"))?;
        let figure = match unit {
            "CPU s/GB" if name.ends_with("both ends") => Figure::new(name, value, "CPU s/GB").goal(COST),
            "CPU s/GB" => Figure::new(name, value, "CPU s/GB"),
            "GB/s" => Figure::new(name, value, "GB/s"),
            "KiB" => Figure::new(name, value, "KiB"),
            _ => Figure::new(name, value, "s").goal(NOTICED),
        };
        figures.add("exchange", &figure);
    }
    Ok(())
}
