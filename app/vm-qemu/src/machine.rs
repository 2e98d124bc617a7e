//! One running QEMU and everything that belongs to it.

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt;
use qapi::{futures::QapiService, futures::QmpStreamTokio, qmp};
use rustix::process::{Pid, Signal, kill_process};
use slipway_vm::{
    Capabilities, DriverError, ExitReason, Machine, MachineSpec, Stall,
    console::{self, Tail},
};
use slipway_vsock::{GuestCid, Transport, af_vsock::KernelVsock, vhost_user::VhostUserVsock};
use tokio::{
    io::WriteHalf,
    net::UnixStream,
    process::Child,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{CID, GuestArch, Qemu, args, args::Vsock, command};

/// How long QEMU may take to open its QMP socket and greet.
const QMP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a QEMU that hung up on QMP may take to end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long QEMU may take to answer a command.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);

/// What the guest or we did to end the machine; the first cause counts.
#[derive(Debug, Default, Clone)]
struct Cause(Arc<Mutex<Option<ExitReason>>>);

impl Cause {
    fn is(&self, reason: ExitReason) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    fn get(&self) -> Option<ExitReason> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct QemuMachine {
    child: Child,
    pid: Option<u32>,
    qmp: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    qmp_socket: PathBuf,
    transport: Arc<dyn Transport>,
    /// Kept for its drop: the device ends with the machine.
    device: Option<VhostUserVsock>,
    capabilities: Capabilities,
    cause: Cause,
    stall: watch::Receiver<Option<Stall>>,
    console: Tail,
    stderr: Tail,
    /// Readers of console, stderr and QMP events; they end with QEMU.
    readers: JoinSet<()>,
}

pub(crate) async fn start(
    qemu: &Qemu,
    guest: GuestArch,
    spec: &MachineSpec,
    capabilities: Capabilities,
    vsock: Vsock,
) -> Result<Box<dyn Machine>, DriverError> {
    let vsock_socket = spec.run_dir.join("vsock.sock");
    let qmp_socket = spec.run_dir.join("qmp.sock");
    // Left over from a machine that was killed; we own the run folder.
    let _ = std::fs::remove_file(&qmp_socket);
    let failed = |act: &str| {
        let act = act.to_owned();
        move |source: std::io::Error| DriverError::Io { act, source }
    };
    let (device, transport): (_, Arc<dyn Transport>) = match vsock {
        Vsock::Kernel(cid) => (None, Arc::new(KernelVsock::new(cid))),
        Vsock::VhostUser => {
            let cid = GuestCid::new(CID).expect("BUG: the guest's id is not a reserved one");
            let device = VhostUserVsock::listen(&vsock_socket, cid).map_err(|e| DriverError::Io {
                act: format!("set up the vsock device at `{}`", vsock_socket.display()),
                source: std::io::Error::other(e),
            })?;
            let transport = device.transport();
            (Some(device), transport)
        }
    };
    let mut child = command(qemu)
        .args(args::machine(guest, spec, capabilities.accel, qemu.version, vsock, &vsock_socket, &qmp_socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed(&format!("start `{}`", qemu.binary.display())))?;
    let (console, stderr) = (Tail::default(), Tail::default());
    let mut readers = JoinSet::new();
    let stdout_pipe = child.stdout.take().expect("BUG: stdout was asked to be a pipe");
    let stderr_pipe = child.stderr.take().expect("BUG: stderr was asked to be a pipe");
    readers.spawn(console::keep(stdout_pipe, spec.console_log.clone(), console.clone()));
    readers.spawn(console::keep(stderr_pipe, spec.console_log.with_file_name("qemu.log"), stderr.clone()));

    let greeting = tokio::select! {
        greeted = timeout(QMP_PATIENCE, connect_qmp(&qmp_socket)) => greeted,
        _ = child.wait() => return Err(ended_early(&mut readers, &stderr).await),
    };
    let stream = match greeting {
        Ok(Ok(greeted)) => greeted,
        // A QEMU that ends because of what it was given may already have been greeted: its own words say more than a
        // connection reset does.
        Ok(Err(source)) => match timeout(LAST_WORDS, child.wait()).await {
            Ok(_) => return Err(ended_early(&mut readers, &stderr).await),
            Err(_) => return Err(failed("speak QMP with QEMU")(source)),
        },
        Err(_) => {
            return Err(failed("speak QMP with QEMU")(std::io::ErrorKind::TimedOut.into()));
        }
    };
    let (qmp, mut events) = stream.into_parts();
    let cause = Cause::default();
    let (tell_stall, stall) = watch::channel(None);
    readers.spawn({
        let cause = cause.clone();
        async move {
            while let Some(Ok(event)) = events.next().await {
                note(&cause, &tell_stall, &event);
            }
        }
    });
    let pid = child.id();
    Ok(Box::new(QemuMachine {
        child,
        pid,
        qmp,
        qmp_socket,
        transport,
        device,
        capabilities,
        cause,
        stall,
        console,
        stderr,
        readers,
    }))
}

type Qmp = qapi::futures::QapiStream<
    QmpStreamTokio<tokio::io::ReadHalf<UnixStream>>,
    QmpStreamTokio<WriteHalf<UnixStream>>,
>;

/// Waits for QEMU's socket; the caller bounds the time.
async fn connect_qmp(socket: &std::path::Path) -> std::io::Result<Qmp> {
    let negotiation = loop {
        match QmpStreamTokio::open_uds(socket).await {
            Ok(negotiation) => break negotiation,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                ) =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            Err(e) => return Err(e),
        }
    };
    negotiation.negotiate().await
}

async fn ended_early(readers: &mut JoinSet<()>, stderr: &Tail) -> DriverError {
    // The pipes end with the process; what it said last is read first.
    let all = async { while readers.join_next().await.is_some() {} };
    let _ = timeout(Duration::from_secs(1), all).await;
    let text = String::from_utf8_lossy(&stderr.bytes()).trim().to_owned();
    DriverError::EndedEarly { detail: if text.is_empty() { "it said nothing".into() } else { text } }
}

fn note(cause: &Cause, stall: &watch::Sender<Option<Stall>>, event: &qmp::Event) {
    match event {
        // QEMU stops the machine at a write for which the host has no room, and repeats it when the machine goes on.
        qmp::Event::BLOCK_IO_ERROR { data, .. }
            if data.nospace == Some(true) && matches!(data.action, qmp::BlockErrorAction::stop) =>
        {
            stall.send_replace(Some(Stall::HostDiskFull));
        }
        qmp::Event::RESUME { .. } => {
            stall.send_replace(None);
        }
        qmp::Event::SHUTDOWN { data, .. } => match data.reason {
            qmp::ShutdownCause::guest_shutdown => cause.is(ExitReason::PoweredOff),
            qmp::ShutdownCause::guest_reset => cause.is(ExitReason::Reset),
            qmp::ShutdownCause::guest_panic => {
                cause.is(ExitReason::Crashed { detail: "the guest's kernel panicked".into() });
            }
            _ => cause.is(ExitReason::Killed),
        },
        qmp::Event::GUEST_PANICKED { .. } => {
            cause.is(ExitReason::Crashed { detail: "the guest's kernel panicked".into() });
        }
        _ => {}
    }
}

impl QemuMachine {
    async fn ask<C: qmp::QmpCommand + qapi::Command>(
        &mut self,
        act: &str,
        command: C,
    ) -> Result<(), DriverError> {
        let failed = |source| DriverError::Io { act: act.to_owned(), source };
        match timeout(COMMAND_PATIENCE, self.qmp.execute(command)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(failed(std::io::Error::other(e.to_string()))),
            Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
        }
    }

