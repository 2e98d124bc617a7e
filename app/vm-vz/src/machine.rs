//! One running virtual machine of the framework's.
//!
//! The framework wants every call on the queue that the machine was made for, and answers there; this module is the only one that
//! knows. Everything else speaks to it by messages that may come from any thread.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use block2::{DynBlock, RcBlock};
use dispatch2::{DispatchQueue, DispatchRetained};
use objc2::{
    AnyThread, DefinedClass, define_class, msg_send,
    rc::Retained,
    runtime::{NSObject, NSObjectProtocol, ProtocolObject},
};
use objc2_foundation::NSError;
use objc2_virtualization::{
    VZVirtioFileSystemDevice, VZVirtioSocketConnection, VZVirtioSocketDevice, VZVirtualMachine,
    VZVirtualMachineConfiguration, VZVirtualMachineDelegate,
};
use slipway_vm::{Capabilities, DriverError, ExitReason, Machine, SharedFolder, Stall, console::Tail};
use slipway_vsock::{ConnectError, Transport, dial::DialTransport};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    configuration::SHARE_TAG,
    driver::capabilities,
    objects::{folders, said},
};

/// How long the framework may take for what is asked of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the machine ended; the first cause counts.
#[derive(Debug, Clone)]
pub(crate) struct Ended(Arc<watch::Sender<Option<ExitReason>>>);

impl Ended {
    fn is(&self, reason: ExitReason) {
        self.0.send_if_modified(|ended| ended.is_none() && ended.replace(reason).is_none());
    }
}

struct DelegateState {
    ended: Ended,
    killed: Arc<AtomicBool>,
}

define_class!(
    // SAFETY: NSObject has no requirements on its subclasses, and this one has no `Drop`.
    #[unsafe(super(NSObject))]
    #[name = "SlipwayMachineDelegate"]
    #[ivars = DelegateState]
    struct Delegate;

    unsafe impl NSObjectProtocol for Delegate {}

    unsafe impl VZVirtualMachineDelegate for Delegate {
        #[unsafe(method(guestDidStopVirtualMachine:))]
        fn guest_did_stop(&self, _machine: &VZVirtualMachine) {
            self.ended(ExitReason::PoweredOff);
        }

        #[unsafe(method(virtualMachine:didStopWithError:))]
        fn did_stop_with_error(&self, _machine: &VZVirtualMachine, error: &NSError) {
            self.ended(ExitReason::Crashed { detail: said(error) });
        }
    }
);

impl Delegate {
    fn new(state: DelegateState) -> Retained<Self> {
        let this = Self::alloc().set_ivars(state);
        // SAFETY: NSObject's `init` takes nothing.
        unsafe { msg_send![super(this), init] }
    }

    fn ended(&self, reason: ExitReason) {
        let state = self.ivars();
        state.ended.is(if state.killed.load(Ordering::Acquire) { ExitReason::Killed } else { reason });
    }
}

/// The framework's machine and what must live as long.
struct Objects {
    machine: Retained<VZVirtualMachine>,
    /// The machine holds it weakly.
    _delegate: Retained<Delegate>,
}

/// The machine, reachable from any thread by way of its queue.
struct Queued {
    queue: DispatchRetained<DispatchQueue>,
    objects: Objects,
}

// SAFETY: `objects` is only touched in `on_queue`, which runs on the one queue, and released by whoever is last, which the
// framework allows: reference counts are atomic.
unsafe impl Send for Queued {}
// SAFETY: as above.
unsafe impl Sync for Queued {}

impl Queued {
    fn on_queue(self: &Arc<Self>, act: impl FnOnce(&Objects) + Send + 'static) {
        let this = Arc::clone(self);
        self.queue.exec_async(move || act(&this.objects));
    }

    /// Asks for what ends with a completion handler, and waits for it.
    async fn ask(
        self: &Arc<Self>,
        act: &'static str,
        call: impl FnOnce(&VZVirtualMachine, &DynBlock<dyn Fn(*mut NSError)>) + Send + 'static,
    ) -> Result<(), DriverError> {
        let (done, told) = oneshot::channel();
        let done = once(done);
        self.on_queue(move |objects| {
            let block = RcBlock::new(move |error: *mut NSError| {
                // SAFETY: the framework gives an error that lives during the call, or null.
                done(unsafe { error.as_ref() }.map_or(Ok(()), |error| Err(said(error))));
            });
            call(&objects.machine, &block);
        });
        answered(act, told).await
    }
}

