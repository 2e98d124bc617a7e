//! The framework's objects from a [`Configuration`], word for word.

use std::os::fd::{IntoRawFd, OwnedFd};

use objc2::{AnyThread, rc::Retained};
use objc2_foundation::{NSArray, NSDictionary, NSError, NSFileHandle, NSString, NSURL};
use objc2_virtualization::{
    VZDirectoryShare, VZDiskImageCachingMode, VZDiskImageStorageDeviceAttachment,
    VZDiskImageSynchronizationMode, VZFileHandleSerialPortAttachment, VZGenericPlatformConfiguration,
    VZLinuxBootLoader, VZLinuxRosettaAvailability, VZLinuxRosettaDirectoryShare, VZMACAddress,
    VZMultipleDirectoryShare, VZNATNetworkDeviceAttachment, VZSharedDirectory, VZStorageDeviceConfiguration,
    VZVirtioBlockDeviceConfiguration, VZVirtioConsoleDeviceSerialPortConfiguration,
    VZVirtioEntropyDeviceConfiguration, VZVirtioFileSystemDeviceConfiguration,
    VZVirtioNetworkDeviceConfiguration, VZVirtioSocketDeviceConfiguration,
    VZVirtioTraditionalMemoryBalloonDeviceConfiguration, VZVirtualMachineConfiguration,
};
use slipway_vm::SharedFolder;

use crate::configuration::{Caching, Configuration, Network, ROSETTA_TAG, SHARE_TAG, Synchronization};

/// What the framework says is wrong.
pub(crate) fn said(error: &NSError) -> String {
    error.localizedDescription().to_string()
}

fn file(path: &str) -> Retained<NSURL> {
    NSURL::fileURLWithPath(&NSString::from_str(path))
}

/// Whether Rosetta can be given to a guest. Never asks the person to install it.
pub(crate) fn rosetta() -> bool {
    // On Intel the framework has no such class.
    cfg!(target_arch = "aarch64")
        // SAFETY: a class method without arguments.
        && unsafe { VZLinuxRosettaDirectoryShare::availability() } == VZLinuxRosettaAvailability::Installed
}

