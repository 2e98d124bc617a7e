//! The calls of `computecore.dll`, looked up when they are first needed.
//!
//! Every call that takes time is an operation: it is begun, waited for with a bound, and tells its result as JSON.

use std::{ffi::c_void, path::Path, sync::Arc, time::Duration};

use windows_sys::Win32::Foundation::LocalFree;

use crate::library::{self, LibraryError, calls, read, wide};

type Handle = *mut c_void;
type Hresult = i32;
/// What HCS calls when something happens to a machine: kind of event, data as JSON.
pub(crate) type Told = dyn Fn(i32, &str) + Send + Sync;

/// Event kinds that end a machine.
pub(crate) const SYSTEM_EXITED: i32 = 1;
pub(crate) const SERVICE_DISCONNECT: i32 = 0x0200_0000;

/// `HCS_EVENT`.
#[repr(C)]
struct Event {
    kind: i32,
    data: *const u16,
    _operation: Handle,
}

/// HCS did not do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HcsError {
    /// Hyper-V is not there or not switched on, or older than what is asked of it.
    #[error("Hyper-V's Host Compute Service is not available")]
    Library(#[from] LibraryError),
    /// The call was refused, or the operation ended badly.
    #[error("`{call}` failed with {code:#010x}{told}")]
    Failed { call: &'static str, code: u32, told: String },
}

calls! {
    HcsCreateOperation: fn(*const c_void, *const c_void) -> Handle;
    HcsCloseOperation: fn(Handle);
    HcsWaitForOperationResult: fn(Handle, u32, *mut *mut u16) -> Hresult;
    HcsCreateComputeSystem: fn(*const u16, *const u16, Handle, *const c_void, *mut Handle) -> Hresult;
    HcsCloseComputeSystem: fn(Handle);
    HcsStartComputeSystem: fn(Handle, Handle, *const u16) -> Hresult;
    HcsTerminateComputeSystem: fn(Handle, Handle, *const u16) -> Hresult;
    HcsPauseComputeSystem: fn(Handle, Handle, *const u16) -> Hresult;
    HcsResumeComputeSystem: fn(Handle, Handle, *const u16) -> Hresult;
    HcsModifyComputeSystem: fn(Handle, Handle, *const u16, Handle) -> Hresult;
    HcsGetComputeSystemProperties: fn(Handle, Handle, *const u16) -> Hresult;
    HcsSetComputeSystemCallback: fn(Handle, i32, *const c_void, unsafe extern "system" fn(*const Event, *const c_void)) -> Hresult;
    HcsGetServiceProperties: fn(*const u16, *mut *mut u16) -> Hresult;
    HcsGrantVmAccess: fn(*const u16, *const u16) -> Hresult;
}

/// The service of this host.
pub(crate) struct Hcs(Calls);

/// A machine that HCS has; it ends when this is dropped.
pub(crate) struct System {
    hcs: Arc<Hcs>,
    handle: Handle,
}

// SAFETY: HCS's handles may be used from any thread, by several at once.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

/// What is asked of a machine that takes no other argument.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Start,
    Terminate,
    Pause,
    Resume,
}

impl Hcs {
    /// Loads `dll`, or the system's own.
    pub(crate) fn load(dll: Option<&Path>) -> Result<Self, HcsError> {
        Ok(Self(Calls::look_up(library::load(dll, "computecore.dll")?)?))
    }

    /// What the service says of itself, as JSON: proof that it answers this user.
    pub(crate) fn service_properties(&self) -> Result<String, HcsError> {
        let query = wide(r#"{"PropertyTypes":["Basic"]}"#);
        let mut told = std::ptr::null_mut();
        // SAFETY: the query ends with a zero; what comes back is ours to free.
        let code = unsafe { (self.0.HcsGetServiceProperties)(query.as_ptr(), &raw mut told) };
        result("HcsGetServiceProperties", code, take(told))
    }

    /// Lets the machine `id` open a file.
    pub(crate) fn grant_access(&self, id: &str, file: &Path) -> Result<(), HcsError> {
        let (id, file) = (wide(id), wide(file.as_os_str()));
        // SAFETY: both end with a zero.
        let code = unsafe { (self.0.HcsGrantVmAccess)(id.as_ptr(), file.as_ptr()) };
        result("HcsGrantVmAccess", code, String::new()).map(drop)
    }

    /// Makes a machine from its document; it does not run yet.
    pub(crate) fn create(
        self: &Arc<Self>,
        id: &str,
        document: &str,
        patience: Duration,
    ) -> Result<System, HcsError> {
        let (id, document) = (wide(id), wide(document));
        let mut handle = std::ptr::null_mut();
        self.operation("HcsCreateComputeSystem", patience, |operation| {
            // SAFETY: texts end with a zero, the null is the default security, and the handle is filled on success.
            unsafe {
                (self.0.HcsCreateComputeSystem)(
                    id.as_ptr(),
                    document.as_ptr(),
                    operation,
                    std::ptr::null(),
                    &raw mut handle,
                )
            }
        })
        .inspect_err(|_| {
            if !handle.is_null() {
                // SAFETY: it was made although its making failed later, and nobody else has it.
                unsafe { (self.0.HcsCloseComputeSystem)(handle) };
            }
        })?;
        Ok(System { hcs: Arc::clone(self), handle })
    }

    /// Begins what takes time by `begin`, waits for it, and gives its result.
    fn operation(
        &self,
        call: &'static str,
        patience: Duration,
        begin: impl FnOnce(Handle) -> Hresult,
    ) -> Result<String, HcsError> {
        // SAFETY: no context and no callback: we wait.
        let operation = unsafe { (self.0.HcsCreateOperation)(std::ptr::null(), std::ptr::null()) };
        if operation.is_null() {
            return Err(HcsError::Failed { call: "HcsCreateOperation", code: 0, told: String::new() });
        }
        let mut told = std::ptr::null_mut();
        let mut code = begin(operation);
        if code >= 0 {
            let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX - 1);
            // SAFETY: the operation is open, and what comes back is ours to free.
            code = unsafe { (self.0.HcsWaitForOperationResult)(operation, millis, &raw mut told) };
        }
        // SAFETY: the operation is ours, and this is its last use.
        unsafe { (self.0.HcsCloseOperation)(operation) };
        result(call, code, take(told))
    }
}

