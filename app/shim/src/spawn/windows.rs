//! Windows: no console, so that closing one, or Ctrl-C in it, ends no machine.

use slipway_vsock::pipe;
use tokio::process::Command;

/// `DETACHED_PROCESS`
const DETACHED: u32 = 0x0000_0008;
/// `CREATE_NEW_PROCESS_GROUP`
const NEW_GROUP: u32 = 0x0000_0200;

/// Without the starter's console, and not in its group.
pub(super) fn apart(command: &mut Command) -> &mut Command {
    command.creation_flags(DETACHED | NEW_GROUP)
}

/// See [`pipe::keep_standard_handles`].
pub(super) fn keep_streams() {
    pipe::keep_standard_handles();
}
