//! Forgetting: never without saying what, never without a yes.

use std::io::{self, BufRead, IsTerminal};

use slipway_api::{Holdings, Problem, Reset, State};

use crate::{
    reach::Session,
    say::{Fail, Say},
    status::bytes,
};

/// Takes settings, data or both away.
///
/// # Errors
/// The machine runs; nobody can be asked; the person said no.
pub(crate) async fn reset(session: &Session, what: Reset, yes: bool) -> Result<u8, Fail> {
    let say = session.say;
    let api = session.ensured().await?;
    // Before the question: an answer that is then refused would be a bad joke.
    if what != Reset::Settings && !matches!(api.status().await?.state, State::Stopped | State::Failed) {
        let problem = Problem::new("machine-runs", "the machine runs, and its data is in use");
        return Err(problem.hint("run `slipway stop` first").into());
    }
    let lost = losses(&api.holdings().await?, what);
    if lost.is_empty() {
        say.talk("there is nothing to forget");
        return Ok(0);
    }
    if !yes {
        say.stderr("this will be lost for good:\n");
        lost.iter().for_each(|line| say.stderr(&format!("  {line}\n")));
        if !confirmed(say, "it may be lost")? {
            return Ok(1);
        }
    }
    api.reset(what).await?;
    lost.iter().for_each(|line| say.talk(&format!("gone: {line}")));
    Ok(0)
}

/// What a reset takes, a line each.
fn losses(holdings: &Holdings, what: Reset) -> Vec<String> {
    let mut lost = Vec::new();
    if what != Reset::Settings
        && let Some(size) = holdings.data_bytes
    {
        let disk = holdings.data_disk.display();
        lost.push(format!("all containers, images and volumes: {} in `{disk}`", bytes(size)));
    }
    if what != Reset::Data && !holdings.settings.is_empty() {
        lost.push(format!("your settings: {}", holdings.settings.join(", ")));
    }
    if what == Reset::All {
        lost.push("the logs".into());
    }
    lost
}

/// Asks the person, who was just told what it costs, whether `what`; says that nothing was changed when it may not be.
///
/// # Errors
/// Nobody can be asked.
pub(crate) fn confirmed(say: Say, what: &str) -> Result<bool, Fail> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let problem = Problem::new("unconfirmed", format!("there is nobody to ask whether {what}"));
        return Err(problem.hint("add `--yes` when you are sure").into());
    }
    let yes = ask(say, "go on?", false)?;
    if !yes {
        say.talk("nothing was changed");
    }
    Ok(yes)
}

/// Asks the person. No answer is a no.
///
/// # Errors
/// Stdin cannot be read.
pub(crate) fn ask(say: Say, question: &str, otherwise: bool) -> Result<bool, Fail> {
    say.stderr(&format!("{question} {} ", if otherwise { "[Y/n]" } else { "[y/N]" }));
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        say.stderr("\n");
        return Ok(false);
    }
    Ok(understood(&answer, otherwise))
}

fn understood(answer: &str, otherwise: bool) -> bool {
    match answer.trim().to_lowercase().as_str() {
        "" => otherwise,
        "y" | "yes" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_named() {
        let holdings = Holdings {
            data_disk: "/h/machine/data.raw".into(),
            data_bytes: Some(12_300_000_000),
            settings: vec!["machine.cpus".into(), "stop.timeout".into()],
        };
        let data = "all containers, images and volumes: 12.3 GB in `/h/machine/data.raw`";
        let settings = "your settings: machine.cpus, stop.timeout";
        assert_eq!(losses(&holdings, Reset::Data), [data]);
        assert_eq!(losses(&holdings, Reset::Settings), [settings]);
        assert_eq!(losses(&holdings, Reset::All), [data, settings, "the logs"]);
        let nothing = Holdings { data_bytes: None, settings: Vec::new(), ..holdings };
        assert!(losses(&nothing, Reset::Data).is_empty());
        assert!(losses(&nothing, Reset::Settings).is_empty());
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, otherwise, meant) in [
            ("y\n", false, true),
            ("YES\n", false, true),
            ("\n", false, false),
            ("\n", true, true),
            ("yep\n", true, false),
        ] {
            assert_eq!(understood(answer, otherwise), meant, "{answer:?}");
        }
    }
}
