//! Named pipes for this user alone: where Windows has what a socket in a private folder is elsewhere.
#![allow(unsafe_code)] // Who may open a pipe is said in structures of Windows'.

use std::{
    ffi::OsStr,
    io,
    os::windows::{ffi::OsStrExt, io::AsRawHandle},
    path::{Path, PathBuf},
    ptr,
};

use tokio::net::windows::named_pipe::{NamedPipeServer, PipeMode, ServerOptions};
use windows_sys::Win32::{
    Foundation::{CloseHandle, HANDLE_FLAG_INHERIT, LocalFree, SetHandleInformation},
    Security::{
        Authorization::{
            ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
        },
        GetTokenInformation, PSECURITY_DESCRIPTOR, SECURITY_ATTRIBUTES, TOKEN_QUERY, TOKEN_USER, TokenUser,
    },
    System::Threading::{GetCurrentProcess, OpenProcessToken},
};

/// Listens on one named pipe. Only this user may open it, and only from this computer.
#[derive(Debug)]
pub struct PipeListener {
    path: PathBuf,
    descriptor: Descriptor,
    /// The instance that the next client gets.
    next: NamedPipeServer,
}

impl PipeListener {
    /// Makes the pipe.
    ///
    /// # Errors
    /// `PermissionDenied` when somebody else has a pipe of that name.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let descriptor = Descriptor::from_sddl(&format!("D:P(A;;GA;;;{})", user_sid()?))?;
        // The first: another's pipe of the same name is an error, and not something that we join.
        let next = descriptor.instance(path, true)?;
        Ok(Self { path: path.to_owned(), descriptor, next })
    }

    /// Waits for a client. Cancel-safe.
    ///
    /// # Errors
    /// Windows has no room for the next instance.
    pub async fn accept(&mut self) -> io::Result<NamedPipeServer> {
        self.next.connect().await?;
        // Before this one is given away: a client that finds no instance is told that the pipe is busy, or is not there.
        let next = self.descriptor.instance(&self.path, false)?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}

/// A security descriptor of Windows'.
#[derive(Debug)]
struct Descriptor(PSECURITY_DESCRIPTOR);

// SAFETY: it is memory that is never changed after it was made.
unsafe impl Send for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    fn from_sddl(sddl: &str) -> io::Result<Self> {
        let sddl: Vec<u16> = OsStr::new(sddl).encode_wide().chain([0]).collect();
        let mut descriptor = ptr::null_mut();
        // SAFETY: the text ends with a zero; what comes back is ours to free.
        let made = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                sddl.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                ptr::null_mut(),
            )
        };
        if made == 0 { Err(io::Error::last_os_error()) } else { Ok(Self(descriptor)) }
    }

    /// One instance of the pipe, in message mode: docker's clients half-close with an empty message.
    fn instance(&self, path: &Path, first: bool) -> io::Result<NamedPipeServer> {
        let mut attributes = SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.0,
            bInheritHandle: 0,
        };
        let mut options = ServerOptions::new();
        options.first_pipe_instance(first).reject_remote_clients(true).pipe_mode(PipeMode::Message);
        // SAFETY: the attributes and the descriptor in them live until the call is over, and are only read.
        unsafe { options.create_with_security_attributes_raw(path, (&raw mut attributes).cast()) }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: Windows allocated it with LocalAlloc for us.
        unsafe { LocalFree(self.0) };
    }
}

/// This user's security identifier, `S-1-5-21-…`.
///
/// # Errors
/// Windows does not tell it.
pub fn user_sid() -> io::Result<String> {
    let mut token = ptr::null_mut();
    // SAFETY: the process's own handle needs no closing; the token is closed below.
    if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // A TOKEN_USER and the identifier behind it: 68 bytes at most. In words, so that it is aligned as the structure is.
    let mut buffer = [0usize; 32];
    let mut length = 0;
    // SAFETY: the buffer is as long as is said.
    let read = unsafe {
        GetTokenInformation(
            token,
            TokenUser,
            buffer.as_mut_ptr().cast(),
            size_of_val(&buffer) as u32,
            &raw mut length,
        )
    };
    let error = io::Error::last_os_error();
    // SAFETY: the token is ours, and this is its last use.
    unsafe { CloseHandle(token) };
    if read == 0 {
        return Err(error);
    }
    let mut text = ptr::null_mut();
    // SAFETY: the call above filled the buffer with a TOKEN_USER, whose identifier lies in the same buffer.
    let told = unsafe {
        let user = &*buffer.as_ptr().cast::<TOKEN_USER>();
        ConvertSidToStringSidW(user.User.Sid, &raw mut text)
    };
    if told == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the text ends with a zero.
    let sid = unsafe {
        let length = (0..).take_while(|at| *text.add(*at) != 0).count();
        String::from_utf16_lossy(std::slice::from_raw_parts(text, length))
    };
    // SAFETY: Windows allocated it with LocalAlloc for us.
    unsafe { LocalFree(text.cast()) };
    Ok(sid)
}

/// Keeps what this program reads and prints from programs that it starts and that outlive it: Windows gives a child every handle that
/// can be inherited, whatever it is told about its own, and who reads a pipe to its end would wait for the child's. One that is
/// given them on purpose gets copies.
pub fn keep_standard_handles() {
    let handles = [io::stdin().as_raw_handle(), io::stdout().as_raw_handle(), io::stderr().as_raw_handle()];
    for handle in handles.into_iter().filter(|handle| !handle.is_null()) {
        // SAFETY: it changes a flag of this process's own handle; one that is none is refused, and then there is nothing to keep.
        unsafe { SetHandleInformation(handle, HANDLE_FLAG_INHERIT, 0) };
    }
}
