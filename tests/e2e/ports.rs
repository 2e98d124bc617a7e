//! Published ports: what `docker run -p` says is listened on, on this host, as long as the container runs.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use slipway_test_harness::Home;

use crate::{Shared, ours, streams::counted};

pub(crate) const TESTS: &[Shared] = &[
    ("ports_tcp_follows_its_container", tcp),
    ("ports_udp_carries_there_and_back", udp),
    ("ports_half_close_and_bulk_there_and_back", bulk),
    ("ports_connections_are_made_in_the_guests_kernel", dialled),
    ("ports_taken_is_refused_with_the_culprit", taken),
    ("ports_of_the_host_network_are_the_hosts", host_network),
    ("ports_survive_a_killed_daemon", daemon_killed),
];

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PATIENCE: Duration = Duration::from_secs(30);

/// A port that nobody has at this moment.
pub(crate) fn free() -> u16 {
    let listener = TcpListener::bind((LOOPBACK, 0)).expect("bound");
    listener.local_addr().expect("an address").port()
}

pub(crate) fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect((LOOPBACK, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    Some(stream)
}

/// The answer to a request for `/`; empty when there is none.
pub(crate) fn page(port: u16) -> String {
    let mut text = String::new();
    if let Some(mut stream) = connect(port) {
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        // What came until it broke is the answer.
        let _ = asked.and_then(|()| stream.read_to_string(&mut text));
    }
    text
}

pub(crate) fn listed(home: &Home, port: u16) -> Option<serde_json::Value> {
    let ran = home.slipway(["port", "ls", "--json"]).run().ok();
    let ports: Vec<serde_json::Value> = serde_json::from_slice(&ran.out).expect("JSON");
    ports.into_iter().find(|p| p["host_port"] == port && p["host_ip"] == "127.0.0.1")
}

pub(crate) fn nobody_listens(home: &Home, port: u16) {
    home.wait_for("nobody listens", PATIENCE, |_| connect(port).is_none());
    assert_eq!(listed(home, port), None);
}

fn tcp(home: &Home) {
    let port = free();
    let publish = format!("127.0.0.1:{port}:80");
    home.docker(["run", "-d", "--name", "web", "-p", &publish, "slipway/welcome"]).run().ok();
    home.wait_for("the page is there", PATIENCE, |_| page(port).contains("200 OK"));
    home.wait_for("the port has its container's name", PATIENCE, |home| {
        listed(home, port).is_some_and(|p| p["container"]["name"] == "web" && p["state"] == "listening")
    });
    let table = home.slipway(["port", "ls"]).run().ok().text();
    assert!(table.contains("web") && table.contains(&format!("127.0.0.1:{port}")), "{table}");
    let asked = home.docker(["port", "web", "80/tcp"]).run().ok().text();
    assert_eq!(asked, format!("127.0.0.1:{port}"));
    home.docker(["stop", "-t", "1", "web"]).run().ok();
    nobody_listens(home, port);
    home.docker(["start", "web"]).run().ok();
    home.wait_for("the page is there again", PATIENCE, |_| page(port).contains("200 OK"));
    home.docker(["rm", "-f", "web"]).run().ok();
    nobody_listens(home, port);
}

fn udp(home: &Home) {
    let port = free();
    let publish = format!("127.0.0.1:{port}:5300/udp");
    home.docker(["create", "--name", "echo", "-p", &publish, "box", "/bin/echoes", "5300"]).run().ok();
    put_echoes(home, "echo");
    home.docker(["start", "echo"]).run().ok();
    echoed(port);
    home.docker(["rm", "-f", "echo"]).run().ok();
    assert_eq!(listed(home, port), None);
}

/// The server that sends datagrams back, into a container that is not started yet.
pub(crate) fn put_echoes(home: &Home, container: &str) {
    ours::put(home, "slipway-test-udp-echo", &format!("{container}:/bin/echoes"));
}

/// Waits until a datagram comes back.
pub(crate) fn echoed(port: u16) {
    let socket = UdpSocket::bind((LOOPBACK, 0)).expect("bound");
    socket.connect((LOOPBACK, port)).expect("connected");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    let deadline = Instant::now() + PATIENCE;
    let mut answer = [0; 100];
    // Datagrams may be lost while the server starts, as anywhere.
    let length = loop {
        assert!(Instant::now() < deadline, "no answer");
        socket.send(b"is anybody there?").or_else(refused).expect("sent");
        match socket.recv(&mut answer) {
            Ok(length) => break length,
            Err(error) => refused(error).map(drop).or_else(too_slow).expect("received"),
        }
    };
    assert_eq!(&answer[..length], b"is anybody there?");
}

/// Nobody listened to an earlier datagram.
fn refused(error: std::io::Error) -> std::io::Result<usize> {
    if error.kind() == ErrorKind::ConnectionRefused { Ok(0) } else { Err(error) }
}

fn too_slow(error: std::io::Error) -> std::io::Result<()> {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) { Ok(()) } else { Err(error) }
}

