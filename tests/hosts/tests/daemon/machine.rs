//! Daemon and shim as `slipway` is them, with a machine that is none and a transport to the agent beside.

use std::{io, net::SocketAddr, path::Path, process::ExitCode, sync::Arc};

use async_trait::async_trait;
use slipway_protocol::ports::GuestPort;
use slipway_shim::server::{self, ShimConfig};
use slipway_vm::{ExitReason, fake::FakeDriver};
use slipway_vsock::{ConnectError, GuestStream, Opens};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::stage::{BESIDE, PROFILE};

pub(crate) fn daemon() -> ExitCode {
    let exe = std::env::current_exe().expect("a program");
    let options = slipway_daemon::Options { profile: PROFILE.into(), exe };
    ended(&Runtime::new().expect("a runtime").block_on(slipway_daemon::run(options)))
}

pub(crate) fn shim(config: &Path) -> ExitCode {
    let config: ShimConfig =
        serde_json::from_slice(&std::fs::read(config).expect("read")).expect("understood");
    let address = std::env::var(BESIDE).expect("told").parse().expect("an address");
    Runtime::new().expect("a runtime").block_on(async {
        let beside = Beside { address, copies: TaskTracker::new() };
        let life = beside.reach(GuestPort(0)).await;
        let driver = Arc::new(FakeDriver::new(Arc::new(beside)));
        let watched = Arc::clone(&driver);
        tokio::spawn(async move {
            // As far as this machine is one, it is the program beside.
            if let Ok(mut life) = life {
                let _ = life.read(&mut [0]).await;
            }
            watched.end(ExitReason::PoweredOff);
        });
        ended(&server::run(&config, &*driver, CancellationToken::new()).await)
    })
}

fn ended<T, E: std::error::Error>(result: &Result<T, E>) -> ExitCode {
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Reaches the agent's ports through `slipway-test-beside`.
struct Beside {
    address: SocketAddr,
    copies: TaskTracker,
}

impl Beside {
    async fn reach(&self, port: GuestPort) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&port.0.to_le_bytes()).await?;
        Ok(stream)
    }
}

#[async_trait]
impl Opens for Beside {
    async fn open(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        let opened = async {
            let mut stream = self.reach(port).await?;
            stream.read_exact(&mut [0]).await?;
            Ok::<_, io::Error>(stream)
        };
        match opened.await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(ConnectError::Refused { port }),
            Err(source) => Err(ConnectError::Io { port, source }),
        }
    }

    fn copies(&self) -> &TaskTracker {
        &self.copies
    }
}
