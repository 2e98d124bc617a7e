//! What may be asked in which state, and where an event leads: pure, so that it can be tested whole.
//!
//! ```text
//!            start                 engine answers
//!  STOPPED ────────▶ STARTING ───────────────────▶ RUNNING ◀──────┐ engine answers
//!   ▲  ▲               │  │                          │ │          │
//!   │  │ ended         │  │ boot failed              │ └─lost─▶ DEGRADED
//!   │  └── STOPPING ◀──┴──┼──── stop ────────────────┴────────────┤
//!   │ stop                ▼                                       │ ended by itself
//!   └───────────────── FAILED ◀──────────────────────────────────-┘
//!
//!  RUNNING, DEGRADED ── pause ──▶ PAUSED ── resume ──▶ STARTING; it stops and fails as these do
//! ```

use slipway_api::State;

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// An answering engine.
    Start,
    /// No machine.
    Stop {
        /// At once.
        force: bool,
    },
    /// Processors that stand still.
    Pause,
    /// Processors that do not.
    Resume,
    /// Files of the machine changed or removed.
    Reset,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is begun.
    Go,
    /// It is so already, or on its way.
    Already,
    /// It is so as soon as the machine goes on.
    Resume,
    /// Not now.
    Refuse,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A start begins, or a machine was found.
    Begun,
    /// The engine answers.
    EngineReady,
    /// The engine does not answer any more.
    EngineLost,
    /// The processors stand still, as was asked for.
    Paused,
    /// They run again; whether the engine answers is to be seen.
    Resumed,
    /// A stop begins.
    StopBegun,
    /// The start failed, and no machine is left.
    BootFailed,
    /// The machine is gone.
    Ended,
}

/// Judges a wish.
pub(crate) fn judge(state: State, ask: Ask) -> Verdict {
    match (ask, state) {
        (Ask::Start, State::Stopped | State::Failed) => Verdict::Go,
        (Ask::Start, State::Starting | State::Running | State::Degraded) => Verdict::Already,
        (Ask::Start, State::Paused) => Verdict::Resume,
        (Ask::Start, State::Stopping) => Verdict::Refuse,
        (Ask::Stop { .. }, State::Stopped) => Verdict::Already,
        (Ask::Stop { force: false }, State::Stopping) => Verdict::Already,
        (Ask::Stop { .. }, _) => Verdict::Go,
        (Ask::Pause, State::Running | State::Degraded) => Verdict::Go,
        (Ask::Pause, State::Paused) => Verdict::Already,
        (Ask::Pause, _) => Verdict::Refuse,
        (Ask::Resume, State::Paused) => Verdict::Go,
        (Ask::Resume, State::Starting | State::Running | State::Degraded) => Verdict::Already,
        (Ask::Resume, _) => Verdict::Refuse,
        (Ask::Reset, State::Stopped | State::Failed) => Verdict::Go,
        (Ask::Reset, _) => Verdict::Refuse,
    }
}

/// Where an event leads. An event that comes too late changes nothing.
pub(crate) fn next(state: State, event: Event) -> State {
    match (state, event) {
        (State::Stopped | State::Failed, Event::Begun) => State::Starting,
        (State::Starting | State::Degraded, Event::EngineReady) => State::Running,
        (State::Running, Event::EngineLost) => State::Degraded,
        // One that is found may have been paused before.
        (State::Starting | State::Running | State::Degraded, Event::Paused) => State::Paused,
        (State::Paused, Event::Resumed) => State::Starting,
        (State::Failed, Event::StopBegun) => State::Stopped,
        (State::Starting | State::Running | State::Degraded | State::Paused, Event::StopBegun) => {
            State::Stopping
        }
        (State::Starting, Event::BootFailed) => State::Failed,
        (State::Stopping, Event::Ended | Event::BootFailed) => State::Stopped,
        (State::Starting | State::Running | State::Degraded | State::Paused, Event::Ended) => State::Failed,
        (unchanged, _) => unchanged,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATES: [State; 7] = [
        State::Stopped,
        State::Starting,
        State::Running,
        State::Degraded,
        State::Paused,
        State::Stopping,
        State::Failed,
    ];
    const EVENTS: [Event; 8] = [
        Event::Begun,
        Event::EngineReady,
        Event::EngineLost,
        Event::Paused,
        Event::Resumed,
        Event::StopBegun,
        Event::BootFailed,
        Event::Ended,
    ];

    fn has_machine(state: State) -> bool {
        !matches!(state, State::Stopped | State::Failed)
    }

    #[test]
    fn a_second_machine_is_never_started_and_a_running_one_never_reset() {
        for state in STATES.into_iter().filter(|s| has_machine(*s)) {
            assert_ne!(judge(state, Ask::Start), Verdict::Go, "{state}");
            assert_eq!(judge(state, Ask::Reset), Verdict::Refuse, "{state}");
        }
    }

    #[test]
    fn whatever_the_state_a_forced_stop_is_heard_and_leads_to_stopped() {
        for state in STATES.into_iter().filter(|s| *s != State::Stopped) {
            assert_eq!(judge(state, Ask::Stop { force: true }), Verdict::Go, "{state}");
            assert_eq!(next(next(state, Event::StopBegun), Event::Ended), State::Stopped, "{state}");
        }
    }

    #[test]
    fn what_is_paused_stays_so_until_somebody_says_otherwise_or_it_ends() {
        for event in EVENTS {
            let then = next(State::Paused, event);
            match event {
                Event::Resumed => assert_eq!(then, State::Starting),
                Event::StopBegun => assert_eq!(then, State::Stopping),
                Event::Ended => assert_eq!(then, State::Failed),
                _ => assert_eq!(then, State::Paused, "{event:?}"),
            }
        }
        for state in STATES {
            // Nobody pauses what is not there, on its way up or down.
            let pausable = matches!(state, State::Running | State::Degraded);
            assert_eq!(judge(state, Ask::Pause) == Verdict::Go, pausable, "{state}");
            assert_eq!(judge(state, Ask::Resume) == Verdict::Go, state == State::Paused, "{state}");
        }
    }

    proptest! {
        #[test]
        fn only_a_start_leads_out_of_rest_and_only_a_ready_engine_to_running(
            events in prop::collection::vec(0..EVENTS.len(), 0..40)
        ) {
            let mut state = State::Stopped;
            for event in events.into_iter().map(|n| EVENTS[n]) {
                let then = next(state, event);
                if !has_machine(state) && has_machine(then) {
                    prop_assert_eq!(event, Event::Begun);
                }
                if state != State::Running && then == State::Running {
                    prop_assert_eq!(event, Event::EngineReady);
                    prop_assert!(state != State::Stopping, "a machine on its way down stays on it");
                }
                if has_machine(state) && !has_machine(then) {
                    prop_assert!(matches!(event, Event::Ended | Event::BootFailed));
                }
                state = then;
            }
        }
    }
}
