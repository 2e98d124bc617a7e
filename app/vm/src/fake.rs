//! A machine that is none, for tests of what stands above the drivers: it runs until it is told to end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use slipway_vsock::Transport;
use tokio::sync::watch;

use crate::{Accel, AccelChoice, Capabilities, Driver, DriverError, ExitReason, Machine, MachineSpec, Stall};

/// Starts [fake machines](FakeMachine) on a transport of the test's.
pub struct FakeDriver {
    transport: Arc<dyn Transport>,
    end: watch::Sender<Option<ExitReason>>,
    stall: watch::Sender<Option<Stall>>,
}

impl FakeDriver {
    /// A driver whose machines are reached by `transport`.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, end: watch::Sender::new(None), stall: watch::Sender::new(None) }
    }

    /// Ends every machine of this driver for `reason`, as a crash or the guest would.
    pub fn end(&self, reason: ExitReason) {
        self.end.send_replace(Some(reason));
    }

    /// Makes every machine of this driver stand still for `stall`, until it is resumed.
    pub fn stall(&self, stall: Stall) {
        self.stall.send_replace(Some(stall));
    }

    fn capabilities() -> Capabilities {
        Capabilities { vmm: "fake".into(), accel: Accel::Tcg, accel_reason: None, transport: "memory".into() }
    }
}

#[async_trait]
impl Driver for FakeDriver {
    async fn probe(&self, _choice: AccelChoice) -> Result<Capabilities, DriverError> {
        Ok(Self::capabilities())
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, DriverError> {
        if spec.cpus == 0 {
            return Err(DriverError::BadSpec("it needs at least one CPU".into()));
        }
        let (end, stall) = (self.end.clone(), self.stall.clone());
        end.send_replace(None);
        Ok(Box::new(FakeMachine { transport: Arc::clone(&self.transport), end, stall }))
    }
}

/// See [`FakeDriver`].
pub struct FakeMachine {
    transport: Arc<dyn Transport>,
    end: watch::Sender<Option<ExitReason>>,
    stall: watch::Sender<Option<Stall>>,
}

#[async_trait]
impl Machine for FakeMachine {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport)
    }

    fn capabilities(&self) -> Capabilities {
        FakeDriver::capabilities()
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    async fn pause(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), DriverError> {
        self.stall.send_replace(None);
        Ok(())
    }

    async fn kill(&mut self, _grace: Duration) -> Result<(), DriverError> {
        self.end.send_if_modified(|end| end.is_none() && end.replace(ExitReason::Killed).is_none());
        Ok(())
    }

    fn stall(&self) -> watch::Receiver<Option<Stall>> {
        self.stall.subscribe()
    }

    fn console_tail(&self) -> Vec<u8> {
        b"fake console".to_vec()
    }

    async fn wait(&mut self) -> ExitReason {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ExitReason::Killed),
            Err(_) => ExitReason::Killed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_a_driver_as_any_other() {
        let dir = tempfile::tempdir().expect("folder");
        let spec = crate::contract::spec(dir.path(), "kernel".into()).expect("files");
        let guest = slipway_vsock::memory::MemoryTransport::new();
        crate::contract::check(&FakeDriver::new(Arc::new(guest)), &spec).await;
    }
}
