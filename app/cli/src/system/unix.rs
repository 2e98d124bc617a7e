//! Unix: modes, process groups, `sh`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::{Command, ExitStatus},
};

use crate::args::EnvShell;

/// The editor of a person who named none.
pub(crate) const DEFAULT_EDITOR: &str = "vi";

/// The shell of a person whose own is not known.
pub(crate) const DEFAULT_SHELL: EnvShell = EnvShell::Sh;

/// Options for a file that only this user may read.
pub(crate) fn private() -> OpenOptions {
    let mut options = File::options();
    options.mode(0o600);
    options
}

/// Gives `file` the rights of the one that it will replace.
pub(crate) fn same_rights(file: &File, replaced: &fs::Metadata) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(replaced.permissions().mode() & 0o777))
}

/// Lets the command outlive the terminal that it is started from, and hold no folder of the person's.
pub(crate) fn in_background(command: &mut Command) -> &mut Command {
    command.current_dir("/").process_group(0)
}

/// Runs an editor on a file. By the shell, because people write `code --wait` there.
pub(crate) fn edit(editor: &str, file: &Path) -> io::Result<ExitStatus> {
    Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status()
}
