//! Packet by packet: a scripted guest on one side, socket pairs on the other.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use proptest::prelude::*;
use slipway_protocol::ports::ENGINE;

use super::*;

const CID: u32 = 3;

fn streams() -> Streams {
    Streams::new(GuestCid::new(CID).expect("a guest's id"))
}

fn from(id: StreamId, op: Op) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: ENGINE.0,
        dst_port: id,
        kind: TYPE_STREAM,
        op: op as u16,
        buf_alloc: 64 * 1024,
        ..Header::default()
    }
}

/// Dials for a client that has said something already.
fn dial(
    streams: &mut Streams,
    head: &[u8],
    said: &[u8],
) -> (StreamId, UnixStream, oneshot::Receiver<DialAnswer>) {
    let (mut client, host) = UnixStream::pair().expect("pair");
    client.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("timeout");
    client.write_all(said).expect("write");
    let (answer, answered) = oneshot::channel();
    let id = streams.dial(ENGINE, host.into(), Bytes::copy_from_slice(head), answer).expect("there is room");
    (id, client, answered)
}

/// Dials and lets the guest accept.
fn open(streams: &mut Streams) -> (StreamId, UnixStream) {
    let (id, client, mut answered) = dial(streams, b"", b"");
    assert_eq!(say(streams).map(|(h, _)| (h.op, h.dst_port)), Some((Op::Request as u16, ENGINE.0)));
    streams.receive(&from(id, Op::Response), &[]);
    assert!(matches!(answered.try_recv(), Ok(Ok(()))), "the dialler is told that the guest accepted");
    while say(streams).is_some() {}
    (id, client)
}

fn say(streams: &mut Streams) -> Option<(Header, Vec<u8>)> {
    let mut payload = vec![0; 4096];
    let header = streams.next_for_guest(&mut payload)?.header;
    payload.truncate(header.len as usize);
    Some((header, payload))
}

fn ops(streams: &mut Streams) -> Vec<u16> {
    std::iter::from_fn(|| say(streams)).map(|(h, _)| h.op).collect()
}

#[test]
fn the_end_of_the_hosts_direction_leaves_the_guests_open() {
    let mut s = streams();
    let (id, mut client) = open(&mut s);
    client.write_all(b"question").expect("write");
    client.shutdown(std::net::Shutdown::Write).expect("half-close");
    s.host_event(id, true, false, false);
    let (data, bytes) = say(&mut s).expect("data");
    assert_eq!((data.op, bytes.as_slice()), (Op::Rw as u16, &b"question"[..]));
    let (end, _) = say(&mut s).expect("the end");
    assert_eq!((end.op, end.flags), (Op::Shutdown as u16, SHUTDOWN_SEND), "only the sending half");
    s.receive(&from(id, Op::Rw), b"answer after the end");
    s.receive(&Header { flags: 3, ..from(id, Op::Shutdown) }, &[]);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("whole answer, then the end");
    assert_eq!(answer, "answer after the end");
    let confirmed = s.next_for_guest(&mut []).expect("the guest's close is confirmed");
    assert!(confirmed.header.op == Op::Rst as u16 && !confirmed.awaits, "which it does not wait for");
    assert!(say(&mut s).is_none());
    assert_eq!(s.len(), 0, "and the stream forgotten");
}

#[test]
fn the_end_of_the_guests_direction_leaves_the_hosts_open() {
    let mut s = streams();
    let (id, mut client) = open(&mut s);
    s.receive(&from(id, Op::Rw), b"output");
    s.receive(&Header { flags: SHUTDOWN_SEND, ..from(id, Op::Shutdown) }, &[]);
    let mut output = String::new();
    client.read_to_string(&mut output).expect("the end arrives");
    assert_eq!(output, "output");
    client.write_all(b"late input").expect("the other direction is open");
    s.host_event(id, true, false, false);
    let sent: Vec<u8> = std::iter::from_fn(|| say(&mut s)).flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(sent, b"late input");
}

