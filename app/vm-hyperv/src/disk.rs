//! The data disk in Hyper-V's own format, a dynamic VHDX, made and grown by Windows itself (`virtdisk.dll`, a part of every Windows
//! 10 and 11): it alone may touch the tables of a disk that holds what a person keeps.
//!
//! ```text
//!   is it there? ─ no ──▶ can its file system hold one? ─▶ made beside (`….new.vhdx`) ─▶ renamed; a half one is never taken
//!        └─ yes ─▶ smaller than wanted? ─▶ grown        larger, or no disk at all: left as it is
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    ptr,
};

use windows_sys::Win32::{
    Foundation::{CloseHandle, HANDLE},
    Storage::{
        FileSystem::{GetVolumeInformationW, GetVolumePathNameW, MOVEFILE_WRITE_THROUGH, MoveFileExW},
        Vhd::{
            CREATE_VIRTUAL_DISK_FLAG_SUPPORT_COMPRESSED_VOLUMES, CREATE_VIRTUAL_DISK_PARAMETERS,
            CREATE_VIRTUAL_DISK_PARAMETERS_0, CREATE_VIRTUAL_DISK_PARAMETERS_0_1,
            CREATE_VIRTUAL_DISK_VERSION_2, GET_VIRTUAL_DISK_INFO, GET_VIRTUAL_DISK_INFO_SIZE,
            OPEN_VIRTUAL_DISK_PARAMETERS, OPEN_VIRTUAL_DISK_PARAMETERS_0, OPEN_VIRTUAL_DISK_PARAMETERS_0_1,
            OPEN_VIRTUAL_DISK_VERSION_2, RESIZE_VIRTUAL_DISK_PARAMETERS, RESIZE_VIRTUAL_DISK_PARAMETERS_0,
            RESIZE_VIRTUAL_DISK_PARAMETERS_0_0, RESIZE_VIRTUAL_DISK_VERSION_1, VIRTUAL_DISK_ACCESS_GET_INFO,
            VIRTUAL_DISK_ACCESS_METAOPS, VIRTUAL_DISK_ACCESS_NONE, VIRTUAL_STORAGE_TYPE,
            VIRTUAL_STORAGE_TYPE_DEVICE_VHDX, VIRTUAL_STORAGE_TYPE_VENDOR_MICROSOFT,
        },
    },
};

use crate::library::{self, LibraryError, calls, read, wide};

/// Sizes are whole ones of these.
const MEBIBYTE: u64 = 1 << 20;
/// The most that the format holds.
const LARGEST: u64 = 64 << 40;
/// Microsoft's own advice for Linux guests: with the usual 32 MiB a disk takes many times what its small files need.
const BLOCK: u32 = 1 << 20;
/// Of a file system's flags: files have access lists, by which the machine gets its disk (`FILE_PERSISTENT_ACLS`).
const ACCESS_LISTS: u32 = 8;
/// The file that a disk is to be is compressed, encrypted or sparse in itself (`ERROR_VIRTUAL_DISK_LIMITATION`).
const LIMITATION: u32 = 0xC03A_001A;

