//! How things stand on the disk, with no link followed: a guest may put one in a folder's place at any moment, and is to hear
//! of no name outside of what is shared. What was opened is asked where it really is.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    mem::{offset_of, zeroed},
    os::windows::{ffi::OsStringExt, fs::OpenOptionsExt, io::AsRawHandle},
    path::{Path, PathBuf},
};

use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_HIDDEN, FILE_ATTRIBUTE_READONLY,
    FILE_ATTRIBUTE_REPARSE_POINT, FILE_ATTRIBUTE_SYSTEM, FILE_ATTRIBUTE_TAG_INFO, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_ID_BOTH_DIR_INFO, FILE_LIST_DIRECTORY, FILE_READ_ATTRIBUTES,
    FileAttributeTagInfo, FileIdBothDirectoryInfo, GetFileInformationByHandle, GetFileInformationByHandleEx,
    GetFinalPathNameByHandleW,
};

use super::tree::{Kind, State};

/// Of what a person sees; the rest the system sets by itself.
const ATTRIBUTES: u32 = FILE_ATTRIBUTE_READONLY | FILE_ATTRIBUTE_HIDDEN | FILE_ATTRIBUTE_SYSTEM;
/// Of the tags of reparse points, those that stand for something elsewhere. A folder in the cloud is a folder.
const SURROGATE: u32 = 0x2000_0000;
/// Numbers of 64 bits for names at once.
const ROOM: usize = 32 << 10 >> 3;

/// As the system takes it word for word, however long it is.
pub(super) fn verbatim(path: &Path) -> PathBuf {
    if path.as_os_str().as_encoded_bytes().starts_with(br"\\") {
        return path.to_owned();
    }
    let mut verbatim = OsString::from(r"\\?\");
    // With its own separators only: no other is one, word for word.
    verbatim.push(path.components().collect::<PathBuf>());
    verbatim.into()
}

/// Opens what is at `path` and nowhere else.
fn open(path: &Path, access: u32) -> Option<File> {
    let path = verbatim(path);
    let file = OpenOptions::new()
        .access_mode(access)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(&path)
        .ok()?;
    let mut real = vec![0_u16; path.as_os_str().len() + 2];
    // SAFETY: the handle is open, and the buffer of that length.
    let length = unsafe {
        GetFinalPathNameByHandleW(file.as_raw_handle(), real.as_mut_ptr(), u32::try_from(real.len()).ok()?, 0)
    };
    // What does not fit is no such path.
    let real = OsString::from_wide(real.get(..length as usize)?);
    same(&path, Path::new(&real)).then_some(file)
}

/// Letters are the same in either case, as for the system.
fn same(one: &Path, other: &Path) -> bool {
    let folded = |path: &Path| path.to_string_lossy().trim_end_matches('\\').to_lowercase();
    folded(one) == folded(other)
}

fn kind(attributes: u32, tag: impl FnOnce() -> u32) -> Kind {
    if attributes & FILE_ATTRIBUTE_REPARSE_POINT != 0 && tag() & SURROGATE != 0 {
        Kind::Other
    } else if attributes & FILE_ATTRIBUTE_DIRECTORY != 0 {
        Kind::Folder
    } else {
        Kind::File
    }
}

/// How what is at `path` stands; `None` when nothing is, or a link leads there.
pub(super) fn state(path: &Path) -> Option<State> {
    let file = open(path, FILE_READ_ATTRIBUTES)?;
    // SAFETY: numbers, for which zero is one.
    let mut found: BY_HANDLE_FILE_INFORMATION = unsafe { zeroed() };
    // SAFETY: the handle is open, and the structure is the one that the call fills.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut found) } == 0 {
        return None;
    }
    let two = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let time = found.ftLastWriteTime;
    Some(State {
        kind: kind(found.dwFileAttributes, || tag(&file)),
        id: two(found.nFileIndexHigh, found.nFileIndexLow),
        size: two(found.nFileSizeHigh, found.nFileSizeLow),
        changed: two(time.dwHighDateTime, time.dwLowDateTime).into(),
        attributes: [found.dwFileAttributes & ATTRIBUTES, 0, 0],
        // Not among what a folder says of its files, so nowhere.
        linked: false,
    })
}

