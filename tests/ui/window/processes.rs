//! What a program and all that it started take of this computer, by the kernel's own account.

use std::{collections::HashMap, fs, time::Duration};

use slipway_test_harness::kill;

/// The kernel's clock of processes, in ticks a second: the same on every Linux.
const TICKS: u64 = 100;

/// A program's processes with their parents, at one moment.
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    /// All that descend from one of these, without it.
    pub(crate) fn below(parent: u32) -> Self {
        let ids = fs::read_dir("/proc").expect("there").flatten();
        let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for id in ids {
            if let Some(stat) = stat(id) {
                children.entry(stat[1].parse().unwrap_or(0)).or_default().push(id);
            }
        }
        let (mut found, mut next) = (Vec::new(), vec![parent]);
        while let Some(id) = next.pop() {
            let below = children.remove(&id).unwrap_or_default();
            next.extend(&below);
            found.extend(below);
        }
        Self(found)
    }

    /// One, and all that descend from it.
    pub(crate) fn of(id: u32) -> Self {
        let mut all = Self::below(id);
        all.0.push(id);
        all
    }

    /// Ends them all.
    pub(crate) fn kill(&self) {
        self.0.iter().for_each(|id| kill(*id, "KILL"));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Memory, where what several share counts once: proportional set size, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let pss = |id: &u32| -> Option<u64> {
            let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
            let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        self.0.iter().filter_map(pss).sum::<u64>() << 10
    }

    /// Processor time until now.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks = |id: &u32| -> Option<u64> {
            let stat = stat(*id)?;
            Some(stat[11].parse::<u64>().ok()? + stat[12].parse::<u64>().ok()?)
        };
        let ticks: u64 = self.0.iter().filter_map(ticks).sum();
        Duration::from_millis(ticks * 1000 / TICKS)
    }
}

/// `/proc/ID/stat` from the state on: the name before it may hold anything.
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}
