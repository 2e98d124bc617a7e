//! The worker: confined, it serves the device and does what the outer process says.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use virtiofsd_vhost::vhost_user::Listener;
use virtiofsd_vhost_user_backend::VhostUserDaemon;
use virtiofsd_vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::{
    device::Device, echo::Teller, fs::Shares, packets, sandbox, server::with_cause, under_way::Marks,
    wire::Sandbox,
};

/// What the outer process says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Share what comes with this packet; with `only`, that one name in it.
    Add {
        /// The export's id.
        id: String,
        /// See [`Shares::add`].
        only: Option<Vec<u8>>,
    },
    /// Share it no longer.
    Remove {
        /// The export's id.
        id: String,
    },
    /// See [`Shares::vouch`].
    Vouch {
        /// Export's id, and a path in it.
        paths: Vec<(String, Vec<Vec<u8>>)>,
        /// Names of folders that nobody watches.
        skipped: Vec<Vec<u8>>,
        /// The guest's deeds are to be told.
        echoing: bool,
    },
}

/// What the worker says: once how it is confined, then an answer to each order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Confined so.
    Confined(Sandbox),
    /// Done.
    Done,
    /// Not done, and why.
    Failed(String),
}

/// Confines itself, serves until the VM is gone, and ends the process.
pub(crate) fn run(listener: Listener, control: OwnedFd, echo: Teller, marks: Marks, files: u64) -> ! {
    let code = match serve(listener, control, echo, marks, files) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("share: the worker ends: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn serve(
    mut listener: Listener,
    control: OwnedFd,
    echo: Teller,
    marks: Marks,
    files: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let keep = [listener.as_raw_fd(), control.as_raw_fd(), echo.raw()];
    let (proc_fd, found) = match sandbox::confine(&keep) {
        Ok(confined) => confined,
        Err(error) => {
            packets::send(&control, &Word::Failed(with_cause(&error)), None)?;
            return Err(error.into());
        }
    };
    packets::send(&control, &Word::Confined(found.clone()), None)?;
    if !found.complete() {
        return Err("it is not confined".into());
    }
    // More than one, so that what waits for room does not keep all else that is slow waiting.
    let threads = std::thread::available_parallelism().map_or(4, usize::from).clamp(4, 8);
    let shares = Shares::new(proc_fd, echo, files, threads)?;
    let orders = shares.clone();
    std::thread::Builder::new().name("orders".into()).spawn(move || {
        if let Err(error) = obey(&orders, &control) {
            eprintln!("share: the orders broke off: {error}");
        }
        // Nobody is left to say what is shared.
        std::process::exit(0)
    })?;
    let device = Device::new(shares, marks, threads)?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("share".into(), Arc::new(device), memory)
        .map_err(|e| io::Error::other(format!("{e:?}")))?;
    daemon.start(&mut listener).map_err(|e| io::Error::other(format!("{e:?}")))?;
    // Ends with the VM's connection, whatever the words for it.
    let _ = daemon.wait();
    Ok(())
}

fn obey(shares: &Shares, control: &OwnedFd) -> io::Result<()> {
    sandbox::own_folder()?;
    while let Some((order, fd)) = packets::receive::<Order>(control)? {
        let done = match (order, fd) {
            (Order::Add { id, only }, Some(tree)) => only
                .map(CString::new)
                .transpose()
                .map_err(io::Error::from)
                .and_then(|only| shares.add(&id, tree, only)),
            (Order::Add { .. }, None) => Err(io::ErrorKind::InvalidInput.into()),
            (Order::Remove { id }, _) => {
                shares.remove(&id);
                Ok(())
            }
            (Order::Vouch { paths, skipped, echoing }, _) => {
                let names = |path: Vec<Vec<u8>>| {
                    path.into_iter().filter_map(|name| CString::new(name).ok()).collect()
                };
                let paths: Vec<_> = paths.into_iter().map(|(id, path)| (id, names(path))).collect();
                shares.vouch(&paths, skipped, echoing);
                Ok(())
            }
        };
        let word = done.map_or_else(|error| Word::Failed(error.to_string()), |()| Word::Done);
        packets::send(control, &word, None)?;
    }
    Ok(())
}