/// There is no disk, or it could not grow. One that is there was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Windows' part for virtual disks is missing.
    #[error("Windows' virtual disks are not available")]
    Library(#[from] LibraryError),
    /// FAT32 and exFAT cannot hold one.
    #[error("`{volume}` is a {file_system} file system, and Hyper-V needs NTFS or ReFS for its disks")]
    FileSystem {
        /// Its topmost folder.
        volume: String,
        /// Its name.
        file_system: String,
    },
    /// More than the format holds.
    #[error("a disk of Hyper-V's holds 64 TiB at most")]
    TooLarge,
    /// The folder's attributes go over to the files in it.
    #[error("`{0}` cannot be a disk of Hyper-V's where files are encrypted or compressed")]
    Limitation(PathBuf),
    /// A call said no.
    #[error("`{call}` failed for `{path}`")]
    Failed {
        /// The function.
        call: &'static str,
        /// Of which file.
        path: PathBuf,
        /// Windows' reason.
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    /// Whether the computer's disk has no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

calls! {
    CreateVirtualDisk: fn(
        *const VIRTUAL_STORAGE_TYPE, *const u16, i32, *const u8, i32, u32, *const CREATE_VIRTUAL_DISK_PARAMETERS, *const u8, *mut HANDLE,
    ) -> u32;
    OpenVirtualDisk: fn(*const VIRTUAL_STORAGE_TYPE, *const u16, i32, i32, *const OPEN_VIRTUAL_DISK_PARAMETERS, *mut HANDLE) -> u32;
    ResizeVirtualDisk: fn(HANDLE, i32, *const RESIZE_VIRTUAL_DISK_PARAMETERS, *const u8) -> u32;
    GetVirtualDiskInformation: fn(HANDLE, *mut u32, *mut GET_VIRTUAL_DISK_INFO, *mut u32) -> u32;
}

static VHDX: VIRTUAL_STORAGE_TYPE = VIRTUAL_STORAGE_TYPE {
    DeviceId: VIRTUAL_STORAGE_TYPE_DEVICE_VHDX,
    VendorId: VIRTUAL_STORAGE_TYPE_VENDOR_MICROSOFT,
};

/// Makes the disk where there is none, or larger where it is smaller than `bytes`. It takes room only as it is written to.
///
/// # Errors
/// [`DiskError`]; whatever was there is as it was.
pub fn prepare(path: &Path, bytes: u64) -> Result<(), DiskError> {
    let bytes = bytes.div_ceil(MEBIBYTE).saturating_mul(MEBIBYTE);
    if bytes > LARGEST {
        return Err(DiskError::TooLarge);
    }
    let windows = Virtdisk::load(None)?;
    match path.symlink_metadata() {
        Ok(_) => windows.grow(path, bytes),
        Err(source) if source.kind() == io::ErrorKind::NotFound => windows.make(path, bytes),
        Err(source) => Err(failed("GetFileAttributes", path, source)),
    }
}

/// What the disk may hold at most; also while a machine has it.
///
/// # Errors
/// [`DiskError`].
pub fn size(path: &Path) -> Result<u64, DiskError> {
    let windows = Virtdisk::load(None)?;
    let only_info = OPEN_VIRTUAL_DISK_PARAMETERS {
        Version: OPEN_VIRTUAL_DISK_VERSION_2,
        Anonymous: OPEN_VIRTUAL_DISK_PARAMETERS_0 {
            Version2: OPEN_VIRTUAL_DISK_PARAMETERS_0_1 { GetInfoOnly: 1, ..Default::default() },
        },
    };
    windows.size(&windows.open(path, VIRTUAL_DISK_ACCESS_NONE, Some(&only_info))?, path)
}

struct Virtdisk(Calls);

/// An open disk.
struct Open(HANDLE);

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and this is its last use.
        unsafe { CloseHandle(self.0) };
    }
}

impl Virtdisk {
    fn load(dll: Option<&Path>) -> Result<Self, LibraryError> {
        Calls::look_up(library::load(dll, "virtdisk.dll")?).map(Self)
    }

    fn make(&self, path: &Path, bytes: u64) -> Result<(), DiskError> {
        let aside = path.with_extension("new.vhdx");
        can_hold_one(path)?;
        match std::fs::remove_file(&aside) {
            Ok(()) => {}
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("DeleteFile", &aside, source)),
        }
        let synced = || std::fs::File::options().write(true).open(&aside).and_then(|file| file.sync_all());
        let made = self
            .create(&aside, bytes)
            .and_then(|()| synced().map_err(|source| failed("FlushFileBuffers", &aside, source)))
            .and_then(|()| rename(&aside, path));
        if made.is_err() {
            // What is left of it has nothing in it.
            let _ = std::fs::remove_file(&aside);
        }
        made
    }

    fn create(&self, path: &Path, bytes: u64) -> Result<(), DiskError> {
        let parameters = CREATE_VIRTUAL_DISK_PARAMETERS {
            Version: CREATE_VIRTUAL_DISK_VERSION_2,
            Anonymous: CREATE_VIRTUAL_DISK_PARAMETERS_0 {
                Version2: CREATE_VIRTUAL_DISK_PARAMETERS_0_1 {
                    MaximumSize: bytes,
                    BlockSizeInBytes: BLOCK,
                    ..Default::default()
                },
            },
        };
        let (name, mut handle) = (wide(path), ptr::null_mut());
        // SAFETY: the name ends with a zero, the parameters are those of their version, nothing is overlapped, and the handle is filled on
        // success. The file belongs to this user, as any that the user makes.
        let code = unsafe {
            (self.0.CreateVirtualDisk)(
                &raw const VHDX,
                name.as_ptr(),
                VIRTUAL_DISK_ACCESS_NONE,
                ptr::null(),
                CREATE_VIRTUAL_DISK_FLAG_SUPPORT_COMPRESSED_VOLUMES,
                0,
                &raw const parameters,
                ptr::null(),
                &raw mut handle,
            )
        };
        done("CreateVirtualDisk", path, code).map(|()| drop(Open(handle)))
    }

    fn grow(&self, path: &Path, bytes: u64) -> Result<(), DiskError> {
        let disk = self.open(path, VIRTUAL_DISK_ACCESS_GET_INFO | VIRTUAL_DISK_ACCESS_METAOPS, None)?;
        if self.size(&disk, path)? >= bytes {
            return Ok(());
        }
        let parameters = RESIZE_VIRTUAL_DISK_PARAMETERS {
            Version: RESIZE_VIRTUAL_DISK_VERSION_1,
            Anonymous: RESIZE_VIRTUAL_DISK_PARAMETERS_0 {
                Version1: RESIZE_VIRTUAL_DISK_PARAMETERS_0_0 { NewSize: bytes },
            },
        };
        // Without the flag that would let it lose something.
        // SAFETY: the handle is open, the parameters are those of their version, and nothing is overlapped.
        let code = unsafe { (self.0.ResizeVirtualDisk)(disk.0, 0, &raw const parameters, ptr::null()) };
        done("ResizeVirtualDisk", path, code)
    }

    fn open(
        &self,
        path: &Path,
        access: i32,
        parameters: Option<&OPEN_VIRTUAL_DISK_PARAMETERS>,
    ) -> Result<Open, DiskError> {
        let (name, mut handle) = (wide(path), ptr::null_mut());
        let parameters = parameters.map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the name ends with a zero, the parameters are those of their version or none, and the handle is filled on success.
        let code = unsafe {
            (self.0.OpenVirtualDisk)(&raw const VHDX, name.as_ptr(), access, 0, parameters, &raw mut handle)
        };
        done("OpenVirtualDisk", path, code).map(|()| Open(handle))
    }

    fn size(&self, disk: &Open, path: &Path) -> Result<u64, DiskError> {
        let mut info = GET_VIRTUAL_DISK_INFO { Version: GET_VIRTUAL_DISK_INFO_SIZE, ..Default::default() };
        let mut length = size_of::<GET_VIRTUAL_DISK_INFO>() as u32;
        // SAFETY: the handle is open, and the structure is as long as is said.
        let code = unsafe {
            (self.0.GetVirtualDiskInformation)(disk.0, &raw mut length, &raw mut info, ptr::null_mut())
        };
        done("GetVirtualDiskInformation", path, code)?;
        // SAFETY: the version that was asked for fills this part of the union.
        Ok(unsafe { info.Anonymous.Size.VirtualSize })
    }
}

