//! Which events are the guest's own, and what of the others is told.

use std::{collections::HashMap, ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf, time::Instant};

use rustix::fs::Stat;

use super::{
    ATTRIB, CLOSE_WRITE, CREATE, DELETE, Held, ISDIR, MODIFY, MOVED_FROM, MOVED_TO, Watcher, event, moves,
    state,
};
use crate::echo::Deed;

/// How often a file that the guest is at is looked at, to find it as the guest said that it left it.
const LOOKS: usize = 3;

impl Watcher {
    /// Sends what is held, without echoes and repetitions.
    pub(super) fn flush(&mut self) {
        self.catch_up();
        let held = std::mem::take(&mut self.held);
        let mut last: HashMap<(PathBuf, Vec<u8>), u32> = HashMap::new();
        let mut batch = Vec::with_capacity(held.len());
        let mut moves = None;
        for (at, one) in held.iter().enumerate() {
            let moved = |watcher: &mut Self, path| {
                let moves = moves.get_or_insert_with(|| {
                    // The one that took a name away may just have happened.
                    watcher.read();
                    moves::of(held.iter().chain(&watcher.held))
                });
                moves::follow(path, &moves[moves.partition_point(|step| step.at <= at)..])
            };
            if self.is_echo(one, moved) {
                self.now.echoes += 1;
                continue;
            }
            let repeated = one.mask & (MODIFY | ATTRIB) != 0;
            let key = (one.folder.clone(), one.name.clone());
            if last.insert(key, one.mask) == Some(one.mask) && repeated {
                continue;
            }
            batch.push(event(one.mask | another_name(one), one.cookie, &one.folder, &one.name));
        }
        self.told.clear();
        if !batch.is_empty() && !self.sender.send(batch) {
            self.overflow();
        }
        self.flushed = Some(Instant::now());
        self.publish();
    }

    /// Hears what the guest did until now, and what it was doing.
    fn catch_up(&mut self) {
        self.under_way.settle();
        self.echoes.hear(&mut self.echo, Instant::now());
    }

    /// `moved` finds the file of a name that is gone.
    fn is_echo(&mut self, one: &Held, moved: impl FnOnce(&mut Self, PathBuf) -> Option<Stat>) -> bool {
        let deed = match one.mask & (CREATE | DELETE | MOVED_FROM | MOVED_TO) {
            CREATE => Some(Deed::Create),
            DELETE => Some(Deed::Delete),
            MOVED_FROM => Some(Deed::MovedFrom),
            MOVED_TO => Some(Deed::MovedTo),
            _ => None,
        };
        if let Some(deed) = deed {
            return self.echoes.name(deed, one.folder_ino, &one.name);
        }
        if self.echoes.quiet() {
            return false;
        }
        let path = one.folder.join(OsStr::from_bytes(&one.name));
        let Some(mut found) = state(&path).or_else(|| moved(self, path.clone())) else { return false };
        if one.mask & ATTRIB != 0 {
            // As of when it came: on a busy host it may be looked at much later.
            return self.echoes.attributes(found.st_ino, one.at);
        }
        if one.mask & (MODIFY | CLOSE_WRITE) == 0 {
            return false;
        }
        for _ in 1..LOOKS {
            if self.left_so(&found) {
                return true;
            }
            // The guest may have written again since, and not have said so yet.
            if !self.under_way.went_on() {
                return false;
            }
            self.catch_up();
            let Some(again) = state(&path) else { break };
            found = again;
        }
        self.left_so(&found)
    }

    /// Is a file as the guest said that it left it?
    fn left_so(&self, found: &Stat) -> bool {
        let mtime = (found.st_mtime as u64).saturating_mul(1_000_000_000).saturating_add(found.st_mtime_nsec);
        self.echoes.content(found.st_ino, mtime, found.st_size as u64)
    }
}

/// What is told with a new name when it is one more of a file that had one: its count of names has changed too.
fn another_name(one: &Held) -> u32 {
    if one.mask & CREATE == 0 || one.mask & ISDIR != 0 {
        return 0;
    }
    let found = state(&one.folder.join(OsStr::from_bytes(&one.name)));
    if found.is_some_and(|found| found.st_nlink > 1) { ATTRIB } else { 0 }
}
