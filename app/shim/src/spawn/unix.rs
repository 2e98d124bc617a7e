//! Unix: a process group.

use tokio::process::Command;

/// The shim calls setsid itself; until then it must not get the terminal's Ctrl-C.
pub(super) fn apart(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

/// A child has what it is given.
pub(super) fn keep_streams() {}