/// A handler that the framework calls once, for a channel that can only be used once.
fn once<T>(sender: oneshot::Sender<T>) -> impl Fn(T) {
    let sender = Mutex::new(Some(sender));
    move |value| {
        if let Some(sender) = sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Who asked may have given up.
            let _ = sender.send(value);
        }
    }
}

async fn answered(act: &'static str, told: oneshot::Receiver<Result<(), String>>) -> Result<(), DriverError> {
    let failed = |source| DriverError::Io { act: act.into(), source };
    match timeout(PATIENCE, told).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(why))) => Err(failed(std::io::Error::other(why))),
        Ok(Err(_)) | Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}

pub(crate) struct VzMachine {
    queued: Arc<Queued>,
    transport: Arc<DialTransport>,
    ended: Ended,
    killed: Arc<AtomicBool>,
    tail: Tail,
    /// Never set: the framework has no word for it.
    stall: watch::Sender<Option<Stall>>,
    /// The console's reader; it ends with the machine.
    _readers: JoinSet<()>,
}

/// Makes the machine and starts it.
pub(crate) async fn start(
    configure: impl FnOnce() -> Result<Retained<VZVirtualMachineConfiguration>, String> + Send,
    tail: Tail,
    readers: JoinSet<()>,
) -> Result<Box<dyn Machine>, DriverError> {
    let (ended, killed) = (Ended(Arc::new(watch::Sender::new(None))), Arc::new(AtomicBool::new(false)));
    let state = DelegateState { ended: ended.clone(), killed: Arc::clone(&killed) };
    let queued = make(configure, state)?;
    queued
        .ask("start the machine", |machine, done| {
            // SAFETY: on the machine's queue.
            unsafe { machine.startWithCompletionHandler(done) };
        })
        .await?;
    let dialed = Arc::clone(&queued);
    let transport = DialTransport::new(move |port| {
        Box::pin(dial(Arc::clone(&dialed), port.0, move |source| {
            // The framework has one error for all: nobody listens there, or not yet.
            source.map_or(ConnectError::Refused { port }, |source| ConnectError::Io { port, source })
        }))
    });
    Ok(Box::new(VzMachine {
        queued,
        transport: Arc::new(transport),
        ended,
        killed,
        tail,
        stall: watch::Sender::new(None),
        _readers: readers,
    }))
}

/// Not async: the framework's objects do not wait for anything on another thread than the one that made them.
fn make(
    configure: impl FnOnce() -> Result<Retained<VZVirtualMachineConfiguration>, String>,
    state: DelegateState,
) -> Result<Arc<Queued>, DriverError> {
    let configuration = configure().map_err(DriverError::BadSpec)?;
    let queue = DispatchQueue::new("slipway.machine", None);
    let delegate = Delegate::new(state);
    // SAFETY: the configuration was found valid and the queue is serial. Nothing runs on the queue yet, so the delegate may be
    // set from here.
    let machine = unsafe {
        let machine =
            VZVirtualMachine::initWithConfiguration_queue(VZVirtualMachine::alloc(), &configuration, &queue);
        machine.setDelegate(Some(ProtocolObject::from_ref(&*delegate)));
        machine
    };
    Ok(Arc::new(Queued { queue, objects: Objects { machine, _delegate: delegate } }))
}

/// Opens a stream to a port of the guest.
async fn dial(
    queued: Arc<Queued>,
    port: u32,
    failed: impl Fn(Option<std::io::Error>) -> ConnectError,
) -> Result<OwnedFd, ConnectError> {
    let (done, told) = oneshot::channel();
    let done = once(done);
    queued.on_queue(move |objects| {
        let handler = RcBlock::new(move |connection: *mut VZVirtioSocketConnection, _error: *mut NSError| {
            // SAFETY: the framework gives a connection that lives during the call, or null.
            done(unsafe { connection.as_ref() }.map(descriptor));
        });
        // SAFETY: on the machine's queue.
        let devices = unsafe { objects.machine.socketDevices() };
        if let Some(device) = devices.iter().find_map(|d| d.downcast::<VZVirtioSocketDevice>().ok()) {
            // SAFETY: as above.
            unsafe { device.connectToPort_completionHandler(port, &handler) };
        }
    });
    // The transport bounds the time. A handler that is dropped uncalled is a machine that is gone.
    match told.await {
        Ok(Some(Ok(descriptor))) => Ok(descriptor),
        Ok(Some(Err(source))) => Err(failed(Some(source))),
        Ok(None) => Err(failed(None)),
        Err(_) => Err(ConnectError::Closed),
    }
}

