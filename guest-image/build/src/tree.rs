//! A file tree in memory, as it will be in the root: merged `/usr`, no owner but root, no times.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, bail};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Dir { mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
    Link { target: String },
}

/// Paths are relative, without `.` and `..`, and every parent is there.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// Folders that are links into `/usr`.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

impl Tree {
    /// A tree with the links of a merged `/usr`.
    pub(crate) fn merged() -> Self {
        let mut tree = Self::default();
        for name in MERGED {
            tree.nodes.insert(format!("usr/{name}"), Node::Dir { mode: 0o755 });
            tree.nodes.insert(name.to_owned(), Node::Link { target: format!("usr/{name}") });
        }
        tree.nodes.insert("usr".into(), Node::Dir { mode: 0o755 });
        tree
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// Where `path` really lies; an error when it leads out of the tree.
    pub(crate) fn place(path: &str) -> Result<String> {
        let mut parts = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => bail!("`{path}` leads out of its package"),
                part => parts.push(part),
            }
        }
        let merged = parts.first().is_some_and(|first| MERGED.contains(first)) && parts.len() > 1;
        let joined = parts.join("/");
        Ok(if merged { format!("usr/{joined}") } else { joined })
    }

    /// Puts a node in; parents that are missing are made, a folder never replaces what is there.
    pub(crate) fn put(&mut self, path: &str, node: Node) -> Result<()> {
        let path = Self::place(path)?;
        if path.is_empty() || (MERGED.contains(&path.as_str()) && matches!(node, Node::Dir { .. })) {
            return Ok(());
        }
        let mut at = 0;
        while let Some(next) = path[at..].find('/') {
            let parent = &path[..at + next];
            let made = self.nodes.entry(parent.to_owned()).or_insert(Node::Dir { mode: 0o755 });
            if !matches!(made, Node::Dir { .. }) {
                bail!("`{path}` lies below `{parent}`, which is no folder");
            }
            at += next + 1;
        }
        match (self.nodes.get(&path), &node) {
            (Some(Node::Dir { .. }), Node::Dir { .. }) => {}
            (Some(Node::Dir { .. }), _) => bail!("`{path}` is a folder and something else"),
            _ => drop(self.nodes.insert(path, node)),
        }
        Ok(())
    }

    /// Puts a program or a text in.
    pub(crate) fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Result<()> {
        self.put(path, Node::File { mode, bytes: bytes.into() })
    }

    pub(crate) fn get(&self, path: &str) -> Option<&[u8]> {
        match self.nodes.get(path)? {
            Node::File { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn take(&mut self, path: &str) -> Option<Vec<u8>> {
        match self.nodes.remove(path)? {
            Node::File { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// Leaves out everything that no pattern fits, but for folders.
    pub(crate) fn keep_matching(&mut self, patterns: &[String]) {
        self.nodes.retain(|path, node| {
            matches!(node, Node::Dir { .. }) || patterns.iter().any(|pattern| matches_pattern(pattern, path))
        });
    }

    /// Leaves out everything that a pattern fits, and folders that are empty after that.
    pub(crate) fn drop_matching(&mut self, patterns: &[String]) {
        self.nodes.retain(|path, node| {
            matches!(node, Node::Dir { .. }) || !patterns.iter().any(|pattern| matches_pattern(pattern, path))
        });
        let used: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| !matches!(node, Node::Dir { .. }))
            .map(|(path, _)| path.clone())
            .collect();
        self.nodes.retain(|path, node| {
            let Node::Dir { .. } = node else { return true };
            let below = format!("{path}/");
            let first = used.partition_point(|used| *used < below);
            used.get(first).is_some_and(|used| used.starts_with(&below))
                || path == "usr"
                || path.starts_with("usr/") && MERGED.contains(&&path[4..])
        });
    }

    /// Writes the tree to an empty folder of the host.
    pub(crate) fn write_to(&self, dir: &Path) -> Result<()> {
        for (path, node) in &self.nodes {
            let target = dir.join(path);
            let written = match node {
                Node::Dir { mode } => std::fs::create_dir(&target).and_then(|()| chmod(&target, *mode)),
                Node::File { mode, bytes } => {
                    std::fs::write(&target, bytes).and_then(|()| chmod(&target, *mode))
                }
                Node::Link { target: to } => std::os::unix::fs::symlink(to, &target),
            };
            written.with_context(|| format!("failed to write `{}`", target.display()))?;
        }
        Ok(())
    }
}

fn chmod(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// `*` stands for anything.
pub(crate) fn matches_pattern(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| path.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usr_is_merged_and_nothing_leads_out() {
        let mut tree = Tree::merged();
        tree.file("./bin/sh", 0o755, "x").expect("put");
        tree.put("bin", Node::Dir { mode: 0o755 }).expect("the link stays");
        assert!(tree.get("usr/bin/sh").is_some());
        assert!(matches!(tree.nodes()["bin"], Node::Link { .. }));
        assert!(tree.file("../etc/passwd", 0o644, "x").is_err());
        assert!(tree.file("usr/bin/sh/x", 0o644, "x").is_err(), "below a file");
    }

    #[test]
    fn what_is_dropped_takes_its_empty_folders_along() {
        let mut tree = Tree::merged();
        tree.file("usr/share/doc/a/copyright", 0o644, "x").expect("put");
        tree.file("usr/share/misc/b", 0o644, "x").expect("put");
        tree.drop_matching(&["usr/share/doc/*".into()]);
        let paths: Vec<&str> =
            tree.nodes().keys().map(String::as_str).filter(|p| p.contains("share")).collect();
        assert_eq!(paths, ["usr/share", "usr/share/misc", "usr/share/misc/b"]);
    }

    #[test]
    fn patterns() {
        for (pattern, path, fits) in [
            ("a/*", "a/b/c", true),
            ("a/*", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("*.ko", "x/y.ko", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
        ] {
            assert_eq!(matches_pattern(pattern, path), fits, "{pattern} {path}");
        }
    }
}
