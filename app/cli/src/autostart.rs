//! Has the machine started with the person's session, without the window. What a system keeps for that is the only state there is: whether
//! it is on is asked of the system each time, so somebody who changes it there is right.

mod entry;
#[cfg_attr(target_os = "linux", path = "autostart/linux.rs")]
#[cfg_attr(target_os = "macos", path = "autostart/macos.rs")]
#[cfg_attr(windows, path = "autostart/windows.rs")]
mod system;

use std::{io, path::PathBuf};

use serde::Serialize;
use slipway_api::Problem;

use self::entry::Entry;
use crate::{
    args::AutostartVerb,
    reach::Session,
    say::{Fail, Say},
};

/// A system does not keep it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// Nothing starts programs with sessions here.
    #[cfg(not(windows))] // The registry is always there.
    #[error("{0}")]
    Nobody(&'static str),
    /// It would not be read back as it is.
    #[error("`{0}` cannot be named there")]
    Unnamable(String),
    /// A file or a key.
    #[error("failed to {act} `{place}`")]
    Place {
        act: &'static str,
        place: String,
        #[source]
        source: io::Error,
    },
}

impl From<KeepError> for Fail {
    fn from(error: KeepError) -> Self {
        let hint = match error {
            #[cfg(not(windows))]
            KeepError::Nobody(_) => "have whatever starts your session run `slipway start`",
            KeepError::Unnamable(_) => {
                "put the program where its path has ordinary characters only, and is shorter"
            }
            KeepError::Place { .. } => "see who may write there",
        };
        Self::Problem(Problem::from_error("autostart", &error).hint(hint))
    }
}

/// How it stands, as JSON.
#[derive(Debug, Serialize)]
struct Shown {
    enabled: bool,
    /// Where the system keeps it.
    place: String,
}

/// Does what the verb says.
///
/// # Errors
/// [`KeepError`], told.
pub(crate) fn autostart(session: &Session, what: &AutostartVerb) -> Result<u8, Fail> {
    let (profile, say) = (session.paths.profile(), session.say);
    let entry =
        Entry::of(profile, &std::env::current_exe()?, std::env::var_os("SLIPWAY_HOME").map(PathBuf::from));
    let place = system::Place::of_process()?;
    match what {
        AutostartVerb::Enable => {
            place.enable(&entry)?;
            say.talk("the machine starts when you log in");
        }
        AutostartVerb::Disable => {
            place.disable(&entry)?;
            say.talk("the machine does not start when you log in");
        }
        AutostartVerb::Show { json } => {
            return show(say, *json, place.is_enabled(&entry)?, place.name(&entry));
        }
    }
    Ok(0)
}

fn show(say: Say, json: bool, enabled: bool, place: String) -> Result<u8, Fail> {
    if json {
        say.json(&Shown { enabled, place })?;
    } else {
        say.data(if enabled { "enabled\n" } else { "disabled\n" })?;
    }
    Ok(0)
}

/// For failures at one place.
fn at(act: &'static str, place: impl std::fmt::Display) -> impl FnOnce(io::Error) -> KeepError {
    let place = place.to_string();
    move |source| KeepError::Place { act, place, source }
}
