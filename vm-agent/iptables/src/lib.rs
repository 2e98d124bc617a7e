//! What the guest's `iptables` and the agent say to each other, and how it is asked without a C library.
//!
//! ```text
//!   iptables ── network's cookie (8 bytes, ours) │ length of the words (4) │ name\0 argument\0 … ──▶ agent
//!   iptables ◀──────────────────── DONE │ REFUSED why it failed │ ASK_REAL ─────────────────────── agent
//! ```
//!
//! Both are of one image, so there are no versions of this. The length is there so that a command that was cut off is not done.
#![cfg(target_os = "linux")]
#![cfg_attr(not(test), no_std)]
// System calls are made here without anybody's wrapper.
#![allow(unsafe_code)]

mod sys;

use core::{ffi::CStr, mem::size_of};

pub use sys::{exec, exit, print};

/// Where the agent is asked.
pub const SOCKET: &CStr = c"/run/slipway/iptables.sock";
/// The real program; its first argument, or the name by which it is called, tells it what it is to be.
pub const REAL: &CStr = c"/usr/sbin/xtables-nft-multi";
/// First byte of an answer: it is done.
pub const DONE: u8 = 0;
/// First byte of an answer: it failed; why follows.
pub const REFUSED: u8 = 1;
/// First byte of an answer: nothing was done, the real program shall.
pub const ASK_REAL: u8 = 2;
/// Bytes before the words of a command.
pub const HEADER: usize = size_of::<u64>() + size_of::<u32>();
/// Most bytes of an answer; what the agent refuses it does in a sentence.
pub const LONGEST_ANSWER: usize = 256;

/// How long the agent may take, in seconds: longer than it gives itself, so that nothing is done twice.
const PATIENCE: i64 = 60;

/// The bytes before `length` bytes of words.
#[must_use]
pub fn header(cookie: u64, length: u32) -> [u8; HEADER] {
    let [a, b, c, d, e, f, g, h] = cookie.to_ne_bytes();
    let [i, j, k, l] = length.to_ne_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// The network's cookie and the length of the words that follow.
#[must_use]
pub fn read_header(bytes: [u8; HEADER]) -> (u64, u32) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u32::from_ne_bytes([i, j, k, l]))
}

/// The number by which the kernel knows the network of this process; no two networks ever have the same. `None` on a kernel
/// older than 5.14.
#[must_use]
pub fn network() -> Option<u64> {
    sys::Socket::open()?.network()
}

/// Asks the agent at `socket` about a command; `words` are its name and arguments, each with its NUL. `None`: nobody answered,
/// and nothing was done.
#[must_use]
pub fn ask<'a>(socket: &CStr, words: &[u8], answer: &'a mut [u8; LONGEST_ANSWER]) -> Option<&'a [u8]> {
    let agent = sys::Socket::open()?;
    let header = header(agent.network()?, u32::try_from(words.len()).ok()?);
    agent.set_patience(PATIENCE)?;
    agent.connect(socket)?;
    agent.send(&header, words)?;
    let mut length = 0;
    // To the end: the agent's answer may come in parts.
    while let Some(rest) = answer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match agent.receive(rest)? {
            0 => break,
            more => length += more,
        }
    }
    answer.get(..length)
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::CString,
        io::{Read, Write},
        os::unix::{ffi::OsStrExt, net::UnixListener},
        thread,
    };

    use super::*;

    /// What `ask` heard from an agent that reads a command and answers in `parts`, and what that agent read.
    fn asked(words: &[u8], parts: &'static [&'static [u8]]) -> (Option<Vec<u8>>, u64, Vec<u8>) {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let agent = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a command");
            let mut header = [0; HEADER];
            stream.read_exact(&mut header).expect("its header");
            let (cookie, length) = read_header(header);
            let mut words = vec![0; length as usize];
            stream.read_exact(&mut words).expect("its words");
            for part in parts {
                stream.write_all(part).expect("answered");
                thread::yield_now();
            }
            (cookie, words)
        });
        let mut answer = [0; LONGEST_ANSWER];
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let heard = ask(&path, words, &mut answer).map(<[u8]>::to_vec);
        let (cookie, words) = agent.join().expect("the agent ends");
        (heard, cookie, words)
    }

    #[test]
    fn a_command_arrives_whole_and_so_does_its_answer() {
        let (heard, cookie, words) = asked(b"iptables\0-N\0DOCKER\0", &[&[REFUSED], b"no ", b"way"]);
        assert_eq!(heard.as_deref(), Some(&b"\x01no way"[..]));
        assert_eq!(words, b"iptables\0-N\0DOCKER\0");
        assert_eq!(Some(cookie), network());
        // More than a socket's buffer holds.
        let long = vec![b'x'; 3 << 20];
        let (heard, _, words) = asked(&long, &[&[DONE]]);
        assert_eq!((heard.as_deref(), words.len()), (Some(&[DONE][..]), long.len()));
    }

    #[test]
    fn an_agent_that_dies_or_is_not_there_has_said_nothing() {
        assert_eq!(asked(b"iptables\0", &[]).0.as_deref(), Some(&b""[..]));
        let mut answer = [0; LONGEST_ANSWER];
        assert_eq!(ask(c"/nonexistent/agent.sock", b"iptables\0", &mut answer), None);
        let long = CString::new([b'x'; 200]).expect("no NUL");
        assert_eq!(ask(&long, b"iptables\0", &mut answer), None);
    }

    #[test]
    fn an_answer_is_cut_where_there_is_no_room() {
        let (heard, ..) = asked(b"iptables\0", &[&[REFUSED; 2 * LONGEST_ANSWER]]);
        assert_eq!(heard.map(|answer| answer.len()), Some(LONGEST_ANSWER));
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(read_header(header(u64::MAX - 1, 7)), (u64::MAX - 1, 7));
    }
}
