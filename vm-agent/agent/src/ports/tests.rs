use super::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, UdpSocket, UnixStream},
    task::JoinHandle,
};

fn bind(port: u32) -> v1::PortBind {
    v1::PortBind {
        id: 0,
        protocol: v1::PortProtocol::Tcp.into(),
        host_ip: "0.0.0.0".into(),
        host_port: port,
        target: "172.17.0.2:80".into(),
        origin: v1::PortOrigin::Published.into(),
        container: String::new(),
    }
}

struct Host {
    stream: DuplexStream,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Host {
    async fn connect(ports: &Ports) -> Self {
        let (mut stream, theirs) = duplex(4096);
        let ports = ports.clone();
        let serving = tokio::spawn(async move { ports.serve(theirs).await });
        frame::write(&mut stream, &v1::Publish {}).await.expect("greets");
        Self { stream, serving }
    }

    async fn asked(&mut self) -> ports_ask::Ask {
        let ask = timeout(Duration::from_secs(5), frame::read::<v1::PortsAsk, _>(&mut self.stream)).await;
        ask.expect("in time").expect("a frame").expect("not the end").ask.expect("known")
    }

    async fn asked_bind(&mut self) -> v1::PortBind {
        match self.asked().await {
            ports_ask::Ask::Bind(bind) => bind,
            other => panic!("a bind, and not {other:?}"),
        }
    }

    async fn answer(&mut self, id: u64, result: ports_answer::Result) {
        frame::write(&mut self.stream, &v1::PortsAnswer { id, result: Some(result) }).await.expect("answers");
    }
}

#[tokio::test]
async fn a_port_lives_from_its_claim_to_its_release_and_both_wait_for_the_host() {
    let ports = Ports::default();
    let mut host = Host::connect(&ports).await;
    assert_eq!(host.asked().await, ports_ask::Ask::Synced(v1::PortsSynced {}));
    let mut claim = ports.claim(bind(8080)).await;
    let asked = host.asked_bind().await;
    assert_eq!((asked.host_port, asked.id), (8080, claim.id));
    host.answer(asked.id, ports_answer::Result::Bound(v1::Ok {})).await;
    claim.bound().await.expect("bound");
    let releasing = tokio::spawn(claim.release());
    assert_eq!(host.asked().await, ports_ask::Ask::Release(v1::PortRelease { id: asked.id }));
    tokio::task::yield_now().await;
    assert!(!releasing.is_finished(), "the host has not closed it yet");
    host.answer(asked.id, ports_answer::Result::Released(v1::Ok {})).await;
    releasing.await.expect("joins");
    assert!(ports.table().entries.is_empty());
}

#[tokio::test]
async fn a_host_that_comes_later_is_told_what_is_held_and_answers_who_waits() {
    let ports = Ports::default();
    let mut waits = ports.claim(bind(1)).await;
    let gone = ports.claim(bind(2)).await;
    drop(gone);
    let mut host = Host::connect(&ports).await;
    let asked = host.asked_bind().await;
    assert_eq!(asked.host_port, 1, "what nobody claims any more is not asked for");
    assert_eq!(host.asked().await, ports_ask::Ask::Synced(v1::PortsSynced {}));
    let refused = v1::Failure { code: "in-use".into(), message: "taken".into(), hint: String::new() };
    host.answer(asked.id, ports_answer::Result::Failure(refused.clone())).await;
    assert_eq!(waits.bound().await, Err(refused));
    // A second daemon takes over; the first one's stream ends.
    let mut second = Host::connect(&ports).await;
    assert_eq!(second.asked_bind().await.id, asked.id, "the same port keeps its id");
    timeout(Duration::from_secs(5), host.serving)
        .await
        .expect("in time")
        .expect("joins")
        .expect("a clean end");
}

#[tokio::test]
async fn a_release_that_no_host_will_hear_of_is_done() {
    let ports = Ports::default();
    let mut host = Host::connect(&ports).await;
    host.asked().await;
    let claim = ports.claim(bind(1)).await;
    host.asked_bind().await;
    let releasing = tokio::spawn(claim.release());
    host.asked().await;
    drop(host);
    timeout(RELEASE / 2, releasing).await.expect("does not wait for the dead").expect("joins");
    timeout(RELEASE / 2, ports.claim(bind(1)).await.release()).await.expect("nor for one who is not there");
}

#[tokio::test]
async fn a_port_that_is_asked_for_again_waits_for_its_old_holders_end() {
    let ports = Ports::default();
    let mut host = Host::connect(&ports).await;
    host.asked().await;
    let old = ports.claim(bind(1)).await;
    let first = host.asked_bind().await;
    host.answer(first.id, ports_answer::Result::Bound(v1::Ok {})).await;
    let again = tokio::spawn({
        let ports = ports.clone();
        async move { ports.claim(bind(1)).await.id }
    });
    tokio::task::yield_now().await;
    drop(old);
    assert_eq!(host.asked().await, ports_ask::Ask::Release(v1::PortRelease { id: first.id }));
    host.answer(first.id, ports_answer::Result::Released(v1::Ok {})).await;
    assert_eq!(host.asked_bind().await.id, again.await.expect("joins"), "released first, then bound");
}

#[tokio::test]
async fn a_stand_in_that_dies_gives_its_port_up() {
    let dir = tempfile::tempdir().expect("folder");
    let (path, ports) = (dir.path().join("s/ports.sock"), Ports::default());
    let serving = tokio::spawn({
        let (path, ports) = (path.clone(), ports.clone());
        async move { local::run(&path, ports, &crate::logs::Logs::new()).await }
    });
    let mut host = Host::connect(&ports).await;
    host.asked().await;
    let mut stream = loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    frame::write(&mut stream, &bind(8080)).await.expect("asks");
    let id = host.asked_bind().await.id;
    host.answer(id, ports_answer::Result::Bound(v1::Ok {})).await;
    let answer = frame::read::<v1::PortsAnswer, _>(&mut stream).await.expect("a frame").expect("an answer");
    assert_eq!(answer.result, Some(ports_answer::Result::Bound(v1::Ok {})));
    drop(stream);
    assert_eq!(host.asked().await, ports_ask::Ask::Release(v1::PortRelease { id }));
    serving.abort();
}

#[tokio::test]
async fn what_listens_in_the_guests_own_network_is_asked_for_as_long_as_it_does() {
    if !super::sockets::is_answered() {
        return;
    }
    let root = tempfile::tempdir().expect("folder");
    let ports = Ports::default();
    let watching = tokio::spawn({
        let (cgroups, ports) = (root.path().to_owned(), ports.clone());
        async move { watcher::run(cgroups, ports, &crate::logs::Logs::new()).await }
    });
    let mut host = Host::connect(&ports).await;
    host.asked().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("address");
    let id = "c".repeat(64);
    let cgroup = root.path().join("docker").join(&id);
    std::fs::create_dir_all(&cgroup).expect("folders");
    std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).expect("written");
    // Other tests' sockets are this process's too.
    let asked = loop {
        if let ports_ask::Ask::Bind(bind) = host.asked().await
            && bind.host_port == u32::from(address.port())
        {
            break bind;
        }
    };
    assert_eq!((&asked.target, &asked.container), (&address.to_string(), &id));
    assert_eq!((asked.host_ip.as_str(), asked.origin()), ("127.0.0.1", v1::PortOrigin::Listening));
    host.answer(asked.id, ports_answer::Result::Bound(v1::Ok {})).await;
    drop(listener);
    while host.asked().await != ports_ask::Ask::Release(v1::PortRelease { id: asked.id }) {}
    watching.abort();
}

