//! Where Slipway keeps things: the only place that spells a file name on the host.
//!
//! ```text
//!   ~/.slipway/             bin/  image/  machine/data.raw  logs/  settings.toml
//!   ~/.slipway/run/         docker.sock api.sock shim.sock … (0700), or a short folder elsewhere when the path is too long
//!   ~/.slipway/profiles/N/  the same again for the profile N
//! ```
//!
//! What is for this user alone differs by system: `paths/unix.rs` has sockets in a folder, `paths/windows.rs` named pipes.

#[cfg(unix)]
#[path = "paths/unix.rs"]
mod system;
#[cfg(windows)]
#[path = "paths/windows.rs"]
mod system;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

#[cfg(unix)]
pub use system::LONGEST_SOCKET;
pub(crate) use system::{EXAMPLE_FILE, settle};
pub use system::{HOME, docker_host};

/// The profile that has no folder of its own.
pub const DEFAULT_PROFILE: &str = "default";

/// What decides where things are. A value, so that no test changes the process's environment.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `SLIPWAY_HOME`.
    pub slipway_home: Option<OsString>,
    /// `HOME`; on Windows `USERPROFILE`.
    pub home: Option<OsString>,
    /// `XDG_RUNTIME_DIR`: where the run folder goes when the home's path is too long for sockets.
    pub runtime_dir: Option<OsString>,
}

impl Env {
    /// The process's environment.
    pub fn of_process() -> Self {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        Self {
            slipway_home: var("SLIPWAY_HOME"),
            home: var(system::HOME),
            runtime_dir: var("XDG_RUNTIME_DIR"),
        }
    }
}

/// There is no place for Slipway's files.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Neither variable says where.
    #[error("neither SLIPWAY_HOME nor {home} is set", home = system::HOME)]
    NoHome,
    /// A relative folder would be another one for each process.
    #[error("`{0}` is not an absolute path")]
    Relative(PathBuf),
    /// The profile's name cannot be a folder's.
    #[error("`{0}` is not a profile name: use letters, digits, `-` and `_`, at most 32 of them")]
    Profile(String),
    /// Sockets fit nowhere.
    #[error("`{0}` is too long a path for unix sockets, and so is the runtime folder")]
    TooLong(PathBuf),
    /// A folder could not be made, or is not ours alone.
    #[error("failed to prepare the folder `{path}`")]
    Prepare {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The files of one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    profile: String,
    home: PathBuf,
    root: PathBuf,
    run: PathBuf,
}

macro_rules! files {
    ($($(#[$doc:meta])* $name:ident => $base:ident / $file:expr;)*) => {
        impl Paths {
            $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.$base.join($file) })*
        }
    };
}

files! {
    /// Held by the daemon as long as it lives.
    daemon_lock => run / "daemon.lock";
    /// Held by the shim as long as it lives.
    shim_lock => run / "shim.lock";
    /// What the shim was started with.
    shim_config => run / "shim.json";
    /// What was set when the machine started.
    started_settings => run / "settings.json";
    /// Why the machine ended, left by the shim.
    exit_file => run / "exit.json";
    /// What was found out about the host's accelerator.
    accel_verdict => root / "accel.json";
    /// The machine's data disk: containers, images, volumes.
    data_disk => root / system::DATA_DISK;
    /// The guest image that boots.
    image_dir => root / "image";
    /// Logs of every part.
    logs_dir => root / "logs";
    /// The person's settings.
    settings_file => root / "settings.toml";
    /// Programs that Slipway brings, for all profiles.
    bin_dir => home / "bin";
}

impl Paths {
    /// The files of `profile`. Nothing is created.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn resolve(env: &Env, profile: &str) -> Result<Self, PathError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if profile.is_empty() || profile.len() > 32 || !profile.chars().all(fits) {
            return Err(PathError::Profile(profile.to_owned()));
        }
        let home = match (&env.slipway_home, &env.home) {
            (Some(home), _) => PathBuf::from(home),
            (None, Some(home)) => Path::new(home).join(".slipway"),
            (None, None) => return Err(PathError::NoHome),
        };
        if !home.is_absolute() {
            return Err(PathError::Relative(home));
        }
        let root =
            if profile == DEFAULT_PROFILE { home.clone() } else { home.join("profiles").join(profile) };
        let run = system::run_dir(&root, env)?;
        Ok(Self { profile: profile.to_owned(), home, root, run })
    }

    /// The engine's endpoint for clients: a socket, on Windows a named pipe.
    pub fn docker_sock(&self) -> PathBuf {
        system::endpoint(self, "docker")
    }

    /// The control API's endpoint.
    pub fn api_sock(&self) -> PathBuf {
        system::endpoint(self, "api")
    }

    /// The shim's endpoint for daemons.
    pub fn shim_sock(&self) -> PathBuf {
        system::endpoint(self, "shim")
    }

    /// The profile's name.
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// The folder of all profiles.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder of everything but, perhaps, the sockets.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of sockets and locks.
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// The log of one unit: `daemon`, `shim`, `console`, `agent`, `containerd`, `dockerd`, `kernel`.
    pub fn log(&self, unit: &str) -> PathBuf {
        self.logs_dir().join(format!("{unit}.log"))
    }

    /// Makes the folders that are not there, for this user alone.
    ///
    /// # Errors
    /// [`PathError::Prepare`]; a run folder that somebody else owns or may enter is refused.
    pub fn prepare(&self) -> Result<(), PathError> {
        for dir in [&self.root, &self.logs_dir(), &self.root.join("machine"), &self.run] {
            let failed = |source| PathError::Prepare { path: dir.clone(), source };
            system::create(dir).map_err(failed)?;
        }
        system::private(&self.run).map_err(|source| PathError::Prepare { path: self.run.clone(), source })
    }
}

