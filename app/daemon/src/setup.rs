//! Makes the person's own `docker` reach the engine: context, current context, programs. A start goes on without it.

use std::path::Path;

use slipway_api::{
    DockerSetup, Problem,
    paths::{Paths, docker_host},
};
use slipway_manifest::Manifest;
use slipway_settings::resolved::Settings;
use slipway_vm::GuestArch;

use crate::{
    docker_context::{DockerContext, Used},
    host_tools,
};

/// Name of a profile's context.
pub(crate) fn context_name(paths: &Paths) -> String {
    match paths.profile() {
        "default" => "slipway".to_owned(),
        other => format!("slipway-{other}"),
    }
}

/// Sets up what the settings allow in the docker configuration at `dir`. Blocks.
pub(crate) fn docker(paths: &Paths, settings: &Settings, image: &Manifest, dir: &Path) -> DockerSetup {
    let name = context_name(paths);
    let (mut current, mut problem) = (false, None);
    match point(paths, dir, settings.activate_context) {
        Ok(is_current) => current = is_current,
        Err(found) => problem = Some(found),
    }
    // The image's tools are for its own processor.
    if settings.install_cli && image.arch == GuestArch::HOST.name() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        match host_tools::install(&paths.image_dir(), image, &paths.bin_dir(), dir, &path) {
            Ok(installed) => {
                for tool in installed {
                    tracing::info!(tool = tool.tool, path = %tool.path.display(), "installed a docker program");
                }
            }
            Err(error) => {
                problem.get_or_insert(
                    Problem::from_error("docker-tools", &error)
                        .hint("install docker's command line yourself, or `slipway config set docker.install-cli false`"),
                );
            }
        }
    }
    DockerSetup { context: name, current, problem }
}

/// Writes the context; makes it the current one when `activate`. Says whether it is.
pub(crate) fn point(paths: &Paths, dir: &Path, activate: bool) -> Result<bool, Problem> {
    let failed = |error: &dyn std::error::Error| {
        Problem::from_error("docker-context", error)
            .hint(format!("`docker -H {}` works without a context", docker_host(&paths.docker_sock())))
    };
    let contexts = DockerContext::new(dir.to_owned());
    let name = context_name(paths);
    contexts.ensure(&name, &paths.docker_sock()).map_err(|e| failed(&e))?;
    if activate {
        let used = contexts.use_it(&name).map_err(|e| failed(&e))?;
        if let Used::Changed { before } = &used {
            tracing::info!(?before, now = name, "docker's current context changed");
        }
        return Ok(true);
    }
    Ok(contexts.current().map_err(|e| failed(&e))?.as_deref() == Some(name.as_str()))
}