impl System {
    /// Calls `told` for every event, from threads of Windows. Once per machine.
    pub(crate) fn on_event(&self, told: Box<Told>) -> Result<(), HcsError> {
        // Never freed: an event may be on its way to it when the machine's handle closes. A few bytes per machine.
        let context: *const Box<Told> = Box::leak(Box::new(told));
        // SAFETY: the callback takes its context for what it is here, and that lives for ever.
        let code =
            unsafe { (self.hcs.0.HcsSetComputeSystemCallback)(self.handle, 0, context.cast(), on_event) };
        result("HcsSetComputeSystemCallback", code, String::new()).map(drop)
    }

    /// Does it, and waits until it is done.
    pub(crate) fn act(&self, act: Act, patience: Duration) -> Result<(), HcsError> {
        let calls = &self.hcs.0;
        let (name, call) = match act {
            Act::Start => ("HcsStartComputeSystem", calls.HcsStartComputeSystem),
            Act::Terminate => ("HcsTerminateComputeSystem", calls.HcsTerminateComputeSystem),
            Act::Pause => ("HcsPauseComputeSystem", calls.HcsPauseComputeSystem),
            Act::Resume => ("HcsResumeComputeSystem", calls.HcsResumeComputeSystem),
        };
        // SAFETY: the machine's handle is open, and no options are given.
        let begin = |operation| unsafe { call(self.handle, operation, std::ptr::null()) };
        self.hcs.operation(name, patience, begin).map(drop)
    }

    /// Changes a running machine by a document.
    pub(crate) fn modify(&self, document: &str, patience: Duration) -> Result<(), HcsError> {
        let document = wide(document);
        let call = self.hcs.0.HcsModifyComputeSystem;
        // SAFETY: the machine's handle is open, the text ends with a zero, and the null is our own identity.
        let begin =
            |operation| unsafe { call(self.handle, operation, document.as_ptr(), std::ptr::null_mut()) };
        self.hcs.operation("HcsModifyComputeSystem", patience, begin).map(drop)
    }

    /// What HCS knows of the machine, as JSON.
    pub(crate) fn properties(&self, patience: Duration) -> Result<String, HcsError> {
        let call = self.hcs.0.HcsGetComputeSystemProperties;
        // SAFETY: the machine's handle is open, and the null asks for the basic properties.
        let begin = |operation| unsafe { call(self.handle, operation, std::ptr::null()) };
        self.hcs.operation("HcsGetComputeSystemProperties", patience, begin)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and this is its last use.
        unsafe { (self.hcs.0.HcsCloseComputeSystem)(self.handle) };
    }
}

/// Runs on a thread of Windows': nothing may unwind out of it, and nothing here does.
unsafe extern "system" fn on_event(event: *const Event, context: *const c_void) {
    if event.is_null() || context.is_null() {
        return;
    }
    // SAFETY: HCS gives an event that lives during the call, and the context of `System::on_event`.
    let (event, told) = unsafe { (&*event, &*context.cast::<Box<Told>>()) };
    told(event.kind, &read(event.data));
}

fn result(call: &'static str, code: Hresult, told: String) -> Result<String, HcsError> {
    if code >= 0 {
        return Ok(told);
    }
    let told = if told.is_empty() { told } else { format!(": {told}") };
    Err(HcsError::Failed { call, code: code.cast_unsigned(), told })
}

/// The text at a pointer that may be null, which it frees.
fn take(text: *mut u16) -> String {
    let read = read(text);
    if !text.is_null() {
        // SAFETY: HCS allocates results with LocalAlloc and leaves them to the caller.
        unsafe { LocalFree(text.cast()) };
    }
    read
}
