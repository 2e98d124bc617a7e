//! Answers the guest's asks for host ports: the shim listens, this decides and remembers.
//!
//! ```text
//!   agent ──bind──▶ book ──publish──▶ shim ──▶ listening ──bound──▶ agent
//!                    │                  └────▶ taken ─────failure─▶ agent, and tried again while the agent wants it
//!                    └── names from the engine ──▶ the list that everybody sees
//!
//!   connected anew: all binds, then synced ─▶ what the shim holds beyond them is withdrawn ─▶ the rest is published
//! ```
//!
//! A daemon that is killed leaves the listeners in the shim, and the next one finds them there: what is in the book is always
//! what the guest said last.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use slipway_api::{Port, PortContainer, PortOrigin, PortState};
use slipway_protocol::{
    frame::{self, FrameError},
    ports::PORTS,
    v1::{self, ports_answer, ports_ask},
};
use slipway_relay::ports::{PortSpec, Protocol};
use slipway_shim::{
    client::{ShimClient, ShimClientError},
    wire::PortFailure,
};
use slipway_vsock::{GuestStream, Transport};
use tokio::{
    sync::{Notify, mpsc},
    time::{interval, sleep},
};

use crate::{
    Context,
    engine::{self, Container},
};

/// Between two attempts to reach the agent.
const RETRY: Duration = Duration::from_millis(50);
/// Between two attempts to get a port that was taken, and to hear the engine.
const AGAIN: Duration = Duration::from_secs(1);
/// Asks of the guest that wait for the shim.
const ASKS: usize = 64;

/// Serves the guest's asks for as long as the machine lives.
pub(crate) async fn follow(shim: ShimClient, context: Arc<Context>) {
    let names = Arc::new(Notify::new());
    let events = async {
        while shim.runs() {
            // Not there yet, or restarting: asked again.
            let _ = engine::watch(&shim, || names.notify_one()).await;
            sleep(AGAIN).await;
        }
    };
    let ports = async {
        let mut book = Book { shim: shim.clone(), held: BTreeMap::new(), names: HashMap::new(), context };
        while shim.runs() {
            if let Ok(stream) = shim.connect(PORTS).await
                && let Err(error) = book.speak(stream, &names).await
            {
                tracing::debug!(%error, "the ports stream broke");
            }
            sleep(RETRY).await;
        }
    };
    tokio::join!(events, ports);
}

/// A port that the guest wants.
struct Held {
    bind: v1::PortBind,
    spec: Option<PortSpec>,
    state: State,
}

enum State {
    Listens {
        since_ms: u64,
    },
    /// On a host without that family.
    Absent,
    Failed(PortFailure),
}

struct Book {
    shim: ShimClient,
    held: BTreeMap<u64, Held>,
    /// Containers by id: their names.
    names: HashMap<String, Container>,
    context: Arc<Context>,
}

impl Book {
    /// Serves one stream until it ends.
    async fn speak(&mut self, mut stream: GuestStream, names: &Notify) -> Result<(), FrameError> {
        frame::write(&mut stream, &v1::Publish {}).await?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        // Frames are read in a future of their own, because a frame half read must not be given up.
        let (asked, mut asks) = mpsc::channel::<ports_ask::Ask>(ASKS);
        let reading = async move {
            while let Some(message) = frame::read::<v1::PortsAsk, _>(&mut reader).await? {
                // A kind of ask that only newer hosts know needs no answer.
                if let Some(ask) = message.ask
                    && asked.send(ask).await.is_err()
                {
                    break;
                }
            }
            Ok::<_, FrameError>(())
        };
        let answering = async {
            let mut first = Vec::new();
            loop {
                match asks.recv().await {
                    Some(ports_ask::Ask::Bind(bind)) => first.push(bind),
                    Some(ports_ask::Ask::Release(release)) => first.retain(|bind| bind.id != release.id),
                    Some(ports_ask::Ask::Synced(_)) => break,
                    None => return Ok(()),
                }
            }
            for answer in self.sync(first).await {
                frame::write(&mut writer, &answer).await?;
            }
            let mut again = interval(AGAIN);
            loop {
                tokio::select! {
                    ask = asks.recv() => {
                        let answer = match ask {
                            Some(ports_ask::Ask::Bind(bind)) => self.bind(bind).await,
                            Some(ports_ask::Ask::Release(release)) => self.release(release.id).await,
                            Some(ports_ask::Ask::Synced(_)) => continue,
                            None => return Ok(()),
                        };
                        self.show();
                        frame::write(&mut writer, &answer).await?;
                    }
                    _ = again.tick() => for answer in self.try_again().await {
                        frame::write(&mut writer, &answer).await?;
                    },
                    () = names.notified() => self.learn_names().await,
                }
            }
        };
        tokio::select! {
            read = reading => read,
            answered = answering => answered,
        }
    }

