use super::*;
use proptest::prelude::*;
use simple_dns::{Name, Question};
use slipway_protocol::{frame, v1};
use tokio::task::JoinHandle;

use crate::serve::ServeError;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

fn ask(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).expect("a name");
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().expect("built")
}

/// The code and the addresses of an answer to the question of [`ask`].
fn told(bytes: &[u8]) -> (RCODE, Vec<Ipv4Addr>) {
    let packet = Packet::parse(bytes).expect("understood");
    assert_eq!((packet.id(), packet.questions.len()), (0x1234, 1));
    assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(Ipv4Addr::from(a.address)),
        _ => None,
    });
    (packet.rcode(), addresses.collect())
}

fn known(reach_host: bool) -> Known {
    let name = |name: &str, addresses: &[&str]| HostName {
        name: name.into(),
        addresses: addresses.iter().map(|a| (*a).into()).collect(),
    };
    Known::new(reach_host, &[name("NAS.example", &["10.1.1.1", "no address", "fd00::1"]), name("empty", &[])])
}

#[test]
fn the_hosts_names_have_its_address_in_any_case_and_nothing_of_another_kind() {
    let answer = |question: Vec<u8>, reach_host| answer(&question, HOST, &known(reach_host));
    for name in ["host.docker.internal", "gateway.docker.internal", "HOST.docker.Internal"] {
        assert_eq!(told(&answer(ask(name, TYPE::A), true).expect("known")), (RCODE::NoError, vec![HOST]));
        let other = answer(ask(name, TYPE::AAAA), true).expect("known");
        assert_eq!(told(&other), (RCODE::NoError, vec![]), "a name without such an address");
        assert_eq!(told(&answer(ask(name, TYPE::A), false).expect("known")), (RCODE::NameError, vec![]));
    }
    for name in ["docker.internal", "x.host.docker.internal", "host.docker.internal.example", "example.org"] {
        assert_eq!(answer(ask(name, TYPE::A), true), None, "{name}");
    }
}

#[test]
fn names_of_the_hosts_own_file_have_the_addresses_that_it_says() {
    let known = known(false);
    let answer = |kind| answer(&ask("nas.Example", kind), HOST, &known);
    assert_eq!(
        told(&answer(TYPE::A).expect("known")),
        (RCODE::NoError, vec![Ipv4Addr::new(10, 1, 1, 1)]),
        "whether the host may be reached or not"
    );
    let six = answer(TYPE::AAAA).expect("known");
    let packet = Packet::parse(&six).expect("understood");
    assert!(matches!(&packet.answers[..], [record] if matches!(record.rdata, RData::AAAA(_))), "{packet:?}");
    assert_eq!(answer(TYPE::MX), None, "the file says nothing about that");
}

#[test]
fn containers_look_for_short_names_where_the_host_does() {
    let resolver = Ipv4Addr::new(10, 0, 2, 3);
    assert_eq!(resolv_conf(resolver, &[]), "nameserver 10.0.2.3\n");
    let search = ["corp.example".into(), "example".into()];
    assert_eq!(resolv_conf(resolver, &search), "nameserver 10.0.2.3\nsearch corp.example example\n");
}

