//! Debian's registry on the host's loopback, with and without TLS, and an authority of our own for it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Command, Running};

const PROGRAM: &str = "/usr/bin/docker-registry";

/// A registry that runs; ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    _running: Running,
}

impl Registry {
    /// Starts one that keeps its files in `dir`; with TLS when it is given a certificate.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start(dir: &Path, tls: Option<&Certificate>) -> Self {
        fs::create_dir_all(dir).expect("made");
        // Free at this moment: it does not say which it took.
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("bound").port();
        let tls = tls.map_or(String::new(), |of| {
            format!("\n  tls: {{certificate: '{}', key: '{}'}}", of.certificate.display(), of.key.display())
        });
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: '{}'}}\n\
             http:\n  addr: '127.0.0.1:{port}'{tls}\n",
            dir.join("data").display()
        );
        let file = dir.join("config.yml");
        fs::write(&file, config).expect("written");
        // A test's length, at most.
        let running =
            Command::new(PROGRAM).arg("serve").arg(file).within(Duration::from_secs(3600)).spawn_silent();
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { port, _running: running }
    }

    /// Is Debian's package `docker-registry` installed?
    pub fn is_installed() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What containers and the engine call it.
    pub fn name(&self) -> String {
        format!("host.docker.internal:{}", self.port)
    }
}

/// A certificate and its key, in files.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

/// An authority that nobody knows yet.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes one in `dir`.
    ///
    /// # Panics
    /// Without `openssl`.
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("made");
        let authority = Self { dir: dir.to_owned() };
        let subject = ["-subj", "/CN=An authority of the tests"];
        authority.openssl(
            &[
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "ca.key", "-out",
                "ca.crt",
            ],
            &subject,
        );
        authority
    }

    /// Its own certificate in PEM.
    pub fn pem(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A certificate for a server of that name.
    ///
    /// # Panics
    /// Without `openssl`.
    pub fn certify(&self, name: &str) -> Certificate {
        let subject = format!("/CN={name}");
        self.openssl(
            &["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr"],
            &["-subj", &subject],
        );
        fs::write(self.dir.join("names"), format!("subjectAltName=DNS:{name}\n")).expect("written");
        self.openssl(
            &[
                "x509",
                "-req",
                "-in",
                "server.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "2",
            ],
            &["-extfile", "names", "-out", "server.crt"],
        );
        Certificate { certificate: self.dir.join("server.crt"), key: self.dir.join("server.key") }
    }

    fn openssl(&self, first: &[&str], then: &[&str]) {
        Command::new("openssl").args(first).args(then).in_dir(&self.dir).run().ok();
    }
}
