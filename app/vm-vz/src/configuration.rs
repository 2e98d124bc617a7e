//! A machine as Virtualization.framework is to have it, as data.

use std::path::{Path, PathBuf};

use serde::Serialize;
use slipway_vm::{AccelChoice, DriverError, MachineSpec};

/// The tag under which the guest mounts the host's folders: the same as with QEMU.
pub const SHARE_TAG: &str = "slipway";
/// The tag under which the guest mounts Rosetta.
pub const ROSETTA_TAG: &str = "rosetta";

/// What the driver tells the framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Kernel image; on arm64 uncompressed, which the framework's boot loader wants.
    pub kernel: String,
    /// Initial RAM disk.
    pub initramfs: String,
    /// The kernel's command line.
    pub command_line: String,
    /// In the order in which the guest sees them.
    pub disks: Vec<Disk>,
    /// Where the console is appended.
    pub console_log: String,
    /// Tags of the directory shares.
    pub shares: Vec<&'static str>,
    /// Network behind the host's own address.
    pub network: Network,
    /// The card's address, the same at each start: the host hands out an address for each that it sees, and it has some 250.
    pub mac_address: String,
    /// Memory that the guest does not need goes back to the host.
    pub memory_balloon: bool,
    /// Random numbers for the guest.
    pub entropy: bool,
    /// Streams between host and guest.
    pub socket_device: bool,
}

/// How the guest reaches the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The framework translates addresses.
    Nat,
}

/// A virtio-blk disk on a raw file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The serial number by which the agent knows it.
    pub identifier: &'static str,
    /// The file.
    pub path: String,
    /// The guest cannot write.
    pub read_only: bool,
    /// What the host does with what the guest wrote.
    pub caching: Caching,
    /// What a flush of the guest means.
    pub synchronization: Synchronization,
}

/// Of a disk's bytes, in the host's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caching {
    /// The host's page cache is used. The framework's own choice, uncached on some versions, is known to damage ext4.
    Cached,
}

/// Of a disk with what it is stored on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Synchronization {
    /// A flush returns when the bytes are on the medium: a container's database means it.
    Full,
    /// Nothing is ever written, so nothing is to be flushed.
    None,
}

/// What of the host decides besides the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Rosetta for Linux is installed: programs for amd64 run without an emulator in an arm64 guest.
    pub rosetta: bool,
}

impl Configuration {
    /// Of a machine on this host.
    ///
    /// # Errors
    /// [`DriverError::BadSpec`] for what the framework would refuse, or silently do otherwise.
    pub fn new(spec: &MachineSpec, host: Host) -> Result<Self, DriverError> {
        let bad = |what: &str| Err(DriverError::BadSpec(what.to_owned()));
        if spec.cpus == 0 || spec.memory_mib == 0 {
            return bad("it needs at least one CPU and some memory");
        }
        if spec.accel != AccelChoice::Auto {
            return Err(DriverError::NoAccelerator {
                accel: format!("{:?}", spec.accel).to_lowercase(),
                why: "on macOS machines run on Virtualization.framework".into(),
            });
        }
        if spec.share_socket.is_some() {
            return bad("Virtualization.framework has no vhost-user devices: it shares folders itself");
        }
        let mut shares = vec![SHARE_TAG];
        if host.rosetta {
            shares.push(ROSETTA_TAG);
        }
        // The framework has no serial port of a PC; its console is virtio's.
        let words = spec.cmdline.iter().map(|word| match word.as_str() {
            "console=ttyS0" => "console=hvc0",
            word => word,
        });
        let (caching, full) = (Caching::Cached, Synchronization::Full);
        Ok(Self {
            cpus: spec.cpus,
            memory_bytes: spec.memory_mib << 20,
            kernel: text(&spec.kernel)?,
            initramfs: text(&spec.initramfs)?,
            // Its network hands out the addresses, and nobody knows them beforehand.
            command_line: words.chain(["slipway.net=dhcp"]).collect::<Vec<_>>().join(" "),
            disks: vec![
                Disk {
                    identifier: "root",
                    path: text(&spec.root_image)?,
                    read_only: true,
                    caching,
                    synchronization: Synchronization::None,
                },
                Disk {
                    identifier: "data",
                    path: text(&spec.data_disk)?,
                    read_only: false,
                    caching,
                    synchronization: full,
                },
            ],
            console_log: text(&spec.console_log)?,
            shares,
            network: Network::Nat,
            mac_address: mac_address(spec.id()),
            memory_balloon: true,
            entropy: true,
            socket_device: true,
        })
    }
}

/// A card's address that nobody was sold: locally administered, and of one card.
fn mac_address(machine: u128) -> String {
    let mut bytes = machine.to_be_bytes();
    bytes[0] = bytes[0] & 0xfc | 0x02;
    let bytes: Vec<String> = bytes[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

fn text(path: &Path) -> Result<String, DriverError> {
    let bad = |path: PathBuf| DriverError::BadSpec(format!("`{}` is not Unicode text", path.display()));
    path.to_owned().into_os_string().into_string().map_err(|path| bad(path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MachineSpec {
        MachineSpec {
            name: "default".into(),
            cpus: 4,
            memory_mib: 4096,
            kernel: "/i/kernel".into(),
            initramfs: "/i/initramfs".into(),
            root_image: "/i/root.erofs".into(),
            data_disk: "/Users/a b/.slipway/machine/data.raw".into(),
            cmdline: vec!["console=ttyS0".into(), "quiet".into()],
            run_dir: "/r".into(),
            console_log: "/l/console.log".into(),
            accel: AccelChoice::Auto,
            share_socket: None,
        }
    }

    #[test]
    fn the_whole_configuration_is_as_it_was() {
        let made = Configuration::new(&spec(), Host { rosetta: true }).expect("a configuration");
        let json = serde_json::to_string_pretty(&made).expect("JSON");
        assert_eq!(json, include_str!("../tests/snapshots/configuration.json").trim_end());
    }

    #[test]
    fn a_disk_that_is_written_is_cached_and_flushed_to_the_medium() {
        let made = Configuration::new(&spec(), Host { rosetta: false }).expect("a configuration");
        for disk in made.disks.iter().filter(|disk| !disk.read_only) {
            assert_eq!((disk.caching, disk.synchronization), (Caching::Cached, Synchronization::Full));
        }
        assert_eq!(made.shares, [SHARE_TAG], "no Rosetta where there is none");
    }

    #[test]
    fn each_machine_keeps_a_card_of_its_own() {
        let of = |run_dir: &str| {
            let spec = MachineSpec { run_dir: run_dir.into(), ..spec() };
            Configuration::new(&spec, Host { rosetta: false }).expect("a configuration").mac_address
        };
        assert_eq!(of("/one"), of("/one"));
        assert_ne!(of("/one"), of("/other"));
        assert_eq!(
            (mac_address(0), mac_address(u128::MAX)),
            ("02:00:00:00:00:00".into(), "fe:ff:ff:ff:ff:ff".into())
        );
    }

    #[test]
    fn what_the_framework_cannot_do_is_refused_and_not_left_out() {
        let refused = |change: fn(&mut MachineSpec)| {
            let mut spec = spec();
            change(&mut spec);
            Configuration::new(&spec, Host { rosetta: false }).expect_err("refused").to_string()
        };
        assert!(refused(|s| s.memory_mib = 0).contains("some memory"));
        assert!(refused(|s| s.accel = AccelChoice::Tcg).contains("`tcg`"));
        assert!(refused(|s| s.share_socket = Some("/r/s".into())).contains("vhost-user"));
    }
}