#[test]
fn a_refused_dial_gives_the_socket_back() {
    let mut s = streams();
    let (id, mut client, mut answered) = dial(&mut s, b"", b"");
    s.receive(&from(id, Op::Rst), &[]);
    let Ok(Err((ConnectError::Refused { port: ENGINE }, back))) = answered.try_recv() else {
        panic!("the dialler must learn of the refusal")
    };
    UnixStream::from(back).write_all(b"503").expect("the caller can still answer its client");
    let mut got = String::new();
    client.read_to_string(&mut got).expect("end");
    assert_eq!(got, "503");
}

#[test]
fn the_head_and_what_was_said_go_with_the_request_and_the_rest_when_the_guest_has_accepted() {
    let mut s = streams();
    let (id, mut client, _answered) = dial(&mut s, b"head ", b"said ");
    let early: Vec<_> = std::iter::from_fn(|| say(&mut s)).map(|(h, bytes)| (h.op, bytes)).collect();
    assert_eq!(early, [(Op::Request as u16, vec![]), (Op::Rw as u16, b"head said ".to_vec())]);
    client.write_all(b"rest").expect("write");
    s.receive(&Header { fwd_cnt: 10, ..from(id, Op::Response) }, &[]);
    // The receiver lives, so the answer was taken.
    let sent: Vec<u8> = std::iter::from_fn(|| say(&mut s)).flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(sent, b"rest");
}

#[test]
fn a_client_without_a_head_is_not_heard_before_the_guest_accepts() {
    let mut s = streams();
    let (id, _client, _answered) = dial(&mut s, b"", b"said");
    assert_eq!(ops(&mut s), [Op::Request as u16], "who may be told that it failed");
    s.receive(&from(id, Op::Response), &[]);
    assert_eq!(say(&mut s).expect("now").1, b"said");
}

#[test]
fn a_client_that_has_said_all_and_left_is_heard_to_its_end() {
    let mut s = streams();
    let (id, client, _answered) = dial(&mut s, b"head ", b"said");
    drop(client);
    s.host_event(id, true, true, true);
    let early: Vec<u8> = std::iter::from_fn(|| say(&mut s)).flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(early, b"head said");
    s.receive(&from(id, Op::Response), &[]);
    let (end, bytes) = say(&mut s).expect("then the end");
    assert_eq!((end.op, bytes.len()), (Op::Shutdown as u16, 0), "and nothing twice");
}

#[test]
fn a_long_head_waits_for_the_guest_to_say_its_room() {
    let mut s = streams();
    let head = vec![7; EARLY + 10];
    let (id, _client, _answered) = dial(&mut s, &head, b"rest");
    let bytes = |s: &mut Streams| -> Vec<u8> { std::iter::from_fn(|| say(s)).flat_map(|(_, b)| b).collect() };
    assert_eq!(bytes(&mut s), head[..EARLY]);
    s.receive(&Header { buf_alloc: EARLY as u32 + 12, ..from(id, Op::Response) }, &[]);
    assert_eq!(bytes(&mut s), [&head[EARLY..], b"re"].concat(), "what went early counts");
}

#[test]
fn a_refused_dial_with_a_head_keeps_the_clients_bytes() {
    let mut s = streams();
    let (id, _client, mut answered) = dial(&mut s, b"head ", b"question");
    while say(&mut s).is_some() {}
    // For the request and for the head.
    s.receive(&from(id, Op::Rst), &[]);
    s.receive(&from(id, Op::Rst), &[]);
    assert!(say(&mut s).is_none(), "nothing is left to say");
    let Ok(Err((ConnectError::Refused { .. }, back))) = answered.try_recv() else { panic!("refused") };
    let mut question = [0; 8];
    UnixStream::from(back).read_exact(&mut question).expect("nobody took them");
    assert_eq!(&question, b"question");
}

