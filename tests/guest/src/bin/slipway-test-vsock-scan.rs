//! What a container could reach over vsock: tries every context on many ports and prints who lets it in, and who answers.
//!
//! Prints `tried N`, and for what should not be `open CID PORT` (connected) or `answered CID PORT` (sent bytes to a first
//! frame that every port of the agent understands).

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use vsock::{VMADDR_CID_HOST, VMADDR_CID_HYPERVISOR, VMADDR_CID_LOCAL, VsockStream};

/// An empty message: every first frame's defaults.
const FIRST: [u8; 4] = [0; 4];

fn main() -> io::Result<()> {
    // Only a privileged container has the device that tells the machine's own.
    let own = vsock::get_local_cid().ok();
    let ports = (0..2100).chain([2375, 2376, 5000, 8080, 9999, 10_000, 65_535, u32::MAX - 1]);
    let mut tried = 0;
    for cid in [VMADDR_CID_HOST, VMADDR_CID_HYPERVISOR, VMADDR_CID_LOCAL].into_iter().chain(own) {
        for port in ports.clone() {
            tried += 1;
            if let Ok(stream) = VsockStream::connect_with_cid_port(cid, port) {
                let said = answered(stream).unwrap_or(false);
                println!("{} {cid} {port}", if said { "answered" } else { "open" });
            }
        }
    }
    println!("tried {tried}");
    Ok(())
}

fn answered(mut stream: VsockStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&FIRST)?;
    Ok(stream.read(&mut [0; 16])? > 0)
}