#[test]
fn what_is_no_plain_question_is_not_answered_here() {
    let asked = ask("host.docker.internal", TYPE::A);
    let mut reply = asked.clone();
    reply[2] |= 0x80;
    let mut many = asked.clone();
    many[4..12].copy_from_slice(&[0xff; 8]);
    for wrong in [&reply, &many, &asked[..20].to_vec(), &Vec::new()] {
        assert_eq!((answer(wrong, HOST, &known(true)), failure(wrong)), (None, None), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = (answer(&bytes, HOST, &known(true)), failure(&bytes));
    }

    /// Bytes behind a head that announces a question and extensions: the parser's whole way.
    #[test]
    fn nor_does_a_question_that_is_damaged(
        tail in proptest::collection::vec(any::<u8>(), 0..200), more in 0u8..4, at in 12usize..60, byte: u8,
    ) {
        let mut bytes = ask("host.docker.internal", TYPE::A);
        bytes[11] = more;
        bytes.extend(tail);
        if let Some(there) = bytes.get_mut(at) {
            *there = byte;
        }
        let _ = (answer(&bytes, HOST, &known(true)), failure(&bytes));
    }
}

struct Served {
    at: SocketAddr,
    known: watch::Sender<Known>,
    asked: Arc<HostResolver>,
    serving: JoinHandle<()>,
}

/// A server in front of `resolver`.
async fn serve(resolver: SocketAddr) -> Served {
    let (known, asked) = (watch::Sender::new(known(true)), Arc::<HostResolver>::default());
    let zone = Zone { host: HOST, known: known.subscribe(), asked: Arc::clone(&asked), resolver, mark: None };
    let names = Names::bind(([127, 0, 0, 1], 0).into(), zone).await.expect("listens");
    let at = names.tcp.local_addr().expect("an address");
    Served { at, known, asked, serving: tokio::spawn(names.run()) }
}

async fn by_udp(at: SocketAddr, question: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    socket.connect(at).await.expect("connected");
    socket.send(question).await.expect("sent");
    let mut answer = vec![0; LONGEST];
    let length = timeout(PATIENCE * 2, socket.recv(&mut answer)).await.expect("in time").expect("answered");
    answer.truncate(length);
    answer
}

async fn by_tcp(stream: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    write(stream, question).await.expect("asked");
    timeout(PATIENCE * 2, read(stream)).await.expect("in time").expect("answered")
}

#[tokio::test]
async fn other_names_are_the_resolvers_by_udp_and_by_tcp() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = tcp.local_addr().expect("an address");
    let udp = UdpSocket::bind(at).await.expect("bound");
    let by = |word: &[u8], question: &[u8]| [&question[..2], word, question].concat();
    let resolver = tokio::spawn(async move {
        let mut buffer = vec![0; LONGEST];
        let (length, client) = udp.recv_from(&mut buffer).await.expect("a question");
        // Somebody else's answer comes first, and is not taken for it.
        udp.send_to(b"??", client).await.expect("sent");
        udp.send_to(&by(b"udp", &buffer[..length]), client).await.expect("answered");
        let (mut stream, _) = tcp.accept().await.expect("a connection");
        let question = read(&mut stream).await.expect("a question");
        write(&mut stream, &by(b"tcp", &question)).await.expect("answered");
    });
    let served = serve(at).await;
    // Not even understood here: whatever extensions there will be, they pass.
    let mut question = ask("example.org", TYPE::MX);
    question[11] = 9;
    assert_eq!(by_udp(served.at, &question).await, by(b"udp", &question));
    let mut stream = TcpStream::connect(served.at).await.expect("connects");
    assert_eq!(by_tcp(&mut stream, &question).await, by(b"tcp", &question));
    // On the same connection, and of the setting's own mind.
    let host = ask("host.docker.internal", TYPE::A);
    assert_eq!(told(&by_tcp(&mut stream, &host).await).1, [HOST]);
    served.known.send_replace(known(false));
    assert_eq!(told(&by_udp(served.at, &host).await).0, RCODE::NameError);
    resolver.await.expect("joins");
    served.serving.abort();
}

#[tokio::test]
async fn a_resolver_that_is_not_there_is_told_at_once() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
    let served = serve(nobody).await;
    let question = ask("example.org", TYPE::A);
    assert_eq!(told(&by_udp(served.at, &question).await).0, RCODE::ServerFailure);
    let mut stream = TcpStream::connect(served.at).await.expect("connects");
    assert_eq!(told(&by_tcp(&mut stream, &question).await).0, RCODE::ServerFailure);
    served.serving.abort();
}

