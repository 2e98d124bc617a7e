//! Files that got another name while what happened to them before was held.

use std::{collections::HashMap, ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use rustix::fs::Stat;

use super::{Held, MOVED_FROM, MOVED_TO, state};

/// A name that led elsewhere afterwards.
pub(super) struct Move {
    /// Of its second half, among the events.
    pub(super) at: usize,
    from: PathBuf,
    to: PathBuf,
}

/// The moves among these, in their order.
pub(super) fn of<'a>(events: impl Iterator<Item = &'a Held>) -> Vec<Move> {
    let mut begun = HashMap::new();
    let mut moves = Vec::new();
    for (at, one) in events.enumerate().filter(|(_, one)| one.mask & (MOVED_FROM | MOVED_TO) != 0) {
        let path = one.folder.join(OsStr::from_bytes(&one.name));
        if one.mask & MOVED_FROM != 0 {
            begun.insert(one.cookie, path);
        } else if let Some(from) = begun.remove(&one.cookie) {
            moves.push(Move { at, from, to: path });
        }
    }
    moves
}

/// Is there half of a move whose other half may be on its way?
pub(super) fn is_open(events: &[Held]) -> bool {
    let last = events.iter().rfind(|one| one.mask & (MOVED_FROM | MOVED_TO) != 0);
    last.is_some_and(|one| one.mask & MOVED_FROM != 0)
}

/// How the file stands that had this name before these moves.
pub(super) fn follow(mut path: PathBuf, moves: &[Move]) -> Option<Stat> {
    for step in moves {
        if step.from == path {
            path.clone_from(&step.to);
        }
    }
    state(&path)
}
