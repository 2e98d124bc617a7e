//! The inside of a machine where none can run: the real agent, and an engine that plays its part, both on this host. Programs of
//! another system reach them by TCP on the loopback address, which also Wine has.
//!
//! ```text
//!   shim (a Windows program, under Wine) ──TCP: the guest's port, then its bytes──▶ here ──▶ agent's sockets ──▶ the engine's part
//! ```
//!
//! Prints its TCP port, and ends with its stdin, or when the agent is told to power off.

#[cfg(target_os = "linux")]
mod engine;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    beside::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("the agent is a program of Linux");
    std::process::ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
mod beside {
    use std::{
        io::{self, Read, Write},
        net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
        os::unix::net::{UnixListener, UnixStream},
        path::{Path, PathBuf},
        process::{ExitCode, exit},
        thread,
    };

    use crate::engine;

    pub(crate) fn main() -> ExitCode {
        let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
            eprintln!("usage: slipway-test-beside DIR");
            return ExitCode::from(2);
        };
        match run(&dir) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn run(dir: &Path) -> io::Result<ExitCode> {
        let (sockets, engine) = (dir.join("agent"), dir.join("engine.sock"));
        std::fs::create_dir_all(&sockets)?;
        let listener = UnixListener::bind(&engine)?;
        thread::spawn(move || engine::serve(&listener));
        let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        println!("{}", outside.local_addr()?.port());
        let words =
            ["--dir", &sockets.to_string_lossy(), "--engine", &engine.to_string_lossy()].map(str::to_owned);
        thread::spawn(move || {
            let mut nothing = Vec::new();
            let _ = io::stdin().read_to_end(&mut nothing);
            exit(0)
        });
        thread::spawn(move || {
            for stream in outside.incoming().flatten() {
                let sockets = sockets.clone();
                thread::spawn(move || carry(stream, &sockets));
            }
        });
        Ok(slipway_agent::serve_on_host(&words))
    }

    /// One stream. Port 0 carries nothing, and ends when everything here does.
    fn carry(mut outside: TcpStream, sockets: &Path) -> io::Result<()> {
        let mut port = [0; 4];
        outside.read_exact(&mut port)?;
        let port = u32::from_le_bytes(port);
        if port == 0 {
            return outside.read_exact(&mut [0]);
        }
        // Nobody listens: closed without the word, which is the refusal.
        let mut agent = UnixStream::connect(sockets.join(format!("{port}.sock")))?;
        outside.write_all(&[1])?;
        let (mut to_outside, mut from_agent) = (outside.try_clone()?, agent.try_clone()?);
        let back = thread::spawn(move || {
            let copied = io::copy(&mut from_agent, &mut to_outside);
            let how = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
            let _ = to_outside.shutdown(how);
        });
        let copied = io::copy(&mut outside, &mut agent);
        let how = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
        let _ = agent.shutdown(how);
        let _ = back.join();
        Ok(())
    }
}
