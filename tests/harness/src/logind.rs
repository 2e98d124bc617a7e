//! Plays logind, which tells that this computer sleeps, on a system's bus of its own: on a real one only logind may say so.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use zbus::blocking::{Connection, connection::Builder};

/// Whoever asks may have any name.
const CONFIGURATION: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=SOCKET</listen>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>
"#;

/// The bus, with the name of logind on it. Both end when it is dropped.
#[derive(Debug)]
pub struct Logind {
    connection: Connection,
    bus: Child,
}

impl Logind {
    /// Starts the bus with this socket. `None` where there is no program for it.
    ///
    /// # Panics
    /// When a bus comes up on which nothing can be said.
    pub fn on(socket: &Path) -> Option<Self> {
        let configuration = socket.with_extension("conf");
        fs::write(&configuration, CONFIGURATION.replace("SOCKET", &socket.display().to_string()))
            .expect("written");
        let mut bus = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg("--print-address")
            .arg(format!("--config-file={}", configuration.display()))
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut address = String::new();
        BufReader::new(bus.stdout.take().expect("piped")).read_line(&mut address).expect("told");
        let connection = Builder::address(address.trim())
            .and_then(|builder| builder.name("org.freedesktop.login1"))
            .and_then(Builder::build)
            .expect("the name is free");
        Some(Self { connection, bus })
    }

    /// `PrepareForSleep`: true before it, false after it.
    ///
    /// # Panics
    /// When the bus is gone.
    pub fn says_that_it_sleeps(&self, before: bool) {
        let (path, interface) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
        self.connection
            .emit_signal(None::<&str>, path, interface, "PrepareForSleep", &(before,))
            .expect("said");
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}
