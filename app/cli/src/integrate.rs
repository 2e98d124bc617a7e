//! Slipway beside the person's other tools: docker's context, environment variables, versions.

use std::path::Path;

use serde::Serialize;
use slipway_api::{ContextRequest, Problem, Version, paths::docker_host};

use crate::{
    args::{ContextVerb, EnvShell},
    reach::{Session, docker_config},
    say::{Fail, Say},
    system::DEFAULT_SHELL,
};

/// Shows or sets which engine `docker` speaks to.
///
/// # Errors
/// docker's configuration cannot be changed.
pub(crate) async fn context(session: &Session, what: &ContextVerb) -> Result<u8, Fail> {
    let say = session.say;
    match what {
        ContextVerb::Use => {
            let request = ContextRequest { docker_config: docker_config()? };
            let setup = session.ensured().await?.use_context(&request).await?;
            if let Some(problem) = setup.problem {
                return Err(problem.into());
            }
            say.talk(&format!("docker context is now `{}`", setup.context));
            overruled(say, &setup.context);
        }
        ContextVerb::Show { json } => {
            let shown = shown(&docker_config()?, |name| std::env::var(name).ok())?;
            if *json {
                say.json(&shown)?;
            } else {
                say.data(&format!("{}\n", shown.context))?;
            }
            if let Some(by) = shown.overruled_by {
                say.notice(&format!("${by} is set, and `docker` follows it instead"));
            }
        }
    }
    Ok(0)
}

/// What `docker` uses, as it finds it out itself.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Shown {
    context: String,
    /// The variable that wins over it.
    overruled_by: Option<&'static str>,
}

fn shown(docker_config: &Path, var: impl Fn(&str) -> Option<String>) -> Result<Shown, Problem> {
    let set = |name: &str| var(name).filter(|v| !v.is_empty());
    let overruled_by = set("DOCKER_HOST").map(|_| "DOCKER_HOST");
    if let Some(context) = set("DOCKER_CONTEXT") {
        return Ok(Shown { context, overruled_by });
    }
    let path = docker_config.join("config.json");
    let config: serde_json::Value = match std::fs::read(&path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => serde_json::Value::Null,
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
            Problem::new("docker-config", format!("`{}` is not valid JSON", path.display()))
                .because(e.to_string())
        })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => serde_json::Value::Null,
        Err(e) => {
            let problem = Problem::new("docker-config", format!("failed to read `{}`", path.display()));
            return Err(problem.because(e.to_string()));
        }
    };
    let context = config["currentContext"].as_str().filter(|c| !c.is_empty()).unwrap_or("default");
    Ok(Shown { context: context.to_owned(), overruled_by })
}

/// Tells when a variable keeps `docker` from following its context.
pub(crate) fn overruled(say: Say, context: &str) {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let other = std::env::var("DOCKER_CONTEXT").is_ok_and(|v| !v.is_empty() && v != context);
    let by = if set("DOCKER_HOST") { "DOCKER_HOST" } else { "DOCKER_CONTEXT" };
    if set("DOCKER_HOST") || other {
        say.notice(&format!("${by} is set in this shell, and `docker` follows it instead"));
        say.hint(&format!("`unset {by}`"));
    }
}

/// Prints what makes other tools find the engine.
///
/// # Errors
/// A home whose path is no text.
pub(crate) fn env(session: &Session, shell: Option<EnvShell>) -> Result<u8, Fail> {
    let socket = session.paths.docker_sock();
    let problem = || Problem::new("paths", format!("`{}` is not valid UTF-8", socket.display()));
    socket.to_str().ok_or_else(problem)?;
    let host = docker_host(&socket);
    let shell = shell.unwrap_or_else(|| of_person(std::env::var("SHELL").ok().as_deref()));
    session.say.data(&format!("{}\n", assignment(shell, "DOCKER_HOST", &host)))?;
    Ok(0)
}

fn of_person(shell: Option<&str>) -> EnvShell {
    match shell.and_then(|s| s.rsplit('/').next()) {
        Some("fish") => EnvShell::Fish,
        Some("pwsh") => EnvShell::Powershell,
        Some(_) => EnvShell::Sh,
        None => DEFAULT_SHELL,
    }
}

