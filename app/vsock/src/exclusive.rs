//! A port for one socket alone. Windows lets any program bind what another one listens on, unless that one has said no; no
//! crate here says it.
#![allow(unsafe_code)] // An option of sockets that has no safe wrapper.

use std::{
    io,
    os::windows::io::{AsRawSocket, BorrowedSocket},
};

use windows_sys::Win32::Networking::WinSock::{
    SO_EXCLUSIVEADDRUSE, SOCKET, SOCKET_ERROR, SOL_SOCKET, getsockopt, setsockopt,
};

/// Says that nobody else may bind what `socket` is about to bind. It cannot be unsaid once it is bound.
///
/// # Errors
/// The socket is bound already.
pub fn take(socket: BorrowedSocket<'_>) -> io::Result<()> {
    let yes = 1_i32.to_ne_bytes();
    // SAFETY: the socket is open for as long as it is borrowed, and the option is the length of a BOOL, which is what `yes` is.
    let set = unsafe {
        setsockopt(
            socket.as_raw_socket() as SOCKET,
            SOL_SOCKET,
            SO_EXCLUSIVEADDRUSE,
            yes.as_ptr(),
            yes.len() as i32,
        )
    };
    // Winsock's errors are the thread's last error.
    if set == SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether `socket` was told so.
///
/// # Errors
/// Winsock's.
pub fn is_taken(socket: BorrowedSocket<'_>) -> io::Result<bool> {
    let mut value = [0; size_of::<i32>()];
    let mut length = value.len() as i32;
    // SAFETY: the socket is open for as long as it is borrowed, and `length` is that of `value`.
    let got = unsafe {
        getsockopt(
            socket.as_raw_socket() as SOCKET,
            SOL_SOCKET,
            SO_EXCLUSIVEADDRUSE,
            value.as_mut_ptr(),
            &raw mut length,
        )
    };
    if got == SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(i32::from_ne_bytes(value) != 0) }
}
