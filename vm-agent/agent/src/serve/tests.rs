use super::*;
use slipway_agent_client::{AgentClient, CallError};
use slipway_protocol::v1::{LogRecord, PhaseState, event::Kind};
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    net::UnixListener,
};

struct Served {
    guest: Arc<Guest>,
    power_off: mpsc::Receiver<u32>,
}

fn guest() -> Served {
    let (tell, power_off) = mpsc::channel(1);
    let guest = Guest {
        board: Arc::new(Board::new()),
        logs: Arc::new(Logs::new()),
        data: "/proc".into(),
        power_off: tell,
        set_clock: clock::only_check,
        reaper: Reaper::new(false),
        engine: "/nonexistent".into(),
        ports: Ports::default(),
        shares: Shares::new(),
        configuration: crate::configuration::Configuration::of_nothing(),
    };
    Served { guest: Arc::new(guest), power_off }
}

fn control(guest: &Arc<Guest>) -> (DuplexStream, tokio::task::JoinHandle<Result<(), ServeError>>) {
    let (host, theirs) = duplex(4096);
    let guest = Arc::clone(guest);
    (host, tokio::spawn(async move { guest.control(theirs, "test").await }))
}

#[tokio::test]
async fn a_client_asks_and_hears_events_until_it_closes() {
    let mut served = guest();
    served.guest.board.begin_at("kernel", 1);
    let (host, serving) = control(&served.guest);
    let (client, hello) = AgentClient::connect(host, "host").await.expect("greets");
    assert_eq!(hello.build, "test");
    let mut events = client.events();
    served.guest.board.end_at("kernel", 9, PhaseState::Done, "");
    loop {
        let kind = events.recv().await.expect("an event").kind;
        if matches!(kind, Some(Kind::Phase(phase)) if phase.ended_ms == 9) {
            break;
        }
    }
    let status = client.status().await.expect("status");
    assert_eq!(status.phases.len(), 1);
    assert!(!status.engine_ready && status.memory_bytes > 0 && status.unix_nanos > 0, "{status:?}");
    served.guest.board.engine_ready("28.5");
    assert!(client.status().await.expect("status").engine_ready);
    // A host's root folder is not ours to trim: what matters is that the reason comes through.
    assert!(matches!(client.trim(FIRST).await, Err(CallError::Failed(f)) if f.code == "trim"));
    client.power_off(Duration::from_millis(1500)).await.expect("begins");
    assert_eq!(served.power_off.recv().await, Some(1500));
    drop((client, events));
    serving.await.expect("joins").expect("a clean end");
}

#[tokio::test]
async fn a_host_of_another_age_learns_our_versions() {
    let served = guest();
    let (mut host, serving) = control(&served.guest);
    let far = v1::Hello { min_version: 900, max_version: 901, ..v1::Hello::default() };
    frame::write(&mut host, &far).await.expect("writes");
    let ours: v1::Hello = frame::read(&mut host).await.expect("reads").expect("a greeting");
    assert_eq!(ours.max_version, slipway_protocol::MAX_VERSION);
    assert!(matches!(serving.await.expect("joins"), Err(ServeError::Version(_))));
}

#[tokio::test]
async fn bytes_that_are_no_protocol_end_their_stream_only() {
    let served = guest();
    for bytes in [&[0xff; 64][..], &[0, 0, 0, 2, 0xff, 0xff], &[0, 0, 0]] {
        let (mut host, serving) = control(&served.guest);
        host.write_all(bytes).await.expect("writes");
        host.shutdown().await.expect("ends");
        assert!(matches!(serving.await.expect("joins"), Err(ServeError::Frame(_))), "{bytes:?}");
    }
    let (host, _serving) = control(&served.guest);
    AgentClient::connect(host, "host").await.expect("the next one is served");
}

#[tokio::test]
async fn a_dialled_socket_answers_after_the_hosts_end() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("echo.sock");
    let listener = UnixListener::bind(&path).expect("listens");
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("reads");
        all.reverse();
        stream.write_all(&all).await.expect("answers");
    });
    let (mut host, theirs) = UnixStream::pair().expect("a pair");
    let serving = tokio::spawn(dial(theirs));
    let target = Some(Target::UnixPath(path.to_str().expect("text").into()));
    frame::write(&mut host, &v1::Dial { target }).await.expect("writes");
    let reply: DialReply = frame::read(&mut host).await.expect("reads").expect("a reply");
    assert_eq!(reply.failure, None);
    host.write_all(b"abc").await.expect("writes");
    host.shutdown().await.expect("half-closes");
    let mut answer = String::new();
    host.read_to_string(&mut answer).await.expect("reads");
    assert_eq!(answer, "cba");
    serving.await.expect("joins").expect("a clean end");
    echo.await.expect("joins");
}

#[tokio::test]
async fn a_target_that_is_not_there_is_said() {
    for target in
        [Some(Target::UnixPath("/nonexistent".into())), Some(Target::Tcp("no address".into())), None]
    {
        let (mut host, theirs) = UnixStream::pair().expect("a pair");
        let serving = tokio::spawn(dial(theirs));
        frame::write(&mut host, &v1::Dial { target }).await.expect("writes");
        let reply: DialReply = frame::read(&mut host).await.expect("reads").expect("a reply");
        assert!(reply.failure.is_some_and(|f| f.code == "unreachable" && !f.message.is_empty()));
        serving.await.expect("joins").expect("a clean end");
    }
}

#[tokio::test]
async fn a_follower_gets_old_lines_then_new_ones_and_goes_on_where_it_was() {
    let logs = Arc::new(Logs::new());
    for n in 0..600 {
        logs.push("unit", n.to_string().as_bytes());
    }
    let (mut host, theirs) = duplex(512);
    let of = Arc::clone(&logs);
    let serving = tokio::spawn(async move { follow(theirs, &of).await });
    frame::write(&mut host, &v1::Follow { after_sequence: 10 }).await.expect("writes");
    for expected in 11..=600 {
        let record: LogRecord = frame::read(&mut host).await.expect("reads").expect("a record");
        assert_eq!(record.sequence, expected);
    }
    logs.push("unit", b"live");
    let record: LogRecord = frame::read(&mut host).await.expect("reads").expect("a record");
    assert_eq!(record.line, b"live");
    drop(host);
    serving.await.expect("joins").expect("a clean end");
}
