//! Published ports: which container's, where on the host, and whether it works.

use slipway_api::{Port, PortState, time};

use crate::{
    args::PortVerb,
    reach::Session,
    say::{Fail, Paint, clean},
};

/// Shows the published ports. Starts nothing, except a daemon for a machine that runs without one.
///
/// # Errors
/// A daemon that hangs.
pub(crate) async fn port(session: &Session, what: &PortVerb) -> Result<u8, Fail> {
    let PortVerb::Ls { json } = what;
    let ports = match session.found().await? {
        Some(api) => api.ports().await?,
        None => Vec::new(),
    };
    if *json {
        session.say.json(&ports)?;
    } else if ports.is_empty() {
        session.say.talk("no port is published");
    } else {
        session.say.data(&table(&ports, time::now_ms(), session.say.out()))?;
    }
    Ok(0)
}

fn table(ports: &[Port], now_ms: u64, paint: Paint) -> String {
    let mut rows = vec![["CONTAINER", "PROTO", "HOST", "TARGET"].map(str::to_owned)];
    let mut states = vec!["STATE".to_owned()];
    for port in ports {
        let host = if port.host_ip.contains(':') {
            format!("[{}]:{}", port.host_ip, port.host_port)
        } else {
            format!("{}:{}", port.host_ip, port.host_port)
        };
        let name = port.container.as_ref().map_or("-", |container| container.name.as_str());
        rows.push([name, &port.protocol, &host, &port.target].map(clean));
        states.push(match (port.state, port.since_ms) {
            (PortState::Listening, Some(since)) => {
                let seconds = now_ms.saturating_sub(since) / 1000;
                format!("{} for {}", paint.good("listening"), time::span(seconds))
            }
            (PortState::Listening, None) => paint.good("listening"),
            (PortState::Absent, _) => paint.faint("this computer has no IPv6"),
            (PortState::Failed, _) => {
                let why = port.problem.as_deref().unwrap_or("it could not be listened on");
                format!("{}: {}", paint.bad("failed"), clean(why))
            }
        });
    }
    let widths =
        [0, 1, 2, 3].map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for (row, state) in rows.iter().zip(&states) {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(state);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use slipway_api::{PortContainer, PortOrigin};

    use super::*;

    #[test]
    fn every_port_tells_whose_it_is_and_how_it_is() {
        let port = |host_ip: &str, state| Port {
            protocol: "tcp".into(),
            host_ip: host_ip.into(),
            host_port: 8080,
            target: "172.17.0.2:80".into(),
            container_port: 80,
            container: Some(PortContainer { id: "4f".into(), name: "web".into() }),
            origin: PortOrigin::Published,
            state,
            problem: (state == PortState::Failed).then(|| "port 8080 is in use\x1b[2J".into()),
            since_ms: (state == PortState::Listening).then_some(1000),
        };
        let ports = [port("0.0.0.0", PortState::Listening), port("::", PortState::Failed)];
        assert_eq!(
            table(&ports, 61_000, Paint::Plain).replace("\u{fffd}", "?"),
            "CONTAINER  PROTO  HOST          TARGET         STATE\n\
             web        tcp    0.0.0.0:8080  172.17.0.2:80  listening for 1 min\n\
             web        tcp    [::]:8080     172.17.0.2:80  failed: port 8080 is in use?[2J\n"
        );
    }
}
