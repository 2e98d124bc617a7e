//! `iptables` and `ip6tables` of the guest: ask the agent, and become the real program where it says so.
//!
//! dockerd starts this some two hundred times before it answers. Under emulation, what a program maps, touches and prepares before
//! its own first instruction is most of what such a process costs; so this one has no library, no heap and three pages.
//!
//! Built that way by the profile `agent`. A build that unwinds (for lints and tests) has an ordinary `main` around the same code.
#![cfg_attr(all(panic = "abort", target_os = "linux"), no_std, no_main)]
// Starts without a library, and reads its arguments where the kernel put them.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

#[cfg(target_os = "linux")]
use core::{
    ffi::{CStr, c_char},
    slice,
};

#[cfg(target_os = "linux")]
use slipway_iptables::{DONE, LONGEST_ANSWER, REAL, REFUSED, SOCKET, ask, exec, exit, print};

/// Does what `arguments` say and ends this process.
///
/// # Safety
/// `arguments` has `count` C strings and a null pointer, `environment` C strings and a null pointer.
#[cfg(target_os = "linux")]
unsafe fn run(count: usize, arguments: *const *const c_char, environment: *const *const c_char) -> ! {
    // SAFETY: the caller's.
    let listed = unsafe { slice::from_raw_parts(arguments, count) };
    // SAFETY: each is a C string.
    let words = unsafe { in_one_piece(listed) };
    let name = words.map_or(&b"iptables"[..], |(name, _)| name);
    let mut answer = [0; LONGEST_ANSWER];
    match words.and_then(|(_, words)| ask(SOCKET, words, &mut answer)) {
        Some([DONE]) => exit(0),
        Some([REFUSED, why @ ..]) => {
            print([name, b": ", why, b"\n"]);
            exit(1)
        }
        _ => {
            // SAFETY: as they were handed to this program.
            unsafe { exec(REAL, arguments, environment) };
            print([name, b": failed to run ", REAL.to_bytes(), b"\n"]);
            exit(1)
        }
    }
}

/// The name of the program without its folder, and that name with all arguments, each with its NUL, as the kernel lays them out:
/// one after the other. `None` where they are not.
///
/// # Safety
/// Each of `listed` is a C string, and lives as long as the process.
#[cfg(target_os = "linux")]
unsafe fn in_one_piece(listed: &[*const c_char]) -> Option<(&'static [u8], &'static [u8])> {
    let (first, rest) = listed.split_first()?;
    // SAFETY: the caller's.
    let path = unsafe { CStr::from_ptr(*first) }.to_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let mut length = name.len() + 1;
    for word in rest {
        if word.cast() != name.as_ptr().wrapping_add(length) {
            return None;
        }
        // SAFETY: the caller's.
        length += unsafe { CStr::from_ptr(*word) }.count_bytes() + 1;
    }
    // SAFETY: C strings of this process, found one after the other without a gap.
    Some((name, unsafe { slice::from_raw_parts(name.as_ptr(), length) }))
}

#[cfg(all(panic = "abort", target_os = "linux"))]
mod start {
    use core::{arch::naked_asm, ffi::c_char, panic::PanicInfo};

    /// Where the kernel enters: on the stack are the number of arguments, the arguments, a null pointer, the environment, a null
    /// pointer.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    extern "C" fn _start() -> ! {
        #[cfg(target_arch = "x86_64")]
        naked_asm!("mov rdi, rsp", "and rsp, -16", "call {start}", "ud2", start = sym start);
        #[cfg(target_arch = "aarch64")]
        naked_asm!("mov x0, sp", "bl {start}", "brk 1", start = sym start);
    }

    unsafe extern "C" fn start(stack: *const usize) -> ! {
        // SAFETY: this is what the kernel put there.
        unsafe {
            let count = *stack;
            let arguments = stack.add(1).cast::<*const c_char>();
            super::run(count, arguments, arguments.add(count + 1))
        }
    }

    // What the compiler takes for given, and a library would bring. Volatile, so that it does not see in them what they are.

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller's: both have `count` bytes.
            unsafe { to.add(at).write_volatile(*from.add(at)) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller's: there are `count` bytes.
            unsafe { to.add(at).write_volatile(byte as u8) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut length = 0;
        // SAFETY: the caller's: a NUL comes before the end.
        while unsafe { text.add(length).read_volatile() } != 0 {
            length += 1;
        }
        length
    }

    #[panic_handler]
    fn panic(_: &PanicInfo<'_>) -> ! {
        slipway_iptables::exit(101)
    }
}

#[cfg(all(not(panic = "abort"), target_os = "linux"))]
fn main() {
    use std::{ffi::CString, os::unix::ffi::OsStringExt, ptr::null};

    let arguments: Vec<CString> =
        std::env::args_os().filter_map(|word| CString::new(word.into_vec()).ok()).collect();
    let mut listed: Vec<*const c_char> = arguments.iter().map(|word| word.as_ptr()).collect();
    listed.push(null());
    let environment = [null()];
    // SAFETY: both arrays end in a null pointer, and live until this process ends.
    unsafe { run(arguments.len(), listed.as_ptr(), environment.as_ptr()) }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("iptables is a program of the Linux guest");
    std::process::exit(2);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Words of one buffer, and where each begins.
    fn laid_out(words: &'static [u8]) -> Vec<*const c_char> {
        words.split_inclusive(|byte| *byte == 0).map(|word| word.as_ptr().cast()).collect()
    }

    #[test]
    fn the_words_are_taken_as_they_lie() {
        let listed = laid_out(b"/usr/sbin/ip6tables\0-A\0\0a b\0");
        // SAFETY: C strings of a static buffer.
        let found = unsafe { in_one_piece(&listed) };
        assert_eq!(found, Some((&b"ip6tables"[..], &b"ip6tables\0-A\0\0a b\0"[..])));
        // SAFETY: as above.
        let alone = unsafe { in_one_piece(&listed[..1]) };
        assert_eq!(alone, Some((&b"ip6tables"[..], &b"ip6tables\0"[..])));
    }

    #[test]
    fn words_that_lie_elsewhere_are_left_to_the_real_program() {
        let mut listed = laid_out(b"iptables\0-A\0INPUT\0");
        listed.swap(1, 2);
        // SAFETY: C strings of a static buffer.
        assert_eq!(unsafe { in_one_piece(&listed) }, None);
        // SAFETY: there is none.
        assert_eq!(unsafe { in_one_piece(&[]) }, None);
    }
}