    fn signal(&self, act: &str, signal: Signal) -> Result<(), DriverError> {
        // Nobody has waited for a child that still has an id: the number is nobody else's.
        let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
            return Ok(());
        };
        kill_process(pid, signal).map_err(|e| DriverError::Io { act: act.to_owned(), source: e.into() })
    }
}

#[async_trait]
impl Machine for QemuMachine {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The process is stopped as well: the guest's clock does not stand as long as QEMU emulates all processors in one thread
    /// (`rr_cpu_thread_fn` turns it on again), and QEMU wakes for that clock's next timer again and again, as often as the time
    /// that is left to it fits into a second.
    async fn pause(&mut self) -> Result<(), DriverError> {
        let act = "pause the machine";
        self.ask(act, qmp::stop {}).await?;
        self.signal(act, Signal::STOP)
    }

    async fn resume(&mut self) -> Result<(), DriverError> {
        let act = "let the machine go on";
        self.signal(act, Signal::CONT)?;
        self.ask(act, qmp::cont {}).await
    }

    async fn kill(&mut self, grace: Duration) -> Result<(), DriverError> {
        self.cause.is(ExitReason::Killed);
        if let Ok(Some(_)) = self.child.try_wait() {
            return Ok(());
        }
        // A paused one could not end by itself.
        self.signal("end the VM process", Signal::CONT)?;
        // The answer may be lost with the process.
        let _ = timeout(grace, self.qmp.execute(qmp::quit {})).await;
        if timeout(grace, self.child.wait()).await.is_ok() {
            return Ok(());
        }
        let failed = |source| DriverError::Io { act: "end the VM process".into(), source };
        self.child.start_kill().map_err(failed)?;
        self.child.wait().await.map_err(failed)?;
        Ok(())
    }

    fn stall(&self) -> watch::Receiver<Option<Stall>> {
        self.stall.clone()
    }

    fn console_tail(&self) -> Vec<u8> {
        self.console.bytes()
    }

    async fn wait(&mut self) -> ExitReason {
        let status = self.child.wait().await;
        // Joined before the cause is read: the last event may still be on its way.
        let all = async { while self.readers.join_next().await.is_some() {} };
        let _ = timeout(Duration::from_secs(1), all).await;
        self.device = None;
        let _ = std::fs::remove_file(&self.qmp_socket);
        if let Some(reason) = self.cause.get() {
            return reason;
        }
        let said = String::from_utf8_lossy(&self.stderr.bytes()).trim().to_owned();
        let how = match status {
            Ok(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("the VM process was ended by signal {signal}"),
                (None, Some(0)) => "the VM process ended by itself".into(),
                (None, code) => format!("the VM process ended with status {}", code.unwrap_or(-1)),
            },
            Err(e) => format!("the VM process could not be waited for: {e}"),
        };
        ExitReason::Crashed { detail: if said.is_empty() { how } else { format!("{how}: {said}") } }
    }
}
