//! QEMU's command line as types: what can be said is what we mean to say, and a path can hold any character.

use std::{ffi::OsString, path::Path};

use slipway_vm::{Accel, MachineSpec};
use slipway_vsock::GuestCid;

use crate::{GuestArch, arch::Board, version::Version};

/// How the guest's vsock device is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vsock {
    /// The host kernel's device, `/dev/vhost-vsock`.
    Kernel(GuestCid),
    /// Our own device behind a unix socket.
    VhostUser,
}

/// A word of a `key=value,…` option: QEMU reads `,,` as a comma inside a value.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        out.push(*byte);
        if *byte == b',' {
            out.push(b',');
        }
    }
    OsString::from_vec(out)
}

fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    let mut word = OsString::from(before);
    word.push(escaped(path));
    word.push(after);
    word
}

/// The accelerator and the processor that suits it.
pub(crate) fn accelerator(guest: GuestArch, accel: Accel, version: Version) -> Vec<OsString> {
    let (accel, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        // Of the others none is QEMU's.
        Accel::Tcg | Accel::Vz | Accel::Hyperv => {
            // Before 8.1, code that one processor patches while another translates it may stay as it was half way, and Linux
            // patches its own hot code (static keys) all the time: `Oops: int3`. One thread for all processors costs about a
            // fifth of the speed, and does not crash.
            let one_thread = version < Version::new(8, 1);
            let accel =
                if one_thread { "tcg,thread=single,tb-size=512" } else { "tcg,thread=multi,tb-size=512" };
            let cpu = match guest {
                // QEMU 7.2's TCG double-faults in the guest's kernel at cmpxchg16b.
                // With five levels of page tables, each page walk that is emulated has one step more.
                // "Enhanced" string instructions, by which whoever sees them clears and copies memory, are done byte by byte.
                GuestArch::X86_64 if version < Version::new(8, 0) => "max,-la57,-erms,-cx16",
                GuestArch::X86_64 => "max,-la57,-erms",
                // Signed pointers by the architecture's cipher take most of an emulated kernel's time; QEMU's own do not.
                GuestArch::Aarch64 => "max,pauth-impdef=on",
            };
            (accel, cpu)
        }
    };
    ["-accel", accel, "-cpu", cpu].map(OsString::from).to_vec()
}

/// What no machine of ours has: QEMU's defaults, a display, privileges that it does not need.
pub(crate) fn hardening() -> Vec<OsString> {
    [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]
    .map(OsString::from)
    .to_vec()
}

/// The guest's serial console on QEMU's standard output, where the driver bounds what a guest can write.
pub(crate) fn console() -> Vec<OsString> {
    ["-chardev", "stdio,id=console0,signal=off", "-serial", "chardev:console0"].map(OsString::from).to_vec()
}

/// The kernel's command line. An emulated processor has words of its own there:
/// - what a kernel does against speculation is slow to emulate (each indirect call goes through a return), and it does not
///   speculate;
/// - memory that is handed out is not cleared before it is written anyway, which is half of all that a boot clears;
/// - what is cleared, is by a loop of ordinary stores: TCG goes back to its start for each eight bytes of a `rep stos`.
fn command_line(guest: GuestArch, spec: &MachineSpec, accel: Accel) -> String {
    let mut words: Vec<&str> = spec.cmdline.iter().map(String::as_str).collect();
    if accel == Accel::Tcg {
        words.extend(["mitigations=off", "init_on_alloc=0"]);
        if guest == GuestArch::X86_64 {
            words.push("clearcpuid=rep_good");
        }
    }
    words.join(" ")
}

