//! Windows: the power manager calls whoever registered, without a window.
#![allow(unsafe_code)] // It calls back by pointer.

use std::{ffi::c_void, io, ptr};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use windows_sys::Win32::{
    Foundation::ERROR_SUCCESS,
    System::Power::{DEVICE_NOTIFY_SUBSCRIBE_PARAMETERS, PowerRegisterSuspendResumeNotification},
    UI::WindowsAndMessaging::{
        DEVICE_NOTIFY_CALLBACK, PBT_APMRESUMEAUTOMATIC, PBT_APMRESUMECRITICAL, PBT_APMRESUMESUSPEND,
        PBT_APMSUSPEND,
    },
};

use super::Event;

/// Tells, from when it was made.
#[derive(Debug)]
pub struct Events {
    told: UnboundedReceiver<Event>,
}

impl Events {
    /// Listens from now on, and for as long as the process lives.
    ///
    /// # Errors
    /// That of the system.
    pub fn listen() -> io::Result<Self> {
        let (tell, told) = unbounded_channel();
        // Never freed: nothing says that no call is under way when a registration is taken back.
        let context = Box::into_raw(Box::new(tell));
        let parameters =
            DEVICE_NOTIFY_SUBSCRIBE_PARAMETERS { Callback: Some(hear), Context: context.cast::<c_void>() };
        let mut registration = ptr::null_mut();
        // SAFETY: with this flag the recipient is read as these parameters, which are copied before it returns; what they point to lives
        // for ever, and the function is of the type that is asked for.
        let refused = unsafe {
            PowerRegisterSuspendResumeNotification(
                DEVICE_NOTIFY_CALLBACK,
                (&raw const parameters).cast_mut().cast(),
                &raw mut registration,
            )
        };
        if refused != ERROR_SUCCESS {
            // SAFETY: made above, and nobody was given it.
            drop(unsafe { Box::from_raw(context) });
            return Err(io::Error::from_raw_os_error(refused.cast_signed()));
        }
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

unsafe extern "system" fn hear(context: *const c_void, kind: u32, _setting: *const c_void) -> u32 {
    // SAFETY: what was registered, which is never freed, and used by reference alone from any thread.
    let tell = unsafe { &*context.cast::<UnboundedSender<Event>>() };
    let event = match kind {
        PBT_APMSUSPEND => Some(Event::Sleeps),
        // The first comes each time, the second when a person woke it, the third where a sleep was not told.
        PBT_APMRESUMEAUTOMATIC | PBT_APMRESUMESUSPEND | PBT_APMRESUMECRITICAL => Some(Event::Woke),
        _ => None,
    };
    if let Some(event) = event {
        // Nobody listens any more.
        let _ = tell.send(event);
    }
    ERROR_SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use windows_sys::Win32::UI::WindowsAndMessaging::PBT_APMPOWERSTATUSCHANGE;

    #[test]
    fn what_the_power_manager_says_is_told_in_order() {
        let (tell, mut told) = unbounded_channel();
        let context = (&raw const tell).cast();
        for kind in [PBT_APMSUSPEND, PBT_APMPOWERSTATUSCHANGE, PBT_APMRESUMEAUTOMATIC, PBT_APMRESUMESUSPEND] {
            // SAFETY: the context is such a sender.
            assert_eq!(unsafe { hear(context, kind, ptr::null()) }, ERROR_SUCCESS);
        }
        drop(tell);
        let all: Vec<Event> = std::iter::from_fn(|| told.blocking_recv()).collect();
        assert_eq!(all, [Event::Sleeps, Event::Woke, Event::Woke]);
    }

    #[tokio::test]
    async fn it_is_registered_and_quiet() {
        match Events::listen() {
            Ok(mut events) => {
                let told = tokio::time::timeout(std::time::Duration::from_millis(100), events.next()).await;
                assert!(told.is_err(), "{told:?}");
            }
            // Wine has no power manager.
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
