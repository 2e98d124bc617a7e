//! Folders of the host that containers can mount: what is shared, one more, one less.

use std::path::Path;

use slipway_api::{Mount, MountOrigin, MountRequest, Mounts};

use crate::{
    args::MountVerb,
    reach::Session,
    say::{Fail, clean},
};

/// Shows or changes what is shared.
///
/// # Errors
/// What cannot be shared, or is not.
pub(crate) async fn mount(session: &Session, what: &MountVerb) -> Result<u8, Fail> {
    let api = session.ensured().await?;
    let (mounts, json) = match what {
        MountVerb::Ls { json } => {
            let mounts = api.mounts().await?;
            if !json {
                return list(session, &mounts);
            }
            (mounts, true)
        }
        MountVerb::Add { path, read_only, json } => {
            (api.add_mount(&request(path, *read_only)?).await?, *json)
        }
        MountVerb::Rm { path, json } => (api.remove_mount(&request(path, false)?).await?, *json),
    };
    if json {
        session.say.json(&mounts)?;
        return Ok(0);
    }
    let done = if matches!(what, MountVerb::Rm { .. }) { "no longer shared" } else { "shared" };
    if let MountVerb::Add { path, .. } | MountVerb::Rm { path, .. } = what {
        session.say.talk(&format!("{done}: {}", clean(&path.to_string_lossy())));
    }
    Ok(0)
}

fn request(path: &Path, read_only: bool) -> Result<MountRequest, Fail> {
    // The daemon's current folder is another one.
    Ok(MountRequest { path: std::path::absolute(path)?, read_only })
}

fn list(session: &Session, mounts: &Mounts) -> Result<u8, Fail> {
    let lines: String = mounts.mounts.iter().map(line).collect();
    session.say.data(&lines)?;
    if mounts.mounts.is_empty() {
        session.say.talk("nothing is shared");
        session.say.hint("`slipway mount add DIR` shares a folder");
    }
    if let Some(why) = &mounts.events {
        session.say.talk(&format!("changes of files are not all told to containers: {}", clean(why)));
    }
    Ok(0)
}

/// One line: the path last, because it may have spaces.
fn line(mount: &Mount) -> String {
    let origin = match mount.origin {
        MountOrigin::Home => "home",
        MountOrigin::Added => "added",
        MountOrigin::OnDemand => "on demand",
    };
    let access = if mount.read_only { "ro" } else { "rw" };
    let aside = (mount.guest_path != mount.path)
        .then(|| format!("  in the machine: {}", clean(&mount.guest_path.to_string_lossy())));
    let problem = mount.problem.as_ref().map(|why| format!("  not there: {}", clean(why)));
    format!(
        "{access}  {origin:<9}  {}{}{}\n",
        clean(&mount.path.to_string_lossy()),
        aside.unwrap_or_default(),
        problem.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_differs() {
        let mut mount = Mount {
            path: "/srv/my data".into(),
            guest_path: "/srv/my data".into(),
            read_only: false,
            origin: MountOrigin::Added,
            problem: None,
            watched: Vec::new(),
        };
        assert_eq!(line(&mount), "rw  added      /srv/my data\n");
        mount.guest_path = "/run/host/srv/my data".into();
        mount.read_only = true;
        mount.problem = Some("no \u{1b}[2J".into());
        let said = line(&mount);
        assert!(
            said.starts_with("ro  added      /srv/my data  in the machine: /run/host/srv/my data"),
            "{said}"
        );
        assert!(said.contains("not there: no ") && !said.contains('\u{1b}'), "{said}");
    }
}
