//! Published ports over the lives of their containers: compose projects, restarts, names that change, long connections, and
//! many rounds that leave nothing behind.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use slipway_test_harness::{Home, kill};

use crate::{
    Shared, ours,
    ports::{connect, echoed, free, listed, nobody_listens, page, put_echoes},
    streams::carried,
};

pub(crate) const TESTS: &[Shared] = &[
    ("publishing_a_compose_project_with_several_ports", compose),
    ("publishing_follows_a_restart_policy", restarts),
    ("publishing_a_port_of_swarms_routing_mesh", mesh),
    ("publishing_keeps_a_connection_over_a_new_name_and_ends_it_with_the_container", connected),
    ("publishing_128_mib_each_way_arrive_whole", bulk),
    ("publishing_ten_rounds_leave_no_listener", rounds),
];

/// Run by `--ignored` alone.
pub(crate) const ON_DEMAND: &[Shared] = &[
    ("publishing_a_gibibyte_each_way_arrives_whole", gibibyte),
    ("publishing_ten_thousand_connections_at_once_are_all_served", ten_thousand),
];

const PATIENCE: Duration = Duration::from_secs(60);

fn compose(home: &Home) {
    let dir = home.path().join("several-ports");
    fs::create_dir_all(&dir).expect("made");
    let [one, two, three] = [free(), free(), free()];
    let datagrams = free();
    let yaml = format!(
        "services:\n  web:\n    image: slipway/welcome\n    ports: ['127.0.0.1:{one}:80', '127.0.0.1:{two}:80']\n  \
         more:\n    image: box\n    command: sh -c 'httpd -p 81 -h /etc; exec /bin/echoes 5300'\n    \
         ports: ['127.0.0.1:{three}:81', '127.0.0.1:{datagrams}:5300/udp']\n    stop_grace_period: 1s\n"
    );
    fs::write(dir.join("compose.yaml"), yaml).expect("written");
    let compose = |args: &[&str]| home.docker(["compose"]).args(args).in_dir(&dir).run();
    compose(&["create"]).ok();
    put_echoes(home, "several-ports-more-1");
    compose(&["start"]).ok();
    for port in [one, two] {
        home.wait_for("the page is there", PATIENCE, |_| page(port).contains("200 OK"));
    }
    home.wait_for("the other service answers", PATIENCE, |_| page(three).starts_with("HTTP/1."));
    echoed(datagrams);
    home.wait_for("each port has its container's name", PATIENCE, |home| {
        let named = |port, name: &str| listed(home, port).is_some_and(|p| p["container"]["name"] == name);
        named(one, "several-ports-web-1")
            && named(two, "several-ports-web-1")
            && named(three, "several-ports-more-1")
    });
    compose(&["down", "-t", "1"]).ok();
    for port in [one, two, three] {
        nobody_listens(home, port);
    }
}

fn restarts(home: &Home) {
    let port = free();
    let publish = format!("127.0.0.1:{port}:80");
    home.docker(["run", "-d", "--restart", "always", "--name", "again", "-p", &publish, "slipway/welcome"])
        .run()
        .ok();
    home.wait_for("the page is there", PATIENCE, |_| page(port).contains("200 OK"));
    let restarted =
        |home: &Home| home.docker(["inspect", "-f", "{{.RestartCount}}", "again"]).run().ok().text() != "0";
    let pid = home.docker(["inspect", "-f", "{{.State.Pid}}", "again"]).run().ok().text();
    home.slipway(["shell", "--", "kill", "-9", &pid]).run().ok();
    home.wait_for("it was restarted", PATIENCE, restarted);
    home.wait_for("the page is there again", PATIENCE, |_| page(port).contains("200 OK"));
    // A paused container accepts, as its kernel does, and says nothing.
    home.docker(["pause", "again"]).run().ok();
    assert!(listed(home, port).is_some(), "a paused container keeps its ports");
    home.docker(["unpause", "again"]).run().ok();
    home.wait_for("the page is there once more", PATIENCE, |_| page(port).contains("200 OK"));
    home.docker(["rm", "-f", "again"]).run().ok();
    nobody_listens(home, port);
}

