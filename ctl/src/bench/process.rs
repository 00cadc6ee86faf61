//! What a process costs: its time on the CPU, its memory and what it writes to the disk, as Linux tells in /proc.

use std::{collections::HashMap, fs, time::Duration};

/// Linux counts in hundredths of a second, whatever the machine.
const TICK: Duration = Duration::from_millis(10);

struct Stat {
    parent: u32,
    own: u64,
    with_dead_children: u64,
}

/// CPU time of this process.
pub(super) fn cpu_of_self() -> Duration {
    stat(std::process::id()).map_or(Duration::ZERO, |stat| ticks(stat.own))
}

/// CPU time of a process and of everything below it.
pub(super) fn cpu_of_tree(root: u32) -> Duration {
    ticks(tree(root).values().map(|stat| stat.with_dead_children).sum())
}

/// Bytes that a process, and everything below it that lives, had written to the disk.
pub(super) fn written_by_tree(root: u32) -> u64 {
    let written = |pid: &u32| {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok()).unwrap_or(0)
    };
    tree(root).keys().map(written).sum()
}

/// A process and everything below it.
fn tree(root: u32) -> HashMap<u32, Stat> {
    let mut all: HashMap<u32, Stat> = pids().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let parents: HashMap<u32, u32> = all.iter().map(|(pid, stat)| (*pid, stat.parent)).collect();
    let below = |pid: u32| {
        let mut at = pid;
        while at != root {
            match parents.get(&at) {
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        true
    };
    all.retain(|pid, _| below(*pid));
    all
}

/// The memory that a process has in use, in KiB.
pub(super) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold blanks. After it: state, parent, …, utime, stime, cutime, cstime.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let own = number(11)? + number(12)?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, own, with_dead_children: own + number(13)? + number(14)? })
}

fn ticks(count: u64) -> Duration {
    TICK.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_shows_as_time_and_memory() {
        let (before, begun) = (cpu_of_tree(std::process::id()), Instant::now());
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(500) || sum == 0 {
            sum = sum.wrapping_add(begun.elapsed().as_nanos().to_le_bytes().iter().map(|byte| u64::from(*byte)).sum());
        }
        assert!(cpu_of_tree(std::process::id()) > before);
        assert!(cpu_of_self() > Duration::ZERO && resident_kib(std::process::id()) > 1000);
    }
}
