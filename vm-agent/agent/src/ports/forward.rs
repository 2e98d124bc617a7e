//! The guest's end of a published port's bytes: a stream for each TCP connection, one stream for all datagrams of a UDP port.
//! Where the kernel has our module, that serves TCP's in the same way (`guest-image/splice/dial.c`).

use std::{io, net::SocketAddr, os::fd::AsFd, time::Duration};

use slipway_protocol::{
    frame,
    v1::{self, dial::Target},
};
use tokio::{io::BufReader, net::TcpStream, sync::mpsc, time::timeout};

use super::flows::Flows;
use crate::{
    serve::{self, ServeError, Stream},
    splice,
};

/// How long a container may take to accept: as long as Linux tries by itself takes minutes, and the client asks by then.
const CONNECT: Duration = Duration::from_secs(30);
/// Answers that wait for the stream to the host.
const ANSWERS: usize = 512;

/// Serves one stream of the forward port: reaches the target, then copies, half-closes included. A target that cannot be
/// reached ends the stream, as docker-proxy ends its client's connection.
///
/// # Errors
/// See [`ServeError`].
pub(crate) async fn tcp(mut stream: impl Stream + AsFd) -> Result<(), ServeError> {
    let Some(dial) = serve::first::<v1::Dial>(&mut stream).await? else { return Ok(()) };
    let Some(Target::Tcp(target)) = dial.target else {
        return Err(ServeError::Io(io::ErrorKind::Unsupported.into()));
    };
    let target = timeout(CONNECT, TcpStream::connect(target))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(ServeError::Io)?;
    // The client decides what belongs together; waiting for more only adds the guest's delay to the network's.
    target.set_nodelay(true).map_err(ServeError::Io)?;
    splice::join(stream, target).await.map_err(ServeError::Io)
}

/// Serves one stream of the datagrams port until the host closes it.
///
/// # Errors
/// See [`ServeError`].
pub(crate) async fn udp(mut stream: impl Stream) -> Result<(), ServeError> {
    let Some(dial) = serve::first::<v1::Dial>(&mut stream).await? else { return Ok(()) };
    let Some(Target::Udp(target)) = dial.target else {
        return Err(ServeError::Io(io::ErrorKind::Unsupported.into()));
    };
    let target: SocketAddr =
        target.parse().map_err(|_| ServeError::Io(io::ErrorKind::InvalidInput.into()))?;
    let (reader, mut writer) = tokio::io::split(stream);
    let (answer, mut answers) = mpsc::channel(ANSWERS);
    let mut flows = Flows::<u32>::new(target, answer);
    // Frames are read in a future of their own, because a frame half read must not be given up.
    let (got, mut datagrams) = mpsc::channel::<v1::Datagram>(16);
    let reading = async move {
        let mut reader = BufReader::with_capacity(128 << 10, reader);
        while let Some(datagram) = frame::read::<v1::Datagram, _>(&mut reader).await? {
            if got.send(datagram).await.is_err() {
                break;
            }
        }
        Ok::<_, ServeError>(())
    };
    let sending = async {
        loop {
            tokio::select! {
                datagram = datagrams.recv() => {
                    let Some(datagram) = datagram else { return };
                    if datagram.end {
                        flows.end(&datagram.flow);
                    } else {
                        // Lost, as datagrams may be; the client asks again.
                        let _ = flows.send(datagram.flow, &datagram.payload).await;
                    }
                }
                () = flows.next_sweep() => flows.forget_idle(),
            }
        }
    };
    let answering = async {
        while let Some((flow, payload)) = answers.recv().await {
            frame::write(&mut writer, &v1::Datagram { flow, payload, end: false }).await?;
        }
        Ok::<_, ServeError>(())
    };
    tokio::select! {
        read = async { tokio::join!(reading, sending).0 } => read,
        answered = answering => answered,
    }
}