    /// Makes what is listened on what the guest wants.
    async fn sync(&mut self, wanted: Vec<v1::PortBind>) -> Vec<v1::PortsAnswer> {
        let there = match self.shim.ports().await {
            Ok(ports) => ports,
            Err(error) => {
                tracing::warn!(%error, "the shim does not say which ports it listens on");
                Vec::new()
            }
        };
        for stale in there.iter().filter(|port| !wanted.iter().any(|bind| bind.id == port.spec.id)) {
            self.withdraw(stale.spec.id).await;
        }
        self.held.clear();
        let mut answers = Vec::new();
        for bind in wanted {
            let since = there.iter().find(|port| port.spec.id == bind.id).map(|port| port.since_unix_ms);
            let answer = self.bind(bind).await;
            if let (Some(since), Some(Held { state: State::Listens { since_ms }, .. })) =
                (since, self.held.get_mut(&answer.id))
            {
                *since_ms = since;
            }
            answers.push(answer);
        }
        self.show();
        answers
    }

    async fn bind(&mut self, bind: v1::PortBind) -> v1::PortsAnswer {
        let id = bind.id;
        let (spec, state) = match spec(&bind) {
            Ok(spec) => (Some(spec.clone()), self.publish(spec).await),
            Err(failure) => (None, State::Failed(failure)),
        };
        if let State::Failed(failure) = &state {
            tracing::info!(port = bind.host_port, why = failure.message, "a port is not published");
        }
        let answer = v1::PortsAnswer { id, result: Some(result(&state)) };
        self.held.insert(id, Held { bind, spec, state });
        answer
    }

    async fn publish(&self, spec: PortSpec) -> State {
        let v6 = spec.host.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
        let id = spec.id;
        match self.shim.publish(spec).await {
            Ok(()) if v6 && self.absent(id).await => State::Absent,
            Ok(()) => State::Listens { since_ms: crate::logs::unix_ms() },
            Err(ShimClientError::NotPublished(failure)) => State::Failed(failure),
            Err(error) => State::Failed(PortFailure {
                code: "port-failed".into(),
                message: format!("slipway could not listen on the port: {error}"),
                hint: Some("`slipway status` shows how the machine is".into()),
            }),
        }
    }

    async fn absent(&self, id: u64) -> bool {
        let ports = self.shim.ports().await.unwrap_or_default();
        ports.iter().any(|port| port.spec.id == id && !port.listens)
    }

    async fn release(&mut self, id: u64) -> v1::PortsAnswer {
        self.withdraw(id).await;
        self.held.remove(&id);
        v1::PortsAnswer { id, result: Some(ports_answer::Result::Released(v1::Ok {})) }
    }

    async fn withdraw(&self, id: u64) {
        if let Err(error) = self.shim.withdraw(id).await {
            // Its listeners end with the shim; one that lives on is asked again when the stream is.
            tracing::warn!(%error, id, "a port could not be withdrawn");
        }
    }

    /// Tries what was taken again: whoever had it may have ended. A stand-in is gone by then; what listens in the guest is not.
    async fn try_again(&mut self) -> Vec<v1::PortsAnswer> {
        let failed = |held: &Held| matches!(held.state, State::Failed(_));
        let again: Vec<PortSpec> =
            self.held.values().filter(|held| failed(held)).filter_map(|held| held.spec.clone()).collect();
        let mut answers = Vec::new();
        for spec in again {
            let id = spec.id;
            let state = self.publish(spec).await;
            if !matches!(state, State::Failed(_)) {
                answers.push(v1::PortsAnswer { id, result: Some(result(&state)) });
            }
            if let Some(held) = self.held.get_mut(&id) {
                held.state = state;
            }
        }
        if !answers.is_empty() {
            self.show();
        }
        answers
    }

    async fn learn_names(&mut self) {
        match engine::containers(&self.shim).await {
            Ok(containers) => {
                self.names = containers.into_iter().map(|c| (c.id.clone(), c)).collect();
                self.show();
            }
            Err(error) => tracing::debug!(%error, "the engine does not say whose ports these are"),
        }
    }

