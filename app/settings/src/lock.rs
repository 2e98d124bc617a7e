//! Locks of files, by which daemon and shim are known to live.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

/// Whether a living process holds the lock. Looking takes it for a moment, shared, so that lookers do not see each other; who
/// wants the shim's is a child of a daemon that answers, and then nobody looks.
#[must_use]
pub fn held(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    let looked = file.try_lock_shared();
    // Not by closing: a child that has not got to its exec yet has the descriptor, too.
    let _ = file.unlock();
    matches!(looked, Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_nobody_holds_means_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        let lock = dir.path().join("shim.lock");
        assert!(!held(&lock), "there is none");
        let file = File::create(&lock).expect("made");
        assert!(!held(&lock), "left by a dead process");
        file.try_lock().expect("locked");
        assert!(held(&lock));
        let unlocked = file.unlock();
        // Wine calls the standard library's second look an error.
        assert!(unlocked.is_ok() || cfg!(windows), "{unlocked:?}");
        assert!(!held(&lock), "let go");
    }
}
