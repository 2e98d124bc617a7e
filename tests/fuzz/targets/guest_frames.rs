//! Frames of a hostile guest: each message that the host reads from one, the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slipway_protocol::{
    frame::{self, FrameError},
    v1,
};

async fn read<M: prost::Message + Default>(mut bytes: &[u8]) -> Result<(), FrameError> {
    while let Some(message) = frame::read::<M, _>(&mut bytes).await? {
        // What was read can be said again: logs and replies are passed on. Unknown fields are dropped, so it is no longer.
        let again = frame::encode(&message)?;
        let back = frame::read::<M, _>(&mut &again[..]).await?;
        assert!(back.is_some());
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // An error is a fine answer to such bytes; a panic is not.
    let _ = runtime.block_on(async {
        match which % 6 {
            0 => read::<v1::Hello>(bytes).await,
            1 => read::<v1::Reply>(bytes).await,
            2 => read::<v1::ExecFrame>(bytes).await,
            3 => read::<v1::LogRecord>(bytes).await,
            4 => read::<v1::PortsAsk>(bytes).await,
            _ => read::<v1::Datagram>(bytes).await,
        }
    });
});
