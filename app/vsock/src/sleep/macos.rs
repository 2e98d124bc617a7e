//! macOS: IOKit's root power domain tells, and waits up to 30 s for whoever does not say that it may go on.
#![allow(unsafe_code)] // It calls back by pointer.
#![allow(non_upper_case_globals)] // Apple's names, in patterns.

use std::{
    ffi::c_void,
    io, ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use dispatch2::DispatchQueue;
use objc2_io_kit::{
    IO_OBJECT_NULL, IOAllowPowerChange, IONotificationPort, IORegisterForSystemPower, io_service_t,
    kIOMessageCanSystemSleep, kIOMessageSystemHasPoweredOn, kIOMessageSystemWillSleep,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Event;

/// Tells, from when it was made.
#[derive(Debug)]
pub struct Events {
    told: UnboundedReceiver<Event>,
}

struct Hearer {
    tell: UnboundedSender<Event>,
    /// Where it is answered.
    domain: AtomicU32,
}

impl Events {
    /// Listens from now on, and for as long as the process lives.
    ///
    /// # Errors
    /// When the power domain is not there.
    pub fn listen() -> io::Result<Self> {
        let (tell, told) = unbounded_channel();
        // Never freed: nothing says that no call is under way when a registration is taken back.
        let hearer: &'static Hearer = Box::leak(Box::new(Hearer { tell, domain: AtomicU32::new(0) }));
        let (mut port, mut notifier) = (ptr::null_mut(), 0);
        // SAFETY: both places are written before it returns, what the first argument points to lives for ever, and the function is of the
        // type that is asked for.
        let domain = unsafe {
            IORegisterForSystemPower(
                ptr::from_ref(hearer).cast_mut().cast(),
                &raw mut port,
                Some(hear),
                &raw mut notifier,
            )
        };
        if domain == IO_OBJECT_NULL {
            return Err(io::Error::other("the system's power domain is not there"));
        }
        // Before the port has a queue, so before the first call.
        hearer.domain.store(domain, Ordering::Release);
        let queue = DispatchQueue::new("slipway.sleep", None);
        // SAFETY: the port was just made and is never destroyed; it keeps the queue.
        unsafe { IONotificationPort::set_dispatch_queue(port, Some(&queue)) };
        Ok(Self { told })
    }

    /// The next that is told. Cancel-safe.
    ///
    /// # Errors
    /// None here.
    pub async fn next(&mut self) -> io::Result<Event> {
        // The sender is never freed.
        self.told.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

unsafe extern "C-unwind" fn hear(
    hearer: *mut c_void,
    _service: io_service_t,
    message: u32,
    argument: *mut c_void,
) {
    // SAFETY: what was registered, which is never freed, and used by reference alone.
    let hearer = unsafe { &*hearer.cast::<Hearer>() };
    let event = match message {
        kIOMessageSystemWillSleep => Some(Event::Sleeps),
        kIOMessageSystemHasPoweredOn => Some(Event::Woke),
        _ => None,
    };
    if let Some(event) = event {
        // Nobody listens any more.
        let _ = hearer.tell.send(event);
    }
    if matches!(message, kIOMessageCanSystemSleep | kIOMessageSystemWillSleep) {
        // The argument is a number, by which the answer is known. One that is not heard is a delay.
        let _ = IOAllowPowerChange(hearer.domain.load(Ordering::Acquire), argument as isize);
    }
}
