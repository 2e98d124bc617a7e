//! The board on which the boot writes what it does, and from which every control stream reads.
//!
//! ```text
//! phase:  begin ─▶ RUNNING ─▶ DONE | DEGRADED | FAILED     (a phase may begin again: the engine after a crash)
//! ```

use std::sync::{Mutex, MutexGuard};

use slipway_protocol::v1::{EngineLost, EngineReady, Event, Phase, PhaseState, Service, event::Kind};
use tokio::sync::broadcast;

use crate::clock;

/// Events that a slow reader may be behind before it is given the whole board instead.
const BACKLOG: usize = 256;

/// Phases, services and the engine's state, as told to the host.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Inner {
    phases: Vec<Phase>,
    services: Vec<Service>,
    engine: Option<String>,
}

/// What the board says at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// In the order in which they began first.
    pub phases: Vec<Phase>,
    /// What is kept running.
    pub services: Vec<Service>,
    /// The version of the engine that answers.
    pub engine: Option<String>,
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        Self { inner: Mutex::default(), events: broadcast::Sender::new(BACKLOG) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Every change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn tell(&self, kind: Kind) {
        // Nobody listening is the usual case early in a boot.
        let _ = self.events.send(Event { kind: Some(kind) });
    }

    /// A phase starts now.
    pub fn begin(&self, name: &str) {
        self.begin_at(name, clock::boot_ms());
    }

    /// A phase started at `started_ms` since power-on.
    pub fn begin_at(&self, name: &str, started_ms: u64) {
        let phase = Phase {
            name: name.to_owned(),
            state: PhaseState::Running.into(),
            started_ms,
            ended_ms: 0,
            detail: String::new(),
        };
        self.put(phase);
    }

    /// A phase ended now. `detail` says why when it failed, and what was done otherwise.
    pub fn end(&self, name: &str, state: PhaseState, detail: impl Into<String>) {
        self.end_at(name, clock::boot_ms(), state, detail);
    }

    /// A phase ended at `ended_ms` since power-on.
    pub fn end_at(&self, name: &str, ended_ms: u64, state: PhaseState, detail: impl Into<String>) {
        let started_ms =
            self.lock().phases.iter().find(|p| p.name == name).map_or(ended_ms, |p| p.started_ms);
        let name = name.to_owned();
        self.put(Phase { name, state: state.into(), started_ms, ended_ms, detail: detail.into() });
    }

    fn put(&self, phase: Phase) {
        let mut inner = self.lock();
        match inner.phases.iter_mut().find(|p| p.name == phase.name) {
            Some(old) => old.clone_from(&phase),
            None => inner.phases.push(phase.clone()),
        }
        // Told under the lock, so that the order of events is the order of changes.
        self.tell(Kind::Phase(phase));
    }

    /// A service started, ended or is about to be started again.
    pub fn service(&self, service: Service) {
        let mut inner = self.lock();
        match inner.services.iter_mut().find(|s| s.name == service.name) {
            Some(old) => old.clone_from(&service),
            None => inner.services.push(service.clone()),
        }
        self.tell(Kind::Service(service));
    }

    /// The engine answers.
    pub fn engine_ready(&self, version: &str) {
        let mut inner = self.lock();
        inner.engine = Some(version.to_owned());
        self.tell(Kind::EngineReady(EngineReady { version: version.to_owned() }));
    }

    /// The engine does not answer any more.
    pub fn engine_lost(&self, reason: &str) {
        let mut inner = self.lock();
        if inner.engine.take().is_some() {
            self.tell(Kind::EngineLost(EngineLost { reason: reason.to_owned() }));
        }
    }

    /// Everything, as it is now.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        Snapshot {
            phases: inner.phases.clone(),
            services: inner.services.clone(),
            engine: inner.engine.clone(),
        }
    }
}

impl Snapshot {
    /// The board as events, for a reader that fell behind.
    pub fn into_events(self) -> Vec<Event> {
        let phases = self.phases.into_iter().map(Kind::Phase);
        let services = self.services.into_iter().map(Kind::Service);
        let engine = match self.engine {
            Some(version) => Kind::EngineReady(EngineReady { version }),
            None => Kind::EngineLost(EngineLost { reason: String::new() }),
        };
        phases.chain(services).chain([engine]).map(|kind| Event { kind: Some(kind) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_keeps_its_start_when_it_ends() {
        let board = Board::new();
        let mut events = board.subscribe();
        board.begin_at("kernel", 7);
        board.end_at("kernel", 9, PhaseState::Done, "");
        let phase = board.snapshot().phases[0].clone();
        assert_eq!((phase.started_ms, phase.ended_ms, phase.state()), (7, 9, PhaseState::Done));
        assert!(matches!(events.try_recv().unwrap().kind, Some(Kind::Phase(p)) if p.ended_ms == 0));
        assert!(matches!(events.try_recv().unwrap().kind, Some(Kind::Phase(p)) if p.ended_ms == 9));
    }

    #[test]
    fn an_engine_that_was_never_ready_is_not_lost() {
        let board = Board::new();
        let mut events = board.subscribe();
        board.engine_lost("crash");
        assert!(events.try_recv().is_err());
        board.engine_ready("28");
        board.engine_lost("crash");
        assert!(matches!(events.try_recv().unwrap().kind, Some(Kind::EngineReady(_))));
        assert!(matches!(events.try_recv().unwrap().kind, Some(Kind::EngineLost(_))));
    }
}
