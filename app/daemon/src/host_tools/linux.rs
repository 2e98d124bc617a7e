//! Where the image's programs run: puts them in place.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use slipway_manifest::{HOST_TOOLS, Manifest, Part};

use super::{Installed, PLUGINS, SYSTEM_PLUGINS, ToolError, extra, runs};

const DOCKER: &str = "docker";

/// Puts into `bin_dir`, and for docker's plugins also into docker's folder, what the host does not have. `path_env` is the
/// `PATH` of the person. An image without tools brings none. What `image` says that a tool is, it must be.
///
/// # Errors
/// [`ToolError`] for the first tool that could not be written.
pub fn install(
    image_dir: &Path,
    image: &Manifest,
    bin_dir: &Path,
    docker_config_dir: &Path,
    path_env: &OsStr,
) -> Result<Vec<Installed>, ToolError> {
    let system: Vec<PathBuf> = SYSTEM_PLUGINS.iter().map(PathBuf::from).collect();
    install_beside(image_dir, image, bin_dir, docker_config_dir, path_env, &system)
}

fn install_beside(
    image_dir: &Path,
    image: &Manifest,
    bin_dir: &Path,
    docker_config_dir: &Path,
    path_env: &OsStr,
    system: &[PathBuf],
) -> Result<Vec<Installed>, ToolError> {
    let mut installed = Vec::new();
    let from = |tool: &str| {
        let name = format!("{HOST_TOOLS}/{tool}");
        image.parts.iter().find(|part| part.name == name)
    };
    let mut bring = |tool: &'static str, part: &Part, changed: bool| -> Result<(), ToolError> {
        let path = bin_dir.join(tool);
        let copied = copy(&image_dir.join(&part.name), part, &path)
            .map_err(|source| ToolError { path: path.clone(), source })?;
        if copied || changed {
            installed.push(Installed { tool, path });
        }
        Ok(())
    };
    let theirs = std::env::split_paths(path_env).any(|dir| {
        let file = dir.join(DOCKER);
        runs(&file) && !lies_in(&file, bin_dir)
    });
    if let Some(part) = from(DOCKER)
        && !theirs
    {
        bring(DOCKER, part, false)?;
    }
    let of_docker = docker_config_dir.join("cli-plugins");
    let others: Vec<PathBuf> = system.iter().cloned().chain(extra(docker_config_dir)).collect();
    for tool in PLUGINS {
        let Some(part) = from(tool) else { continue };
        let (link, ours) = (of_docker.join(tool), bin_dir.join(tool));
        let linked = fs::read_link(&link).is_ok_and(|to| to == ours);
        // A dangling link of somebody else's is theirs as well.
        let taken = !linked && fs::symlink_metadata(&link).is_ok();
        if taken || others.iter().any(|dir| runs(&dir.join(tool)) && !lies_in(&dir.join(tool), bin_dir)) {
            continue;
        }
        // The file first, so that the link never leads nowhere.
        bring(tool, part, !linked)?;
        if !linked {
            let failed = |source| ToolError { path: link.clone(), source };
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&of_docker).map_err(failed)?;
            symlink(&ours, &link).map_err(failed)?;
        }
    }
    Ok(installed)
}

/// Whether the file, or what it links to, is one of ours.
fn lies_in(file: &Path, bin_dir: &Path) -> bool {
    match (fs::canonicalize(file), fs::canonicalize(bin_dir)) {
        (Ok(file), Ok(bin_dir)) => file.parent() == Some(&bin_dir),
        _ => false,
    }
}

