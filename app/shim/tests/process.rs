//! Shim and client together, over the real socket; only the machine is fake.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use slipway_protocol::ports::{ENGINE, FORWARD};
use slipway_relay::ports::{PortSpec, Protocol};
use slipway_shim::{
    client::{Life, ShimClient, ShimClientError},
    server::{ShimConfig, ShimError, run},
    spawn,
};
use slipway_vm::{AccelChoice, ExitReason, GuestArch, MachineSpec, Stall, fake::FakeDriver};
use slipway_vsock::{
    ConnectError, HostSocket, Transport,
    endpoint::{self, Listener, Stream},
    memory::{Fault, MemoryTransport},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Where this system's programs listen: in a folder, or under a name that nobody else has.
fn place(dir: &Path, name: &str) -> PathBuf {
    let unique = dir.file_name().expect("a folder").to_string_lossy();
    match cfg!(windows) {
        true => PathBuf::from(format!(r"\\.\pipe\slipway_test-{name}-{unique}")),
        false => dir.join(format!("{name}.sock")),
    }
}

fn config(dir: &Path) -> ShimConfig {
    let path = |name: &str| dir.join(name);
    ShimConfig {
        spec: MachineSpec {
            name: "test".into(),
            cpus: 1,
            memory_mib: 64,
            kernel: path("kernel"),
            initramfs: path("initramfs"),
            root_image: path("root"),
            data_disk: path("data"),
            cmdline: Vec::new(),
            run_dir: dir.into(),
            console_log: path("console.log"),
            accel: AccelChoice::Auto,
            share_socket: None,
        },
        lock: path("shim.lock"),
        socket: place(dir, "shim"),
        exit_file: path("exit.json"),
        accel_verdict: path("accel.json"),
        guest: GuestArch::HOST,
        vmm_binary: None,
        share: None,
    }
}

struct Shim {
    dir: tempfile::TempDir,
    guest: Arc<MemoryTransport>,
    driver: Arc<FakeDriver>,
    task: JoinHandle<Result<ExitReason, ShimError>>,
}

impl Shim {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let guest = Arc::new(MemoryTransport::new());
        let driver = Arc::new(FakeDriver::new(guest.clone()));
        let task = tokio::spawn({
            let (config, driver) = (config(dir.path()), driver.clone());
            async move { run(&config, &*driver, CancellationToken::new()).await }
        });
        Self { dir, guest, driver, task }
    }

    async fn client(&self) -> ShimClient {
        for _ in 0..500 {
            if let Ok(client) = ShimClient::connect(&place(self.dir.path(), "shim")).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the shim listens within 5 s");
    }
}

/// A client's connection, and its other end as the relay hands it over.
async fn pair(shim: &Shim) -> (Stream, HostSocket) {
    let path = place(shim.dir.path(), "client");
    let mut listener = Listener::bind(&path).expect("listens");
    let (client, host) = tokio::join!(endpoint::connect(&path), listener.accept());
    let host = endpoint::give(host.expect("accepted")).expect("given");
    (client.expect("connects"), host)
}

async fn ended(client: &ShimClient) -> Life {
    let mut life = client.life();
    let change = life.wait_for(|l| *l != Life::Runs);
    timeout(Duration::from_secs(5), change).await.expect("in time").expect("said").clone()
}

#[tokio::test]
async fn a_handed_over_socket_outlives_the_daemon_that_handed_it_over() {
    let shim = Shim::start();
    let mut engine = shim.guest.serve(ENGINE);
    let daemon = shim.client().await;
    let (mut client, host) = pair(&shim).await;
    daemon.splice(ENGINE, host, Bytes::from_static(b"GET ")).await.map_err(|(e, _)| e).expect("accepted");
    let mut guest = engine.recv().await.expect("the engine has the stream");
    drop(daemon);
    client.write_all(b"/_ping").await.expect("write");
    client.shutdown().await.expect("half-close");
    let mut request = Vec::new();
    guest.read_to_end(&mut request).await.expect("end");
    assert_eq!(request, b"GET /_ping");
    guest.write_all(b"OK").await.expect("the way back is open");
    drop(guest);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("end");
    assert_eq!(answer, b"OK");
    assert_eq!(shim.client().await.status().await.expect("a new daemon is served").capabilities.vmm, "fake");
}

#[tokio::test]
async fn a_refused_splice_gives_the_daemon_its_socket_back() {
    let shim = Shim::start();
    let _engine = shim.guest.serve(ENGINE);
    shim.guest.inject(ENGINE, Fault::Refuse(1));
    let (mut client, host) = pair(&shim).await;
    let (error, host) =
        shim.client().await.splice(ENGINE, host, Bytes::new()).await.expect_err("the fault is scripted");
    assert!(matches!(error, ConnectError::Refused { port: ENGINE }), "{error}");
    let mut host = endpoint::take_back(host).expect("a socket");
    host.write_all(b"503").await.expect("write");
    drop(host);
    let mut got = Vec::new();
    timeout(Duration::from_secs(5), client.read_to_end(&mut got))
        .await
        .expect("no copy is left open")
        .expect("end");
    assert_eq!(got, b"503");
}

#[tokio::test]
async fn one_machine_has_one_shim() {
    let shim = Shim::start();
    shim.client().await;
    let second = run(&config(shim.dir.path()), &*shim.driver, CancellationToken::new()).await;
    assert!(matches!(second, Err(ShimError::AlreadyRuns(_))), "{second:?}");
    let adopted = spawn::adopt(
        &shim.dir.path().join("shim.lock"),
        &place(shim.dir.path(), "shim"),
        Duration::from_secs(2),
    )
    .await
    .expect("looked up");
    assert!(adopted.is_some(), "a living shim is adopted");
}

#[tokio::test]
async fn the_reason_of_the_end_reaches_daemons_and_the_disk() {
    let shim = Shim::start();
    let daemon = shim.client().await;
    let reason = ExitReason::Crashed { detail: "signal 9".into() };
    // The status is answered only when the machine runs and the connection is served.
    daemon.status().await.expect("status");
    shim.driver.end(reason.clone());
    assert_eq!(ended(&daemon).await, Life::Ended(reason.clone()));
    assert_eq!(shim.task.await.expect("joined").expect("ended well"), reason);
    assert_eq!(spawn::last_exit(&shim.dir.path().join("exit.json")), Some(reason));
    let (lock, socket) = (shim.dir.path().join("shim.lock"), place(shim.dir.path(), "shim"));
    let nobody = spawn::adopt(&lock, &socket, Duration::from_secs(1));
    assert!(nobody.await.expect("looked up").is_none(), "the lock is free again");
}

#[tokio::test]
async fn a_kill_ends_machine_and_shim() {
    let shim = Shim::start();
    let daemon = shim.client().await;
    daemon.kill(Duration::from_secs(1)).await.expect("asked");
    assert_eq!(ended(&daemon).await, Life::Ended(ExitReason::Killed));
    assert_eq!(shim.task.await.expect("joined").expect("ended well"), ExitReason::Killed);
}

#[tokio::test]
async fn nonsense_on_the_socket_hurts_nobody() {
    let shim = Shim::start();
    let daemon = shim.client().await;
    let rude = slipway_shim::wire::Peer::connect(&place(shim.dir.path(), "shim")).await.expect("connects");
    rude.send(&serde_json::json!({"id": "x", "call": {"call": "format-disk"}}), None).await.expect("sent");
    let reply: Option<(slipway_shim::wire::Reply, _)> = rude.receive().await.expect("an answer");
    assert_eq!(reply.expect("an answer").0.id, 0);
    daemon.status().await.expect("the others are served");
}

#[tokio::test]
async fn a_published_port_outlives_its_daemon_and_ends_with_the_machine() {
    let shim = Shim::start();
    let mut forwarded = shim.guest.serve(FORWARD);
    let host = std::net::TcpListener::bind("127.0.0.1:0").expect("free").local_addr().expect("address");
    let port = |id| PortSpec {
        id,
        protocol: Protocol::Tcp,
        host,
        target: "172.17.0.2:80".parse().expect("address"),
    };
    let daemon = shim.client().await;
    daemon.publish(port(1)).await.expect("published");
    drop(daemon);
    let _client = tokio::net::TcpStream::connect(host).await.expect("the shim listens");
    let _container = forwarded.recv().await.expect("a stream");
    let next = shim.client().await;
    let ports = next.ports().await.expect("listed");
    assert_eq!(ports.iter().map(|p| &p.spec).collect::<Vec<_>>(), [&port(1)]);
    match next.publish(port(2)).await {
        Err(ShimClientError::NotPublished(failure)) => {
            assert_eq!(failure.code, "port-in-use");
            // Who it is is not found out everywhere.
            let known = if cfg!(target_os = "linux") { "in use on this computer by" } else { "in use" };
            assert!(failure.message.contains(known), "{}", failure.message);
        }
        other => panic!("taken, and not {other:?}"),
    }
    next.withdraw(1).await.expect("withdrawn");
    next.withdraw(1).await.expect("which it is");
    next.publish(port(2)).await.expect("free at once");
    next.kill(Duration::from_secs(1)).await.expect("ends");
    ended(&next).await;
    shim.task.await.expect("joins").expect("a clean end");
    std::net::TcpListener::bind(host).expect("nothing listens any more");
}

#[tokio::test]
async fn a_machine_without_room_is_told_of_and_goes_on_when_there_is_room() {
    let shim = Shim::start();
    let daemon = shim.client().await;
    // The test's own disk has room, so the first look is the last.
    shim.driver.stall(Stall::HostDiskFull);
    let (mut first, later) = (daemon.stall(), shim.client().await);
    let mut second = later.stall();
    for stall in [&mut first, &mut second] {
        let told = stall.wait_for(|stall| *stall == Some(Stall::HostDiskFull));
        timeout(Duration::from_secs(5), told).await.expect("in time").expect("told");
    }
    for stall in [&mut first, &mut second] {
        let told = stall.wait_for(Option::is_none);
        timeout(Duration::from_secs(10), told).await.expect("in time").expect("told");
    }
    assert_eq!(*daemon.life().borrow(), Life::Runs);
}
