//! The ports of swarm's routing mesh. For those dockerd starts no stand-in: it listens itself, without ever accepting, and its
//! packet filter rules lead whoever connects to a task. So the engine is asked which there are.
//!
//! ```text
//!   engine: events of services ─▶ which ports now? ─▶ claims, as of any port that listens in the guest's own network
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use serde::Deserialize;
use slipway_protocol::v1;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{sleep, timeout},
};

use super::{Claim, Ports};
use crate::engine;

/// Between two attempts to hear the engine: it starts, or starts anew.
const AGAIN: Duration = Duration::from_secs(2);
/// After an event: a port of the engine's choice is known a little later than its service.
const LATER: Duration = Duration::from_secs(1);
/// What is asked for: changes of services, and of whether this engine is in a swarm.
const EVENTS: &[u8] =
    b"GET /events?filters=%7B%22type%22%3A%5B%22service%22%2C%22node%22%5D%7D HTTP/1.0\r\n\r\n";

/// A port of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Published {
    protocol: v1::PortProtocol,
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    endpoint: Endpoint,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    published_port: u16,
    #[serde(default)]
    publish_mode: String,
}

/// Claims the mesh's ports for ever.
pub(crate) async fn run(socket: &Path, ports: Ports) {
    let mut claims = BTreeMap::new();
    loop {
        // Its end is the engine's: what it published is gone, or said again when it is back.
        let _ = follow(socket, &ports, &mut claims).await;
        claims.clear();
        sleep(AGAIN).await;
    }
}

async fn follow(
    socket: &Path,
    ports: &Ports,
    claims: &mut BTreeMap<(Published, bool), Claim>,
) -> io::Result<()> {
    let mut events = UnixStream::connect(socket).await?;
    events.write_all(EVENTS).await?;
    let mut buffer = [0; 4096];
    loop {
        claim(published(&engine::get(socket, "/services").await?)?, ports, claims).await;
        // The head of the answer is the first.
        if events.read(&mut buffer).await? == 0 {
            return Ok(());
        }
        // What follows at once is the same change.
        while let Ok(read) = timeout(LATER, events.read(&mut buffer)).await {
            if read? == 0 {
                return Ok(());
            }
        }
    }
}

/// The mesh's ports in the engine's answer. One that is in no swarm, or leads none, has none.
fn published(answer: &engine::Answer) -> io::Result<BTreeSet<Published>> {
    if answer.status != 200 {
        return Ok(BTreeSet::new());
    }
    let services: Vec<Service> = serde_json::from_slice(&answer.body)?;
    let ports = services.into_iter().flat_map(|service| service.endpoint.ports);
    Ok(ports
        .filter(|port| port.publish_mode == "ingress" && port.published_port != 0)
        .filter_map(|port| {
            let protocol = match port.protocol.as_str() {
                "tcp" => v1::PortProtocol::Tcp,
                "udp" => v1::PortProtocol::Udp,
                _ => return None,
            };
            Some(Published { protocol, port: port.published_port })
        })
        .collect())
}

async fn claim(wanted: BTreeSet<Published>, ports: &Ports, claims: &mut BTreeMap<(Published, bool), Claim>) {
    claims.retain(|(port, _), _| wanted.contains(port));
    for port in wanted {
        for v6 in [false, true] {
            if let Entry::Vacant(vacant) = claims.entry((port, v6)) {
                vacant.insert(ports.claim(bind(port, v6)).await);
            }
        }
    }
}

/// The mesh is on all addresses of either kind, and leads on what comes to any address of the guest.
fn bind(port: Published, v6: bool) -> v1::PortBind {
    let host = if v6 { Ipv6Addr::UNSPECIFIED.to_string() } else { Ipv4Addr::UNSPECIFIED.to_string() };
    v1::PortBind {
        id: 0,
        protocol: port.protocol.into(),
        host_ip: host,
        host_port: port.port.into(),
        target: SocketAddr::from((Ipv4Addr::LOCALHOST, port.port)).to_string(),
        origin: v1::PortOrigin::Listening.into(),
        container: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_mesh_publishes_is_the_hosts_to_listen_on() {
        let body = br#"[{"ID":"a","Endpoint":{"Spec":{},"Ports":[
            {"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},
            {"Protocol":"udp","TargetPort":53,"PublishedPort":30001,"PublishMode":"ingress"},
            {"Protocol":"tcp","TargetPort":80,"PublishedPort":8081,"PublishMode":"host"},
            {"Protocol":"tcp","TargetPort":80,"PublishMode":"ingress"}]}},{"ID":"b","Endpoint":{}}]"#;
        let answer =
            |status, body: &[u8]| engine::Answer { status, head: String::new(), body: body.to_vec() };
        let found = published(&answer(200, body)).expect("understood");
        let expected = [(v1::PortProtocol::Tcp, 8080), (v1::PortProtocol::Udp, 30_001)];
        assert_eq!(found, expected.map(|(protocol, port)| Published { protocol, port }).into());
        assert!(published(&answer(503, b"not a manager")).expect("none").is_empty());
    }
}
