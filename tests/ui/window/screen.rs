//! A screen and a session bus that nobody else has.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use slipway_test_harness::{Command, Running};

/// Dropped, it ends.
pub(crate) struct Screen {
    /// What a program needs to be shown on it.
    pub(crate) env: Vec<(&'static str, String)>,
    /// The session bus.
    pub(crate) bus: String,
    _running: [Running; 2],
}

impl Screen {
    /// With everything that programs keep for themselves below `home`.
    pub(crate) fn new(home: &Path) -> Self {
        let path = |name: &str| home.join(name).display().to_string();
        let runtime = path(".run");
        std::fs::DirBuilder::new().mode(0o700).create(&runtime).expect("made");
        let mut xvfb = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"])
            .spawn();
        let display = format!(":{}", first_line(&mut xvfb));
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address"])
            .env("XDG_RUNTIME_DIR", &runtime)
            .spawn();
        let address = first_line(&mut bus);
        let env = vec![
            ("DISPLAY", display),
            ("DBUS_SESSION_BUS_ADDRESS", address.clone()),
            ("XDG_RUNTIME_DIR", runtime),
            ("XDG_CONFIG_HOME", path(".config")),
            ("XDG_DATA_HOME", path(".local/share")),
            ("XDG_CACHE_HOME", path(".cache")),
            ("GDK_BACKEND", "x11".into()),
            ("NO_AT_BRIDGE", "1".into()),
        ];
        Self { env, bus: address, _running: [xvfb, bus] }
    }
}

/// What a program says first.
pub(crate) fn first_line(program: &mut Running) -> String {
    let mut line = String::new();
    let out = program.stdout.take().expect("a pipe");
    BufReader::new(out).read_line(&mut line).expect("it says where it is");
    assert!(!line.trim().is_empty(), "it ended before it said where it is");
    line.trim().to_owned()
}