    /// Shows the book to everybody; readers are told only if something did change.
    fn show(&self) {
        let mut ports: Vec<Port> = self.held.values().map(|held| self.shown(held)).collect();
        ports.sort_by(|a, b| {
            (a.host_port, &a.protocol, &a.host_ip).cmp(&(b.host_port, &b.protocol, &b.host_ip))
        });
        self.context.ports.send_if_modified(|shown| {
            let changed = *shown != ports;
            *shown = ports;
            changed
        });
    }

    fn shown(&self, held: &Held) -> Port {
        let bind = &held.bind;
        let target: Option<SocketAddr> = bind.target.parse().ok();
        let container = match bind.container.as_str() {
            "" => target.and_then(|target| self.names.values().find(|c| c.has(target.ip()))),
            id => self.names.get(id),
        };
        let (state, problem, since_ms) = match &held.state {
            State::Listens { since_ms } => (PortState::Listening, None, Some(*since_ms)),
            State::Absent => (PortState::Absent, None, None),
            State::Failed(failure) => (PortState::Failed, Some(failure.message.clone()), None),
        };
        Port {
            protocol: match bind.protocol() {
                v1::PortProtocol::Udp => "udp",
                v1::PortProtocol::Sctp => "sctp",
                v1::PortProtocol::Tcp | v1::PortProtocol::Unspecified => "tcp",
            }
            .into(),
            host_ip: bind.host_ip.clone(),
            host_port: u16::try_from(bind.host_port).unwrap_or_default(),
            target: bind.target.clone(),
            container_port: target.map_or(0, |target| target.port()),
            container: container.map(|c| PortContainer { id: c.id.clone(), name: c.name().to_owned() }),
            origin: match bind.origin() {
                v1::PortOrigin::Listening => PortOrigin::Listening,
                v1::PortOrigin::Published | v1::PortOrigin::Unspecified => PortOrigin::Published,
            },
            state,
            problem,
            since_ms,
        }
    }
}

fn result(state: &State) -> ports_answer::Result {
    match state {
        State::Listens { .. } | State::Absent => ports_answer::Result::Bound(v1::Ok {}),
        State::Failed(failure) => ports_answer::Result::Failure(v1::Failure {
            code: failure.code.clone(),
            message: failure.message.clone(),
            hint: failure.hint.clone().unwrap_or_default(),
        }),
    }
}

/// What the guest asks for, if it can be done. Bytes from the guest: nothing is taken for granted.
fn spec(bind: &v1::PortBind) -> Result<PortSpec, PortFailure> {
    let failure = |message: String| PortFailure { code: "port-unsupported".into(), message, hint: None };
    let protocol = match bind.protocol() {
        v1::PortProtocol::Tcp => Protocol::Tcp,
        v1::PortProtocol::Udp => Protocol::Udp,
        v1::PortProtocol::Sctp | v1::PortProtocol::Unspecified => {
            return Err(failure("slipway publishes TCP and UDP ports only".into()));
        }
    };
    let wrong = |_| failure(format!("`{}` cannot be listened on", bind.host_ip));
    let ip: IpAddr = bind.host_ip.parse().map_err(wrong)?;
    let port = u16::try_from(bind.host_port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| failure(format!("{} is no port", bind.host_port)))?;
    let target = bind.target.parse();
    let target = target.map_err(|_| failure(format!("`{}` is no address in the machine", bind.target)))?;
    Ok(PortSpec { id: bind.id, protocol, host: (ip, port).into(), target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_asks_for_is_not_taken_for_granted() {
        let bind = |host_ip: &str, host_port, target: &str, protocol: v1::PortProtocol| v1::PortBind {
            id: 1,
            protocol: protocol.into(),
            host_ip: host_ip.into(),
            host_port,
            target: target.into(),
            ..v1::PortBind::default()
        };
        let tcp = v1::PortProtocol::Tcp;
        assert!(spec(&bind("::", 80, "[fd00::2]:80", tcp)).is_ok());
        for wrong in [
            bind("example.com", 80, "172.17.0.2:80", tcp),
            bind("0.0.0.0", 0, "172.17.0.2:80", tcp),
            bind("0.0.0.0", 65_536, "172.17.0.2:80", tcp),
            bind("0.0.0.0", 80, "172.17.0.2", tcp),
            bind("0.0.0.0", 80, "172.17.0.2:80", v1::PortProtocol::Sctp),
        ] {
            assert!(spec(&wrong).is_err(), "{wrong:?}");
        }
    }
}
