//! What processes cost, as the kernel counts it (Linux).

use std::fs;

use anyhow::{Context, Result};

/// The kernel's unit of CPU time in `/proc`: a hundredth of a second on every Linux.
const TICK_MICROS: u64 = 10_000;

/// CPU time and memory of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads since it began, in microseconds, to a hundredth of a second.
    pub cpu_micros: u64,
    /// Resident memory in KiB.
    pub rss_kib: u64,
}

/// What a process has used.
pub fn usage(pid: u32) -> Result<Usage> {
    let fields = stat(pid)?;
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    let rss_kib = rss.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    Ok(Usage { cpu_micros: (ticks(11) + ticks(12)) * TICK_MICROS, rss_kib })
}

/// The children of a process.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(child) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // A process may end while the list is read.
        if stat(child).is_ok_and(|fields| fields.get(1) == Some(&pid.to_string())) {
            found.push(child);
        }
    }
    Ok(found)
}

/// The fields behind the name, which may itself hold spaces and parentheses: state, parent, ….
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("/proc/<pid>/stat has no name")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_counted() {
        let pid = std::process::id();
        let before = usage(pid).unwrap();
        assert!(before.rss_kib > 100, "{before:?}");
        let begun = std::time::Instant::now();
        while usage(pid).unwrap().cpu_micros < before.cpu_micros + 2 * TICK_MICROS {
            assert!(begun.elapsed().as_secs() < 30, "work shows in no CPU time");
        }
        let parent = stat(pid).unwrap()[1].parse().unwrap();
        assert!(children(parent).unwrap().contains(&pid));
    }
}