fn assignment(shell: EnvShell, name: &str, value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:._-+@%".contains(c);
    match shell {
        EnvShell::Sh | EnvShell::Fish if value.chars().all(plain) => match shell {
            EnvShell::Fish => format!("set -gx {name} {value}"),
            _ => format!("export {name}={value}"),
        },
        // Nothing is special between single quotes, but the quote itself.
        EnvShell::Sh => format!("export {name}='{}'", value.replace('\'', "'\\''")),
        // Here the backslash is, too.
        EnvShell::Fish => format!("set -gx {name} '{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
        // PowerShell takes typographic quotes for quotes, and doubles each.
        EnvShell::Powershell => {
            let quoted: String = value
                .chars()
                .flat_map(|c| std::iter::repeat_n(c, if "'‘’‚‛".contains(c) { 2 } else { 1 }))
                .collect();
            format!("$env:{name} = '{quoted}'")
        }
    }
}

/// Ours, and the daemon's if one lives.
#[derive(Debug, Serialize)]
struct Versions {
    slipway: &'static str,
    daemon: Option<Version>,
}

/// Prints versions. Starts nothing.
///
/// # Errors
/// A daemon that hangs.
pub(crate) async fn version(session: &Session, json: bool) -> Result<u8, Fail> {
    let versions = Versions { slipway: env!("CARGO_PKG_VERSION"), daemon: session.answers().await? };
    if json {
        session.say.json(&versions)?;
    } else {
        session.say.data(&human(&versions))?;
    }
    Ok(0)
}

fn human(versions: &Versions) -> String {
    let mut text = format!("slipway {}\n", versions.slipway);
    let Some(daemon) = &versions.daemon else { return text };
    if daemon.slipway != versions.slipway {
        text.push_str(&format!("daemon  {} (`slipway restart` renews it)\n", daemon.slipway));
    }
    for (name, version) in [("engine", &daemon.engine), ("image", &daemon.image)] {
        if let Some(version) = version {
            text.push_str(&format!("{name:<7} {version}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_need_no_quotes_and_others_get_them() {
        let host = "unix:///h/.slipway/run/docker.sock";
        assert_eq!(assignment(EnvShell::Sh, "DOCKER_HOST", host), format!("export DOCKER_HOST={host}"));
        assert_eq!(assignment(EnvShell::Fish, "DOCKER_HOST", host), format!("set -gx DOCKER_HOST {host}"));
        assert_eq!(assignment(EnvShell::Powershell, "D", host), format!("$env:D = '{host}'"));
        let odd = "unix:///a b/it's\\$x";
        assert_eq!(assignment(EnvShell::Sh, "D", odd), "export D='unix:///a b/it'\\''s\\$x'");
        assert_eq!(assignment(EnvShell::Fish, "D", odd), "set -gx D 'unix:///a b/it\\'s\\\\$x'");
        assert_eq!(assignment(EnvShell::Powershell, "D", "it's ’x"), "$env:D = 'it''s ’’x'");
    }

    #[cfg(unix)] // Where there is one.
    #[test]
    fn a_real_shell_reads_the_same_value() {
        use std::process::Command;
        for value in ["unix:///a b", "it's", "$HOME `id` \"x\" \\ ; & | * ~", "~/x", "a\nb", "é"] {
            let script = format!("{}; printf %s \"$D\"", assignment(EnvShell::Sh, "D", value));
            let output = Command::new("sh").arg("-c").arg(script).output().expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&output.stdout), value);
        }
    }

    #[test]
    fn the_persons_shell_is_taken() {
        assert_eq!(of_person(Some("/usr/bin/fish")), EnvShell::Fish);
        assert_eq!(of_person(Some("/bin/zsh")), EnvShell::Sh);
        assert_eq!(of_person(None), DEFAULT_SHELL);
    }

    #[test]
    fn what_docker_uses_is_found_as_docker_finds_it() {
        let dir = tempfile::tempdir().expect("folder");
        let show = |vars: &[(&str, &str)]| {
            let vars = vars.to_vec();
            shown(dir.path(), |n| vars.iter().find(|(name, _)| *name == n).map(|(_, v)| (*v).to_owned()))
        };
        let is = |context: &str, overruled_by| Ok(Shown { context: context.into(), overruled_by });
        assert_eq!(show(&[]), is("default", None));
        std::fs::write(dir.path().join("config.json"), "{\"currentContext\":\"slipway\"}").expect("written");
        assert_eq!(show(&[]), is("slipway", None));
        assert_eq!(show(&[("DOCKER_HOST", "tcp://x")]), is("slipway", Some("DOCKER_HOST")));
        assert_eq!(show(&[("DOCKER_CONTEXT", "other")]), is("other", None));
        std::fs::write(dir.path().join("config.json"), "{").expect("written");
        assert_eq!(show(&[]).expect_err("broken").code, "docker-config");
    }

    #[test]
    fn versions_are_short_unless_they_differ() {
        let daemon = |slipway: &str| Version {
            slipway: slipway.into(),
            pid: 1,
            engine: Some("28.5.1".into()),
            image: None,
        };
        let text = |daemon| human(&Versions { slipway: "1.0.0", daemon });
        assert_eq!(text(None), "slipway 1.0.0\n");
        assert_eq!(text(Some(daemon("1.0.0"))), "slipway 1.0.0\nengine  28.5.1\n");
        assert!(text(Some(daemon("0.9.0"))).contains("daemon  0.9.0 (`slipway restart` renews it)\n"));
    }
}
