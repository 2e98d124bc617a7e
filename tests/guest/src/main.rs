//! `/init` of the guest in which the vsock device is tested: a server for each way in which a stream can end.
//!
//! | port | does |
//! |---|---|
//! | 2001 | reads to the end, then answers with the count and the sum of what it read: the host's direction ends first |
//! | 2002 | reads eight bytes N, sends N bytes, ends its direction, then reads to the end: the guest's direction ends first |
//! | 2003 | sends back what it reads as it comes: both directions at once |
//! | 2004 | answers with how many bytes 2002 read after its own end, all streams together |
//!
//! With arguments it is a program for containers of the end-to-end tests instead: `watch` ([`watch`]), `posix` ([`posix`]), `bench` ([`bench`]),
//! `look`, `poll`, `hear` and `touch` ([`look`]), and with a number, under whatever name, `sleep`.

mod bench;
mod look;
mod posix;
mod watch;

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot},
};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

/// Small, because a thousand streams have a thread each.
const STACK: usize = 128 * 1024;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["watch", folders @ ..] => Some(watch::run(folders)),
        ["look", folder] => Some(look::look(Path::new(folder))),
        ["poll", file] => Some(look::poll(Path::new(file))),
        ["hear", folders @ ..] => Some(look::hear(folders)),
        ["touch"] => Some(look::touch()),
        ["bench", words @ ..] => Some(bench::run(words)),
        ["posix", folder] => Some(posix::run(Path::new(folder))),
        ["posix", words @ ..] => Some(posix::between(words)),
        [seconds] if let Ok(seconds) = seconds.parse() => {
            thread::sleep(Duration::from_secs(seconds));
            Some(Ok(()))
        }
        _ => None,
    };
    if let Some(done) = done {
        if let Err(error) = done {
            eprintln!("{} failed: {error}", words[0]);
            std::process::exit(1);
        }
        return;
    }
    if let Err(error) = run() {
        eprintln!("test guest failed: {error}");
    }
    // PID 1 must not return: that is a panic of the kernel, and looks like another failure.
    let _ = reboot(RebootCommand::PowerOff);
}

fn run() -> io::Result<()> {
    mount("dev", "/dev", "devtmpfs", MountFlags::empty(), None)?;
    let mut modules: Vec<_> = std::fs::read_dir("/modules")?.collect::<Result<_, _>>()?;
    modules.sort_by_key(std::fs::DirEntry::file_name);
    for module in modules {
        match finit_module(&File::open(module.path())?, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(io::Error::other(format!("{}: {e}", module.path().display()))),
        }
    }
    let after_end = Arc::new(AtomicU64::new(0));
    let (count, told) = (Arc::clone(&after_end), after_end);
    let servers = [
        serve(2001, digest)?,
        serve(2002, move |s| source(s, &count))?,
        serve(2003, echo)?,
        serve(2004, move |mut s| s.write_all(&told.load(Ordering::SeqCst).to_le_bytes()))?,
    ];
    println!("test guest ready");
    for server in servers {
        // A server ends only by a panic, which has been printed.
        let _ = server.join();
    }
    Ok(())
}

fn serve(
    port: u32,
    act: impl Fn(VsockStream) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
    let act = Arc::new(act);
    thread::Builder::new().spawn(move || {
        for stream in listener.incoming().flatten() {
            let act = Arc::clone(&act);
            let started = thread::Builder::new().stack_size(STACK).spawn(move || {
                if let Err(error) = act(stream) {
                    eprintln!("port {port}: {error}");
                }
            });
            if let Err(error) = started {
                eprintln!("port {port}: no thread: {error}");
            }
        }
    })
}

fn digest(mut stream: VsockStream) -> io::Result<()> {
    let (mut count, mut sum) = (0u64, 0u64);
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        for byte in &buffer[..read] {
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
        }
        count += read as u64;
    }
    stream.write_all(&count.to_le_bytes())?;
    stream.write_all(&sum.to_le_bytes())
}

fn source(mut stream: VsockStream, after_end: &AtomicU64) -> io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    let wanted = u64::from_le_bytes(wanted);
    let pattern: Vec<u8> = (0..32 * 1024u32).map(|i| (i % 251) as u8).collect();
    let mut left = wanted;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(pattern.len());
        stream.write_all(&pattern[..count])?;
        left -= count as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let late = io::copy(&mut stream, &mut io::sink())?;
    after_end.fetch_add(late, Ordering::SeqCst);
    Ok(())
}

fn echo(mut stream: VsockStream) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read])?;
    }
}
