# Sourced by tests/run and tests/arm64: what the tests start besides Slipway, and its tests for another processor.
# shellcheck shell=bash

# For arm64 with Rust's own linker, against the musl that comes with the target: nothing is to be installed.
for_arm64() {
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER=qemu-aarch64-static \
        cargo "$1" --locked --quiet --target aarch64-unknown-linux-musl "${@:2}"
}

# Programs of guests and containers, into SLIPWAY_TEST_GUEST and SLIPWAY_TEST_ARM64, which is empty where it cannot be built.
test_programs() {
    say "programs for the tests' guests and containers"
    # Static, because they are all that is there; so they have their own folder below target/.
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --quiet --target "$HOST_TARGET" -p slipway-test-guest
    export SLIPWAY_TEST_GUEST=$PWD/target/$HOST_TARGET/debug/slipway-test-guest SLIPWAY_TEST_ARM64=
    if need_target aarch64-unknown-linux-musl; then
        for_arm64 build -p slipway-test-guest --bin slipway-test-arch
        SLIPWAY_TEST_ARM64=$PWD/target/aarch64-unknown-linux-musl/debug/slipway-test-arch
    fi
}

# The guest's `iptables` has no part in it: it asks for its network's number, which qemu-user does not know.
test_agent_for_arm64() {
    say "the agent as an arm64 program, emulated"
    if need_target aarch64-unknown-linux-musl; then
        need_packages qemu-user-static
        for_arm64 test -p slipway-agent -p slipway-protocol
    fi
}