fn tag(file: &File) -> u32 {
    let mut found = FILE_ATTRIBUTE_TAG_INFO { FileAttributes: 0, ReparseTag: 0 };
    // SAFETY: the handle is open, and the structure is the one that is asked for.
    let got = unsafe {
        GetFileInformationByHandleEx(
            file.as_raw_handle(),
            FileAttributeTagInfo,
            (&raw mut found).cast(),
            size_of::<FILE_ATTRIBUTE_TAG_INFO>() as u32,
        )
    };
    // One that does not say is not entered.
    if got == 0 { SURROGATE } else { found.ReparseTag }
}

/// What is in a folder. `None`: it is gone, or a link by now, or not ours to look into.
pub(super) fn list(folder: &Path) -> Option<Vec<(OsString, State)>> {
    let file = open(folder, FILE_LIST_DIRECTORY)?;
    let mut found = Vec::new();
    let mut buffer = vec![0_u64; ROOM];
    loop {
        // SAFETY: the handle is open, and the buffer aligned and of that length.
        let got = unsafe {
            GetFileInformationByHandleEx(
                file.as_raw_handle(),
                FileIdBothDirectoryInfo,
                buffer.as_mut_ptr().cast(),
                (ROOM * 8) as u32,
            )
        };
        // The end, or as far as it could be read.
        if got == 0 {
            return Some(found);
        }
        let bytes: Vec<u8> = buffer.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let mut rest = bytes.as_slice();
        while let (Some(entry), Some(next)) =
            (entry(rest), number(rest, offset_of!(FILE_ID_BOTH_DIR_INFO, NextEntryOffset)))
        {
            if entry.0 != "." && entry.0 != ".." {
                found.push(entry);
            }
            match rest.get(next as usize..) {
                Some(after) if next > 0 => rest = after,
                _ => break,
            }
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn entry(bytes: &[u8]) -> Option<(OsString, State)> {
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let attributes = number(bytes, offset_of!(FILE_ID_BOTH_DIR_INFO, FileAttributes))?;
    let length = number(bytes, offset_of!(FILE_ID_BOTH_DIR_INFO, FileNameLength))?;
    // Of a reparse point its tag is there.
    let tag = number(bytes, offset_of!(FILE_ID_BOTH_DIR_INFO, EaSize))?;
    let at = offset_of!(FILE_ID_BOTH_DIR_INFO, FileName);
    let name: Vec<u16> = bytes
        .get(at..at + length as usize)?
        .as_chunks()
        .0
        .iter()
        .map(|two| u16::from_ne_bytes(*two))
        .collect();
    let kind = kind(attributes, || tag);
    let size = long(offset_of!(FILE_ID_BOTH_DIR_INFO, EndOfFile))?;
    let state = State {
        kind,
        id: long(offset_of!(FILE_ID_BOTH_DIR_INFO, FileId))?,
        size,
        changed: long(offset_of!(FILE_ID_BOTH_DIR_INFO, LastWriteTime))?.into(),
        attributes: [attributes & ATTRIBUTES, 0, 0],
        linked: false,
    };
    Some((OsString::from_wide(&name), state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_says_of_a_file_what_the_file_says() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().canonicalize().expect("there");
        std::fs::write(root.join("file"), "text").expect("writes");
        std::fs::create_dir(root.join("folder")).expect("makes");
        let mut listed = list(&root).expect("listed");
        listed.sort_by(|one, other| one.0.cmp(&other.0));
        let names: Vec<_> = listed.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, ["file", "folder"]);
        for (name, found) in listed {
            let same = state(&root.join(&name)).expect("there");
            assert_eq!((found.kind, found.id, found.changed), (same.kind, same.id, same.changed), "{name:?}");
            if name == "file" {
                assert_eq!((found.size, same.size), (4, 4));
            }
        }
        assert_eq!(state(&root.join("missing")), None);
        assert!(list(&root.join("missing")).is_none());
    }
}
