//! The data disk, as the API tells of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// What the data disk takes, and what is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskUsage {
    /// The file.
    #[schema(value_type = String)]
    pub data_disk: PathBuf,
    /// Bytes that it takes on the host; 0 before there is one.
    pub host_bytes: u64,
    /// Bytes that it can grow to.
    pub limit_bytes: u64,
    /// Bytes that are used in it, as the guest counts; none when no machine runs.
    pub guest_bytes: Option<u64>,
    /// Bytes that are free in it.
    pub guest_free_bytes: Option<u64>,
    /// What the engine has there: `images`, `containers`, `volumes`, `build cache`.
    pub holdings: Vec<DiskHolding>,
    /// Why something of this is not known, though a machine runs.
    pub missing: Vec<Problem>,
}

/// One kind of what the engine keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskHolding {
    /// `images`, `containers`, `volumes`, `build cache`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bytes that nothing needs: what `docker system prune --all --volumes` could take away.
    pub reclaimable_bytes: u64,
}

/// What a trim gave back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskTrim {
    /// Bytes that the disk took on the host before.
    pub before_bytes: u64,
    /// And after.
    pub after_bytes: u64,
}
