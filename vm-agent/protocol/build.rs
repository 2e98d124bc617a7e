//! Compiles the schema with protox, so that no `protoc` program is needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let set = protox::compile(["proto/slipway.v1.proto"], ["proto"])?;
    println!("cargo:rerun-if-changed=proto/slipway.v1.proto");
    prost_build::Config::new().compile_fds(set)?;
    Ok(())
}
