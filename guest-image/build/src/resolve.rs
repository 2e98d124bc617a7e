//! Which packages the definition needs: its own, and what they depend on, from the newest versions of their suite.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};

use anyhow::{Context, Result, bail};

use crate::{
    archive::{Archive, Package},
    definition::{Arch, Definition},
    lock::{Lock, Locked, Role},
    tree::matches_pattern,
    version,
};

pub(crate) fn resolve(definition: &Definition, archives: &[Archive]) -> Result<Lock> {
    let of = |suite: &str, arch: Arch| {
        archives.iter().find(|a| a.suite == suite && a.arch == arch).context("an index is missing")
    };
    let archive = |suite: &str| of(suite, definition.arch);
    let kernel = kernel(archive(&definition.kernel.suite)?, &definition.kernel.package)?;
    let mut packages = vec![locked(kernel, Role::Kernel, &definition.kernel.suite)];
    let (suite, compiler) = (&definition.kernel.suite, &definition.kernel.ours);
    let own = archive(suite)?;
    // What runs is of the builder's processor. What only the image's has, the kernel's headers, does not run.
    let foreign = of(suite, definition.arch.other())?;
    // The kernel's source is read and nothing of it is run, so that it needs nothing.
    let source = &compiler.of_kernel.source;
    let source = newest(&[own], source).with_context(|| format!("there is no package `{source}`"))?;
    let closed = closure(&[own], &compiler.install, &compiler.without)?;
    packages.extend(closed.values().map(|p| locked(p, Role::Compiler, suite)));
    packages.push(locked(source, Role::Compiler, suite));
    let install = [&compiler.install[..], &compiler.cross_install].concat();
    let without = [&compiler.without[..], &compiler.cross_without].concat();
    let closed = closure(&[foreign, own], &install, &without)?;
    packages.extend(closed.values().map(|p| locked(p, Role::CrossCompiler, suite)));
    packages.push(locked(source, Role::CrossCompiler, suite));
    let guest = &definition.packages;
    let closed = closure(&[archive(&guest.suite)?], &guest.install, &guest.without)?;
    packages.extend(closed.values().map(|p| locked(p, Role::Guest, &guest.suite)));
    let tools = &definition.host_tools;
    for name in tools.programs.keys() {
        let package = newest(&[archive(&tools.suite)?], name)
            .with_context(|| format!("there is no package `{name}`"))?;
        packages.push(locked(package, Role::HostTool, &tools.suite));
    }
    Ok(Lock { definition: definition.fingerprint(), packages })
}

fn locked(package: &Package, role: Role, suite: &str) -> Locked {
    Locked {
        name: package.name.clone(),
        version: package.version.clone(),
        role,
        suite: suite.to_owned(),
        path: package.path.clone(),
        size: package.size,
        sha256: package.sha256.clone(),
    }
}

/// The newest of the first archive that has it.
fn newest<'a>(archives: &[&'a Archive], name: &str) -> Option<&'a Package> {
    let found = archives.iter().find_map(|archive| archive.packages.get(name))?;
    found.iter().max_by(|a, b| version::compare(&a.version, &b.version))
}

/// The package with the kernel itself, behind the one whose name does not change.
fn kernel<'a>(archive: &'a Archive, meta: &str) -> Result<&'a Package> {
    let meta = newest(&[archive], meta).with_context(|| format!("there is no package `{meta}`"))?;
    let real = alternatives(&meta.depends).flatten().find(|d| d.name.starts_with("linux-image-"));
    let real = real.with_context(|| format!("`{}` leads to no kernel", meta.name))?;
    newest(&[archive], real.name).with_context(|| format!("there is no package `{}`", real.name))
}

fn closure<'a>(
    archives: &[&'a Archive],
    install: &[String],
    without: &[String],
) -> Result<BTreeMap<&'a str, &'a Package>> {
    let mut chosen: BTreeMap<&str, &Package> = BTreeMap::new();
    let mut open: VecDeque<&Package> = VecDeque::new();
    for name in install {
        open.push_back(newest(archives, name).with_context(|| format!("there is no package `{name}`"))?);
    }
    while let Some(package) = open.pop_front() {
        if chosen.insert(&package.name, package).is_some() {
            continue;
        }
        for group in alternatives(&package.depends) {
            let group: Vec<Dependency<'_>> = group.collect();
            let unwanted = |d: &Dependency<'_>| without.iter().any(|name| matches_pattern(name, d.name));
            if group.iter().any(unwanted) || group.iter().any(|d| met(d, chosen.values().copied())) {
                continue;
            }
            let found = group.iter().find_map(|d| candidate(archives, d));
            let Some(found) = found else {
                let words: Vec<&str> = group.iter().map(|d| d.name).collect();
                bail!("`{}` needs `{}`, which is not there", package.name, words.join(" | "));
            };
            open.push_back(found);
        }
    }
    Ok(chosen)
}

/// `name (>= 1.0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dependency<'a> {
    name: &'a str,
    wants: Option<(&'a str, &'a str)>,
}