/// A descriptor of our own: the connection's is closed with its object.
fn descriptor(connection: &VZVirtioSocketConnection) -> std::io::Result<OwnedFd> {
    // SAFETY: a plain getter.
    let raw = unsafe { connection.fileDescriptor() };
    if raw < 0 {
        return Err(std::io::ErrorKind::NotConnected.into());
    }
    // SAFETY: the connection holds it open during this call.
    unsafe { BorrowedFd::borrow_raw(raw) }.try_clone_to_owned()
}

#[async_trait]
impl Machine for VzMachine {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport) as Arc<dyn Transport>
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    /// The machine is in a process of the system's that serves ours.
    fn pid(&self) -> Option<u32> {
        Some(std::process::id())
    }

    async fn pause(&mut self) -> Result<(), DriverError> {
        // SAFETY: on the machine's queue, as for all that follow.
        let pause = |machine: &VZVirtualMachine, done: &DynBlock<dyn Fn(*mut NSError)>| unsafe {
            machine.pauseWithCompletionHandler(done);
        };
        self.queued.ask("pause the machine", pause).await
    }

    async fn resume(&mut self) -> Result<(), DriverError> {
        // SAFETY: as above.
        let resume = |machine: &VZVirtualMachine, done: &DynBlock<dyn Fn(*mut NSError)>| unsafe {
            machine.resumeWithCompletionHandler(done);
        };
        self.queued.ask("resume the machine", resume).await
    }

    async fn kill(&mut self, _grace: Duration) -> Result<(), DriverError> {
        if self.ended.0.borrow().is_some() {
            return Ok(());
        }
        self.killed.store(true, Ordering::Release);
        // SAFETY: as above.
        let stop = |machine: &VZVirtualMachine, done: &DynBlock<dyn Fn(*mut NSError)>| unsafe {
            machine.stopWithCompletionHandler(done);
        };
        self.queued.ask("end the machine", stop).await?;
        // The delegate hears nothing of a stop that was asked for.
        self.ended.is(ExitReason::Killed);
        Ok(())
    }

    fn stall(&self) -> watch::Receiver<Option<Stall>> {
        self.stall.subscribe()
    }

    fn console_tail(&self) -> Vec<u8> {
        self.tail.bytes()
    }

    async fn share(&mut self, shared: &[SharedFolder]) -> Result<(), DriverError> {
        let shared = shared.to_vec();
        let (done, told) = oneshot::channel();
        self.queued.on_queue(move |objects| {
            let set = || {
                let share = folders(&shared)?;
                // SAFETY: on the machine's queue.
                let devices = unsafe { objects.machine.directorySharingDevices() };
                let devices = devices.iter().filter_map(|d| d.downcast::<VZVirtioFileSystemDevice>().ok());
                for device in devices {
                    // SAFETY: as above.
                    unsafe {
                        if device.tag().to_string() == SHARE_TAG {
                            device.setShare(Some(&share));
                            return Ok(());
                        }
                    }
                }
                Err("the machine has no device for folders".to_owned())
            };
            // Who asked may have given up.
            let _ = done.send(set());
        });
        answered("share folders with the machine", told).await
    }

    async fn wait(&mut self) -> ExitReason {
        let mut ended = self.ended.0.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ExitReason::Killed),
            // The sender is ours.
            Err(_) => ExitReason::Killed,
        }
    }
}

impl Drop for VzMachine {
    fn drop(&mut self) {
        // A machine ends with its owner; nobody waits for it any more.
        self.queued.on_queue(|objects| {
            let ignored = RcBlock::new(|_: *mut NSError| {});
            // SAFETY: on the machine's queue.
            unsafe {
                if objects.machine.canStop() {
                    objects.machine.stopWithCompletionHandler(&ignored);
                }
            }
        });
    }
}
