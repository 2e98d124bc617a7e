//! A program in the guest for a client of the API: two protocols meet, and neither side's frames reach the other.

use std::io;

use bytes::Bytes;
use slipway_api::{
    Problem,
    exec::{ExecRequest, Frame, MAX_PAYLOAD},
};
use slipway_protocol::{
    frame,
    ports::EXEC,
    v1::{Exec, ExecFrame, Resize, StdinEof, exec_frame::Kind},
};
use slipway_shim::client::ShimClient;
use slipway_vsock::{GuestStream, Transport};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Opens the guest's side.
pub(crate) async fn open(shim: &ShimClient, request: &ExecRequest) -> Result<GuestStream, Problem> {
    let failed = |error: &dyn std::error::Error| {
        Problem::from_error("exec", error).hint("`slipway status` shows how the machine is")
    };
    let mut guest = shim.connect(EXEC).await.map_err(|e| failed(&e))?;
    let (rows, columns) = request.tty.unwrap_or((0, 0));
    let exec = Exec {
        argv: request.argv.clone(),
        tty: request.tty.is_some(),
        rows: rows.into(),
        columns: columns.into(),
        env: request.env.clone(),
    };
    frame::write(&mut guest, &exec).await.map_err(|e| failed(&e))?;
    Ok(guest)
}

/// Carries frames both ways until the program or the client is gone.
pub(crate) async fn bridge(
    client: impl AsyncRead + AsyncWrite,
    guest: impl AsyncRead + AsyncWrite,
) -> io::Result<()> {
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (mut guest_reader, mut guest_writer) = tokio::io::split(guest);
    let to_guest = async {
        let mut takes_input = true;
        while let Some(sent) = Frame::read(&mut client_reader).await? {
            let kind = match sent {
                Frame::Stdin(bytes) if bytes.is_empty() => Kind::StdinEof(StdinEof {}),
                Frame::Stdin(bytes) => Kind::Stdin(bytes.to_vec()),
                Frame::Resize(rows, columns) => {
                    Kind::Resize(Resize { rows: rows.into(), columns: columns.into() })
                }
                _ => continue,
            };
            // A program that ended takes no more; how it ended is still on its way to the client.
            takes_input =
                takes_input && frame::write(&mut guest_writer, &ExecFrame { kind: Some(kind) }).await.is_ok();
        }
        // The client is gone: so is the guest's stream, and with it the program.
        Ok::<_, io::Error>(())
    };
    let to_client = async {
        loop {
            let read = frame::read::<ExecFrame, _>(&mut guest_reader).await.map_err(io::Error::other)?;
            let (last, frames) = match read.map(|f| f.kind) {
                Some(Some(Kind::Stdout(bytes))) => (false, split(&bytes, Frame::Stdout)),
                Some(Some(Kind::Stderr(bytes))) => (false, split(&bytes, Frame::Stderr)),
                Some(Some(Kind::Exit(exit))) => (true, vec![Frame::Exit(exit.code)]),
                Some(Some(Kind::Failure(failure))) => {
                    (true, vec![Frame::Failed(Problem::new(&failure.code, failure.message))])
                }
                Some(_) => continue,
                None => {
                    let lost = Problem::new("exec-lost", "the machine went away before the program ended");
                    (true, vec![Frame::Failed(lost)])
                }
            };
            for frame in frames {
                client_writer.write_all(&frame.encode()).await?;
            }
            client_writer.flush().await?;
            if last {
                return client_writer.shutdown().await;
            }
        }
    };
    tokio::select! {
        ended = to_client => ended,
        ended = to_guest => ended,
    }
}

/// The guest's frames may be longer than the client's.
fn split(bytes: &[u8], of: fn(Bytes) -> Frame) -> Vec<Frame> {
    bytes.chunks(MAX_PAYLOAD).map(|chunk| of(Bytes::copy_from_slice(chunk))).collect()
}

#[cfg(test)]
mod tests {
    use slipway_protocol::v1::Exit;
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn input_that_comes_too_late_does_not_hide_how_the_program_ended() {
        // The two directions race: once would prove little.
        for _ in 0..64 {
            let (client, mut person) = duplex(4096);
            let (guest, mut program) = duplex(4096);
            let exit = ExecFrame { kind: Some(Kind::Exit(Exit { code: 7, signal: 0 })) };
            frame::write(&mut program, &exit).await.expect("written");
            drop(program);
            person.write_all(&Frame::Stdin(Bytes::from_static(b"late")).encode()).await.expect("written");
            person.write_all(&Frame::Stdin(Bytes::new()).encode()).await.expect("written");
            bridge(client, guest).await.expect("carried");
            assert_eq!(Frame::read(&mut person).await.expect("read"), Some(Frame::Exit(7)));
        }
    }
}
