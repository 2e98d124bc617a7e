//! A machine as the JSON document that HCS makes it from, schema 2.1. Only what we mean to say can be said.
//!
//! The host dials and the guest never does, but for its folders: nobody but the system itself may listen for the guest's
//! connections.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use slipway_vm::{AccelChoice, DriverError, MachineSpec};

use crate::network::{Adapter, NetworkAdapter, guid};

/// Who may listen for what the guest opens, in Windows' own language: the system itself, which serves Plan 9 there.
const SYSTEM_ONLY: &str = "D:P(A;;FA;;;SY)";
/// The TCP-like port within the machine on which HCS serves Plan 9.
const PLAN9_PORT: u32 = 564;

/// What of the host is in the document besides the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The user's security identifier, `S-1-5-21-…`: who may open streams into the machine.
    pub user_sid: String,
    /// The root image as a VHD: see [`crate::vhd`].
    pub root_vhd: std::path::PathBuf,
    /// The pipe on which the driver listens for the serial console: `\\.\pipe\…`.
    pub console_pipe: String,
    /// What the machine's network is.
    pub network: Adapter,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ComputeSystem<'a> {
    owner: &'static str,
    schema_version: SchemaVersion,
    /// A machine ends with the process that owns it.
    should_terminate_on_last_handle_closed: bool,
    virtual_machine: VirtualMachine<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SchemaVersion {
    major: u32,
    minor: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct VirtualMachine<'a> {
    stop_on_reset: bool,
    chipset: Chipset<'a>,
    compute_topology: Topology,
    devices: Devices<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Chipset<'a> {
    linux_kernel_direct: LinuxKernelDirect<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LinuxKernelDirect<'a> {
    kernel_file_path: &'a str,
    init_rd_path: &'a str,
    kernel_cmd_line: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Topology {
    memory: Memory,
    processor: Processor,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Memory {
    #[serde(rename = "SizeInMB")]
    size_in_mb: u64,
    /// Backed by the host's memory only as the guest touches it.
    allow_overcommit: bool,
    enable_deferred_commit: bool,
    /// What the guest reports as free goes back to the host.
    enable_cold_discard_hint: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Processor {
    count: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Devices<'a> {
    scsi: BTreeMap<&'static str, Controller<'a>>,
    network_adapters: BTreeMap<String, NetworkAdapter<'a>>,
    com_ports: BTreeMap<&'static str, ComPort<'a>>,
    hv_socket: HvSocket,
    plan9: Plan9,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Controller<'a> {
    /// By LUN.
    attachments: BTreeMap<&'static str, Attachment<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attachment<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    path: &'a str,
    read_only: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ComPort<'a> {
    named_pipe: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HvSocket {
    hv_socket_config: HvSocketConfig,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HvSocketConfig {
    default_bind_security_descriptor: &'static str,
    default_connect_security_descriptor: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plan9 {
    shares: Vec<Plan9Share>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plan9Share {
    name: String,
    access_name: String,
    path: String,
    port: u32,
    flags: u32,
}

/// The document of a machine.
///
/// # Errors
/// [`DriverError::BadSpec`] for what Hyper-V would refuse, or silently do otherwise.
pub fn machine(spec: &MachineSpec, host: &Host) -> Result<String, DriverError> {
    let bad = |what: String| Err(DriverError::BadSpec(what));
    if spec.cpus == 0 || spec.memory_mib == 0 {
        return bad("it needs at least one CPU and some memory".into());
    }
    if !spec.memory_mib.is_multiple_of(2) {
        return bad(format!("Hyper-V wants an even number of MiB of memory, not {}", spec.memory_mib));
    }
    if spec.accel != AccelChoice::Auto {
        return Err(DriverError::NoAccelerator {
            accel: format!("{:?}", spec.accel).to_lowercase(),
            why: "on Windows machines run on Hyper-V".into(),
        });
    }
    if spec.share_socket.is_some() {
        return bad("Hyper-V has no vhost-user devices: folders are Plan 9 shares".into());
    }
    if spec.data_disk.extension().is_none_or(|e| !e.eq_ignore_ascii_case("vhdx")) {
        return bad(format!(
            "Hyper-V needs a data disk in its own format, .vhdx, not `{}`",
            spec.data_disk.display()
        ));
    }
    if !host.user_sid.starts_with("S-1-") || host.user_sid.contains([')', ';']) {
        return bad(format!("`{}` is no security identifier", host.user_sid));
    }
    let disk = |path, read_only| Ok(Attachment { kind: "VirtualDisk", path: text(path)?, read_only });
    let network = host.network.cmdline();
    let words: Vec<&str> = spec.cmdline.iter().map(String::as_str).chain([network.as_str()]).collect();
    let system = ComputeSystem {
        owner: "slipway",
        schema_version: SchemaVersion { major: 2, minor: 1 },
        should_terminate_on_last_handle_closed: true,
        virtual_machine: VirtualMachine {
            stop_on_reset: true,
            chipset: Chipset {
                linux_kernel_direct: LinuxKernelDirect {
                    kernel_file_path: text(&spec.kernel)?,
                    init_rd_path: text(&spec.initramfs)?,
                    kernel_cmd_line: words.join(" "),
                },
            },
            compute_topology: Topology {
                memory: Memory {
                    size_in_mb: spec.memory_mib,
                    allow_overcommit: true,
                    enable_deferred_commit: true,
                    enable_cold_discard_hint: true,
                },
                processor: Processor { count: spec.cpus },
            },
            devices: Devices {
                scsi: [(
                    "0",
                    Controller {
                        attachments: [
                            ("0", disk(&host.root_vhd, true)?),
                            ("1", disk(&spec.data_disk, false)?),
                        ]
                        .into(),
                    },
                )]
                .into(),
                network_adapters: [(guid(host.network.endpoint), host.network.in_document())].into(),
                com_ports: [("0", ComPort { named_pipe: &host.console_pipe })].into(),
                hv_socket: HvSocket {
                    hv_socket_config: HvSocketConfig {
                        default_bind_security_descriptor: SYSTEM_ONLY,
                        default_connect_security_descriptor: format!(
                            "D:P(A;;FA;;;SY)(A;;FA;;;{})",
                            host.user_sid
                        ),
                    },
                },
                plan9: Plan9 { shares: Vec::new() },
            },
        },
    };
    json(&system)
}

/// A folder shared with a running machine, or taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareChange {
    /// The guest may mount it from now on.
    Add {
        /// The guest may not change it.
        read_only: bool,
    },
    /// What has it mounted gets errors.
    Remove,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Modify {
    resource_path: &'static str,
    request_type: &'static str,
    settings: Plan9Share,
}

/// The document that changes which folders a running machine sees.
///
/// # Errors
/// [`DriverError::BadSpec`] for a path that is no text.
pub fn share(name: &str, path: &Path, change: ShareChange) -> Result<String, DriverError> {
    const READ_ONLY: u32 = 1;
    /// Owners and modes of Linux are kept with the files.
    const LINUX_METADATA: u32 = 4;
    const CASE_SENSITIVE: u32 = 8;
    let (request_type, flags) = match change {
        ShareChange::Add { read_only: false } => ("Add", LINUX_METADATA | CASE_SENSITIVE),
        ShareChange::Add { read_only: true } => ("Add", LINUX_METADATA | CASE_SENSITIVE | READ_ONLY),
        ShareChange::Remove => ("Remove", 0),
    };
    json(&Modify {
        resource_path: "VirtualMachine/Devices/Plan9/Shares",
        request_type,
        settings: Plan9Share {
            name: name.to_owned(),
            access_name: name.to_owned(),
            path: text(path)?.to_owned(),
            port: PLAN9_PORT,
            flags,
        },
    })
}

fn text(path: &Path) -> Result<&str, DriverError> {
    path.to_str()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| DriverError::BadSpec(format!("`{}` is not Unicode text", path.display())))
}

fn json(document: &impl Serialize) -> Result<String, DriverError> {
    serde_json::to_string_pretty(document).map_err(|source| DriverError::Io {
        act: "write the machine's document".into(),
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MachineSpec {
        MachineSpec {
            name: "default".into(),
            cpus: 4,
            memory_mib: 4096,
            kernel: r"C:\i\kernel".into(),
            initramfs: r"C:\i\initramfs".into(),
            root_image: r"C:\i\root.erofs".into(),
            data_disk: r#"C:\Users\a "b"\data.vhdx"#.into(),
            cmdline: vec!["console=ttyS0".into(), "quiet".into()],
            run_dir: r"C:\r".into(),
            console_log: r"C:\l\console.log".into(),
            accel: AccelChoice::Auto,
            share_socket: None,
        }
    }

    fn host() -> Host {
        Host {
            user_sid: "S-1-5-21-1-2-3-1001".into(),
            root_vhd: r"C:\r\root.vhd".into(),
            console_pipe: r"\\.\pipe\slipway_console".into(),
            network: Adapter {
                endpoint: 0x0123_4567_89ab_8def_8123_4567_89ab_cdef,
                mac_address: "00-15-5D-01-02-03".into(),
                address: Some(([172, 28, 80, 5].into(), 20, [172, 28, 80, 1].into())),
            },
        }
    }

    #[test]
    fn the_whole_document_is_as_it_was() {
        let made = machine(&spec(), &host()).expect("a document");
        assert_eq!(made, include_str!("../tests/snapshots/machine.json").trim_end());
    }

    #[test]
    fn shares_come_and_go() {
        let shared = |change| share("w1", Path::new(r"C:\Users\me\x"), change).expect("a document");
        assert_eq!(
            shared(ShareChange::Add { read_only: true }),
            include_str!("../tests/snapshots/share.json").trim_end()
        );
        assert!(shared(ShareChange::Add { read_only: false }).contains("\"Flags\": 12"));
        assert!(shared(ShareChange::Remove).contains("\"RequestType\": \"Remove\""));
    }

    #[test]
    fn what_hyper_v_cannot_do_is_refused_and_not_left_out() {
        let refused = |change: fn(&mut MachineSpec)| {
            let mut spec = spec();
            change(&mut spec);
            machine(&spec, &host()).expect_err("refused").to_string()
        };
        assert!(refused(|s| s.memory_mib = 4095).contains("even number"));
        assert!(refused(|s| s.cpus = 0).contains("at least one CPU"));
        assert!(refused(|s| s.accel = AccelChoice::Kvm).contains("`kvm`"));
        assert!(refused(|s| s.share_socket = Some("s".into())).contains("Plan 9"));
        assert!(refused(|s| s.data_disk = r"C:\data.raw".into()).contains(".vhdx"));
        let nobody = Host { user_sid: "S-1-5-21)(A;;FA;;;WD".into(), ..host() };
        assert!(machine(&spec(), &nobody).is_err(), "a descriptor is never made of other descriptors");
    }
}
