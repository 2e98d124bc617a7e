use slipway_vsock::{
    endpoint::Stream,
    memory::{Fault, MemoryTransport},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::timeout,
};

use super::*;

/// A place for the relay to listen at.
fn place(dir: &Path) -> PathBuf {
    // Pipes have no folder; the name of this one is nobody else's.
    let pipe = || Path::new(r"\\.\pipe").join(dir.file_name().expect("a name"));
    if cfg!(windows) { pipe() } else { dir.join("docker.sock") }
}

struct Running {
    dir: tempfile::TempDir,
    gate: watch::Sender<Gate>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(gate: Gate) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let relay = Relay::listen(&place(dir.path())).expect("listens");
        let (gate, watched) = watch::channel(gate);
        let stop = CancellationToken::new();
        let task = tokio::spawn(relay.run(watched, stop.clone()));
        Self { dir, gate, stop, task }
    }

    async fn client(&self) -> Stream {
        endpoint::connect(&place(self.dir.path())).await.expect("connects")
    }
}

async fn all(client: &mut Stream) -> String {
    let mut text = String::new();
    let end = timeout(Duration::from_secs(10), client.read_to_string(&mut text));
    end.await.expect("in time").expect("the end");
    text
}

fn closed() -> Gate {
    Gate::Closed { reason: "slipway is not running".into(), hint: "slipway start".into() }
}

#[tokio::test]
async fn a_client_of_a_stopped_engine_hears_why_and_what_to_do() {
    let relay = Running::start(closed());
    let mut client = relay.client().await;
    client.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await.expect("write");
    let answer = all(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let json: serde_json::Value = serde_json::from_str(body).expect("Docker's own form of an error");
    assert_eq!(json["message"], "slipway is not running\nhint: slipway start");
}

#[tokio::test]
async fn bytes_and_half_closes_pass_unchanged() {
    let guest = Arc::new(MemoryTransport::new());
    let mut engine = guest.serve(ENGINE);
    let relay = Running::start(Gate::Open(guest));
    let mut client = relay.client().await;
    let odd = b"not even HTTP \x00\xff\r\n";
    client.write_all(odd).await.expect("write");
    client.shutdown().await.expect("half-close");
    let mut stream = engine.recv().await.expect("the engine has it");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.expect("end");
    assert_eq!(got, odd);
    stream.write_all(b"answer after the end").await.expect("write");
    drop(stream);
    assert_eq!(all(&mut client).await, "answer after the end");
}

#[tokio::test]
async fn clients_of_a_starting_engine_are_held_and_then_served() {
    let relay = Running::start(Gate::Wait);
    let mut client = relay.client().await;
    client.write_all(b"early").await.expect("write");
    let guest = Arc::new(MemoryTransport::new());
    let mut engine = guest.serve(ENGINE);
    relay.gate.send_replace(Gate::Open(guest));
    let mut stream = engine.recv().await.expect("served");
    let mut early = [0; 5];
    stream.read_exact(&mut early).await.expect("read");
    assert_eq!(&early, b"early");
}

#[tokio::test]
async fn an_engine_short_of_backlog_is_asked_again() {
    let guest = Arc::new(MemoryTransport::new());
    let mut engine = guest.serve(ENGINE);
    guest.inject(ENGINE, Fault::Refuse(5));
    let relay = Running::start(Gate::Open(guest));
    let _client = relay.client().await;
    timeout(Duration::from_secs(5), engine.recv()).await.expect("in time").expect("served at the sixth try");
}

#[tokio::test]
async fn an_engine_that_stays_away_is_a_503_and_not_a_closed_door() {
    let guest = Arc::new(MemoryTransport::new());
    let relay = Running::start(Gate::Open(guest));
    let mut client = relay.client().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("write");
    assert!(all(&mut client).await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn handed_over_connections_outlive_the_relay() {
    let guest = Arc::new(MemoryTransport::new());
    let mut engine = guest.serve(ENGINE);
    let relay = Running::start(Gate::Open(guest.clone()));
    let mut client = relay.client().await;
    let mut stream = engine.recv().await.expect("served");
    relay.stop.cancel();
    relay.task.await.expect("the relay ends");
    stream.write_all(b"still here").await.expect("write");
    drop(stream);
    assert_eq!(all(&mut client).await, "still here");
    assert!(!relay.dir.path().join("docker.sock").exists(), "the socket is removed");
}

#[tokio::test]
async fn a_thousand_clients_at_once_are_all_served_beside_one_that_never_asks() {
    let guest = Arc::new(MemoryTransport::new());
    let mut engine = guest.serve(ENGINE);
    let relay = Running::start(Gate::Open(guest));
    let _silent = relay.client().await;
    let echo = tokio::spawn(async move {
        let tasks = TaskTracker::new();
        for _ in 0..1001 {
            let mut stream = engine.recv().await.expect("served");
            tasks.spawn(async move {
                let mut bytes = [0; 4];
                if stream.read_exact(&mut bytes).await.is_ok() {
                    stream.write_all(&bytes).await.expect("write");
                }
            });
        }
        tasks
    });
    let mut clients = Vec::new();
    for n in 0..1000u32 {
        let mut client = relay.client().await;
        client.write_all(&n.to_be_bytes()).await.expect("write");
        clients.push(client);
    }
    for (n, mut client) in clients.into_iter().enumerate() {
        let mut bytes = [0; 4];
        timeout(Duration::from_secs(20), client.read_exact(&mut bytes))
            .await
            .expect("in time")
            .expect("read");
        assert_eq!(u32::from_be_bytes(bytes) as usize, n);
    }
    echo.abort();
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_use_the_socket() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let _guard = runtime.enter();
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("docker.sock");
    let _relay = Relay::listen(&path).expect("listens");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
}
