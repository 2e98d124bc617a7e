//! The person's own `docker`: whether it is there, and whether it speaks to this machine's engine.

use std::{os::unix::fs::PermissionsExt, path::Path};

use slipway_api::{CheckState, Problem};

use super::{Finding, Shell, Ward, told};
use crate::{
    docker_context::{Described, DockerContext},
    setup,
};

pub(super) fn cli(ward: &Ward) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let runs = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if let Some(file) = std::env::split_paths(&path).map(|dir| dir.join("docker")).find(|file| runs(file)) {
        return Finding::ok(told(&file));
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
    let found = Finding::warning("there is no `docker` on this computer");
    match &ward.settings {
        Ok(settings) if settings.install_cli => found.hint("`slipway start` brings one"),
        _ => found.hint("`slipway config set docker.install-cli true`, and the next start brings one"),
    }
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
            let hint = format!("`docker -H unix://{}` works without it", paths.docker_sock().display());
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
    let ours = format!("unix://{}", ward.paths().docker_sock().display());
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