#[test]
fn a_guest_without_room_is_asked_once_and_served_when_it_has_room() {
    let mut s = streams();
    let (id, mut client) = open(&mut s);
    s.receive(&Header { buf_alloc: 4, ..from(id, Op::CreditUpdate) }, &[]);
    client.write_all(b"0123456789").expect("write");
    s.host_event(id, true, false, false);
    let said: Vec<_> = std::iter::from_fn(|| say(&mut s)).collect();
    assert_eq!(said[0].1, b"0123", "as much as fits");
    assert_eq!(said[1..].iter().map(|(h, _)| h.op).collect::<Vec<_>>(), [Op::CreditRequest as u16]);
    s.receive(&Header { buf_alloc: 4, fwd_cnt: 4, ..from(id, Op::CreditUpdate) }, &[]);
    assert_eq!(say(&mut s).expect("goes on without another event").1, b"4567");
}

#[test]
fn a_host_that_does_not_read_costs_the_promised_buffer_and_no_more() {
    let mut s = streams();
    let (id, mut client) = open(&mut s);
    let chunk = vec![7u8; MAX_PAYLOAD];
    let mut sent = 0usize;
    let mut told = 0u32;
    // A guest that keeps to its credit.
    while sent as u32 - told + chunk.len() as u32 <= BUF_ALLOC {
        s.receive(&from(id, Op::Rw), &chunk);
        sent += chunk.len();
        while let Some((h, _)) = say(&mut s) {
            told = h.fwd_cnt;
        }
    }
    assert!(s.table[&id].backlog.len() <= BUF_ALLOC as usize, "bounded");
    let mut got = 0;
    let mut buffer = vec![0; 1 << 16];
    while got < sent {
        got += client.read(&mut buffer).expect("the backlog arrives");
        s.host_event(id, false, true, false);
    }
    assert_eq!(got, sent, "nothing lost");
    assert!(ops(&mut s).contains(&(Op::CreditUpdate as u16)), "the guest learns of the room");
}

#[test]
fn a_guest_beyond_its_credit_is_reset() {
    let mut s = streams();
    let (id, _client) = open(&mut s);
    for _ in 0..64 {
        s.receive(&from(id, Op::Rw), &vec![0; MAX_PAYLOAD]);
    }
    assert!(ops(&mut s).contains(&(Op::Rst as u16)));
    assert_eq!(s.len(), 0);
}

#[test]
fn what_came_before_a_reset_reaches_the_host() {
    let mut s = streams();
    let (id, mut client) = open(&mut s);
    s.receive(&from(id, Op::Rw), b"last words");
    s.receive(&from(id, Op::Rst), &[]);
    while say(&mut s).is_some() {}
    let mut got = String::new();
    client.read_to_string(&mut got).expect("then the end");
    assert_eq!((got.as_str(), s.len()), ("last words", 0));
}

#[test]
fn a_guest_that_dials_somebody_else_is_refused_in_his_name() {
    // Itself, the hypervisor, nobody: without an answer the guest's kernel waits two seconds for each.
    for cid in [u64::from(CID), 0, 77] {
        let mut s = streams();
        s.receive(&Header { dst_cid: cid, src_port: 99, dst_port: 22, ..from(0, Op::Request) }, &[]);
        let (reset, _) = say(&mut s).expect("an answer");
        assert_eq!((reset.op, reset.src_cid, reset.dst_cid), (Op::Rst as u16, cid, CID.into()));
        assert_eq!((reset.src_port, reset.dst_port), (22, 99));
        s.receive(&Header { dst_cid: cid, ..from(0, Op::Rst) }, &[]);
        assert!(say(&mut s).is_none(), "a reset is not answered");
    }
}