/// How many connections the guest's kernel has brought to their containers, so far.
fn dialled_so_far(home: &Home) -> usize {
    counted(home, "dialled")
}

/// Without the agent: who speaks first, at once and never again, or to nobody; over IPv4 and IPv6.
fn dialled(home: &Home) {
    const CONNECTIONS: usize = 20;
    let v6 = ["network", "create", "--ipv6", "--ipv4=false", "--subnet", "fd51:1::/64", "six"];
    home.docker(v6).run().ok();
    let hosts = [("bridge", IpAddr::from(LOOPBACK)), ("six", Ipv6Addr::LOCALHOST.into())];
    for (network, host) in hosts {
        let [port, nobody] = [free(), free()].map(|port| SocketAddr::new(host, port));
        let publish = [format!("{port}:7"), format!("{nobody}:9")];
        let connect = |to: SocketAddr| {
            let stream = TcpStream::connect(to).expect("published");
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
            stream
        };
        let create =
            ["run", "-d", "--name", "greets", "--network", network, "-p", &publish[0], "-p", &publish[1]];
        let serve = ["box", "nc", "-ll", "-p", "7", "-e", "sh", "-c", "echo hello; cat"];
        home.docker(create.iter().chain(&serve)).run().ok();
        // The client that says nothing hears the server; one that says all at once is heard to the end.
        let answered = |said: &[u8]| {
            let mut stream = connect(port);
            let mut got = Vec::new();
            let asked = stream.write_all(said).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
            let _ = asked.and_then(|()| stream.read_to_end(&mut got));
            got == [b"hello\n", said].concat()
        };
        home.wait_for("the server is there", PATIENCE, |_| answered(b""));
        let before = dialled_so_far(home);
        for n in 0..CONNECTIONS {
            assert!(answered(&vec![b'x'; n * 1000]), "number {n}, network {network}");
        }
        assert_eq!(dialled_so_far(home), before + CONNECTIONS, "all of them, network {network}");
        let mut refused = connect(nobody);
        assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0, "nobody listens there");
        home.docker(["rm", "-f", "greets"]).run().ok();
    }
    home.docker(["network", "rm", "six"]).run().ok();
}

/// The server speaks only when its input has ended.
fn bulk(home: &Home) {
    let port = free();
    let publish = format!("127.0.0.1:{port}:7");
    let script = "while true; do nc -l -p 7 -e sh -c 'cat > /tmp/in; cat /tmp/in'; done";
    home.docker(["run", "-d", "--name", "late", "-p", &publish, "box", "sh", "-c", script]).run().ok();
    let sent: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let deadline = Instant::now() + Duration::from_secs(100);
    loop {
        let mut stream = connect(port).expect("published");
        let mut got = Vec::new();
        let wrote = stream.write_all(&sent).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        // Refused inside while the server is not there yet: the connection ends without a byte.
        let read = wrote.and_then(|()| stream.read_to_end(&mut got));
        if read.is_ok() && !got.is_empty() {
            assert_eq!(got.len(), sent.len());
            assert!(got == sent, "the same bytes");
            break;
        }
        assert!(Instant::now() < deadline, "never served");
        std::thread::sleep(Duration::from_millis(200));
    }
    home.docker(["rm", "-f", "late"]).run().ok();
}

