//! The guest image: what is installed, and how to put another in its place.

use std::path::{Path, PathBuf};

use serde::Serialize;
use slipway_api::ImageRequest;

use crate::{
    args::ImageVerb,
    reach::Session,
    say::{Fail, clean},
};

/// The installed image, as scripts read it.
#[derive(Debug, Serialize)]
struct Installed {
    version: Option<String>,
    dir: PathBuf,
}

/// Shows or replaces the guest image.
///
/// # Errors
/// The machine runs; the image is damaged, or of a key that is not trusted.
pub(crate) async fn image(session: &Session, what: &ImageVerb) -> Result<u8, Fail> {
    match what {
        ImageVerb::Ls { json } => ls(session, *json).await,
        ImageVerb::Install { dir, trust_key } => install(session, dir, *trust_key).await,
    }
}

async fn ls(session: &Session, json: bool) -> Result<u8, Fail> {
    let version = session.ensured().await?.version().await?.image;
    let installed = Installed { version, dir: session.paths.image_dir() };
    if json {
        session.say.json(&installed)?;
        return Ok(0);
    }
    match &installed.version {
        Some(version) => {
            session.say.data(&format!("{}  {}\n", clean(version), installed.dir.display()))?;
        }
        None => {
            session.say.talk("no guest image is installed");
            session.say.hint("`./installer/up` builds and installs one");
        }
    }
    Ok(0)
}

async fn install(session: &Session, dir: &Path, trust_key: bool) -> Result<u8, Fail> {
    let api = session.ensured().await?;
    // The daemon's current folder is another one.
    let request = ImageRequest { dir: std::path::absolute(dir)?, trust_key };
    let version = api.install_image(&request).await?;
    session.say.talk(&format!("installed guest image {}", clean(&version)));
    Ok(0)
}
