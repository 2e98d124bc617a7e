//! The archive format of an initramfs (`newc`), with numbers that depend on nothing but the contents.

use crate::tree::{Node, Tree};

pub(crate) fn archive(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, (path, node)) in tree.nodes().iter().enumerate() {
        let (mode, body): (u32, &[u8]) = match node {
            Node::Dir { mode } => (0o040_000 | mode, &[]),
            Node::File { mode, bytes } => (0o100_000 | mode, bytes),
            Node::Link { target } => (0o120_777, target.as_bytes()),
        };
        entry(&mut out, number + 1, mode, path, body);
    }
    entry(&mut out, 0, 0, "TRAILER!!!", &[]);
    out
}

fn entry(out: &mut Vec<u8>, inode: usize, mode: u32, path: &str, body: &[u8]) {
    // inode, mode, uid, gid, links, mtime, size, device and its rdev (major, minor each), length of the name, checksum
    let fields = [inode, mode as usize, 0, 0, 1, 0, body.len(), 0, 0, 0, 0, path.len() + 1, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(body);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_newc() {
        let mut tree = Tree::default();
        tree.file("init", 0o755, "#!x").expect("put");
        let bytes = archive(&tree);
        let text = String::from_utf8(bytes.clone()).expect("ascii");
        assert!(
            text.starts_with("07070100000001000081ed000000000000000000000001000000000000000300000000"),
            "{text}"
        );
        assert!(text.contains("init\0\0#!x\x00070701"), "{text:?}");
        assert!(text.contains("TRAILER!!!\0") && bytes.len().is_multiple_of(4));
    }
}