/// Copies a program, whole and as it was signed or not at all; false when it is there already.
fn copy(from: &Path, part: &Part, to: &Path) -> io::Result<bool> {
    let mut source = File::open(from)?;
    let found = source.metadata()?;
    // Same length and time: the copy of an earlier start. Reading tens of megabytes each time would delay every start.
    if let Ok(there) = fs::symlink_metadata(to)
        && there.is_file()
        && there.len() == found.len()
        && there.modified().ok() == found.modified().ok()
        && there.permissions().mode() & 0o777 == 0o755
    {
        return Ok(false);
    }
    let dir = to.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let aside = dir.join(format!(".{name}.slipway-{}", std::process::id()));
    let mut write = || {
        // A rest of a process that had our number and died.
        let _ = fs::remove_file(&aside);
        let mut file = File::options().write(true).create_new(true).mode(0o755).open(&aside)?;
        io::copy(&mut source, &mut file)?;
        part.check(&aside).map_err(io::Error::other)?;
        // Whatever the umask says: others' tools may run it too.
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.set_modified(found.modified()?)?;
        file.sync_all()?;
        // By renaming, a program that runs just now keeps its file.
        fs::rename(&aside, to)?;
        File::open(dir)?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        dir: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let host = Self { dir: tempfile::tempdir().expect("folder") };
            for tool in ["docker", "docker-buildx", "docker-compose"] {
                host.program(&format!("image/host-tools/{tool}"), &format!("#!{tool} 1"));
            }
            fs::create_dir(host.at("usr-bin")).expect("made");
            host
        }
        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }
        fn program(&self, path: &str, text: &str) {
            fs::create_dir_all(self.at(path).parent().expect("a folder")).expect("made");
            fs::write(self.at(path), text).expect("written");
            fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        /// As its builder would describe it.
        fn image(&self) -> Manifest {
            let tools = fs::read_dir(self.at("image/host-tools")).into_iter().flatten().flatten();
            let parts = tools.map(|tool| {
                let bytes = fs::read(tool.path()).expect("read");
                let sha256 = slipway_manifest::hash(&mut bytes.as_slice()).expect("hashed");
                let name = format!("{HOST_TOOLS}/{}", tool.file_name().to_string_lossy());
                Part { name, size: bytes.len() as u64, sha256 }
            });
            Manifest { parts: parts.collect(), ..Manifest::default() }
        }
        fn install(&self) -> Vec<&'static str> {
            let path = std::env::join_paths([self.at("usr-bin"), self.at("bin")]).expect("a path");
            let system = [self.at("usr-plugins")];
            let image = self.image();
            install_beside(&self.at("image"), &image, &self.at("bin"), &self.at(".docker"), &path, &system)
                .expect("installed")
                .iter()
                .map(|i| i.tool)
                .collect()
        }
        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.at(path)).expect("read")
        }
    }

    #[test]
    fn a_host_without_docker_gets_all_three_once() {
        let host = Host::new();
        assert_eq!(host.install(), ["docker", "docker-buildx", "docker-compose"]);
        for tool in ["docker", "docker-buildx", "docker-compose"] {
            assert!(runs(&host.at(&format!("bin/{tool}"))), "{tool}");
        }
        let link = fs::read_link(host.at(".docker/cli-plugins/docker-buildx")).expect("a link");
        assert_eq!(link, host.at("bin/docker-buildx"));
        assert!(host.install().is_empty(), "a second time changes nothing");
        let rest = fs::read_dir(host.at("bin")).expect("list").count();
        assert_eq!(rest, 3, "nothing is left aside");
    }

    #[test]
    fn a_newer_image_brings_newer_tools() {
        let host = Host::new();
        host.install();
        host.program("image/host-tools/docker", "#!docker 2, longer");
        host.program("image/host-tools/docker-compose", "#!docker-compose 2, longer");
        assert_eq!(host.install(), ["docker", "docker-compose"]);
        assert_eq!(host.text("bin/docker"), "#!docker 2, longer");
        assert_eq!(host.text(".docker/cli-plugins/docker-compose"), "#!docker-compose 2, longer");
    }

    #[test]
    fn a_tool_that_is_not_what_was_signed_takes_no_place() {
        let host = Host::new();
        host.install();
        host.program("image/host-tools/docker", "#!docker 2, longer");
        let image = host.image();
        host.program("image/host-tools/docker", "#!docker 2, LONGER");
        let (dir, bin, docker) = (host.at("image"), host.at("bin"), host.at(".docker"));
        let error = install(&dir, &image, &bin, &docker, OsStr::new("")).expect_err("damaged");
        assert!(error.source.to_string().contains("checksum"), "{}", error.source);
        assert_eq!(host.text("bin/docker"), "#!docker 1");
        assert_eq!(fs::read_dir(host.at("bin")).expect("list").count(), 3, "nothing is left aside");
    }

    #[test]
    fn what_the_person_has_stays() {
        let host = Host::new();
        host.program("usr-bin/docker", "theirs");
        host.program("usr-plugins/docker-buildx", "theirs");
        host.program(".docker/cli-plugins/docker-compose", "theirs");
        assert!(host.install().is_empty());
        assert!(!host.at("bin").exists());
        assert_eq!(host.text(".docker/cli-plugins/docker-compose"), "theirs");
    }

    #[test]
    fn links_of_others_stay_even_when_they_lead_nowhere() {
        let host = Host::new();
        fs::create_dir_all(host.at(".docker/cli-plugins")).expect("made");
        symlink("/nowhere/at/all", host.at(".docker/cli-plugins/docker-compose")).expect("linked");
        assert_eq!(host.install(), ["docker", "docker-buildx"]);
        let link = fs::read_link(host.at(".docker/cli-plugins/docker-compose")).expect("a link");
        assert_eq!(link, Path::new("/nowhere/at/all"));
    }

    #[test]
    fn a_link_to_ours_on_the_path_is_not_the_persons_docker() {
        let host = Host::new();
        host.install();
        symlink(host.at("bin/docker"), host.at("usr-bin/docker")).expect("linked");
        host.program("image/host-tools/docker", "#!docker 2, longer");
        assert_eq!(host.install(), ["docker"]);
    }

    #[test]
    fn folders_that_docker_was_told_of_count() {
        let host = Host::new();
        host.program("brew/docker-buildx", "theirs");
        fs::create_dir(host.at(".docker")).expect("made");
        let config = serde_json::json!({"cliPluginsExtraDirs": [host.at("brew")]});
        fs::write(host.at(".docker/config.json"), config.to_string()).expect("written");
        assert_eq!(host.install(), ["docker", "docker-compose"]);
    }

    #[test]
    fn an_image_without_tools_brings_none_and_a_file_in_the_way_is_named() {
        let host = Host::new();
        fs::write(host.at("bin"), "a file").expect("written");
        let (image, bin, docker) = (host.at("image"), host.at("bin"), host.at(".docker"));
        let error = install(&image, &host.image(), &bin, &docker, OsStr::new(""));
        assert!(error.expect_err("in the way").to_string().contains("bin/docker"));
        fs::remove_dir_all(host.at("image")).expect("removed");
        assert!(host.install().is_empty());
    }
}
