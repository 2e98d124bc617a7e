//! An initramfs for the guests of tests that need no image: one program, and the modules of a Debian kernel that it loads.

use std::{fs, path::Path};

/// One entry of a cpio archive in the form that the kernel unpacks ("newc").
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let fields = [0, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// An archive with `program` as `/init`, these files, and as `/modules/00.ko` and so on the modules below the kernel's folder, in
/// load order. What is built into the kernel is not there as a file and is left out. `kernel` is what `tests/kernel` names; its
/// modules lie beside it.
///
/// # Panics
/// When the program or the modules are not there.
pub fn initramfs(kernel: &Path, program: &Path, modules: &[&str], files: &[(&str, &[u8])]) -> Vec<u8> {
    let beside = kernel.parent().and_then(Path::parent).expect("boot/ has a parent").join("lib/modules");
    let version = fs::read_dir(beside).expect("modules").next().expect("one kernel").expect("folder").path();
    let mut archive = Vec::new();
    // Before the kernel has mounted anything, its messages and ours go to what is in `dev`.
    for folder in ["dev", "modules"] {
        entry(&mut archive, folder, 0o040_755, &[]);
    }
    entry(&mut archive, "init", 0o100_755, &fs::read(program).expect("the guest's program"));
    for (name, bytes) in files {
        entry(&mut archive, name, 0o100_644, bytes);
    }
    let mut found = 0;
    for (place, module) in modules.iter().enumerate() {
        if let Ok(bytes) = fs::read(version.join("kernel").join(module)) {
            found += 1;
            entry(&mut archive, &format!("modules/{place:02}.ko"), 0o100_644, &bytes);
        }
    }
    assert!(found > 0, "the kernel's modules are beside it");
    entry(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}
