//! A diagnostics bundle for whoever is to help. Made by this process, so that it says most when nothing runs.

use std::path::PathBuf;

use crate::{
    inner,
    reach::{Session, docker_config},
    say::Fail,
    status::bytes,
};

/// Makes it and says where it is.
///
/// # Errors
/// The file is there already, or cannot be made.
pub(crate) async fn diagnose(session: &Session, output: Option<PathBuf>, json: bool) -> Result<u8, Fail> {
    let path = std::path::absolute(output.unwrap_or_else(|| ".".into()))?;
    let seen = session.seen().await;
    let made = inner::bundle(&session.paths, docker_config().ok(), seen, path).await?;
    let say = session.say;
    if json {
        say.json(&made)?;
        return Ok(0);
    }
    say.data(&format!("{}\n", made.path.display()))?;
    say.talk(&format!("{}, {} files; nothing was sent", bytes(made.bytes), made.files.len()));
    say.hint("secrets that were recognized are taken out; look into it all the same before you give it away");
    Ok(0)
}
