//! The few system calls that this program makes. Numbers and structures: Linux's `asm/unistd_64.h`, `asm-generic/unistd.h`,
//! `linux/socket.h` and `linux/un.h`.

use core::{
    arch::asm,
    ffi::{CStr, c_char},
    mem::{MaybeUninit, size_of},
};

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const READ: usize = 0;
    pub(super) const CLOSE: usize = 3;
    pub(super) const WRITEV: usize = 20;
    pub(super) const SOCKET: usize = 41;
    pub(super) const CONNECT: usize = 42;
    pub(super) const SENDMSG: usize = 46;
    pub(super) const SETSOCKOPT: usize = 54;
    pub(super) const GETSOCKOPT: usize = 55;
    pub(super) const EXECVE: usize = 59;
    pub(super) const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const READ: usize = 63;
    pub(super) const CLOSE: usize = 57;
    pub(super) const WRITEV: usize = 66;
    pub(super) const SOCKET: usize = 198;
    pub(super) const CONNECT: usize = 203;
    pub(super) const SENDMSG: usize = 211;
    pub(super) const SETSOCKOPT: usize = 208;
    pub(super) const GETSOCKOPT: usize = 209;
    pub(super) const EXECVE: usize = 221;
    pub(super) const EXIT_GROUP: usize = 94;
}

const AF_UNIX: u16 = 1;
const SOCK_STREAM: usize = 1;
const SOCK_CLOEXEC: usize = 0o2_000_000;
const SOL_SOCKET: usize = 1;
const SO_RCVTIMEO: usize = 20;
const SO_NETNS_COOKIE: usize = 71;
const MSG_NOSIGNAL: usize = 0x4000;
const EINTR: isize = -4;

/// One system call; what the kernel returns, an error as its negative number.
///
/// # Safety
/// What the call reads and writes through its arguments must be there, as its manual says.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, [a, b, c, d, e]: [usize; 5]) -> isize {
    let returned;
    // SAFETY: the caller's for the memory; the kernel changes no registers but these three.
    unsafe {
        asm!("syscall", inlateout("rax") number => returned, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    returned
}

/// One system call; what the kernel returns, an error as its negative number.
///
/// # Safety
/// What the call reads and writes through its arguments must be there, as its manual says.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, [a, b, c, d, e]: [usize; 5]) -> isize {
    let returned;
    // SAFETY: the caller's for the memory; the kernel changes no register but the first.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => returned, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack));
    }
    returned
}

/// `struct iovec`.
#[repr(C)]
struct Part<'a> {
    bytes: *const u8,
    length: usize,
    of: core::marker::PhantomData<&'a [u8]>,
}

impl<'a> Part<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.as_ptr(), length: bytes.len(), of: core::marker::PhantomData }
    }
}

/// `struct msghdr`, of which only the parts are used.
#[repr(C)]
struct Message<'a> {
    name: usize,
    name_length: u32,
    parts: *const Part<'a>,
    part_count: usize,
    control: usize,
    control_length: usize,
    flags: u32,
}

/// `struct sockaddr_un`.
#[repr(C)]
struct Address {
    family: u16,
    path: [MaybeUninit<u8>; 108],
}

/// A stream socket of the family unix. Every `None` is an error of the kernel's that nobody asks for: the real program is the
/// answer to all of them.
pub(super) struct Socket(usize);

impl Socket {
    pub(super) fn open() -> Option<Self> {
        // SAFETY: takes no pointers.
        let returned = unsafe { call(number::SOCKET, [AF_UNIX.into(), SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0]) };
        usize::try_from(returned).ok().map(Self)
    }

    pub(super) fn network(&self) -> Option<u64> {
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as u32;
        let (at, length_at) = (&raw mut cookie as usize, &raw mut length as usize);
        // SAFETY: at most `length` bytes are written to `cookie`, which has them, and four to `length`.
        let returned =
            unsafe { call(number::GETSOCKOPT, [self.0, SOL_SOCKET, SO_NETNS_COOKIE, at, length_at]) };
        (returned == 0).then_some(cookie)
    }

    /// From now on receiving fails after so many seconds.
    pub(super) fn set_patience(&self, seconds: i64) -> Option<()> {
        let time = [seconds, 0_i64];
        let at = time.as_ptr() as usize;
        // SAFETY: a `struct timeval` of two longs is read from `time`.
        let returned =
            unsafe { call(number::SETSOCKOPT, [self.0, SOL_SOCKET, SO_RCVTIMEO, at, size_of_val(&time)]) };
        (returned == 0).then_some(())
    }

    pub(super) fn connect(&self, path: &CStr) -> Option<()> {
        let mut address = Address { family: AF_UNIX, path: [MaybeUninit::uninit(); 108] };
        let path = path.to_bytes_with_nul();
        // Byte by byte here and elsewhere: there is no library that copies.
        for (to, from) in address.path.get_mut(..path.len())?.iter_mut().zip(path) {
            to.write(*from);
        }
        let length = size_of::<u16>() + path.len();
        // SAFETY: so many bytes of the address were written above.
        let returned = unsafe { call(number::CONNECT, [self.0, &raw const address as usize, length, 0, 0]) };
        (returned == 0).then_some(())
    }

    /// Sends all of it, or says that it did not.
    pub(super) fn send(&self, header: &[u8], words: &[u8]) -> Option<()> {
        let parts = [Part::new(header), Part::new(words)];
        let message = Message {
            name: 0,
            name_length: 0,
            parts: parts.as_ptr(),
            part_count: parts.len(),
            control: 0,
            control_length: 0,
            flags: 0,
        };
        // SAFETY: the message and its parts are live, and are only read.
        let sent =
            unsafe { call(number::SENDMSG, [self.0, &raw const message as usize, MSG_NOSIGNAL, 0, 0]) };
        // Less only after a signal: then the agent sees that words are missing, and does nothing.
        (usize::try_from(sent) == Ok(header.len() + words.len())).then_some(())
    }

    /// Receives at least a byte; none at the end.
    pub(super) fn receive(&self, into: &mut [u8]) -> Option<usize> {
        loop {
            // SAFETY: at most so many bytes are written to `into`.
            let got = unsafe { call(number::READ, [self.0, into.as_mut_ptr() as usize, into.len(), 0, 0]) };
            if got != EINTR {
                return usize::try_from(got).ok();
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this value's own.
        unsafe { call(number::CLOSE, [self.0, 0, 0, 0, 0]) };
    }
}

/// Prints on the standard error stream.
pub fn print(words: [&[u8]; 4]) {
    let [a, b, c, d] = words;
    let parts = [Part::new(a), Part::new(b), Part::new(c), Part::new(d)];
    // SAFETY: the parts are live, and are only read.
    unsafe { call(number::WRITEV, [2, parts.as_ptr() as usize, parts.len(), 0, 0]) };
}

/// Becomes another program. Returns only if that failed.
///
/// # Safety
/// `arguments` and `environment` are arrays of C strings that end in a null pointer.
pub unsafe fn exec(program: &CStr, arguments: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: the caller's.
    unsafe {
        call(number::EXECVE, [program.as_ptr() as usize, arguments as usize, environment as usize, 0, 0])
    };
}

/// Ends this process.
pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: takes no pointers.
        unsafe { call(number::EXIT_GROUP, [code.into(), 0, 0, 0, 0]) };
    }
}
