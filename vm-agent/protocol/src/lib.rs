//! What the host and the guest agent say to each other.
//!
//! The schema is `proto/slipway.v1.proto`; this crate adds what a schema cannot say: the vsock port numbers, the
//! framing and the version range. It depends on nothing of the host's and nothing of the guest's.

pub mod frame;
pub mod ports;

/// What every message can do; named by those who are generic over messages.
pub use prost::Message;

/// The generated messages of schema version 1.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/slipway.v1.rs"));
}

/// Oldest protocol version that this build speaks.
pub const MIN_VERSION: u32 = 1;
/// Newest protocol version that this build speaks.
pub const MAX_VERSION: u32 = 1;

/// The greeting of this build. `build` says who speaks, for logs only.
pub fn hello(build: &str, features: &[&str]) -> v1::Hello {
    v1::Hello {
        min_version: MIN_VERSION,
        max_version: MAX_VERSION,
        build: build.to_owned(),
        features: features.iter().map(|f| (*f).to_owned()).collect(),
    }
}

/// The ranges of the two greetings have no version in common.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host speaks protocol {ours_min} to {ours_max}, guest speaks {theirs_min} to {theirs_max}")]
pub struct NoCommonVersion {
    ours_min: u32,
    ours_max: u32,
    theirs_min: u32,
    theirs_max: u32,
}

/// Picks the highest version that both sides speak.
///
/// # Errors
/// [`NoCommonVersion`] when the ranges do not meet; the caller closes the stream.
pub fn negotiate(ours: &v1::Hello, theirs: &v1::Hello) -> Result<u32, NoCommonVersion> {
    let version = ours.max_version.min(theirs.max_version);
    if version < ours.min_version || version < theirs.min_version {
        return Err(NoCommonVersion {
            ours_min: ours.min_version,
            ours_max: ours.max_version,
            theirs_min: theirs.min_version,
            theirs_max: theirs.max_version,
        });
    }
    Ok(version)
}
