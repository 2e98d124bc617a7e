//! ReadDirectoryChangesW. Not by the `notify` crate, which says nothing when the system lost changes, and of some errors only
//! watches no more.

#[cfg(windows)]
pub(super) use windows::begin;

/// What the system says of one name.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    action: u32,
    /// Below the watched folder.
    name: Vec<u16>,
}

/// What the system wrote: offset of the next one, action, length of the name, name. Wine leaves no gaps between them.
fn records(mut bytes: &[u8]) -> Vec<Record> {
    let mut found = Vec::new();
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes)
    };
    while let (Some(next), Some(action), Some(length)) =
        (number(bytes, 0), number(bytes, 4), number(bytes, 8))
    {
        let Some(name) = bytes.get(12..12 + length as usize) else { break };
        let name = name.as_chunks().0.iter().map(|two| u16::from_ne_bytes(*two)).collect();
        found.push(Record { action, name });
        match bytes.get(next as usize..) {
            Some(rest) if next > 0 => bytes = rest,
            _ => break,
        }
    }
    found
}

#[cfg(windows)]
mod windows {
    use std::{
        any::Any,
        ffi::OsString,
        io,
        os::windows::{
            ffi::OsStringExt,
            fs::OpenOptionsExt,
            io::{AsRawHandle, FromRawHandle, OwnedHandle},
        },
        path::{Path, PathBuf},
        sync::{Arc, mpsc::channel},
        thread::JoinHandle,
    };