/// dockerd starts no stand-in for these.
fn mesh(home: &Home) {
    let port = free();
    home.docker(["swarm", "init", "--advertise-addr", "127.0.0.1"]).run().ok();
    let publish = format!("published={port},target=80");
    let create = ["service", "create", "-d", "--name", "meshed", "-p", &publish, "slipway/welcome"];
    home.docker(create).run().ok();
    home.wait_for("the page is there", PATIENCE * 2, |_| page(port).contains("200 OK"));
    home.docker(["service", "rm", "meshed"]).run().ok();
    home.wait_for("nobody listens", PATIENCE, |_| connect(port).is_none());
    home.docker(["swarm", "leave", "--force"]).run().ok();
}

/// Both directions at once for as long as it pleases, as an upgraded connection (WebSocket, HTTP/2) does.
fn connected(home: &Home) {
    let port = free();
    let publish = format!("127.0.0.1:{port}:7");
    let script = "while true; do nc -l -p 7 -e cat; done";
    home.docker(["run", "-d", "--name", "before", "-p", &publish, "box", "sh", "-c", script]).run().ok();
    let mut answer = [0; 5];
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        assert!(Instant::now() < deadline, "never served");
        if let Some(mut stream) = connect(port)
            && stream.write_all(b"hello").is_ok()
            && stream.read_exact(&mut answer).is_ok()
        {
            break stream;
        }
        thread::sleep(Duration::from_millis(200));
    };
    let mut says = |word: &[u8; 5]| {
        stream.write_all(word)?;
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, word);
        Ok::<_, std::io::Error>(())
    };
    for _ in 0..50 {
        says(b"again").expect("a dialogue");
    }
    home.docker(["rename", "before", "after"]).run().ok();
    home.wait_for("the port has the new name", PATIENCE, |home| {
        listed(home, port).is_some_and(|p| p["container"]["name"] == "after")
    });
    says(b"still").expect("the connection knows of no names");
    // Nor of the daemon.
    let daemon = home.daemon_pid().expect("it runs");
    kill(daemon, "KILL");
    says(b"alive").expect("the connection is the shim's");
    home.wait_for("a new daemon has the machine", PATIENCE, |home| home.slipway(["status"]).run().code == 0);
    says(b"there").expect("and stays its");
    home.docker(["rm", "-f", "after"]).run().ok();
    let ended = says(b"hello").and_then(|()| says(b"hello"));
    assert!(ended.is_err(), "it ends with its container");
    nobody_listens(home, port);
}

/// An emulated machine's time for a gibibyte is a quarter of an hour, so it is an eighth of that.
fn bulk(home: &Home) {
    each_way(home, 128 << 20);
}

fn gibibyte(home: &Home) {
    each_way(home, 1 << 30);
}

/// All open, each with an answer when it was made and another when all are there; and none left when they are closed.
fn ten_thousand(home: &Home) {
    const CONNECTIONS: usize = 10_000;
    const AT_ONCE: usize = 8;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many descriptors as this process may have");
    let port = free();
    let publish = format!("127.0.0.1:{port}:7000");
    let files = ["create", "--name", "many", "--ulimit", "nofile=20000:20000", "-p", &publish];
    home.docker(files).args(["box", "/bin/ports", "7000"]).run().ok();
    ours::put(home, "slipway-test-ports", "many:/bin/ports");
    home.docker(["start", "many"]).run().ok();
    // `e` asks the server to send back what comes.
    let asked = |stream: &mut TcpStream, said: &[u8], answer: &[u8]| {
        let mut came = vec![0; answer.len()];
        stream.write_all(said).and_then(|()| stream.read_exact(&mut came)).is_ok() && came == answer
    };
    home.wait_for("the server is there", PATIENCE, |_| {
        connect(port).is_some_and(|mut stream| asked(&mut stream, b"e?", b"?"))
    });
    let before = carried(home);
    let mut streams: Vec<TcpStream> = thread::scope(|scope| {
        let some = || {
            let one = |n: usize| {
                let mut stream = connect(port).unwrap_or_else(|| panic!("number {n} of a part is taken"));
                assert!(asked(&mut stream, b"e1", b"1"), "number {n} of a part is served");
                stream
            };
            (0..CONNECTIONS / AT_ONCE).map(one).collect::<Vec<_>>()
        };
        let parts: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(some)).collect();
        parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
    });
    assert!(carried(home) >= CONNECTIONS, "all are open at once");
    for (n, stream) in streams.iter_mut().enumerate() {
        assert!(asked(stream, b"2", b"2"), "number {n} is served again");
    }
    drop(streams);
    // An emulated machine ends as many threads of the server for longer than a stream to its agent may take to open.
    home.wait_for("time for others", 3 * PATIENCE, |home| {
        home.slipway(["shell", "--", "true"]).run().code == 0
    });
    home.wait_for("their end in the guest", PATIENCE, |home| carried(home) < before + 10);
    home.docker(["rm", "-f", "many"]).run().ok();
}

