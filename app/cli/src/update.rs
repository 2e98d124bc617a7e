//! Another guest image in place of the one in use. The daemon does it, and goes back by itself; the verb asks and shows.

use std::cell::Cell;

use slipway_api::{Problem, State, Update, UpdateRequest};

use crate::{
    args::UpdateArgs,
    follow,
    reach::{Session, docker_config},
    reset::confirmed,
    say::{Fail, Say, clean},
    start::{Asked, interruptible},
    status::exit_code,
};

/// The exit code of `--check` when there is nothing.
const NONE: u8 = 3;

/// Says whether there is an update, or takes it.
///
/// # Errors
/// The image is damaged, of a key that is not trusted, or did not start; nobody can be asked.
pub(crate) async fn update(session: &Session, how: &UpdateArgs) -> Result<u8, Fail> {
    let say = session.say;
    // A package that brought an image brought a program, too.
    let api = session.renewed().await?;
    // The daemon's current folder is another one.
    let dir = how.from.as_ref().map(std::path::absolute).transpose()?;
    let request = UpdateRequest { dir, docker_config: docker_config().ok() };
    let ready = match api.check_update(&request).await.map_err(|error| error.into_problem()) {
        Ok(ready) => ready,
        Err(problem) if problem.code == "update-none" => return nothing(say, how, &problem),
        Err(problem) => return Err(problem.into()),
    };
    if how.check {
        if how.json {
            say.json(&ready)?;
        } else {
            say.data(&format!("{}\n", told(&ready)))?;
        }
        return Ok(0);
    }
    let runs = !matches!(api.status().await?.state, State::Stopped | State::Failed);
    if !how.json {
        say.talk(&told(&ready));
    }
    if runs && !how.yes {
        say.stderr("the machine is restarted for it: its containers are stopped, and those with a restart policy come up again\n");
        if !confirmed(say, "the machine may be restarted")? {
            return Ok(1);
        }
    }
    let asked: Asked =
        Cell::new(Some(("the update goes on in the background", "`slipway status` shows how it goes")));
    interruptible(session, &asked, async {
        let work = async { Ok(api.update(&request).await?) };
        let done = follow::during(api, say, work).await?;
        if how.json {
            say.json(&done)?;
        }
        let version = clean(&done.to);
        match done.state {
            State::Running => say.talk(&format!("the machine runs with guest image {version}")),
            State::Degraded => say.notice(&format!(
                "the machine runs with guest image {version}, and not everything works; see `slipway status`"
            )),
            State::Stopped => say.talk(&format!("guest image {version} boots from the next start on")),
            state => {
                say.notice(&format!("guest image {version} is in its place, and the machine is {state}"))
            }
        }
        // Stopped is what it was.
        Ok(if done.state == State::Stopped { 0 } else { exit_code(done.state) })
    })
    .await
}

/// That there is no other image is no failure.
fn nothing(say: Say, how: &UpdateArgs, problem: &Problem) -> Result<u8, Fail> {
    if how.json {
        say.json(&None::<Update>)?;
    } else {
        say.talk(&format!("there is no update: {}", clean(&problem.message)));
    }
    Ok(if how.check { NONE } else { 0 })
}

/// From which to which, on one line.
fn told(update: &Update) -> String {
    let (to, dir) = (clean(&update.to.version), clean(&update.to.dir.to_string_lossy()));
    let now = update.from.as_ref().map_or_else(
        || "no guest image is installed".into(),
        |from| format!("guest image {} is in use", clean(from)),
    );
    let once = if update.declined { ", which another was chosen instead of before" } else { "" };
    format!("{now}; {to} is ready in `{dir}`{once}")
}

#[cfg(test)]
mod tests {
    use slipway_api::GuestImage;

    use super::*;

    #[test]
    fn an_update_says_from_which_to_which() {
        let to = GuestImage { version: "0.2".into(), dir: "/usr/share/slipway/image".into() };
        let mut update = Update { from: Some("0.1".into()), to, declined: false };
        assert_eq!(told(&update), "guest image 0.1 is in use; 0.2 is ready in `/usr/share/slipway/image`");
        update.declined = true;
        assert!(
            told(&update).ends_with("`, which another was chosen instead of before"),
            "{}",
            told(&update)
        );
        update.from = None;
        assert!(told(&update).starts_with("no guest image is installed; 0.2 is"), "{}", told(&update));
    }
}
