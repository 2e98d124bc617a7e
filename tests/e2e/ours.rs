//! The programs that run in the tests' containers and guests: `tests/guest`, built by `tests/run`.

use std::path::{Path, PathBuf};

use slipway_test_harness::Home;

/// Where one of them is.
pub(crate) fn program(name: &str) -> PathBuf {
    let guest = std::env::var_os("SLIPWAY_TEST_GUEST");
    Path::new(&guest.expect("`tests/run` builds it and sets SLIPWAY_TEST_GUEST")).with_file_name(name)
}

/// Copies one to where `docker cp` takes it: into a container that is not started yet.
pub(crate) fn put(home: &Home, name: &str, to: &str) {
    home.docker(["cp"]).arg(program(name)).arg(to).run().ok();
}
