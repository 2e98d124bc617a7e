//! Windows: a value of the person's Run key. Settings and the Task Manager keep beside it what a person has switched off.

use std::io;

use windows_registry::{CURRENT_USER, Key};

use super::{KeepError, at, entry::Entry};

const RUN: &str = r"Software\Microsoft\Windows\CurrentVersion\Run";
/// Binary values of the same names; the first byte is odd where the person said no.
const APPROVED: &str = r"Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run";

/// A person's Run key.
#[derive(Debug)]
pub(super) struct Place {
    root: &'static str,
}

impl Place {
    #[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
    pub(super) fn of_process() -> Result<Self, KeepError> {
        Ok(Self { root: "" })
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    fn failed(&self, act: &'static str, key: &str) -> impl FnOnce(io::Error) -> KeepError {
        at(act, format!(r"HKEY_CURRENT_USER\{}", self.path(key)))
    }

    pub(super) fn name(&self, entry: &Entry) -> String {
        format!(r"HKEY_CURRENT_USER\{}\{}", self.path(RUN), entry.name())
    }

    /// `None`: the key or the value is not there.
    fn read<T>(&self, key: &str, get: impl FnOnce(&Key) -> io::Result<T>) -> Result<Option<T>, KeepError> {
        let read = CURRENT_USER.open(self.path(key)).map_err(io::Error::from).and_then(|key| get(&key));
        there(read).map_err(self.failed("read", key))
    }

    pub(super) fn is_enabled(&self, entry: &Entry) -> Result<bool, KeepError> {
        let name = entry.name();
        let set = self.read(RUN, |key| Ok(key.get_string(&name)?))?.is_some();
        let said = self.read(APPROVED, |key| Ok(key.get_value(&name)?))?;
        let refused = said.is_some_and(|said| said.first().is_some_and(|first| first & 1 == 1));
        Ok(set && !refused)
    }

    pub(super) fn enable(&self, entry: &Entry) -> Result<(), KeepError> {
        let command = entry.run()?;
        let set = CURRENT_USER.create(self.path(RUN)).and_then(|key| key.set_string(entry.name(), command));
        set.map_err(|error| self.failed("write", RUN)(error.into()))?;
        // Who says yes here has changed their mind.
        self.remove(APPROVED, entry)
    }

    pub(super) fn disable(&self, entry: &Entry) -> Result<(), KeepError> {
        self.remove(RUN, entry)?;
        self.remove(APPROVED, entry)
    }

    fn remove(&self, key: &str, entry: &Entry) -> Result<(), KeepError> {
        let open = CURRENT_USER.options().read().write().open(self.path(key));
        let removed = open.and_then(|key| key.remove_value(entry.name()));
        there(removed.map_err(io::Error::from)).map(drop).map_err(self.failed("write", key))
    }
}

fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    /// `HRESULT_FROM_WIN32(ERROR_FILE_NOT_FOUND)`, as these calls say it.
    const NOT_FOUND: i32 = 0x8007_0002_u32.cast_signed();
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_value_is_made_obeys_the_task_manager_and_is_taken_away_again() {
        let place = Place { root: r"Software\Slipway\Test\" };
        let _ = CURRENT_USER.remove_tree(r"Software\Slipway\Test");
        let entry = Entry::of("work", Path::new(r"C:\Slipway\slipway.exe"), None);
        assert!(!place.is_enabled(&entry).expect("asked"));
        place.disable(&entry).expect("nothing to do");
        place.enable(&entry).expect("made");
        assert!(place.is_enabled(&entry).expect("asked"));
        let run = CURRENT_USER.open(place.path(RUN)).expect("there");
        let command = run.get_string("slipway-work").expect("there");
        assert_eq!(command, r#""C:\Slipway\slipway.exe" start --detach --profile work"#);
        let approved = CURRENT_USER.create(place.path(APPROVED)).expect("made");
        approved.set_bytes("slipway-work", windows_registry::Type::Bytes, &[3, 0, 0, 0]).expect("written");
        assert!(!place.is_enabled(&entry).expect("asked"), "the person said no in the Task Manager");
        place.enable(&entry).expect("made");
        assert!(place.is_enabled(&entry).expect("asked"));
        place.disable(&entry).expect("taken away");
        assert!(!place.is_enabled(&entry).expect("asked"));
        CURRENT_USER.remove_tree(r"Software\Slipway\Test").expect("removed");
    }
}
