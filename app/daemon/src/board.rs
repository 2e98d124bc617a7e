//! The one place where the status is written; everybody reads it through a `watch`.

use std::{sync::Arc, time::Instant};

use slipway_api::{Phase, PhaseState, Problem, Status};
use tokio::sync::watch;

/// Writes the status. Clones write the same one; only the owner and the tasks that it started have one.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    status: Arc<watch::Sender<Status>>,
    began: Instant,
}

impl Board {
    pub(crate) fn new(status: Status) -> Self {
        Self { status: Arc::new(watch::Sender::new(status)), began: Instant::now() }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) fn now(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Changes the status; readers that looked already are told only if something did change.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// A board for a new start: no phases, and times count from now.
    pub(crate) fn restarted(&self) -> Self {
        self.change(|status| {
            status.phases.clear();
            status.services.clear();
            status.notices.clear();
            status.problem = None;
            status.engine = None;
            status.running_since = None;
        });
        Self { status: Arc::clone(&self.status), began: Instant::now() }
    }

    /// Milliseconds since the start was asked for.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn begin(&self, name: &str) {
        self.put(Phase {
            name: name.to_owned(),
            state: PhaseState::Running,
            started_ms: self.elapsed_ms(),
            ended_ms: None,
            detail: String::new(),
        });
    }

    pub(crate) fn end(&self, name: &str, state: PhaseState, detail: impl Into<String>) {
        let (ended_ms, detail) = (Some(self.elapsed_ms()), detail.into());
        self.change(|status| {
            if let Some(phase) = status.phases.iter_mut().find(|p| p.name == name) {
                *phase = Phase { state, ended_ms, detail, ..phase.clone() };
            }
        });
    }

    /// Enters a phase as somebody else reports it.
    pub(crate) fn put(&self, phase: Phase) {
        self.change(|status| match status.phases.iter_mut().find(|p| p.name == phase.name) {
            Some(old) => *old = phase,
            None => status.phases.push(phase),
        });
    }

    /// The phases that go on are over: the start did not succeed.
    pub(crate) fn fail(&self, problem: Problem) {
        let now = self.elapsed_ms();
        self.change(|status| {
            for phase in status.phases.iter_mut().filter(|p| p.state == PhaseState::Running) {
                *phase = Phase {
                    state: PhaseState::Failed,
                    ended_ms: Some(now),
                    detail: problem.message.clone(),
                    ..phase.clone()
                };
            }
            status.problem = Some(problem);
        });
    }
}
