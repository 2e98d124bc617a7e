//! The device's packet handling without a VM, for `tests/fuzz`; not in any other build.

use std::os::unix::net::UnixStream;

use bytes::Bytes;
use slipway_protocol::ports::ENGINE;
use tokio::sync::oneshot;

use crate::{
    GuestCid,
    packet::{HEADER, Header},
    streams::{MAX_PAYLOAD, Streams},
};

/// Plays `bytes` as a guest's packets against a device with one stream: headers, each with the payload it announces.
///
/// # Panics
/// When the device does, which is what is looked for.
pub fn guest_packets(bytes: &[u8]) {
    let mut streams = Streams::new(GuestCid::new(3).expect("a guest's id"));
    let (_client, host) = UnixStream::pair().expect("a pair");
    let (answer, _answered) = oneshot::channel();
    let id = streams.dial(ENGINE, host.into(), Bytes::new(), answer).expect("there is room");
    let mut payload = vec![0; 4096];
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<HEADER>() {
        let header = Header::decode(head);
        // As the device does: what is announced is never more than what is there.
        let length = (header.len as usize).min(after.len()).min(MAX_PAYLOAD);
        let (body, after) = after.split_at(length);
        streams.receive(&Header { len: length as u32, ..header }, body);
        // Most random packets are for nobody: the same again for the stream that is there.
        streams.receive(
            &Header {
                len: length as u32,
                src_cid: 3,
                dst_cid: 2,
                src_port: ENGINE.0,
                dst_port: id,
                kind: 1,
                ..header
            },
            body,
        );
        while streams.next_for_guest(&mut payload).is_some() {}
        rest = after;
    }
}