/// The whole command line of a machine, without the program's name.
pub(crate) fn machine(
    guest: GuestArch,
    spec: &MachineSpec,
    accel: Accel,
    version: Version,
    vsock: Vsock,
    vsock_socket: &Path,
    qmp_socket: &Path,
) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: OsString| {
        args.push(name.into());
        args.push(value);
    };
    option("-name", with_path("guest=", Path::new(&spec.name), ",process=slipway-vm"));
    option("-machine", format!("{},memory-backend=mem0", guest.board()).into());
    // Shared, because the vhost-user devices read the guest's memory.
    option("-object", format!("memory-backend-memfd,id=mem0,size={}M,share=on", spec.memory_mib).into());
    option("-m", format!("{}M", spec.memory_mib).into());
    option("-smp", spec.cpus.to_string().into());
    option("-kernel", spec.kernel.clone().into());
    option("-initrd", spec.initramfs.clone().into());
    option("-append", command_line(guest, spec, accel).into());
    let disk = |id: &str, path: &Path, options: &str| {
        let node = with_path(
            &format!("driver=raw,node-name={id},file.driver=file,file.filename="),
            path,
            &format!(",file.locking=on,{options}"),
        );
        (node, OsString::from(format!("virtio-blk-pci,drive={id},serial={id}")))
    };
    let (root, root_device) = disk("root", &spec.root_image, "read-only=on");
    let (data, data_device) = disk("data", &spec.data_disk, "discard=unmap,detect-zeroes=unmap");
    option("-blockdev", root);
    option("-device", root_device);
    option("-blockdev", data);
    option("-device", data_device);
    // passt would need no root either. `tests/bench/run ports` finds it a little slower up and a fifth faster down. But Debian 12's
    // stands still when much follows a half-close of the guest's, and the user network comes with each QEMU.
    option("-netdev", "user,id=net0,ipv6=off".into());
    option("-device", "virtio-net-pci,netdev=net0".into());
    option("-device", "virtio-rng-pci".into());
    option("-device", "virtio-balloon-pci,free-page-reporting=on".into());
    // An interrupt for each queue, and one for the device: with QEMU's three all queues have the same, and each packet for the
    // guest makes it look for those of its own that were taken.
    match vsock {
        Vsock::Kernel(cid) => {
            option("-device", format!("vhost-vsock-pci,vectors=4,guest-cid={}", cid.get()).into());
        }
        Vsock::VhostUser => {
            option("-chardev", with_path("socket,id=vsock0,path=", vsock_socket, ""));
            option("-device", "vhost-user-vsock-pci,vectors=4,chardev=vsock0".into());
        }
    }
    if let Some(socket) = &spec.share_socket {
        option("-chardev", with_path("socket,id=share0,path=", socket, ""));
        option("-device", "vhost-user-fs-pci,chardev=share0,tag=slipway,queue-size=1024".into());
    }
    option("-chardev", with_path("socket,id=qmp0,path=", qmp_socket, ",server=on,wait=off"));
    option("-mon", "chardev=qmp0,mode=control".into());
    args.extend(accelerator(guest, accel, version));
    args.extend(hardening());
    args.extend(console());
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_vm::AccelChoice;

    fn spec() -> MachineSpec {
        MachineSpec {
            name: "default".into(),
            cpus: 2,
            memory_mib: 2048,
            kernel: "/i/kernel".into(),
            initramfs: "/i/initramfs".into(),
            root_image: "/i/root.erofs".into(),
            data_disk: "/home/a, b/data.raw".into(),
            cmdline: vec!["console=ttyS0".into(), "quiet".into()],
            run_dir: "/r".into(),
            console_log: "/l/console.log".into(),
            accel: AccelChoice::Auto,
            share_socket: Some("/r/share.sock".into()),
        }
    }

    fn line(accel: Accel, version: Version, vsock: Vsock) -> String {
        machine(
            GuestArch::X86_64,
            &spec(),
            accel,
            version,
            vsock,
            Path::new("/r/vsock.sock"),
            Path::new("/r/qmp.sock"),
        )
        .iter()
        .map(|w| w.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join("\n")
    }

    #[test]
    fn the_whole_command_line_is_as_it_was() {
        let expected = "-name\nguest=default,process=slipway-vm\n-machine\nq35,vmport=off,smm=off,memory-backend=mem0\n\
            -object\nmemory-backend-memfd,id=mem0,size=2048M,share=on\n-m\n2048M\n-smp\n2\n-kernel\n/i/kernel\n\
            -initrd\n/i/initramfs\n-append\nconsole=ttyS0 quiet mitigations=off init_on_alloc=0 clearcpuid=rep_good\n\
            -blockdev\ndriver=raw,node-name=root,file.driver=file,file.filename=/i/root.erofs,file.locking=on,read-only=on\n\
            -device\nvirtio-blk-pci,drive=root,serial=root\n\
            -blockdev\ndriver=raw,node-name=data,file.driver=file,file.filename=/home/a,, b/data.raw,file.locking=on,\
            discard=unmap,detect-zeroes=unmap\n-device\nvirtio-blk-pci,drive=data,serial=data\n\
            -netdev\nuser,id=net0,ipv6=off\n-device\nvirtio-net-pci,netdev=net0\n-device\nvirtio-rng-pci\n\
            -device\nvirtio-balloon-pci,free-page-reporting=on\n\
            -chardev\nsocket,id=vsock0,path=/r/vsock.sock\n-device\nvhost-user-vsock-pci,vectors=4,chardev=vsock0\n\
            -chardev\nsocket,id=share0,path=/r/share.sock\n-device\nvhost-user-fs-pci,chardev=share0,tag=slipway,queue-size=1024\n\
            -chardev\nsocket,id=qmp0,path=/r/qmp.sock,server=on,wait=off\n-mon\nchardev=qmp0,mode=control\n\
            -accel\ntcg,thread=single,tb-size=512\n-cpu\nmax,-la57,-erms,-cx16\n\
            -nodefaults\n-no-user-config\n-display\nnone\n-no-reboot\n\
            -sandbox\non,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n\
            -chardev\nstdio,id=console0,signal=off\n-serial\nchardev:console0";
        assert_eq!(line(Accel::Tcg, Version::new(7, 2), Vsock::VhostUser), expected);
    }

    #[test]
    fn only_old_software_emulation_loses_cmpxchg16b() {
        let line_8_0 = line(Accel::Tcg, Version::new(8, 0), Vsock::VhostUser);
        assert!(line_8_0.contains("tcg,thread=single,tb-size=512\n-cpu\nmax,-la57,-erms\n"));
        let line_10 = line(Accel::Tcg, Version::new(10, 0), Vsock::VhostUser);
        assert!(line_10.contains("tcg,thread=multi,tb-size=512\n-cpu\nmax,-la57,-erms\n"));
        assert!(line(Accel::Kvm, Version::new(7, 2), Vsock::VhostUser).contains("-accel\nkvm\n-cpu\nhost\n"));
    }

    #[test]
    fn an_arm64_guest_gets_its_own_board_and_nothing_of_a_pc() {
        let words = machine(
            GuestArch::Aarch64,
            &spec(),
            Accel::Tcg,
            Version::new(7, 2),
            Vsock::VhostUser,
            Path::new("/v"),
            Path::new("/q"),
        );
        let line: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
        let line = line.join("\n");
        assert!(line.contains("-machine\nvirt,gic-version=max,highmem=on,memory-backend=mem0\n"), "{line}");
        assert!(line.contains("-cpu\nmax,pauth-impdef=on\n"), "{line}");
        assert!(!line.contains("q35") && !line.contains("cx16") && !line.contains("smm"), "{line}");
    }

    #[test]
    fn no_machine_has_9p_or_a_guessed_format() {
        let cid = GuestCid::new(3).expect("a guest's id");
        for vsock in [Vsock::VhostUser, Vsock::Kernel(cid)] {
            let line = line(Accel::Tcg, Version::new(7, 2), vsock);
            assert!(!line.contains("9p") && !line.contains("virtfs"), "{line}");
            assert_eq!(line.matches("-blockdev\ndriver=raw,").count(), 2, "every disk says its format");
        }
    }
}
