//! Many clients at once, and clients that behave badly.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use slipway_test_harness::Home;

use crate::Shared;

pub(crate) const TESTS: &[Shared] = &[
    ("load_a_thousand_connections_at_once_are_all_served", thousand),
    ("load_keep_alive_connections_serve_request_after_request", keep_alive),
    ("load_a_client_that_never_reads_costs_the_others_nothing", never_reads),
    ("load_garbage_hurts_nobody", garbage),
    ("load_a_kernel_that_patches_its_own_hot_code_lives", patched_code),
];

const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("set");
    stream
}

/// The answer's head and, of `_ping`, its two bytes.
fn answer(stream: &mut UnixStream) -> String {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 512]);
    while !bytes.ends_with(b"\r\n\r\nOK") {
        match stream.read(&mut chunk) {
            Ok(0) => panic!("it closed after {:?}", String::from_utf8_lossy(&bytes)),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn thousand(home: &Home) {
    let socket = home.docker_sock();
    let mut streams: Vec<UnixStream> = (0..1000).map(|_| connect(&socket)).collect();
    streams.iter_mut().for_each(|s| s.write_all(PING).expect("asked"));
    let served = streams.iter_mut().map(answer).filter(|a| a.starts_with("HTTP/1.1 200")).count();
    assert_eq!(served, 1000);
    // And all are still good for another.
    streams.iter_mut().for_each(|s| s.write_all(PING).expect("asked"));
    assert_eq!(streams.iter_mut().map(answer).filter(|a| a.starts_with("HTTP/1.1 200")).count(), 1000);
}

fn keep_alive(home: &Home) {
    let mut stream = connect(&home.docker_sock());
    for _ in 0..200 {
        stream.write_all(PING).expect("asked");
        assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    }
}

fn never_reads(home: &Home) {
    let socket = home.docker_sock();
    home.docker([
        "run",
        "-d",
        "--name",
        "flood",
        "box",
        "sh",
        "-c",
        "yes slipway | head -c 80000000; sleep 1000",
    ])
    .run()
    .ok();
    let deaf: Vec<UnixStream> = (0..20)
        .map(|_| {
            let mut stream = connect(&socket);
            let ask = "GET /containers/flood/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n";
            stream.write_all(ask.as_bytes()).expect("asked");
            stream
        })
        .collect();
    for _ in 0..50 {
        let mut stream = connect(&socket);
        stream.write_all(PING).expect("asked");
        assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    }
    assert_eq!(home.docker(["run", "--rm", "box", "echo", "on"]).run().ok().text(), "on");
    drop(deaf);
    home.docker(["rm", "-f", "flood"]).run().ok();
}

fn garbage(home: &Home) {
    let socket = home.docker_sock();
    for bytes in [
        &b"\0\0\0\0"[..],
        b"GET",
        b"\r\n\r\n\r\n",
        &[0xff; 100_000],
        b"POST /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ] {
        let mut stream = connect(&socket);
        // The engine may close before all is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let api = home.file("run/api.sock");
    let mut stream = connect(&api);
    let _ = stream.write_all(&[0xff; 100_000]);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(home.slipway(["status"]).run().code, 0);
    home.docker(["version"]).run().ok();
}

/// QEMU's emulation before 8.1 lost such patches with more than one thread: the guest died within the first few.
fn patched_code(home: &Home) {
    let script = "for k in 1 2 3; do (while true; do dd if=/dev/zero bs=64 count=20000 2>/dev/null | cat >/dev/null; done) & done
        i=0
        while [ $i -lt 100 ]; do
            echo $((1 - i % 2)) > /proc/sys/kernel/sched_schedstats
            i=$((i+1))
        done
        kill $(jobs -p)
        echo patched $i times";
    let ran = home.slipway(["shell", "--", "sh", "-c", script]).run().ok();
    assert!(ran.text().ends_with("patched 100 times"), "{ran}");
    home.docker(["ps"]).run().ok();
}
