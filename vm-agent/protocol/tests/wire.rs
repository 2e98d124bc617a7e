//! The bytes on the wire are frozen: a host and a guest image of different age must understand each other.

use proptest::prelude::*;
use prost::Message;
use slipway_protocol::{
    frame,
    v1::{self, reply, request},
};

/// One filled example of every message that travels on its own.
fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let request = |call| v1::Request { id: 7, call: Some(call) }.encode_to_vec();
    let reply = |result| v1::Reply { id: 7, result: Some(result) }.encode_to_vec();
    let exec = |kind| v1::ExecFrame { kind: Some(kind) }.encode_to_vec();
    let phase = v1::Phase {
        name: "engine".into(),
        state: v1::PhaseState::Done.into(),
        started_ms: 900,
        ended_ms: 2300,
        detail: "dockerd 28.5.2".into(),
    };
    let service = v1::Service { name: "dockerd".into(), pid: 42, restarts: 1, last_exit: "signal 9".into() };
    let failure =
        v1::Failure { code: "NO_SOCKET".into(), message: "no such socket".into(), hint: "start it".into() };
    let event =
        |kind| v1::Reply { id: 0, result: Some(reply::Result::Event(v1::Event { kind: Some(kind) })) };
    let ask = |ask| v1::PortsAsk { ask: Some(ask) }.encode_to_vec();
    let answer = |result| v1::PortsAnswer { id: 7, result: Some(result) }.encode_to_vec();
    vec![
        (
            "hello",
            v1::Hello { min_version: 1, max_version: 3, build: "0.1.0".into(), features: vec!["x".into()] }
                .encode_to_vec(),
        ),
        ("request-ping", request(request::Call::Ping(v1::Ping {}))),
        (
            "request-set-clock",
            request(request::Call::SetClock(v1::SetClock { unix_nanos: 1_700_000_000_123_456_789 })),
        ),
        (
            "request-power-off",
            request(request::Call::PowerOff(v1::PowerOff { timeout_ms: 10_000, reboot: true })),
        ),
        ("request-get-status", request(request::Call::GetStatus(v1::GetStatus {}))),
        ("request-trim", request(request::Call::Trim(v1::Trim {}))),
        (
            "request-set-shares",
            request(request::Call::SetShares(v1::SetShares {
                shares: vec![v1::Share {
                    id: "a1".into(),
                    path: b"/home/x".to_vec(),
                    read_only: true,
                    file: true,
                }],
            })),
        ),
        (
            "request-configure",
            request(request::Call::Configure(v1::Configure { reach_host: true, ..v1::Configure::default() })),
        ),
        (
            "request-configure-all",
            request(request::Call::Configure(v1::Configure {
                reach_host: true,
                proxies: Some(v1::Proxies {
                    http: "http://p:1".into(),
                    https: "http://p:2".into(),
                    without: "a".into(),
                }),
                authorities: b"pem".to_vec(),
                registry_files: vec![v1::RegistryFile {
                    registry: "r:5000".into(),
                    name: "ca.crt".into(),
                    content: b"ca".to_vec(),
                }],
                engine_config: "{}".into(),
                ..v1::Configure::default()
            })),
        ),
        (
            "request-configure-names",
            request(request::Call::Configure(v1::Configure {
                search: vec!["corp.example".into()],
                host_names: vec![v1::HostName { name: "nas".into(), addresses: vec!["10.1.1.1".into()] }],
                ..v1::Configure::default()
            })),
        ),
        ("resolve", v1::Resolve {}.encode_to_vec()),
        ("names-ask", v1::NamesAsk { id: 7, question: b"q".to_vec(), stream: true }.encode_to_vec()),
        ("names-answer", v1::NamesAnswer { id: 7, answer: b"a".to_vec() }.encode_to_vec()),
        (
            "reply-shares",
            reply(reply::Result::Shares(v1::SharesState {
                failed: vec![failure.clone()],
                events: true,
                events_reason: "no module".into(),
            })),
        ),
        (
            "file-events",
            v1::FileEvents {
                events: vec![v1::FileEvent {
                    mask: 0x40,
                    cookie: 9,
                    folder: b"/home".to_vec(),
                    name: b"x".to_vec(),
                }],
            }
            .encode_to_vec(),
        ),
        ("reply-ok", reply(reply::Result::Ok(v1::Ok {}))),
        ("reply-failure", reply(reply::Result::Failure(failure.clone()))),
        ("reply-trimmed", reply(reply::Result::Trimmed(v1::Trimmed { bytes: 1 << 40 }))),
        (
            "reply-status",
            reply(reply::Result::Status(v1::Status {
                phases: vec![phase.clone()],
                services: vec![service.clone()],
                engine_ready: true,
                unix_nanos: 5,
                data_disk_bytes: 100,
                data_disk_free_bytes: 50,
                memory_bytes: 8,
                memory_available_bytes: 4,
            })),
        ),
        ("event-phase", event(v1::event::Kind::Phase(phase)).encode_to_vec()),
        ("event-service", event(v1::event::Kind::Service(service)).encode_to_vec()),
        (
            "event-engine-ready",
            event(v1::event::Kind::EngineReady(v1::EngineReady { version: "28.5.2".into() })).encode_to_vec(),
        ),
        (
            "event-engine-lost",
            event(v1::event::Kind::EngineLost(v1::EngineLost { reason: "exited".into() })).encode_to_vec(),
        ),
        (
            "dial-unix",
            v1::Dial { target: Some(v1::dial::Target::UnixPath("/run/docker.sock".into())) }.encode_to_vec(),
        ),
        ("dial-tcp", v1::Dial { target: Some(v1::dial::Target::Tcp("127.0.0.1:80".into())) }.encode_to_vec()),
        (
            "dial-udp",
            v1::Dial { target: Some(v1::dial::Target::Udp("172.17.0.2:53".into())) }.encode_to_vec(),
        ),
        ("dial-reply", v1::DialReply { failure: Some(failure.clone()) }.encode_to_vec()),
        (
            "exec",
            v1::Exec { argv: vec!["sh".into()], tty: true, rows: 24, columns: 80, env: vec!["A=b".into()] }
                .encode_to_vec(),
        ),
        ("exec-stdin", exec(v1::exec_frame::Kind::Stdin(b"in".to_vec()))),
        ("exec-stdin-eof", exec(v1::exec_frame::Kind::StdinEof(v1::StdinEof {}))),
        ("exec-resize", exec(v1::exec_frame::Kind::Resize(v1::Resize { rows: 50, columns: 132 }))),
        ("exec-stdout", exec(v1::exec_frame::Kind::Stdout(b"out".to_vec()))),
        ("exec-stderr", exec(v1::exec_frame::Kind::Stderr(b"err".to_vec()))),
        ("exec-exit", exec(v1::exec_frame::Kind::Exit(v1::Exit { code: 3, signal: 9 }))),
        ("exec-failure", exec(v1::exec_frame::Kind::Failure(failure.clone()))),
        ("follow", v1::Follow { after_sequence: 12 }.encode_to_vec()),
        (
            "log-record",
            v1::LogRecord { sequence: 13, unix_nanos: 14, unit: "kernel".into(), line: b"\xff raw".to_vec() }
                .encode_to_vec(),
        ),
        ("publish", v1::Publish {}.encode_to_vec()),
        (
            "ask-bind",
            ask(v1::ports_ask::Ask::Bind(v1::PortBind {
                id: 7,
                protocol: v1::PortProtocol::Udp.into(),
                host_ip: "0.0.0.0".into(),
                host_port: 8080,
                target: "172.17.0.2:80".into(),
                origin: v1::PortOrigin::Listening.into(),
                container: "4f66".into(),
            })),
        ),
        ("ask-release", ask(v1::ports_ask::Ask::Release(v1::PortRelease { id: 7 }))),
        ("ask-synced", ask(v1::ports_ask::Ask::Synced(v1::PortsSynced {}))),
        ("answer-bound", answer(v1::ports_answer::Result::Bound(v1::Ok {}))),
        ("answer-released", answer(v1::ports_answer::Result::Released(v1::Ok {}))),
        ("answer-failure", answer(v1::ports_answer::Result::Failure(failure))),
        ("datagram", v1::Datagram { flow: 9, payload: b"query".to_vec(), end: true }.encode_to_vec()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn every_message_keeps_its_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/v1.txt");
    let now: String = examples().iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &now).expect("the snapshot can be written");
    }
    let frozen = std::fs::read_to_string(path).expect("the snapshot is committed");
    assert_eq!(frozen, now, "bytes of a released message changed; add a field or a version instead");
}