#[tokio::test]
async fn a_forwarded_connection_reaches_its_target_and_keeps_half_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let target = listener.local_addr().expect("address").to_string();
    let container = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.expect("to its end");
        stream.write_all(b"answer after the end").await.expect("answers");
        question
    });
    let (mut host, guest) = UnixStream::pair().expect("a pair");
    let serving = tokio::spawn(forward::tcp(guest));
    let dial = v1::Dial { target: Some(v1::dial::Target::Tcp(target)) };
    let mut first = frame::encode(&dial).expect("fits");
    first.extend_from_slice(b"question");
    host.write_all(&first).await.expect("writes");
    host.shutdown().await.expect("half-close");
    let mut answer = Vec::new();
    host.read_to_end(&mut answer).await.expect("reads");
    assert_eq!(
        (answer.as_slice(), container.await.expect("joins").as_slice()),
        (&b"answer after the end"[..], &b"question"[..])
    );
    serving.await.expect("joins").expect("a clean end");
}

#[tokio::test]
async fn datagrams_of_two_clients_come_back_to_their_own_flows() {
    let server = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let target = server.local_addr().expect("address").to_string();
    let container = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        for _ in 0..3 {
            let (count, client) = server.recv_from(&mut buffer).await.expect("a datagram");
            let answer = [b"re:", &buffer[..count]].concat();
            server.send_to(&answer, client).await.expect("answers");
        }
    });
    let (mut host, guest) = duplex(1 << 16);
    let serving = tokio::spawn(forward::udp(guest));
    let dial = v1::Dial { target: Some(v1::dial::Target::Udp(target)) };
    frame::write(&mut host, &dial).await.expect("dials");
    let datagram = |flow, payload: &[u8]| v1::Datagram { flow, payload: payload.to_vec(), end: false };
    for (flow, payload) in [(1, &b"one"[..]), (2, b""), (1, b"two")] {
        frame::write(&mut host, &datagram(flow, payload)).await.expect("sends");
    }
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = timeout(Duration::from_secs(5), frame::read::<v1::Datagram, _>(&mut host)).await;
        let answer = answer.expect("in time").expect("a frame").expect("an answer");
        answers.push((answer.flow, answer.payload));
    }
    answers.sort();
    assert_eq!(answers, [(1, b"re:one".to_vec()), (1, b"re:two".to_vec()), (2, b"re:".to_vec())]);
    container.await.expect("joins");
    drop(host);
    serving.await.expect("joins").expect("a clean end");
}
