//! The calls of `computenetwork.dll`, looked up when they are first needed: the machine's endpoint on a network of this Windows.

use std::{ffi::c_void, path::Path, ptr};

use windows_sys::{Win32::System::Com::CoTaskMemFree, core::GUID};

use crate::{
    library::{self, LibraryError, calls, read, wide},
    network::{self, Adapter},
};

type Handle = *mut c_void;
type Hresult = i32;

/// `HCN_E_NETWORK_NOT_FOUND`, `HCN_E_ENDPOINT_NOT_FOUND`, and the latter in Windows' usual words.
const NO_NETWORK: u32 = 0x803B_0001;
const NO_ENDPOINT: u32 = 0x803B_0002;
const NOT_FOUND: u32 = 0x8007_0490;

/// HCN did not do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HcnError {
    /// It is not there, or older than what is asked of it.
    #[error("Windows' Host Compute Network is not available")]
    Library(#[from] LibraryError),
    /// The call was refused.
    #[error("`{call}` failed with {code:#010x}{told}")]
    Failed { call: &'static str, code: u32, told: String },
}

calls! {
    HcnOpenNetwork: fn(*const GUID, *mut Handle, *mut *mut u16) -> Hresult;
    HcnCreateNetwork: fn(*const GUID, *const u16, *mut Handle, *mut *mut u16) -> Hresult;
    HcnCloseNetwork: fn(Handle) -> Hresult;
    HcnCreateEndpoint: fn(Handle, *const GUID, *const u16, *mut Handle, *mut *mut u16) -> Hresult;
    HcnQueryEndpointProperties: fn(Handle, *const u16, *mut *mut u16, *mut *mut u16) -> Hresult;
    HcnCloseEndpoint: fn(Handle) -> Hresult;
    HcnDeleteEndpoint: fn(*const GUID, *mut *mut u16) -> Hresult;
}

/// The networks of this Windows.
pub(crate) struct Hcn(Calls);

/// The machine's endpoint; it goes when this is dropped.
pub(crate) struct Endpoint {
    hcn: Hcn,
    id: u128,
}

/// An open network or endpoint.
struct Open<'a> {
    handle: Handle,
    close: &'a dyn Fn(Handle),
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        (self.close)(self.handle);
    }
}

impl Hcn {
    /// Loads `dll`, or the system's own.
    pub(crate) fn load(dll: Option<&Path>) -> Result<Self, HcnError> {
        Ok(Self(Calls::look_up(library::load(dll, "computenetwork.dll")?)?))
    }

    /// Makes the endpoint `id` on the Default Switch, or on our own network where there is none. One that a crash left is taken away first.
    pub(crate) fn endpoint(self, id: u128, machine: &str) -> Result<(Endpoint, String), HcnError> {
        self.delete(id)?;
        let close = |handle| {
            // SAFETY: the handle is open, and this is its last use.
            unsafe { (self.0.HcnCloseNetwork)(handle) };
        };
        let (network, handle) = match self.open(network::DEFAULT_SWITCH) {
            Err(HcnError::Failed { code: NO_NETWORK, .. }) => (network::OWN_NETWORK, self.own()?),
            opened => (network::DEFAULT_SWITCH, opened?),
        };
        let on = Open { handle, close: &close };
        let settings = wide(network::endpoint(network, machine));
        let (mut handle, mut told) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the network is open, the text ends with a zero, and handle and text are filled.
        let code = unsafe {
            (self.0.HcnCreateEndpoint)(
                on.handle,
                &GUID::from_u128(id),
                settings.as_ptr(),
                &raw mut handle,
                &raw mut told,
            )
        };
        done("HcnCreateEndpoint", code, told)?;
        drop(on);
        let asked = self.properties(handle);
        // Whatever was answered, it is there now, and goes with this.
        let endpoint = Endpoint { hcn: self, id };
        Ok((endpoint, asked?))
    }

    fn open(&self, id: u128) -> Result<Handle, HcnError> {
        let (mut handle, mut told) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: handle and text are filled.
        let code = unsafe { (self.0.HcnOpenNetwork)(&GUID::from_u128(id), &raw mut handle, &raw mut told) };
        done("HcnOpenNetwork", code, told).map(|()| handle)
    }

    /// Our own network, made where it is not yet. It stays, as the Default Switch does.
    fn own(&self) -> Result<Handle, HcnError> {
        match self.open(network::OWN_NETWORK) {
            Err(HcnError::Failed { code: NO_NETWORK, .. }) => {}
            opened => return opened,
        }
        let settings = wide(network::own_network());
        let (mut handle, mut told) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the text ends with a zero, and handle and text are filled.
        let code = unsafe {
            (self.0.HcnCreateNetwork)(
                &GUID::from_u128(network::OWN_NETWORK),
                settings.as_ptr(),
                &raw mut handle,
                &raw mut told,
            )
        };
        done("HcnCreateNetwork", code, told).map(|()| handle)
    }

    /// What Windows says of an open endpoint, which is closed; it lives on.
    fn properties(&self, endpoint: Handle) -> Result<String, HcnError> {
        let close = |handle| {
            // SAFETY: the handle is open, and this is its last use.
            unsafe { (self.0.HcnCloseEndpoint)(handle) };
        };
        let endpoint = Open { handle: endpoint, close: &close };
        let (query, mut said, mut told) = (wide(network::QUERY), ptr::null_mut(), ptr::null_mut());
        // SAFETY: the endpoint is open, the text ends with a zero, and both texts are filled.
        let code = unsafe {
            (self.0.HcnQueryEndpointProperties)(endpoint.handle, query.as_ptr(), &raw mut said, &raw mut told)
        };
        let said = take(said);
        done("HcnQueryEndpointProperties", code, told).map(|()| said)
    }

    /// One that is not there is gone.
    fn delete(&self, id: u128) -> Result<(), HcnError> {
        let mut told = ptr::null_mut();
        // SAFETY: the text is filled.
        let code = unsafe { (self.0.HcnDeleteEndpoint)(&GUID::from_u128(id), &raw mut told) };
        match done("HcnDeleteEndpoint", code, told) {
            Err(HcnError::Failed { code: NO_ENDPOINT | NOT_FOUND, .. }) => Ok(()),
            done => done,
        }
    }
}

impl Endpoint {
    /// What the machine is told of it.
    pub(crate) fn adapter(&self, properties: &str) -> Result<Adapter, slipway_vm::DriverError> {
        network::adapter(self.id, properties)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // What stays is taken away by the next start.
        let _ = self.hcn.delete(self.id);
    }
}

fn done(call: &'static str, code: Hresult, told: *mut u16) -> Result<(), HcnError> {
    let told = take(told);
    if code >= 0 {
        return Ok(());
    }
    let told = if told.is_empty() { told } else { format!(": {told}") };
    Err(HcnError::Failed { call, code: code.cast_unsigned(), told })
}

/// The text at a pointer that may be null, which it frees.
fn take(text: *mut u16) -> String {
    let read = read(text);
    if !text.is_null() {
        // SAFETY: HCN allocates results with CoTaskMemAlloc and leaves them to the caller.
        unsafe { CoTaskMemFree(text.cast()) };
    }
    read
}

impl From<HcnError> for std::io::Error {
    fn from(error: HcnError) -> Self {
        std::io::Error::other(error)
    }
}