/// Sends that many bytes, whose sum the server tells, and then gets as many.
fn each_way(home: &Home, size: usize) {
    // Slow is not broken: a busy host's emulated machine has two megabytes a second at least.
    let patience = PATIENCE + Duration::from_secs(size as u64 >> 19);
    let port = free();
    let publish = format!("127.0.0.1:{port}:7");
    let script = format!(
        "while true; do nc -l -p 7 -e sh -c 'md5sum | cut -c1-32; head -c {size} /dev/zero | tr \"\\0\" x'; done"
    );
    home.docker(["run", "-d", "--name", "much", "-p", &publish, "box", "sh", "-c", &script]).run().ok();
    let sum = home
        .docker(["exec", "much", "sh", "-c", &format!("head -c {size} /dev/zero | tr '\\0' y | md5sum")])
        .within(patience)
        .run()
        .ok()
        .text();
    let mut block = vec![b'y'; 1 << 20];
    let deadline = Instant::now() + PATIENCE;
    let (told, mut stream) = loop {
        assert!(Instant::now() < deadline, "never served");
        let mut stream = connect(port).expect("published");
        stream.set_read_timeout(Some(patience)).expect("set");
        let mut told = [0; 33];
        let read = (0..size / block.len())
            .try_for_each(|_| stream.write_all(&block))
            .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
            .and_then(|()| stream.read_exact(&mut told));
        if read.is_ok() {
            break (told, stream);
        }
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(String::from_utf8_lossy(&told[..32]), sum[..32], "what was sent is what arrived");
    // Not kept: it may be more than this host has room for.
    let mut got = 0;
    loop {
        let length = stream.read(&mut block).expect("more, or the end");
        if length == 0 {
            break;
        }
        got += length;
        assert!(block[..length].iter().all(|byte| *byte == b'x'), "another byte before {got}");
    }
    assert_eq!(got, size, "as many came back");
    home.docker(["rm", "-f", "much"]).run().ok();
}

fn rounds(home: &Home) {
    let (port, datagrams) = (free(), free());
    let tcp = format!("127.0.0.1:{port}:80");
    let udp = format!("127.0.0.1:{datagrams}:53/udp");
    home.docker(["create", "--name", "often", "-p", &tcp, "-p", &udp, "box", "sleep", "1000"]).run().ok();
    for round in 0..10 {
        home.docker(["start", "often"]).run().ok();
        assert!(connect(port).is_some(), "round {round}: it is listened on when `start` returns");
        home.docker(["kill", "often"]).run().ok();
        home.wait_for("nobody listens", PATIENCE, |_| connect(port).is_none());
    }
    home.docker(["rm", "-f", "often"]).run().ok();
    nobody_listens(home, port);
    let left = home.slipway(["port", "ls", "--json"]).run().ok();
    assert_eq!(left.text(), "[]");
    std::net::UdpSocket::bind(("127.0.0.1", datagrams)).expect("the datagrams' port is free");
}
