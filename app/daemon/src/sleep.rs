//! Hears when this computer sleeps and wakes. The guest sleeps with it and is told nothing: its clock is wrong afterwards, and a stream
//! to it may be dead without either side knowing.
//!
//! ```text
//!   system ──Sleeps──▶ clients of the engine are held
//!     └─────Woke─────▶ guest watcher: clock set, agent heard ──▶ clients go on
//! ```
//!
//! Where a system tells nothing, the watcher's own look at the clock each few seconds is what remains.

#[cfg(target_os = "linux")]
mod logind;

use std::sync::Arc;

use slipway_vsock::sleep::{Event, Events};
use tokio_util::sync::CancellationToken;

use crate::Context;

/// This computer's sleep, as far as it tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sleep {
    /// It sleeps, or is about to.
    pub(crate) asleep: bool,
    /// How often it woke.
    pub(crate) woken: u64,
}

impl Sleep {
    fn after(self, event: Event) -> Self {
        match event {
            Event::Sleeps => Self { asleep: true, ..self },
            Event::Woke => Self { asleep: false, woken: self.woken + 1 },
        }
    }
}

/// Writes what the system tells, until `stop`.
pub(crate) async fn attend(context: Arc<Context>, stop: CancellationToken) {
    let tell = |event| {
        tracing::info!(?event, "this computer");
        context.sleep.send_modify(|sleep| *sleep = sleep.after(event));
    };
    tokio::select! {
        () = stop.cancelled() => {}
        ((), ()) = async { tokio::join!(by_system(tell), by_service(tell)) } => {}
    }
}

async fn by_system(tell: impl Fn(Event)) {
    let ended = match Events::listen() {
        Ok(mut events) => loop {
            match events.next().await {
                Ok(event) => tell(event),
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    tracing::warn!(error = %ended, "the system does not tell when this computer wakes");
    // Of a sleep that it told it will not tell the end.
    tell(Event::Woke);
}

#[cfg(target_os = "linux")]
async fn by_service(tell: impl Fn(Event)) {
    match logind::listen(&tell).await {
        Ok(()) => tell(Event::Woke),
        // Many have no bus: containers, small systems.
        Err(error) => tracing::debug!(%error, "logind is not heard"),
    }
}

#[cfg(not(target_os = "linux"))]
async fn by_service(_tell: impl Fn(Event)) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waking_counts_whether_the_sleep_was_told_or_not() {
        let mut sleep = Sleep::default();
        for (event, asleep, woken) in [
            (Event::Sleeps, true, 0),
            (Event::Sleeps, true, 0),
            (Event::Woke, false, 1),
            // By the second of two ways to hear it.
            (Event::Woke, false, 2),
        ] {
            sleep = sleep.after(event);
            assert_eq!(sleep, Sleep { asleep, woken });
        }
    }
}
