//! The person's own `docker`: whether it is there, and whether it speaks to this machine's engine.

use std::path::{Path, PathBuf};

use serde_json::Value;
use slipway_api::{CheckState, Problem, paths::docker_host};

use super::{Finding, Shell, Ward, told};
use crate::{
    docker_context::{Described, DockerContext},
    host_tools::{self, runs},
    setup,
};

/// The program of that name in the folders of PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| runs(file))
}

pub(super) fn cli(ward: &Ward) -> Finding {
    let installs = ward.settings.as_ref().is_ok_and(|settings| settings.install_cli);
    let brought = |found: Finding| match installs {
        true => found.hint("the next `slipway start` brings what is missing"),
        false => found
            .hint("`slipway config set docker.install-cli true`, and the next start brings what is missing"),
    };
    if let Some(file) = on_path("docker") {
        let missing = ward.subject.docker_config.as_deref().map(host_tools::plugins_missing);
        return match missing.unwrap_or_default().as_slice() {
            [] => Finding::ok(told(&file)),
            missing => brought(Finding::warning(format!("`docker` does not find {}", missing.join(" and ")))),
        };
    }
    let ours = ward.paths().bin_dir();
    if runs(&ours.join("docker")) {
        return Finding::warning("`docker` is not found: it is not in a folder of PATH")
            .because(format!("Slipway's own is {}", told(&ours.join("docker"))))
            .hint(format!(
                "add it for good: `echo 'export PATH=\"{}:$PATH\"' >> ~/.profile`",
                ours.display()
            ));
    }
    brought(Finding::warning("there is no `docker` on this computer"))
}

/// Programs that docker is told to ask for logins: other products leave their names behind when they go.
pub(super) fn credentials(ward: &Ward) -> Finding {
    let Some(dir) = &ward.subject.docker_config else {
        return Finding::not_applicable("docker's configuration is not known");
    };
    let file = dir.join("config.json");
    // One that cannot be read or understood is told by the context's check.
    let config = std::fs::read(&file).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    credentials_of(&config.unwrap_or_default(), &file, |helper| on_path(helper).is_some())
}

fn credentials_of(config: &Value, file: &Path, is_there: impl Fn(&str) -> bool) -> Finding {
    let one = config["credsStore"].as_str().map(|name| ("credsStore", name));
    let others = config["credHelpers"].as_object().into_iter().flatten();
    let others = others.filter_map(|(_, name)| Some(("credHelpers", name.as_str()?)));
    let asked: Vec<(&str, &str)> =
        one.into_iter().chain(others).filter(|(_, name)| !name.is_empty()).collect();
    let program = |name: &str| format!("docker-credential-{name}");
    let Some((place, name)) = asked.iter().find(|(_, name)| !is_there(&program(name))) else {
        return Finding::ok(match asked.len() {
            0 => "logins are in docker's own configuration".to_owned(),
            _ => "the programs that keep logins are there".to_owned(),
        });
    };
    Finding::failed(format!("`docker` asks `{}` for logins, and it is not there", program(name)))
        .because(format!(
            "`{place}` in {} names it; pulls and builds fail with \"error getting credentials\"",
            told(file)
        ))
        .hint(format!("take `{name}` out of `{place}` in {}, or install that program", told(file)))
}

pub(super) fn context(ward: &Ward) -> Finding {
    let Some(dir) = &ward.subject.docker_config else {
        return Finding::not_applicable("docker's configuration is not known");
    };
    let paths = ward.paths();
    let name = setup::context_name(paths);
    let activate = ward.settings.as_ref().is_ok_and(|settings| settings.activate_context);
    let contexts = DockerContext::new(dir.clone());
    let seen = contexts.look(&name, &paths.docker_sock()).and_then(|is| Ok((is, contexts.current()?)));
    let (described, current) = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let hint = format!("`docker -H {}` works without it", docker_host(&paths.docker_sock()));
            return Finding::of(CheckState::Failed, Problem::from_error("docker-context", &error).hint(hint));
        }
    };
    let is_current = current.as_deref() == Some(name.as_str());
    let fix = "`slipway doctor --fix` or `slipway context use` sets it right";
    match described {
        Described::Foreign => Finding::failed(format!(
            "there is a docker context `{name}` that Slipway did not make"
        ))
        .hint(format!("`docker context rm {name}`, if you do not need it, then `slipway context use`")),
        Described::Missing if !paths.data_disk().exists() => {
            Finding::not_applicable("the first start makes it")
        }
        Described::Missing => {
            Finding::warning(format!("there is no docker context `{name}`")).hint(fix).fixable()
        }
        Described::Wrong(host) => Finding::failed(format!("the docker context `{name}` leads elsewhere"))
            .because(match host {
                Some(host) => {
                    format!("its engine is `{host}`, and this machine's is at {}", told(&paths.docker_sock()))
                }
                None => "its description cannot be read".into(),
            })
            .hint(fix)
            .fixable(),
        Described::Right if is_current => Finding::ok(format!("`{name}` is the current one")),
        Described::Right if !activate => Finding::ok(format!(
            "`{name}` is there, and not the current one, as `docker.activate-context` says"
        )),
        Described::Right => {
            let other = current.unwrap_or_else(|| "default".into());
            Finding::warning(format!("`docker` uses the context `{other}`, not `{name}`")).hint(fix).fixable()
        }
    }
}

