//! What a computer with macOS or Windows gives: a hypervisor of the system's own, which is asked at each start; nothing of QEMU's and of
//! Linux's kernel is there to look at.

use slipway_settings::resolved::Settings;
use slipway_vm::GuestArch;

use super::{
    Finding, Subject, Ward,
    network::{Proxy, proxies_of},
};
use crate::{boot::vmm, image::installed_processor};

/// What programs of this computer say.
#[derive(Debug)]
pub(super) struct Facts {
    /// What the installed image is for.
    guest: GuestArch,
    /// The engine's proxies.
    pub(super) proxies: Vec<Proxy>,
}

impl Facts {
    pub(super) async fn gather(subject: &Subject, settings: Option<&Settings>) -> Self {
        let proxies = match settings {
            Some(settings) => proxies_of(subject, settings).await,
            None => Vec::new(),
        };
        Self { guest: installed_processor(&subject.paths), proxies }
    }
}

pub(super) fn qemu(_: &Ward) -> Finding {
    Finding::not_applicable("machines run on the system's own hypervisor here")
}

pub(super) fn acceleration(ward: &Ward) -> Finding {
    match vmm::find(ward.facts.guest) {
        Ok(()) => Finding::not_applicable("the hypervisor says at each start whether it can run a machine"),
        Err(problem) => Finding::of(slipway_api::CheckState::Failed, problem),
    }
}

pub(super) fn user_namespaces(_: &Ward) -> Finding {
    Finding::not_applicable("the hypervisor shares folders itself here")
}

pub(super) fn inotify(_: &Ward) -> Finding {
    Finding::not_applicable("this system has no limit of that kind")
}