fn taken(home: &Home) {
    let holder = TcpListener::bind((LOOPBACK, 0)).expect("bound");
    let port = holder.local_addr().expect("an address").port();
    let (ours, also) = (format!("127.0.0.1:{port}:80"), free());
    let other = format!("127.0.0.1:{also}:81");
    let ran =
        home.docker(["run", "-d", "--name", "late", "-p", &other, "-p", &ours, "slipway/welcome"]).run();
    assert_ne!(ran.code, 0, "{ran}");
    assert!(ran.err.contains(&port.to_string()) && ran.err.contains("in use"), "{ran}");
    assert!(ran.err.contains(&format!("{}", std::process::id())), "names who has it: {ran}");
    let state = home.docker(["inspect", "-f", "{{.State.Running}}", "late"]).run().ok().text();
    assert_eq!(state, "false");
    nobody_listens(home, also);
    drop(holder);
    home.docker(["start", "late"]).run().ok();
    home.wait_for("it is served now", PATIENCE, |_| page(port).contains("200 OK"));
    home.docker(["rm", "-f", "late"]).run().ok();
}

/// Nothing is published: what listens in the guest's own network does so on the host.
fn host_network(home: &Home) {
    let port = free();
    // Not one of those that clients get in the guest.
    let datagrams = (20_000..30_000).find(|port| UdpSocket::bind((LOOPBACK, *port)).is_ok()).expect("one");
    // What listens in a network of its own is not the host's to listen on.
    let other = free();
    let apart = format!("exec httpd -f -p 127.0.0.1:{other} -h /etc");
    home.docker(["run", "-d", "--name", "apart", "box", "sh", "-c", &apart]).run().ok();
    let script = format!("/bin/echoes {datagrams} & exec httpd -f -p 127.0.0.1:{port} -h /etc");
    home.docker(["create", "--name", "near", "--network", "host", "box", "sh", "-c", &script]).run().ok();
    put_echoes(home, "near");
    home.docker(["start", "near"]).run().ok();
    home.wait_for("it is served", PATIENCE, |_| page(port).starts_with("HTTP/1."));
    home.wait_for("the port has its container's name", PATIENCE, |home| {
        listed(home, port).is_some_and(|p| p["container"]["name"] == "near" && p["origin"] == "listening")
    });
    echoed(datagrams);
    let all = home.slipway(["port", "ls"]).run().ok().text();
    assert!(all.contains(&format!("0.0.0.0:{datagrams}")), "{all}");
    nobody_listens(home, other);
    home.docker(["rm", "-f", "near", "apart"]).run().ok();
    nobody_listens(home, port);
    home.wait_for("the datagrams' port is free", PATIENCE, |_| {
        UdpSocket::bind((LOOPBACK, datagrams)).is_ok()
    });
}

fn daemon_killed(home: &Home) {
    let port = free();
    let publish = format!("127.0.0.1:{port}:80");
    home.docker(["run", "-d", "--name", "steady", "-p", &publish, "slipway/welcome"]).run().ok();
    home.wait_for("the page is there", PATIENCE, |_| page(port).contains("200 OK"));
    let daemon = home.daemon_pid().expect("it runs");
    slipway_test_harness::kill(daemon, "KILL");
    home.wait_for("a new daemon has the machine", PATIENCE, |home| {
        home.slipway(["status"]).run().code == 0 && home.daemon_pid().is_some_and(|pid| pid != daemon)
    });
    home.wait_for("the port is back", PATIENCE, |_| page(port).contains("200 OK"));
    home.wait_for("and listed", PATIENCE, |home| listed(home, port).is_some());
    home.docker(["rm", "-f", "steady"]).run().ok();
    nobody_listens(home, port);
}