/// FNV-1a: the same name for the same path in every build, which the standard library's hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn env(home: &str) -> Env {
        Env { slipway_home: Some(home.into()), ..Env::default() }
    }

    #[test]
    fn the_default_profile_lives_in_the_home_and_others_beside_it() {
        let by_home = Env { home: Some("/home/a b".into()), ..Env::default() };
        let paths = Paths::resolve(&by_home, DEFAULT_PROFILE).expect("resolves");
        assert_eq!(paths.docker_sock(), Path::new("/home/a b/.slipway/run/docker.sock"));
        let work = Paths::resolve(&by_home, "work").expect("resolves");
        assert_eq!(work.data_disk(), Path::new("/home/a b/.slipway/profiles/work/machine/data.raw"));
        assert_eq!(work.bin_dir(), paths.bin_dir(), "programs are shared");
    }

    #[test]
    fn sockets_go_to_a_short_folder_when_the_home_is_too_long() {
        let long = format!("/{}", "x".repeat(150));
        let short = Paths::resolve(&env(&long), DEFAULT_PROFILE).expect("resolves");
        assert!(short.docker_sock().as_os_str().len() <= LONGEST_SOCKET, "{short:?}");
        assert_eq!(short.data_disk(), Path::new(&long).join("machine/data.raw"), "only sockets move");
        let other = Paths::resolve(&env(&format!("{long}y")), DEFAULT_PROFILE).expect("resolves");
        assert_ne!(short.run_dir(), other.run_dir(), "two homes never share a run folder");
        let nowhere = Env { runtime_dir: Some(long.clone().into()), ..env(&long) };
        assert!(matches!(Paths::resolve(&nowhere, DEFAULT_PROFILE), Err(PathError::TooLong(_))));
    }

    #[test]
    fn every_socket_fits_at_the_limit() {
        for length in 60..120 {
            let paths = Paths::resolve(&env(&format!("/{}", "h".repeat(length))), "p").expect("resolves");
            for socket in [paths.docker_sock(), paths.api_sock(), paths.shim_sock()] {
                assert!(socket.as_os_str().len() <= LONGEST_SOCKET, "{}", socket.display());
            }
        }
    }

    #[test]
    fn wrong_homes_and_profiles_are_refused() {
        assert!(matches!(Paths::resolve(&Env::default(), "default"), Err(PathError::NoHome)));
        assert!(matches!(Paths::resolve(&env("relative"), "default"), Err(PathError::Relative(_))));
        for name in ["", "..", "a/b", "a b", "é", &"x".repeat(33)] {
            assert!(matches!(Paths::resolve(&env("/h"), name), Err(PathError::Profile(_))), "{name}");
        }
    }

    #[test]
    fn prepared_folders_are_private_and_a_second_time_changes_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        let home = dir.path().join("with space");
        let paths = Paths::resolve(&env(home.to_str().expect("utf-8")), DEFAULT_PROFILE).expect("resolves");
        paths.prepare().expect("made");
        paths.prepare().expect("again");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").mode() & 0o777;
        assert_eq!((mode(paths.run_dir()), mode(paths.root())), (0o700, 0o700));
        std::fs::set_permissions(paths.run_dir(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        paths.prepare().expect("repaired");
        assert_eq!(mode(paths.run_dir()), 0o700, "an open run folder is closed again");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("write");
        let paths = Paths::resolve(&env(file.to_str().expect("utf-8")), DEFAULT_PROFILE).expect("resolves");
        let error = paths.prepare().expect_err("a file is in the way");
        assert!(error.to_string().contains("file"), "{error}");
    }
}