#[test]
fn a_message_with_fields_of_the_future_is_still_understood() {
    for (name, mut bytes) in examples() {
        // Field 1000, varint 1: what a newer peer might add.
        bytes.extend_from_slice(&[0xc0, 0x3e, 0x01]);
        let understood = match name {
            "hello" => v1::Hello::decode(&bytes[..]).map(|_| ()),
            n if n.starts_with("request") => v1::Request::decode(&bytes[..]).map(|_| ()),
            n if n.starts_with("reply") || n.starts_with("event") => {
                v1::Reply::decode(&bytes[..]).map(|_| ())
            }
            "dial-reply" => v1::DialReply::decode(&bytes[..]).map(|_| ()),
            n if n.starts_with("dial") => v1::Dial::decode(&bytes[..]).map(|_| ()),
            "exec" => v1::Exec::decode(&bytes[..]).map(|_| ()),
            n if n.starts_with("exec-") => v1::ExecFrame::decode(&bytes[..]).map(|_| ()),
            "publish" => v1::Publish::decode(&bytes[..]).map(|_| ()),
            n if n.starts_with("ask") => v1::PortsAsk::decode(&bytes[..]).map(|_| ()),
            n if n.starts_with("answer") => v1::PortsAnswer::decode(&bytes[..]).map(|_| ()),
            "datagram" => v1::Datagram::decode(&bytes[..]).map(|_| ()),
            "file-events" => v1::FileEvents::decode(&bytes[..]).map(|_| ()),
            "resolve" => v1::Resolve::decode(&bytes[..]).map(|_| ()),
            "names-ask" => v1::NamesAsk::decode(&bytes[..]).map(|_| ()),
            "names-answer" => v1::NamesAnswer::decode(&bytes[..]).map(|_| ()),
            "follow" => v1::Follow::decode(&bytes[..]).map(|_| ()),
            _ => v1::LogRecord::decode(&bytes[..]).map(|_| ()),
        };
        assert!(understood.is_ok(), "`{name}` with an unknown field: {understood:?}");
    }
}

