//! Windows: asked of the folder, because a disk may be mounted in one, and this user may have a quota.
#![allow(unsafe_code)] // The standard library does not ask it.

use std::{io, os::windows::ffi::OsStrExt, path::Path, ptr};

use windows_sys::Win32::Storage::FileSystem::{
    GetCompressedFileSizeW, GetDiskFreeSpaceExW, INVALID_FILE_SIZE,
};

pub(super) fn free(path: &Path) -> io::Result<u64> {
    // A file has none, its folder has.
    let dir = if std::fs::metadata(path)?.is_dir() { path } else { path.parent().unwrap_or(path) };
    let wide = wide(dir);
    let mut free = 0;
    // SAFETY: the name ends with a zero; the call writes one number, and nothing where no place is given.
    let asked =
        unsafe { GetDiskFreeSpaceExW(wide.as_ptr(), &raw mut free, ptr::null_mut(), ptr::null_mut()) };
    if asked == 0 { Err(io::Error::last_os_error()) } else { Ok(free) }
}

pub(super) fn taken(file: &Path) -> io::Result<u64> {
    // First, because the call's own answer for one that is not there is also a size.
    std::fs::metadata(file)?;
    let (wide, mut high) = (wide(file), 0);
    // SAFETY: the name ends with a zero; the call writes the one number.
    let low = unsafe { GetCompressedFileSizeW(wide.as_ptr(), &raw mut high) };
    let error = io::Error::last_os_error();
    if low == INVALID_FILE_SIZE && high == 0 {
        Err(error)
    } else {
        Ok(u64::from(high) << 32 | u64::from(low))
    }
}

fn wide(path: &Path) -> Vec<u16> {
    path.as_os_str().encode_wide().chain([0]).collect()
}
