//! The initramfs: finds the root disk and hands over. Nothing here can be told to the host but by the console, so a
//! failure is printed there, where the driver keeps it, and the machine powers off.

use std::{
    ffi::CString,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, mount, mount_bind, mount_move},
    system::{RebootCommand, reboot},
};

use super::{STAGE1_AT, load_module};
use crate::{clock, data_disk, emulation};

/// How long the root disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the root disk is mounted before it is the root.
const NEW_ROOT: &str = "/newroot";
/// Where the image is mounted until its folders are in their places.
const IMAGE: &str = "/image";

/// Never returns when all goes well.
pub fn run() -> ExitCode {
    let began = clock::boot_ms();
    let Err(error) = boot(began);
    eprintln!("slipway-agent: boot failed: {error}");
    // PID 1 must not return: that is a panic of the kernel, and looks like another failure.
    let _ = reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

fn during<T>(what: &str, done: io::Result<T>) -> io::Result<T> {
    done.map_err(|error| io::Error::new(error.kind(), format!("failed to {what}: {error}")))
}

fn boot(began: u64) -> io::Result<std::convert::Infallible> {
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        std::fs::create_dir_all(target)?;
        match mount(kind, target, kind, MountFlags::empty(), None) {
            // The kernel may have mounted /dev itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return during(&format!("mount {target}"), Err(error.into())),
        }
    }
    let list = if emulation::is_hyperv() { "/etc/modules.hyperv" } else { "/etc/modules" };
    let listed = during(&format!("read {list}"), std::fs::read_to_string(list))?;
    for module in listed.lines().map(str::trim).filter(|line| !line.is_empty()) {
        during(&format!("load {module}"), load_module(Path::new(module)))?;
    }
    // Their memory is free again, and that of those for other devices.
    let _ = std::fs::remove_dir_all("/modules");
    let root = root_disk()?;
    read_ahead(&root);
    std::fs::create_dir_all(IMAGE)?;
    during(
        &format!("mount {} as the root", root.display()),
        mount(&root, IMAGE, "erofs", MountFlags::RDONLY, None).map_err(Into::into),
    )?;
    during("furnish the root", furnish())?;
    for target in ["/dev", "/proc", "/sys"] {
        let moved = mount_move(target, format!("{NEW_ROOT}{target}"));
        during(&format!("move {target}"), moved.map_err(Into::into))?;
    }
    let _ = std::fs::remove_file("/init");
    std::env::set_current_dir(NEW_ROOT)?;
    during("switch to the root", mount_move(".", "/").map_err(Into::into))?;
    during("switch to the root", rustix::process::chroot(".").map_err(Into::into))?;
    std::env::set_current_dir("/")?;
    let program = "/usr/bin/slipway-agent";
    let arguments = [CString::new(program)?, CString::new("init")?];
    let environment =
        [CString::new(format!("{STAGE1_AT}={began}"))?, CString::new("PATH=/usr/sbin:/usr/bin:/sbin:/bin")?];
    let pointers = |words: &[CString]| {
        let mut list: Vec<_> = words.iter().map(|w| w.as_ptr()).collect();
        list.push(std::ptr::null());
        list
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both lists end with a null pointer, and their texts live until the call is over.
    unsafe { libc::execve(argv[0], argv.as_ptr(), envp.as_ptr()) };
    during(&format!("start {program}"), Err(io::Error::last_os_error()))
}

/// Lets the kernel read the root in longer pieces. The image's clusters unpack to some 200 KiB, so with its usual 128 KiB
/// nearly each is unpacked twice, a part of it the first time: under emulation a twentieth of a boot. Without it all works.
fn read_ahead(root: &Path) {
    const KIBIBYTES: &str = "1024";
    if let Some(name) = root.file_name() {
        let _ =
            std::fs::write(Path::new("/sys/class/block").join(name).join("queue/read_ahead_kb"), KIBIBYTES);
    }
}

/// The root is an empty folder in memory into which the image's folders are mounted, because a folder of the host may be
/// at any path, and a mount needs a place. What the image holds stays read-only.
fn furnish() -> io::Result<()> {
    std::fs::create_dir_all(NEW_ROOT)?;
    mount("root", NEW_ROOT, "tmpfs", MountFlags::NODEV, Some(c"mode=755,size=16m"))?;
    for entry in std::fs::read_dir(IMAGE)? {
        let entry = entry?;
        let (from, to) = (entry.path(), Path::new(NEW_ROOT).join(entry.file_name()));
        if entry.file_type()?.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&from)?, &to)?;
        } else if entry.file_type()?.is_dir() {
            std::fs::create_dir(&to)?;
            // An empty one is a place for a mount, and the new folder is as good.
            if std::fs::read_dir(&from)?.next().is_some() {
                mount_bind(&from, &to)?;
            }
        }
    }
    // Its folders hold it from now on.
    rustix::mount::unmount(IMAGE, rustix::mount::UnmountFlags::DETACH).map_err(Into::into)
}

fn root_disk() -> io::Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(device) = data_disk::of_host(data_disk::ROOT) {
            return Ok(device);
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the root disk did not appear"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