#[test]
fn a_guest_that_dials_is_refused() {
    let mut s = streams();
    s.receive(&Header { src_port: 99, dst_port: 22, ..from(0, Op::Request) }, &[]);
    let (answer, _) = say(&mut s).expect("an answer");
    assert_eq!((answer.op, answer.src_port, answer.dst_port), (Op::Rst as u16, 22, 99));
    assert_eq!(s.len(), 0);
}

#[test]
fn a_host_that_leaves_ends_the_stream_in_the_guest() {
    let mut s = streams();
    let (id, client) = open(&mut s);
    drop(client);
    s.host_event(id, true, true, true);
    let (end, _) = say(&mut s).expect("the guest is told");
    assert_eq!((end.op, end.flags), (Op::Shutdown as u16, SHUTDOWN_RCV | SHUTDOWN_SEND));
    s.receive(&from(id, Op::Rst), &[]);
    while say(&mut s).is_some() {}
    assert_eq!(s.len(), 0);
}

#[test]
fn four_thousand_streams_at_once_take_turns() {
    let mut s = streams();
    let open: Vec<_> = (0..4096).map(|_| open(&mut s)).collect();
    for (id, client) in &open {
        let mut client = client;
        client.write_all(&id.to_le_bytes()).expect("write");
        s.host_event(*id, true, false, false);
    }
    let mut served = 0;
    while let Some((header, bytes)) = say(&mut s) {
        assert_eq!(bytes, header.src_port.to_le_bytes());
        served += 1;
    }
    assert_eq!(served, open.len());
}

#[test]
fn a_stream_with_much_to_say_has_its_turn_and_then_the_others() {
    let mut s = streams();
    let (one, mut first) = open(&mut s);
    let (other, mut second) = open(&mut s);
    for (id, client) in [(one, &mut first), (other, &mut second)] {
        s.receive(&Header { buf_alloc: 1 << 20, ..from(id, Op::CreditUpdate) }, &[]);
        client.write_all(&[1; TURN * 2 * 4096]).expect("write");
        s.host_event(id, true, false, false);
    }
    let said: Vec<StreamId> = std::iter::from_fn(|| say(&mut s)).map(|(h, _)| h.src_port).collect();
    let turns: Vec<_> = said.chunks(TURN).map(|turn| (turn[0], turn.len())).collect();
    assert_eq!(turns, [(one, TURN), (other, TURN), (one, TURN), (other, TURN)]);
    assert!(said.chunks(TURN).all(|turn| turn.iter().all(|id| *id == turn[0])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_packet_of_a_hostile_guest_panics_or_grows_without_bound(
        packets in proptest::collection::vec((0u16..9, 0u32..8, any::<u32>(), any::<u32>(), 0usize..5000, 0u16..3, any::<bool>()), 0..200)
    ) {
        let mut s = streams();
        let (id, client) = open(&mut s);
        client.set_nonblocking(true).expect("nonblocking");
        for (op, flags, buf_alloc, fwd_cnt, length, kind, ours) in packets {
            let header = Header {
                op, flags, buf_alloc, fwd_cnt, kind,
                dst_port: if ours { id } else { 5 },
                len: length as u32,
                ..from(id, Op::Rw)
            };
            s.receive(&header, &vec![1; length]);
            for _ in 0..4 {
                say(&mut s);
            }
            if let Some(stream) = s.table.get(&id) {
                prop_assert!(stream.backlog.len() <= BUF_ALLOC as usize);
            }
        }
        prop_assert!(s.stray.len() <= MAX_STRAY_RESETS);
    }

    #[test]
    fn credit_is_right_across_the_wrap_of_its_counters(start: u32, in_flight in 0u32..70_000, room in 0u32..70_000) {
        let mut s = streams();
        let (id, _client) = open(&mut s);
        let stream = s.table.get_mut(&id).expect("open");
        stream.sent = start.wrapping_add(in_flight);
        stream.guest_fwd_cnt = start;
        stream.guest_buf_alloc = room;
        prop_assert_eq!(stream.credit(), room.saturating_sub(in_flight) as usize);
    }
}
