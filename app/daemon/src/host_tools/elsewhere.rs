//! Where the image's programs, which are Linux programs, do not run.

use std::{ffi::OsStr, path::Path};

use slipway_manifest::Manifest;

use super::{Installed, ToolError};

/// Puts nothing in place.
///
/// # Errors
/// None here.
pub fn install(
    _image_dir: &Path,
    _image: &Manifest,
    _bin_dir: &Path,
    _docker_config_dir: &Path,
    _path_env: &OsStr,
) -> Result<Vec<Installed>, ToolError> {
    Ok(Vec::new())
}
