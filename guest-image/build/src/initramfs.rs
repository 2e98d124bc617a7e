//! What the kernel unpacks into memory: the agent as `/init`, and the modules without which there is no root disk.

use anyhow::Result;

use crate::{
    cpio,
    tree::{Node, Tree},
};

/// A list for the agent, and its modules in load order: path and bytes.
pub(crate) type Listed = (&'static str, Vec<(String, Vec<u8>)>);

/// Of modules that several lists name there is one.
pub(crate) fn build(agent: &[u8], lists: Vec<Listed>) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    for dir in ["dev", "proc", "sys", "newroot"] {
        tree.put(dir, Node::Dir { mode: 0o755 })?;
    }
    tree.file("init", 0o755, agent)?;
    for (list, modules) in lists {
        let mut listed = String::new();
        for (path, bytes) in modules {
            let path = format!("modules/{}", path.rsplit('/').next().unwrap_or(&path));
            listed.push_str(&format!("/{path}\n"));
            tree.file(&path, 0o644, bytes)?;
        }
        tree.file(list, 0o644, listed)?;
    }
    Ok(cpio::archive(&tree))
}
