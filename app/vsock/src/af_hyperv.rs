//! Streams into a machine of Hyper-V's, over AF_HYPERV sockets: what a guest's kernel has as vsock, with the port in the service's id.
#![allow(unsafe_code)] // The standard library has no sockets of this family.

use std::{
    io,
    os::windows::io::{AsRawSocket, FromRawSocket, OwnedSocket},
    sync::OnceLock,
    time::Duration,
};

use async_trait::async_trait;
use slipway_protocol::ports::GuestPort;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;
use windows_sys::{
    Win32::Networking::WinSock::{
        AF_HYPERV, INVALID_SOCKET, SOCK_STREAM, SOCKADDR, WSA_FLAG_NO_HANDLE_INHERIT, WSA_FLAG_OVERLAPPED,
        WSADATA, WSAGetLastError, WSASocketW, WSAStartup, connect, setsockopt,
    },
    core::GUID,
};

use crate::{ConnectError, GuestStream, splice::Opens};

/// `HV_PROTOCOL_RAW`: the only protocol of the family, and the level of its options.
const RAW: i32 = 1;
/// `HVSOCKET_CONNECT_TIMEOUT`, in milliseconds.
const CONNECT_TIMEOUT_OPTION: i32 = 1;
/// How long the guest may take to answer: the same as our own device allows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What the Windows headers define for Linux guests: the first word is the vsock port.
const VSOCK_TEMPLATE: GUID = GUID::from_u128(0x0000_0000_facb_11e6_bd58_6400_6a79_86d3);

/// `SOCKADDR_HV`.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    vm: GUID,
    service: GUID,
}

/// Reaches one machine.
pub struct HyperVSocket {
    vm: u128,
    copies: TaskTracker,
}

impl HyperVSocket {
    /// A transport to the machine with this runtime id; nothing is opened yet.
    pub fn new(vm: u128) -> Self {
        Self { vm, copies: TaskTracker::new() }
    }
}

#[async_trait]
impl Opens for HyperVSocket {
    async fn open(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        let vm = self.vm;
        // Its end is bounded by the socket's own timeout.
        let opened = tokio::task::spawn_blocking(move || dial(vm, port.0)).await;
        let opened = opened.map_err(io::Error::other).and_then(|opened| opened);
        let stream = opened.and_then(|socket| {
            let stream = std::net::TcpStream::from(socket);
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        });
        match stream {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::ConnectionRefused => ConnectError::Refused { port },
                io::ErrorKind::TimedOut => ConnectError::TimedOut { port },
                _ => ConnectError::Io { port, source },
            }),
        }
    }

    fn copies(&self) -> &TaskTracker {
        &self.copies
    }
}

/// Opens a stream and waits for the guest's answer.
fn dial(vm: u128, port: u32) -> io::Result<OwnedSocket> {
    started()?;
    let flags = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;
    // SAFETY: no pointer is given but the null one, which means no protocol information.
    let socket = unsafe { WSASocketW(AF_HYPERV.into(), SOCK_STREAM, RAW, std::ptr::null(), 0, flags) };
    if socket == INVALID_SOCKET {
        return Err(last());
    }
    // SAFETY: the call above made it, and nobody else has it.
    let socket = unsafe { OwnedSocket::from_raw_socket(socket as u64) };
    let raw = socket.as_raw_socket() as usize;
    let millis = u32::try_from(CONNECT_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: the option is the four bytes behind the pointer, which live until the call is over.
    let set = unsafe { setsockopt(raw, RAW, CONNECT_TIMEOUT_OPTION, (&raw const millis).cast(), 4) };
    if set != 0 {
        return Err(last());
    }
    let address = Address {
        family: AF_HYPERV,
        reserved: 0,
        vm: GUID::from_u128(vm),
        service: GUID { data1: port, ..VSOCK_TEMPLATE },
    };
    let length = size_of::<Address>() as i32;
    // SAFETY: the address is `SOCKADDR_HV` as the headers lay it out, of the length that is given.
    let connected = unsafe { connect(raw, (&raw const address).cast::<SOCKADDR>(), length) };
    if connected == 0 { Ok(socket) } else { Err(last()) }
}

/// Winsock wants to be started before its first call; the standard library does that only for sockets of its own.
fn started() -> io::Result<()> {
    static STARTED: OnceLock<i32> = OnceLock::new();
    let code = *STARTED.get_or_init(|| {
        let mut data = std::mem::MaybeUninit::<WSADATA>::uninit();
        // SAFETY: the call fills what the pointer is to, and we do not read it.
        unsafe { WSAStartup(0x0202, data.as_mut_ptr()) }
    });
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

fn last() -> io::Error {
    // SAFETY: reads a value of this thread.
    io::Error::from_raw_os_error(unsafe { WSAGetLastError() })
}
