//! How the guest's `iptables` is linked: without what a C library does before `main`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // `release` and what inherits from it, as `agent` does, abort at a panic: that is when the source has a start of its own.
    // What Cargo tells of `panic` here is the target's default, not the profile's.
    let is = |variable: &str, value: &str| std::env::var(variable).as_deref() == Ok(value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo:rustc-link-arg-bins=-nostartfiles");
    }
}