fn failed(call: &'static str, path: &Path, source: io::Error) -> DiskError {
    DiskError::Failed { call, path: path.to_owned(), source }
}

fn done(call: &'static str, path: &Path, code: u32) -> Result<(), DiskError> {
    match code {
        0 => Ok(()),
        LIMITATION => Err(DiskError::Limitation(path.to_owned())),
        code => Err(failed(call, path, io::Error::from_raw_os_error(code.cast_signed()))),
    }
}

/// Gives the finished disk its name, which must be free: unlike the standard library's, this replaces nothing.
fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    let (old, new) = (wide(from), wide(to));
    // SAFETY: both names end with a zero.
    let moved = unsafe { MoveFileExW(old.as_ptr(), new.as_ptr(), MOVEFILE_WRITE_THROUGH) };
    if moved == 0 { Err(failed("MoveFileEx", to, io::Error::last_os_error())) } else { Ok(()) }
}

/// Refuses a file system on which Windows would make the disk and then not attach it.
fn can_hold_one(path: &Path) -> Result<(), DiskError> {
    let name = wide(path);
    let (mut volume, mut kind, mut flags) = ([0u16; 512], [0u16; 64], 0);
    // SAFETY: the name ends with a zero, and the buffer is as long as is said.
    let found = unsafe { GetVolumePathNameW(name.as_ptr(), volume.as_mut_ptr(), volume.len() as u32) };
    if found == 0 {
        return Err(failed("GetVolumePathName", path, io::Error::last_os_error()));
    }
    // SAFETY: the volume's name ends with a zero, the buffer is as long as is said, and nothing is written where there is none.
    let told = unsafe {
        GetVolumeInformationW(
            volume.as_ptr(),
            ptr::null_mut(),
            0,
            ptr::null_mut(),
            ptr::null_mut(),
            &raw mut flags,
            kind.as_mut_ptr(),
            kind.len() as u32,
        )
    };
    if told == 0 {
        return Err(failed("GetVolumeInformation", path, io::Error::last_os_error()));
    }
    suits(&read(volume.as_ptr()), &read(kind.as_ptr()), flags)
}

fn suits(volume: &str, file_system: &str, flags: u32) -> Result<(), DiskError> {
    if flags & ACCESS_LISTS != 0 {
        return Ok(());
    }
    Err(DiskError::FileSystem { volume: volume.to_owned(), file_system: file_system.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_windows_without_the_library_says_so() {
        let error = Virtdisk::load(Some(Path::new(r"C:\no\virtdisk.dll"))).err().expect("there is none");
        assert!(
            matches!(&error, LibraryError::Absent { dll, .. } if dll.ends_with("virtdisk.dll")),
            "{error}"
        );
    }

    #[test]
    fn a_file_system_without_access_lists_is_refused_by_its_name() {
        assert!(suits(r"C:\", "NTFS", 0x03E7_06FF).is_ok());
        for name in ["FAT32", "exFAT"] {
            let error = suits(r"E:\", name, 0x0002_0006).expect_err("refused").to_string();
            assert!(error.contains(name) && error.contains(r"`E:\`") && error.contains("NTFS"), "{error}");
        }
    }
}
