//! Where the stand-ins ask: a socket in the guest, reachable by root of the guest alone.
//!
//! ```text
//!   stand-in ──PortBind──▶ claim ──▶ host          stand-in ◀─ bound or failure ─ host
//!   stand-in closes its writing half, or dies ──▶ released ──▶ `released`, end
//! ```

use std::{io, path::Path, time::Duration};

use slipway_protocol::{
    frame,
    v1::{self, ports_answer},
};
use tokio::{io::AsyncReadExt, net::UnixStream, task::JoinSet};

use super::Ports;
use crate::{
    listen,
    logs::Logs,
    serve::{self, ServeError},
};

/// Where stand-ins ask.
pub(crate) const SOCKET: &str = "/run/slipway/ports.sock";

/// Serves stand-ins for ever.
///
/// # Errors
/// The socket cannot be made.
pub(crate) async fn run(path: &Path, ports: Ports, logs: &Logs) -> io::Result<()> {
    let listener = listen::private(path)?;
    let mut stand_ins = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = stand_ins.join_next() => match ended {
                Ok(Err(error)) => logs.say(format!("a published port ended: {error}")),
                Ok(Ok(())) => {}
                Err(error) => logs.say(format!("a published port's task failed: {error}")),
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(stand_ins.spawn(one(stream, ports.clone()))),
                Err(error) => {
                    logs.say(format!("failed to accept a published port: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn one(mut stream: UnixStream, ports: Ports) -> Result<(), ServeError> {
    let Some(bind) = serve::first::<v1::PortBind>(&mut stream).await? else { return Ok(()) };
    let (mut reader, mut writer) = stream.split();
    let mut claim = ports.claim(bind).await;
    let mut byte = [0u8];
    // A stand-in that dies while the host thinks gives the port up.
    let gone = async {
        // Nothing is sent by a stand-in that waits, so whatever comes is its end.
        let _ = reader.read(&mut byte).await;
    };
    tokio::pin!(gone);
    let answer = tokio::select! {
        answer = claim.bound() => answer,
        () = &mut gone => return Ok(()),
    };
    let refused = answer.is_err();
    let result = match answer {
        Ok(()) => ports_answer::Result::Bound(v1::Ok {}),
        Err(failure) => ports_answer::Result::Failure(failure),
    };
    frame::write(&mut writer, &v1::PortsAnswer { id: 0, result: Some(result) }).await?;
    if refused {
        claim.release().await;
        return Ok(());
    }
    gone.await;
    claim.release().await;
    let released = Some(ports_answer::Result::Released(v1::Ok {}));
    // A stand-in that was killed does not wait for it.
    let _ = frame::write(&mut writer, &v1::PortsAnswer { id: 0, result: released }).await;
    Ok(())
}