/// As a start does it: the context, and the current one when the settings say so.
pub(super) fn mend_context(ward: &Ward) -> Result<(), Problem> {
    let Some(dir) = &ward.subject.docker_config else { return Ok(()) };
    let activate = ward.settings.as_ref().is_ok_and(|settings| settings.activate_context);
    setup::point(ward.paths(), dir, activate).map(drop)
}

pub(super) fn environment(ward: &Ward) -> Finding {
    let Some(shell) = &ward.subject.shell else {
        return Finding::not_applicable("only `slipway doctor` in a terminal sees what its shell has set");
    };
    let ours = docker_host(&ward.paths().docker_sock());
    environment_of(shell, &ours, &setup::context_name(ward.paths()))
}

fn environment_of(shell: &Shell, ours: &str, name: &str) -> Finding {
    let overruled = |variable: &str, value: &str| {
        Finding::warning(format!("{variable} is set in this shell, and `docker` follows it instead"))
            .because(format!("it is `{}`", crate::redact::line(value)))
            .hint(format!("`unset {variable}`, and look for it in the shell's startup files"))
    };
    match (&shell.docker_host, &shell.docker_context) {
        (Some(host), _) if host != ours => overruled("DOCKER_HOST", host),
        (Some(_), _) => Finding::ok("DOCKER_HOST leads to this machine"),
        (None, Some(context)) if context != name => overruled("DOCKER_CONTEXT", context),
        _ => Finding::ok("nothing overrules the context"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_logins_that_is_gone_is_named_with_its_place() {
        let of = |config: Value| {
            credentials_of(&config, Path::new("/h/config.json"), |helper| helper == "docker-credential-pass")
        };
        assert_eq!(of(serde_json::json!({})).state, CheckState::Ok);
        assert_eq!(
            of(serde_json::json!({"credsStore": "pass", "credHelpers": {"r.example": "pass"}})).state,
            CheckState::Ok
        );
        let left = of(serde_json::json!({"credsStore": "desktop"}));
        assert!(
            left.state == CheckState::Failed && left.problem.message.contains("docker-credential-desktop"),
            "{left:?}"
        );
        assert!(left.problem.hint.is_some_and(|hint| hint.contains("`credsStore`")));
        let helper = of(serde_json::json!({"credsStore": "pass", "credHelpers": {"r.example": "gone"}}));
        assert!(helper.problem.message.contains("docker-credential-gone"), "{helper:?}");
        assert_eq!(
            of(serde_json::json!({"credsStore": 7, "credHelpers": "x"})).state,
            CheckState::Ok,
            "nothing docker would ask"
        );
    }

    #[test]
    fn only_a_variable_that_leads_elsewhere_overrules() {
        let of = |host: Option<&str>, context: Option<&str>| {
            let shell = Shell { docker_host: host.map(Into::into), docker_context: context.map(Into::into) };
            environment_of(&shell, "unix:///h/docker.sock", "slipway")
        };
        assert_eq!(of(None, None).state, CheckState::Ok);
        assert_eq!(of(Some("unix:///h/docker.sock"), Some("other")).state, CheckState::Ok);
        assert_eq!(of(None, Some("slipway")).state, CheckState::Ok);
        let host = of(Some("tcp://me:hush@10.0.0.1"), None);
        assert!(host.state == CheckState::Warning, "{host:?}");
        assert!(!format!("{host:?}").contains("hush"), "{host:?}");
        assert!(of(None, Some("other")).problem.message.contains("DOCKER_CONTEXT"));
    }
}
