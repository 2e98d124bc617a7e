//! inotify's words for what happened, which the guest understands whatever the host's system is.

pub(crate) const MODIFY: u32 = 0x2;
pub(crate) const ATTRIB: u32 = 0x4;
pub(crate) const CLOSE_WRITE: u32 = 0x8;
pub(crate) const MOVED_FROM: u32 = 0x40;
pub(crate) const MOVED_TO: u32 = 0x80;
pub(crate) const CREATE: u32 = 0x100;
pub(crate) const DELETE: u32 = 0x200;
pub(crate) const OVERFLOW: u32 = 0x4000;
pub(crate) const ISDIR: u32 = 0x4000_0000;

/// An event as the tests of both watchers write it down: a word, the path, and a stroke behind a folder's.
#[cfg(test)]
pub(crate) fn said(mask: u32, path: impl std::fmt::Display) -> String {
    let words = [
        (OVERFLOW, "lost"),
        (CREATE, "create"),
        (MODIFY, "modify"),
        (CLOSE_WRITE, "close"),
        (ATTRIB, "attrib"),
        (DELETE, "delete"),
        (MOVED_FROM, "from"),
        (MOVED_TO, "to"),
    ];
    let word = words.iter().find(|(bit, _)| mask & bit != 0).map_or("?", |(_, word)| word);
    let dir = if mask & ISDIR != 0 { "/" } else { "" };
    format!("{word} {path}{dir}")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::fs::inotify::ReadFlags;

    #[test]
    fn they_are_inotifys_own() {
        for (ours, its) in [
            (super::MODIFY, ReadFlags::MODIFY),
            (super::ATTRIB, ReadFlags::ATTRIB),
            (super::CLOSE_WRITE, ReadFlags::CLOSE_WRITE),
            (super::MOVED_FROM, ReadFlags::MOVED_FROM),
            (super::MOVED_TO, ReadFlags::MOVED_TO),
            (super::CREATE, ReadFlags::CREATE),
            (super::DELETE, ReadFlags::DELETE),
            (super::OVERFLOW, ReadFlags::QUEUE_OVERFLOW),
            (super::ISDIR, ReadFlags::ISDIR),
        ] {
            assert_eq!(ours, its.bits());
        }
    }
}