#[test]
fn a_call_of_the_future_arrives_as_no_call_and_keeps_its_id() {
    // id 7, then call number 900 (length-delimited, empty).
    let request = v1::Request::decode(&[0x08, 7, 0xa2, 0x38, 0][..]).expect("unknown calls decode");
    assert_eq!((request.id, request.call), (7, None), "the agent can answer it with a failure");
}

#[test]
fn peers_agree_on_the_newest_version_that_both_speak() {
    let range = |min, max| v1::Hello { min_version: min, max_version: max, ..v1::Hello::default() };
    assert_eq!(
        slipway_protocol::negotiate(&range(1, 2), &range(1, 1)),
        Ok(1),
        "new host, image one version older"
    );
    assert_eq!(slipway_protocol::negotiate(&range(1, 1), &range(1, 2)), Ok(1), "old host, newer image");
    assert_eq!(slipway_protocol::negotiate(&range(1, 3), &range(2, 5)), Ok(3));
    assert!(
        slipway_protocol::negotiate(&range(3, 4), &range(1, 2)).is_err(),
        "no common version is an error"
    );
    assert!(slipway_protocol::negotiate(&range(1, 2), &range(3, 4)).is_err());
}

#[tokio::test]
async fn a_frame_that_claims_more_than_allowed_is_refused_before_it_is_read() {
    let bytes = [0xff, 0xff, 0xff, 0xff, 0];
    let answer = frame::read::<v1::Hello, _>(&mut &bytes[..]).await;
    assert!(matches!(answer, Err(frame::FrameError::TooLong(0xffff_ffff))), "{answer:?}");
}

#[tokio::test]
async fn a_stream_that_ends_between_frames_ends_cleanly_and_inside_a_frame_it_does_not() {
    let whole = frame::encode(&v1::Follow { after_sequence: 1 }).expect("short");
    let mut reader = &whole[..];
    assert!(frame::read::<v1::Follow, _>(&mut reader).await.expect("whole frame").is_some());
    assert!(frame::read::<v1::Follow, _>(&mut reader).await.expect("clean end").is_none());
    for cut in 1..whole.len() {
        let answer = frame::read::<v1::Follow, _>(&mut &whole[..cut]).await;
        assert!(matches!(answer, Err(frame::FrameError::Io(_))), "cut after {cut} bytes: {answer:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let _ = frame::read::<v1::Request, _>(&mut &bytes[..]).await;
            let _ = frame::read::<v1::Reply, _>(&mut &bytes[..]).await;
            let _ = frame::read::<v1::ExecFrame, _>(&mut &bytes[..]).await;
        });
    }

    #[test]
    fn what_is_written_is_read(line in proptest::collection::vec(any::<u8>(), 0..2000), sequence: u64) {
        let record = v1::LogRecord { sequence, unix_nanos: 1, unit: "dockerd".into(), line };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let back = runtime.block_on(async {
            let mut bytes = Vec::new();
            frame::write(&mut bytes, &record).await.expect("fits");
            frame::read::<v1::LogRecord, _>(&mut &bytes[..]).await.expect("reads").expect("not the end")
        });
        prop_assert_eq!(back, record);
    }
}
