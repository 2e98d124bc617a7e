//! Memory, and room on the disk.

use std::path::{Path, PathBuf};

use slipway_api::{DaemonSeen, State};
use slipway_settings::{resolved::Host, size::Size};
use slipway_vm::room;

use super::{Finding, Ward, told};
use crate::boot::ROOM;

/// Free bytes below which images soon have no place.
const TIGHT: u64 = 5 << 30;

pub(super) fn memory(ward: &Ward) -> Finding {
    // Also when they ask for more than there is: that is told once, by the check of the settings.
    let Ok(settings) = &ward.settings else {
        return Finding::not_applicable("the settings that there are cannot hold here");
    };
    let runs = matches!(&ward.subject.seen, DaemonSeen::Answers { status, .. }
        if !matches!(status.state, State::Stopped | State::Failed));
    memory_of(settings.memory, Host::here().memory, available(), runs)
}

fn memory_of(asked: Size, there: Size, available: Option<Size>, runs: bool) -> Finding {
    let hint = "give the machine less: `slipway config set machine.memory 2GiB`";
    if asked.as_bytes() / 3 > there.as_bytes() / 4 {
        return Finding::warning(format!(
            "the machine may take {asked} of {there}, and little is left for all else"
        ))
        .hint(hint);
    }
    match available {
        Some(available) if !runs && available < asked => Finding::warning(format!(
            "the machine may take {asked}, and {} MiB are free just now",
            available.as_mib()
        ))
        .hint(format!("end what you do not need, or {hint}")),
        _ => Finding::ok(format!("{} MiB for the machine, of {} MiB", asked.as_mib(), there.as_mib())),
    }
}

/// What programs can have without swapping.
fn available() -> Option<Size> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Size::bytes(kib.saturating_mul(1024)))
}

pub(super) fn disk_space(ward: &Ward) -> Finding {
    let disk = ward.paths().data_disk();
    // Where it really is: people move it and leave a link.
    let disk = disk.canonicalize().unwrap_or(disk);
    let dir = nearest(&disk);
    match room::free(&dir) {
        Ok(free) => disk_space_of(&dir, free),
        Err(error) => {
            Finding::failed(format!("{} cannot be looked at", told(&dir))).because(error.to_string())
        }
    }
}

fn disk_space_of(dir: &Path, free: u64) -> Finding {
    let amount = if free >= 10 << 30 { format!("{} GiB", free >> 30) } else { format!("{} MiB", free >> 20) };
    let message = format!("{amount} are free where the data disk is, in {}", told(dir));
    let hint = "free some space here, or in Slipway: `docker system prune`";
    match free {
        0..ROOM => Finding::failed(message)
            .because(format!("a machine starts with {} MiB or more", ROOM >> 20))
            .hint("free some space; nothing of yours in Slipway is lost"),
        ROOM..TIGHT => Finding::warning(message).hint(hint),
        _ => Finding::ok(message),
    }
}

/// The folder of a file, or the nearest one above that is there.
pub(super) fn nearest(path: &Path) -> PathBuf {
    path.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use slipway_api::CheckState;

    use super::*;

    #[test]
    fn memory_that_leaves_little_is_a_warning() {
        let (four, six, eight) = (Size::mib(4 << 10), Size::mib(6 << 10), Size::mib(8 << 10));
        assert_eq!(memory_of(four, eight, Some(six), false).state, CheckState::Ok);
        assert_eq!(memory_of(Size::mib(7 << 10), eight, Some(eight), true).state, CheckState::Warning);
        assert_eq!(memory_of(four, eight, Some(Size::mib(512)), false).state, CheckState::Warning);
        assert_eq!(
            memory_of(four, eight, Some(Size::mib(512)), true).state,
            CheckState::Ok,
            "it has it already"
        );
    }

    #[test]
    fn a_disk_that_fills_up_warns_before_it_is_full() {
        let at = |free| disk_space_of(Path::new("/h"), free).state;
        assert_eq!([0, ROOM - 1, ROOM, TIGHT - 1, TIGHT].map(at), {
            use CheckState::{Failed, Ok, Warning};
            [Failed, Failed, Warning, Warning, Ok]
        });
    }
}