/// `a (>= 1) | b, c:any`: groups of which one each has to be there.
fn alternatives(field: &str) -> impl Iterator<Item = impl Iterator<Item = Dependency<'_>>> {
    field.split(',').filter(|group| !group.trim().is_empty()).map(|group| group.split('|').map(dependency))
}

fn dependency(text: &str) -> Dependency<'_> {
    let text = text.split(['[', '<']).next().filter(|_| !text.contains('(')).unwrap_or(text);
    let (name, wants) = match text.split_once('(') {
        Some((name, rest)) => {
            let inner = rest.split(')').next().unwrap_or("").trim();
            (name, inner.split_once(' ').map(|(how, version)| (how.trim(), version.trim())))
        }
        None => (text, None),
    };
    let name = name.trim();
    Dependency { name: name.split(':').next().unwrap_or(name), wants }
}

fn fits(found: &str, wants: Option<(&str, &str)>) -> bool {
    let Some((how, wanted)) = wants else { return true };
    let order = version::compare(found, wanted);
    match how {
        ">=" => order != Ordering::Less,
        "<=" => order != Ordering::Greater,
        ">>" => order == Ordering::Greater,
        "<<" => order == Ordering::Less,
        _ => order == Ordering::Equal,
    }
}

fn satisfies(package: &Package, dependency: &Dependency<'_>) -> bool {
    if package.name == dependency.name {
        return fits(&package.version, dependency.wants);
    }
    alternatives(&package.provides).flatten().any(|provided| {
        provided.name == dependency.name
            && match (dependency.wants, provided.wants) {
                (None, _) => true,
                // Only a versioned promise meets a versioned wish.
                (Some(_), None) => false,
                (Some(_), Some((_, version))) => fits(version, dependency.wants),
            }
    })
}

fn met<'a>(dependency: &Dependency<'_>, mut chosen: impl Iterator<Item = &'a Package>) -> bool {
    chosen.any(|package| satisfies(package, dependency))
}

/// The package of that name, or else the first by name that provides it.
fn candidate<'a>(archives: &[&'a Archive], dependency: &Dependency<'_>) -> Option<&'a Package> {
    let real = newest(archives, dependency.name).filter(|package| satisfies(package, dependency));
    real.or_else(|| {
        archives.iter().find_map(|archive| {
            let all = archive.packages.values().flatten();
            all.filter(|package| satisfies(package, dependency)).min_by(|a, b| a.name.cmp(&b.name))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::from_text;

    const INDEX: &str = "Package: app\nVersion: 2\nPre-Depends: libc (>= 2)\nDepends: gone | mail, admin, old (<< 2) | neo\n\n\
        Package: libc\nVersion: 2.1\n\nPackage: libc\nVersion: 2.0~rc\n\nPackage: postfix\nVersion: 1\nProvides: mail\n\n\
        Package: old\nVersion: 2\n\nPackage: neo\nVersion: 1\nDepends: app\n\nPackage: admin\nVersion: 1\n\n\
        Package: linux-meta\nVersion: 6\nDepends: base, linux-image-6.1 (= 6)\n\nPackage: linux-image-6.1\nVersion: 6\n\n";

    #[test]
    fn alternatives_provides_versions_and_circles_are_understood() {
        let archive = from_text("s", Arch::Amd64, INDEX);
        let chosen = closure(&[&archive], &["app".into()], &["admin".into()]).expect("resolves");
        assert_eq!(chosen.keys().copied().collect::<Vec<_>>(), ["app", "libc", "neo", "postfix"]);
        assert_eq!(chosen["libc"].version, "2.1", "the newest");
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let archive = from_text(
            "s",
            Arch::Amd64,
            "Package: app\nVersion: 1\nDepends: a (>= 2) | b\n\nPackage: a\nVersion: 1\n\n",
        );
        let error = closure(&[&archive], &["app".into()], &[]).expect_err("a is too old").to_string();
        assert!(error.contains("`app` needs `a | b`"), "{error}");
        assert!(closure(&[&archive], &["nothing".into()], &[]).is_err());
    }

    #[test]
    fn what_compiles_is_of_the_builders_processor_and_headers_are_of_the_images() {
        let own = from_text(
            "s",
            Arch::Arm64,
            "Package: headers\nVersion: 6\nDepends: kbuild (= 6)\n\nPackage: kbuild\nVersion: 6\nDepends: libc\n\n\
             Package: libc\nVersion: 2\nFilename: libc_arm64.deb\n\n",
        );
        let foreign = from_text(
            "s",
            Arch::Amd64,
            "Package: kbuild\nVersion: 6\nDepends: libc\nFilename: kbuild_amd64.deb\n\n\
             Package: libc\nVersion: 2\nFilename: libc_amd64.deb\n\n",
        );
        let chosen = closure(&[&foreign, &own], &["headers".into()], &[]).expect("resolves");
        let paths: Vec<&str> = chosen.values().map(|package| package.path.as_str()).collect();
        assert_eq!(paths, ["", "kbuild_amd64.deb", "libc_amd64.deb"]);
    }

    #[test]
    fn the_kernel_is_behind_its_meta_package() {
        let archive = from_text("s", Arch::Amd64, INDEX);
        assert_eq!(kernel(&archive, "linux-meta").expect("found").name, "linux-image-6.1");
    }
}
