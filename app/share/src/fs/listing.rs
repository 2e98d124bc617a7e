//! Folders that are listed. The guest's kernel is told once that none need be opened, and asks for that no more: a listing
//! that it remembers costs no request then, instead of two. What is open of a folder is ours to keep, therefore.
//!
//! ```text
//!   READDIR ─▶ a stream of this folder? ── no ──▶ open one ─▶ read ── more ──▶ keep it, newest last
//!                                    └─ yes: taken ────────────┘    └─ end ───▶ close it
//! ```
//!
//! That the kernel then remembers every listing is sound for one reason: it looks at the folder's time of change before it
//! believes one, and that is as fresh as attributes are. For two changes within one tick of the host's clock it is not; see
//! [`Inner::settle`].

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use virtiofsd::{
    filesystem::{Context, FileSystem},
    read_dir::ReadDir,
};

use super::{Export, Inner, context, nobody, room};

/// Streams that are kept: whoever stops in the middle of a folder never says so.
pub(super) const STREAMS: usize = 32;
/// The longest that a host's clock, by which files get their times, stands still: one of 100 ticks a second.
const TICK: Duration = Duration::from_millis(10);

/// A folder that is open, somewhere in its middle. On file systems that have no lasting positions only the stream itself
/// knows which entries it has given, while others are removed.
struct Stream {
    /// Of the export.
    number: u64,
    inode: u64,
    handle: u64,
}

/// The streams that no request is using, the newest last.
#[derive(Default)]
pub(super) struct Streams(Mutex<Vec<Stream>>);

impl Streams {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, number: u64, inode: u64) -> Option<u64> {
        let mut streams = self.lock();
        let at = streams.iter().rposition(|s| (s.number, s.inode) == (number, inode))?;
        Some(streams.remove(at).handle)
    }

    /// Keeps it, and gives back the one that has waited longest when they are too many.
    fn keep(&self, stream: Stream) -> Option<Stream> {
        let mut streams = self.lock();
        streams.push(stream);
        (streams.len() > STREAMS).then(|| streams.remove(0))
    }

    /// Drops those of exports that are gone, and their handles with them: `stays` gets an export's number.
    pub(super) fn retain(&self, stays: impl Fn(u64) -> bool) {
        self.lock().retain(|stream| stays(stream.number));
    }
}

impl Inner {
    /// Entries of a folder of the host's from `offset` on, at most `size` bytes of them.
    pub(super) fn list(
        &self,
        ctx: Context,
        export: &Export,
        inode: u64,
        size: u32,
        offset: u64,
    ) -> io::Result<ReadDir<Vec<u8>>> {
        if offset == 0 {
            self.settle(export, inode)?;
        }
        let handle = match self.streams.take(export.number, inode) {
            Some(handle) => handle,
            None => self.open_folder(ctx, export, inode)?,
        };
        let listed = export.fs.readdir(nobody(ctx), inode, handle, size, offset);
        let stream = Stream { number: export.number, inode, handle };
        let over = match listed.as_ref() {
            Ok(entries) if entries.remaining() > 0 => self.streams.keep(stream),
            _ => Some(stream),
        };
        if let Some(over) = over {
            self.close(export, over);
        }
        listed
    }

    /// Has the folder's names reach the disk.
    pub(super) fn sync_folder(
        &self,
        ctx: Context,
        export: &Export,
        inode: u64,
        datasync: bool,
    ) -> io::Result<()> {
        let handle = self.open_folder(ctx, export, inode)?;
        let synced = export.fs.fsyncdir(nobody(ctx), inode, datasync, handle);
        self.close(export, Stream { number: export.number, inode, handle });
        synced
    }

    fn open_folder(&self, ctx: Context, export: &Export, inode: u64) -> io::Result<u64> {
        let (handle, _) = self.lending(export, inode, || export.fs.opendir(nobody(ctx), inode, 0))?;
        handle.ok_or_else(|| super::errno(libc::EBADF))
    }

    /// Closes a stream that was used for `export`, or one of another export if that is still there.
    fn close(&self, export: &Export, stream: Stream) {
        let release = |export: &Export| export.fs.releasedir(context(), stream.inode, 0, stream.handle);
        // Who closes a folder cannot do anything about a failure, and nothing was written.
        let _ = if stream.number == export.number {
            release(export)
        } else {
            super::read(&self.exports).get(&stream.number).map_or(Ok(()), |export| release(export))
        };
    }

    /// Of a folder that nobody watches the guest sees that it changed by its time alone. One that has just changed may do so
    /// again within the same tick of the clock, which nobody could see before Linux 6.13: it is listed in the next one.
    ///
    /// # Errors
    /// `EAGAIN`, which nobody sees, where this thread must not wait.
    fn settle(&self, export: &Export, inode: u64) -> io::Result<()> {
        if self.vouched(export, inode) {
            return Ok(());
        }
        let (attr, _) = export.fs.getattr(context(), inode, None)?;
        let changed = Duration::new(attr.mtime, attr.mtimensec.min(999_999_999));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // A time in the future is not of this clock.
        let Some(left) = now.checked_sub(changed).and_then(|age| TICK.checked_sub(age)) else {
            return Ok(());
        };
        if !room::may_wait() {
            return Err(super::errno(libc::EAGAIN));
        }
        room::rest(left);
        Ok(())
    }
}
