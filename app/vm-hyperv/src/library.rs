//! Libraries of Windows that are looked up when they are first needed: a program that imported them would not start on a Windows
//! without Hyper-V.

use std::{
    ffi::OsStr,
    os::windows::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use libloading::os::windows::{LOAD_LIBRARY_SEARCH_SYSTEM32, Library};

/// A library does not have what is needed.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It is not there; what it is a part of is not, or not switched on.
    #[error("this Windows has no `{dll}` that can be loaded")]
    Absent {
        /// The library.
        dll: PathBuf,
        /// Windows' reason.
        #[source]
        source: libloading::Error,
    },
    /// A Windows that is older than the call.
    #[error("this Windows is too old: it has no `{call}`")]
    TooOld {
        /// The function.
        call: &'static str,
        /// Windows' reason.
        #[source]
        source: libloading::Error,
    },
}

/// Loads `dll`, or the system's `own`.
pub(crate) fn load(dll: Option<&Path>, own: &str) -> Result<Library, LibraryError> {
    let (path, flags) = match dll {
        Some(path) => (path, 0),
        // Nowhere else: not from the folder that the program happens to be started in.
        None => (Path::new(own), LOAD_LIBRARY_SEARCH_SYSTEM32),
    };
    // SAFETY: what loading the library of the system runs is the system's.
    let library = unsafe { Library::load_with_flags(path, flags) };
    library.map_err(|source| LibraryError::Absent { dll: path.to_owned(), source })
}

/// The functions of a library by their names in Windows' documentation, as `Calls`.
macro_rules! calls {
    ($($name:ident: fn($($arg:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        #[allow(non_snake_case)]
        struct Calls {
            $($name: unsafe extern "system" fn($($arg),*) $(-> $ret)?,)*
            _library: libloading::os::windows::Library,
        }

        impl Calls {
            fn look_up(library: libloading::os::windows::Library) -> Result<Self, $crate::library::LibraryError> {
                Ok(Self {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        // SAFETY: the type is the one that Windows' header declares for this name.
                        let symbol = unsafe { library.get(name.as_bytes()) };
                        *symbol.map_err(|source| $crate::library::LibraryError::TooOld {
                            call: stringify!($name),
                            source,
                        })?
                    },)*
                    _library: library,
                })
            }
        }
    };
}
pub(crate) use calls;

/// Text as Windows takes it.
pub(crate) fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// The text at a pointer that may be null.
pub(crate) fn read(text: *const u16) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: what Windows gives ends with a zero.
    let length = (0..).take_while(|at| unsafe { *text.add(*at) } != 0).count();
    // SAFETY: as many words as were just read.
    String::from_utf16_lossy(unsafe { std::slice::from_raw_parts(text, length) })
}
