//! What a file system asks its server for: the kernel's tracepoint `fuse:fuse_request_send`, counted by kind. Needs tracefs at
//! its usual place, and a kernel from 6.12 on.

use std::{fs, io, path::Path};

const EVENT: &str = "/sys/kernel/tracing/events/fuse/fuse_request_send";
const COUNT: &str = "hist:keys=opcode:sort=hitcount.descending";

/// `enum fuse_opcode` of `linux/fuse.h`, as far as a file system asks.
const KINDS: &[(u32, &str)] = &[
    (1, "LOOKUP"),
    (2, "FORGET"),
    (3, "GETATTR"),
    (4, "SETATTR"),
    (5, "READLINK"),
    (6, "SYMLINK"),
    (8, "MKNOD"),
    (9, "MKDIR"),
    (10, "UNLINK"),
    (11, "RMDIR"),
    (12, "RENAME"),
    (13, "LINK"),
    (14, "OPEN"),
    (15, "READ"),
    (16, "WRITE"),
    (17, "STATFS"),
    (18, "RELEASE"),
    (20, "FSYNC"),
    (21, "SETXATTR"),
    (22, "GETXATTR"),
    (23, "LISTXATTR"),
    (25, "FLUSH"),
    (27, "OPENDIR"),
    (28, "READDIR"),
    (29, "RELEASEDIR"),
    (35, "CREATE"),
    (42, "BATCH_FORGET"),
    (44, "READDIRPLUS"),
    (45, "RENAME2"),
    (46, "LSEEK"),
];

/// Does something, and says what was asked for meanwhile, the most often first: `LOOKUP 40, OPEN 3`.
///
/// # Errors
/// Those of `act`, and of a kernel that counts nothing.
pub(super) fn asked(act: impl FnOnce() -> io::Result<()>) -> io::Result<String> {
    let trigger = Path::new(EVENT).join("trigger");
    fs::write(&trigger, COUNT)?;
    let done = act();
    let counted = fs::read_to_string(Path::new(EVENT).join("hist"));
    fs::write(&trigger, format!("!{COUNT}"))?;
    done?;
    Ok(counted?.lines().filter_map(kind).collect::<Vec<_>>().join(", "))
}

/// From `{ opcode:         14 } hitcount:          3`.
fn kind(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok());
    let (opcode, count) = (words.next()?, words.next()?);
    let name = KINDS.iter().find(|(number, _)| opcode.parse() == Ok(*number)).map(|(_, name)| *name);
    Some(format!("{} {count}", name.unwrap_or(opcode)))
}
