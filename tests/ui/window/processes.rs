//! What a program and all that it started take of this computer, by the kernel's own account.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

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
            if let Some(stat) = stat(&process(id)) {
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

    /// Processor time until now of their threads whose names begin so.
    pub(crate) fn cpu_of_threads(&self, name: &str) -> Duration {
        let tasks = |id: &u32| fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let named =
            |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name));
        let tasks = self.0.iter().flat_map(tasks).map(|task| task.path()).filter(named);
        ticks(tasks.filter_map(|task| stat(&task)))
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
        ticks(self.0.iter().filter_map(|id| stat(&process(*id))))
    }
}

fn process(id: u32) -> PathBuf {
    Path::new("/proc").join(id.to_string())
}

/// The file `stat` of a process or thread from the state on: the name before it may hold anything.
fn stat(of: &Path) -> Option<Vec<String>> {
    let stat = fs::read_to_string(of.join("stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Their processor time.
fn ticks(stats: impl Iterator<Item = Vec<String>>) -> Duration {
    let of = |stat: Vec<String>| Some(stat[11].parse::<u64>().ok()? + stat[12].parse::<u64>().ok()?);
    Duration::from_millis(stats.filter_map(of).sum::<u64>() * 1000 / TICKS)
}