/// The framework's configuration, which it has found valid. `console` gets what the guest writes.
pub(crate) fn build(
    from: &Configuration,
    console: OwnedFd,
) -> Result<Retained<VZVirtualMachineConfiguration>, String> {
    // SAFETY: plain setters and initialisers on objects that nobody else has yet, with arguments of the declared types; what can fail
    // returns an error, and the whole is validated at the end.
    unsafe {
        let machine = VZVirtualMachineConfiguration::new();
        machine.setPlatform(&VZGenericPlatformConfiguration::new());
        machine.setCPUCount(from.cpus as usize);
        machine.setMemorySize(from.memory_bytes);

        let loader = VZLinuxBootLoader::initWithKernelURL(VZLinuxBootLoader::alloc(), &file(&from.kernel));
        loader.setInitialRamdiskURL(Some(&file(&from.initramfs)));
        loader.setCommandLine(&NSString::from_str(&from.command_line));
        machine.setBootLoader(Some(&loader));

        let disks = from.disks.iter().map(|disk| {
            let caching = match disk.caching {
                Caching::Cached => VZDiskImageCachingMode::Cached,
            };
            let synchronization = match disk.synchronization {
                Synchronization::Full => VZDiskImageSynchronizationMode::Full,
                Synchronization::None => VZDiskImageSynchronizationMode::None,
            };
            let attachment =
                VZDiskImageStorageDeviceAttachment::initWithURL_readOnly_cachingMode_synchronizationMode_error(
                    VZDiskImageStorageDeviceAttachment::alloc(),
                    &file(&disk.path),
                    disk.read_only,
                    caching,
                    synchronization,
                )
                .map_err(|error| format!("`{}`: {}", disk.path, said(&error)))?;
            let device =
                VZVirtioBlockDeviceConfiguration::initWithAttachment(VZVirtioBlockDeviceConfiguration::alloc(), &attachment);
            device.setBlockDeviceIdentifier(&NSString::from_str(disk.identifier));
            Ok::<_, String>(Retained::into_super(device))
        });
        let disks: Vec<Retained<VZStorageDeviceConfiguration>> = disks.collect::<Result<_, String>>()?;
        machine.setStorageDevices(&NSArray::from_retained_slice(&disks));

        let handle = NSFileHandle::initWithFileDescriptor_closeOnDealloc(
            NSFileHandle::alloc(),
            console.into_raw_fd(),
            true,
        );
        let attachment = VZFileHandleSerialPortAttachment::initWithFileHandleForReading_fileHandleForWriting(
            VZFileHandleSerialPortAttachment::alloc(),
            None,
            Some(&handle),
        );
        let port = VZVirtioConsoleDeviceSerialPortConfiguration::new();
        port.setAttachment(Some(&attachment));
        machine.setSerialPorts(&NSArray::from_retained_slice(&[Retained::into_super(port)]));

        let mut shares = Vec::new();
        for tag in &from.shares {
            let device = VZVirtioFileSystemDeviceConfiguration::initWithTag(
                VZVirtioFileSystemDeviceConfiguration::alloc(),
                &NSString::from_str(tag),
            );
            match *tag {
                ROSETTA_TAG => {
                    let share =
                        VZLinuxRosettaDirectoryShare::initWithError(VZLinuxRosettaDirectoryShare::alloc());
                    let share = share.map_err(|error| format!("Rosetta: {}", said(&error)))?;
                    device.setShare(Some(&share));
                }
                _ => {
                    let none = folders(&[])?;
                    device.setShare(Some(&none));
                }
            }
            shares.push(Retained::into_super(device));
        }
        machine.setDirectorySharingDevices(&NSArray::from_retained_slice(&shares));

        match from.network {
            Network::Nat => {
                let device = VZVirtioNetworkDeviceConfiguration::new();
                device.setAttachment(Some(&VZNATNetworkDeviceAttachment::new()));
                let address = VZMACAddress::initWithString(
                    VZMACAddress::alloc(),
                    &NSString::from_str(&from.mac_address),
                )
                .ok_or_else(|| format!("`{}` is no address of a network card", from.mac_address))?;
                device.setMACAddress(&address);
                machine.setNetworkDevices(&NSArray::from_retained_slice(&[Retained::into_super(device)]));
            }
        }
        if from.memory_balloon {
            let device = VZVirtioTraditionalMemoryBalloonDeviceConfiguration::new();
            machine.setMemoryBalloonDevices(&NSArray::from_retained_slice(&[Retained::into_super(device)]));
        }
        if from.entropy {
            let device = VZVirtioEntropyDeviceConfiguration::new();
            machine.setEntropyDevices(&NSArray::from_retained_slice(&[Retained::into_super(device)]));
        }
        if from.socket_device {
            let device = VZVirtioSocketDeviceConfiguration::new();
            machine.setSocketDevices(&NSArray::from_retained_slice(&[Retained::into_super(device)]));
        }
        machine.validateWithError().map_err(|error| said(&error))?;
        Ok(machine)
    }
}

/// The folders under [`SHARE_TAG`], each by its name.
pub(crate) fn folders(folders: &[SharedFolder]) -> Result<Retained<VZDirectoryShare>, String> {
    let mut names = Vec::new();
    let mut directories = Vec::new();
    for folder in folders {
        let path =
            folder.path.to_str().ok_or_else(|| format!("`{}` is not Unicode text", folder.path.display()))?;
        let name = NSString::from_str(&folder.name);
        // SAFETY: arguments of the declared types. Names are checked because the framework raises an exception at bad ones.
        unsafe {
            VZMultipleDirectoryShare::validateName_error(&name)
                .map_err(|error| format!("`{}` under {SHARE_TAG}: {}", folder.name, said(&error)))?;
            directories.push(VZSharedDirectory::initWithURL_readOnly(
                VZSharedDirectory::alloc(),
                &file(path),
                folder.read_only,
            ));
        }
        names.push(name);
    }
    let names: Vec<&NSString> = names.iter().map(|name| &**name).collect();
    let by_name = NSDictionary::from_retained_objects(&names, &directories);
    // SAFETY: the names were checked.
    let share =
        unsafe { VZMultipleDirectoryShare::initWithDirectories(VZMultipleDirectoryShare::alloc(), &by_name) };
    Ok(Retained::into_super(share))
}