#[tokio::test]
async fn beyond_the_most_connections_the_next_waits_and_is_served() {
    let served = serve(([127, 0, 0, 1], 9).into()).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(TcpStream::connect(served.at).await.expect("connects"));
    }
    let host = ask("host.docker.internal", TYPE::A);
    for stream in &mut open {
        by_tcp(stream, &host).await;
    }
    let mut next = TcpStream::connect(served.at).await.expect("connects");
    write(&mut next, &host).await.expect("asked");
    assert!(timeout(Duration::from_millis(200), next.readable()).await.is_err(), "not served yet");
    drop(open.pop());
    assert_eq!(
        told(&timeout(PATIENCE, read(&mut next)).await.expect("in time").expect("answered")).1,
        [HOST]
    );
    served.serving.abort();
}

/// The host's end of a names stream that the server asks.
async fn host(served: &Served) -> (tokio::io::DuplexStream, JoinHandle<Result<(), ServeError>>) {
    let (mut host, guest) = tokio::io::duplex(1 << 16);
    let asked = Arc::clone(&served.asked);
    let serving = tokio::spawn(async move { asked.serve(guest).await });
    frame::write(&mut host, &v1::Resolve {}).await.expect("greeted");
    (host, serving)
}

async fn asked(host: &mut tokio::io::DuplexStream) -> v1::NamesAsk {
    timeout(PATIENCE, frame::read(host)).await.expect("in time").expect("a frame").expect("a question")
}

#[tokio::test]
async fn the_host_is_asked_while_it_is_there_and_answers_in_any_order() {
    // Whoever asks the resolver gets no answer but a refusal: it is asked last.
    let served = serve(([127, 0, 0, 1], 9).into()).await;
    let (mut stream, _serving) = host(&served).await;
    let (one, two) = (ask("one.example", TYPE::MX), ask("two.example", TYPE::A));
    let mut connection = TcpStream::connect(served.at).await.expect("connects");
    let answering = async {
        let (first, second) = (asked(&mut stream).await, asked(&mut stream).await);
        assert!(first.stream != second.stream, "one came by a connection");
        for ask in [second, first] {
            let answer = if ask.stream { b"by tcp".to_vec() } else { b"by udp".to_vec() };
            frame::write(&mut stream, &v1::NamesAnswer { id: ask.id, answer }).await.expect("answered");
            // And one that nobody waits for.
            frame::write(&mut stream, &v1::NamesAnswer { id: 99, answer: vec![] }).await.expect("sent");
        }
    };
    let (udp, tcp, ()) = tokio::join!(by_udp(served.at, &one), by_tcp(&mut connection, &two), answering);
    assert_eq!((&udp[..], &tcp[..]), (&b"by udp"[..], &b"by tcp"[..]));

    // None of its name servers answered.
    let answering = async {
        let ask = asked(&mut stream).await;
        let answer = v1::NamesAnswer { id: ask.id, answer: vec![] };
        frame::write(&mut stream, &answer).await.expect("answered");
    };
    let (told_by, ()) = tokio::join!(by_udp(served.at, &two), answering);
    assert_eq!(told(&told_by).0, RCODE::ServerFailure);
    served.serving.abort();
}

#[tokio::test]
async fn what_a_host_that_goes_did_not_answer_the_networks_resolver_does() {
    let resolver = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let served = serve(resolver.local_addr().expect("an address")).await;
    let question = ask("example.org", TYPE::A);
    let answering = async {
        let (mut stream, _serving) = host(&served).await;
        asked(&mut stream).await;
        drop(stream);
        let mut buffer = vec![0; LONGEST];
        let (length, client) = resolver.recv_from(&mut buffer).await.expect("a question");
        resolver.send_to(&buffer[..length], client).await.expect("answered");
    };
    let (echo, ()) = tokio::join!(by_udp(served.at, &question), answering);
    assert_eq!(echo, question);

    // A newer host takes the place of an older one, whose stream ends.
    let (_old, serving) = host(&served).await;
    let (mut new, _) = host(&served).await;
    timeout(PATIENCE, serving).await.expect("in time").expect("joins").expect("an orderly end");
    let answering = async {
        let id = asked(&mut new).await.id;
        frame::write(&mut new, &v1::NamesAnswer { id, answer: b"new".to_vec() }).await.expect("answered");
    };
    assert_eq!(tokio::join!(by_udp(served.at, &question), answering).0, b"new");
    served.serving.abort();
}
