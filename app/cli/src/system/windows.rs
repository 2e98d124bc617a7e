//! Windows: rights are inherited from the folder, and consoles are left by a flag.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::windows::process::CommandExt,
    path::Path,
    process::{Command, ExitStatus},
};

use crate::args::EnvShell;

/// The editor of a person who named none.
pub(crate) const DEFAULT_EDITOR: &str = "notepad";
/// `DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP`.
const DETACHED: u32 = 0x8 | 0x200;

/// The shell of a person whose own is not known.
pub(crate) const DEFAULT_SHELL: EnvShell = EnvShell::Powershell;

/// Options for a file that only this user may read: in the profile's folder all are.
pub(crate) fn private() -> OpenOptions {
    File::options()
}

/// Gives `file` the rights of the one that it will replace: both have the folder's.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(crate) fn same_rights(_file: &File, _replaced: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// Lets the command outlive the console that it is started from, and hold no folder of the person's.
pub(crate) fn in_background(command: &mut Command) -> &mut Command {
    command.current_dir(std::env::temp_dir()).creation_flags(DETACHED)
}

/// Runs an editor on a file. What follows the program's name are arguments, because people write `code --wait` there.
pub(crate) fn edit(editor: &str, file: &Path) -> io::Result<ExitStatus> {
    let mut words = match Path::new(editor).is_file() {
        // A path with spaces in it.
        true => vec![editor],
        false => editor.split_whitespace().collect(),
    }
    .into_iter();
    Command::new(words.next().unwrap_or(DEFAULT_EDITOR)).args(words).arg(file).status()
}
