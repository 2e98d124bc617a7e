//! Tells the guest what the person's settings make of it: once for each new agent, and again when something changed.
//!
//! ```text
//!   settings ─▶ Configure ─▶ agent        a new agent, or a change ─▶ again
//! ```

use std::sync::Arc;

use slipway_protocol::v1::Configure;
use tokio::sync::watch;

use crate::{Context, config, guest::Inside};

/// Follows a machine's agent for as long as the machine lives.
pub(crate) async fn attend(context: Arc<Context>, mut inside: watch::Receiver<Inside>) {
    let mut settings = context.settings.subscribe();
    loop {
        let agent = match inside.wait_for(|inside| inside.agent.is_some()).await {
            Ok(inside) => inside.agent.clone(),
            Err(_) => return,
        };
        let Some(agent) = agent else { continue };
        let mut told = None;
        loop {
            settings.borrow_and_update();
            if let Some(wanted) = wanted(&context).await
                && told.as_ref() != Some(&wanted)
            {
                if let Err(error) = agent.configure(wanted).await {
                    tracing::warn!(%error, "the settings did not come in force in the machine");
                }
                told = Some(wanted);
            }
            tokio::select! {
                // The sender lives in the context, which this holds.
                _ = settings.changed() => {}
                gone = inside.wait_for(|inside| inside.agent.is_none()) => match gone {
                    Ok(_) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

/// What the guest is to be told; a settings file that is wrong changes nothing.
async fn wanted(context: &Arc<Context>) -> Option<Configure> {
    let context = Arc::clone(context);
    let read = move || {
        let settings = config::with(&context.paths, &[]).ok()?;
        Some(Configure { reach_host: settings.reach_host })
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}
