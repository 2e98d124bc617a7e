//! The guest image: what is installed, and how to put another in its place.

use std::path::Path;

use slipway_api::{GuestImage, GuestImages, ImageRequest};

use crate::{
    args::ImageVerb,
    reach::Session,
    say::{Fail, clean},
};

/// Shows or replaces the guest image.
///
/// # Errors
/// The machine runs; the image is damaged, of a key that is not trusted, or not there.
pub(crate) async fn image(session: &Session, what: &ImageVerb) -> Result<u8, Fail> {
    match what {
        ImageVerb::Ls { json } => ls(session, *json).await,
        ImageVerb::Install { dir, trust_key } => install(session, dir, *trust_key).await,
        ImageVerb::Rollback => rollback(session).await,
    }
}

async fn ls(session: &Session, json: bool) -> Result<u8, Fail> {
    let images = session.ensured().await?.images().await?;
    if json {
        session.say.json(&images)?;
        return Ok(0);
    }
    session.say.data(&text(&images))?;
    if images.current.is_none() {
        session.say.talk("no guest image is installed");
        session.say.hint("`./installer/up` builds and installs one");
    }
    Ok(0)
}

/// A line each, the one that boots first.
fn text(images: &GuestImages) -> String {
    let (current, previous) = (images.current.iter(), images.previous.iter());
    let all = current.map(|image| ("current ", image)).chain(previous.map(|image| ("previous", image)));
    let line = |(which, image): (&str, &GuestImage)| {
        format!("{}  {which}  {}\n", clean(&image.version), clean(&image.dir.to_string_lossy()))
    };
    all.map(line).collect()
}

async fn rollback(session: &Session) -> Result<u8, Fail> {
    let version = session.ensured().await?.roll_back_image().await?;
    session.say.talk(&format!("guest image {} boots from the next start on", clean(&version)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_images_are_told_apart() {
        let image = |version: &str, dir: &str| Some(GuestImage { version: version.into(), dir: dir.into() });
        let images =
            GuestImages { current: image("0.2", "/h/image"), previous: image("0.1", "/h/image.previous") };
        assert_eq!(text(&images), "0.2  current   /h/image\n0.1  previous  /h/image.previous\n");
        assert_eq!(text(&GuestImages { current: None, previous: None }), "");
    }
}