    use windows_sys::Win32::{
        Foundation::{ERROR_IO_PENDING, ERROR_NOTIFY_ENUM_DIR, HANDLE, WAIT_OBJECT_0},
        Storage::FileSystem::{
            FILE_ACTION_RENAMED_NEW_NAME, FILE_ACTION_RENAMED_OLD_NAME, FILE_FLAG_BACKUP_SEMANTICS,
            FILE_FLAG_OVERLAPPED, FILE_LIST_DIRECTORY, FILE_NOTIFY_CHANGE_ATTRIBUTES,
            FILE_NOTIFY_CHANGE_DIR_NAME, FILE_NOTIFY_CHANGE_FILE_NAME, FILE_NOTIFY_CHANGE_LAST_WRITE,
            FILE_NOTIFY_CHANGE_SIZE, ReadDirectoryChangesW,
        },
        System::{
            IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED},
            Threading::{CreateEventW, INFINITE, SetEvent, WaitForMultipleObjects},
        },
    };

    use super::records;
    use crate::host_watch::{Hints, look, tree::Hint};

    /// Numbers of 32 bits that the system has for what happened since it was asked last. More is lost, and it says so.
    const ROOM: usize = 64 << 10 >> 2;
    const WHAT: u32 = FILE_NOTIFY_CHANGE_FILE_NAME
        | FILE_NOTIFY_CHANGE_DIR_NAME
        | FILE_NOTIFY_CHANGE_ATTRIBUTES
        | FILE_NOTIFY_CHANGE_SIZE
        | FILE_NOTIFY_CHANGE_LAST_WRITE;

    /// The thread that asks the system; it ends with this.
    struct Watch {
        stop: Arc<Event>,
        thread: Option<JoinHandle<()>>,
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            self.stop.set();
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    /// See [`super::super::Begin`].
    pub(in super::super) fn begin(
        folder: &Path,
        below: bool,
        hints: Hints,
    ) -> Result<Box<dyn Any + Send>, String> {
        begin_with(folder, below, hints, ROOM)
    }

    pub(super) fn begin_with(
        folder: &Path,
        below: bool,
        hints: Hints,
        room: usize,
    ) -> Result<Box<dyn Any + Send>, String> {
        let said = |error: io::Error| error.to_string();
        let opened = std::fs::OpenOptions::new()
            .access_mode(FILE_LIST_DIRECTORY)
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OVERLAPPED)
            .open(look::verbatim(folder))
            .map_err(said)?;
        let stop = Arc::new(Event::new().map_err(said)?);
        let done = Event::new().map_err(said)?;
        let mut changes = Changes {
            handle: opened.into(),
            folder: folder.to_owned(),
            below,
            buffer: vec![0; room],
            overlapped: Box::default(),
            done,
            stop: Arc::clone(&stop),
            under_way: false,
        };
        let (tell, asked) = channel();
        // What a thread has asked for ends with it, so this one asks itself.
        let run = move || {
            let first = changes.ask();
            let works = first.is_ok();
            if tell.send(first).is_ok() && works {
                changes.run(&hints);
            }
        };
        let thread = std::thread::Builder::new().name("changes".into()).spawn(run).map_err(said)?;
        let watch = Watch { stop, thread: Some(thread) };
        // From here on the system keeps what happens.
        match asked.recv() {
            Ok(first) => first.map_err(said).map(|()| Box::new(watch) as Box<dyn Any + Send>),
            Err(_) => Err("the thread that watches has ended".into()),
        }
    }

    struct Event(OwnedHandle);

    impl Event {
        fn new() -> io::Result<Self> {
            // SAFETY: no pointers; set by hand, not set yet.
            let handle = unsafe { CreateEventW(std::ptr::null(), 1, 0, std::ptr::null()) };
            if handle.is_null() {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: it was just made, and is nobody else's.
            Ok(Self(unsafe { OwnedHandle::from_raw_handle(handle) }))
        }

        fn handle(&self) -> HANDLE {
            self.0.as_raw_handle()
        }

        fn set(&self) {
            // SAFETY: an event that is open.
            unsafe { SetEvent(self.handle()) };
        }
    }

    struct Changes {
        handle: OwnedHandle,
        folder: PathBuf,
        below: bool,
        /// Numbers, because the system wants it aligned. It and `overlapped` are the system's from `ask` until `answer`.
        buffer: Vec<u32>,
        overlapped: Box<OVERLAPPED>,
        done: Event,
        stop: Arc<Event>,
        under_way: bool,
    }

    // SAFETY: what keeps it from being sent is the structure's pointers, which are null and a handle: neither is a thread's.
    unsafe impl Send for Changes {}

    impl Changes {
        fn ask(&mut self) -> io::Result<()> {
            *self.overlapped = OVERLAPPED { hEvent: self.done.handle(), ..OVERLAPPED::default() };
            let length = u32::try_from(self.buffer.len() * 4).map_err(io::Error::other)?;
            // SAFETY: the buffer is of that length; it and the structure stay where they are, untouched, until the answer: both are
            // on the heap, and `drop` waits for one.
            let asked = unsafe {
                ReadDirectoryChangesW(
                    self.handle.as_raw_handle(),
                    self.buffer.as_mut_ptr().cast(),
                    length,
                    i32::from(self.below),
                    WHAT,
                    std::ptr::null_mut(),
                    &raw mut *self.overlapped,
                    None,
                )
            };
            let error = io::Error::last_os_error();
            self.under_way = asked != 0 || error.raw_os_error() == Some(ERROR_IO_PENDING as i32);
            if self.under_way { Ok(()) } else { Err(error) }
        }

        /// Bytes that the system wrote, once it is done.
        fn answer(&mut self) -> io::Result<usize> {
            let mut length = 0;
            // SAFETY: both are open, and the structure is that of the call that is under way or over.
            let got = unsafe {
                GetOverlappedResult(
                    self.handle.as_raw_handle(),
                    &raw const *self.overlapped,
                    &raw mut length,
                    1,
                )
            };
            let answer = if got == 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) };
            self.under_way = false;
            answer
        }

        fn run(mut self, hints: &Hints) {
            // The first half of a rename, whose other half is always the next.
            let mut from = None;
            loop {
                let events = [self.stop.handle(), self.done.handle()];
                // SAFETY: two events that are open as long as this.
                let woken = unsafe { WaitForMultipleObjects(2, events.as_ptr(), 0, INFINITE) };
                if woken != WAIT_OBJECT_0 + 1 {
                    return;
                }
                let hint = match self.answer() {
                    // Nothing was written because there was no room for it.
                    Ok(0) => Some(Hint::Lost),
                    Ok(length) => {
                        self.read(length, &mut from, hints);
                        None
                    }
                    Err(error) if error.raw_os_error() == Some(ERROR_NOTIFY_ENUM_DIR as i32) => {
                        Some(Hint::Lost)
                    }
                    Err(error) => {
                        hints.give(Hint::Ended(error.to_string()));
                        return;
                    }
                };
                if let Some(hint) = hint {
                    from = None;
                    hints.give(hint);
                }
                if let Err(error) = self.ask() {
                    hints.give(Hint::Ended(error.to_string()));
                    return;
                }
            }
        }

        fn read(&self, length: usize, from: &mut Option<PathBuf>, hints: &Hints) {
            let bytes: Vec<u8> =
                self.buffer.iter().flat_map(|number| number.to_ne_bytes()).take(length).collect();
            for record in records(&bytes) {
                let path = self.folder.join(OsString::from_wide(&record.name));
                if record.action == FILE_ACTION_RENAMED_OLD_NAME {
                    *from = Some(path);
                    continue;
                }
                let hint = match from.take() {
                    Some(from) if record.action == FILE_ACTION_RENAMED_NEW_NAME => {
                        Hint::Moved { from, to: path }
                    }
                    half => {
                        if let Some(path) = half {
                            hints.give(Hint::Look { path, renamed: true });
                        }
                        let renamed = record.action == FILE_ACTION_RENAMED_NEW_NAME;
                        Hint::Look { path, renamed }
                    }
                };
                hints.give(hint);
            }
        }
    }

    impl Drop for Changes {
        fn drop(&mut self) {
            if !self.under_way {
                return;
            }
            // SAFETY: the handle is open, and the structure is of the call that is under way.
            unsafe { CancelIoEx(self.handle.as_raw_handle(), &raw const *self.overlapped) };
            // Until then the system may write to what is about to be freed.
            let _ = self.answer();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(records: &[(u32, &str)], gap: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, (action, name)) in records.iter().enumerate() {
            let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_ne_bytes).collect();
            let next = if at + 1 == records.len() { 0 } else { 12 + name.len() + gap };
            for number in [next as u32, *action, name.len() as u32] {
                bytes.extend_from_slice(&number.to_ne_bytes());
            }
            bytes.extend_from_slice(&name);
            bytes.extend(std::iter::repeat_n(0xff, gap));
        }
        bytes
    }

    #[test]
    fn records_are_read_with_gaps_and_without_and_never_beyond_their_end() {
        for gap in [0, 2] {
            let all = written(&[(1, r"a\ü"), (3, "b")], gap);
            let name = |text: &str| text.encode_utf16().collect::<Vec<_>>();
            let expected = [Record { action: 1, name: name(r"a\ü") }, Record { action: 3, name: name("b") }];
            assert_eq!(records(&all), expected);
            for cut in 0..all.len() {
                assert!(records(&all[..cut]).len() <= 2);
            }
        }
        assert_eq!(records(&[]), []);
        assert_eq!(records(&[0xff; 64]), [], "a length that leads outside");
    }

    /// No room for what happens, as when somebody unpacks an archive: under Wine and on Windows the system says so.
    #[cfg(windows)]
    #[test]
    fn what_the_system_has_no_room_for_is_told_as_lost() {
        use std::sync::{Arc, atomic::AtomicBool, mpsc::sync_channel};

        use crate::host_watch::{Hints, Message, tree::Hint};

        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().canonicalize().expect("there");
        let (to, hints) = sync_channel(1 << 10);
        let given = Hints { root: 1, full: Arc::new(AtomicBool::new(false)), to };
        let watch = windows::begin_with(&root, true, given, 8).expect("watched");
        let names = ["a name that is longer than the buffer", "b", "c"];
        names.iter().for_each(|name| drop(std::fs::write(root.join(name), "x")));
        let mut lost = false;
        while !lost {
            let message = hints.recv_timeout(std::time::Duration::from_secs(10)).expect("told in time");
            lost = matches!(message, Message::Hint(1, Hint::Lost));
        }
        drop(watch);
    }
}
