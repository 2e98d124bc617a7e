//! Moves bytes between two streams until both directions have ended, each on its own.
//!
//! ```text
//!   a ──read──► buffer ──write──► b      end of a: SHUT_WR on b, the other direction goes on
//!   a ◄─write── buffer ◄──read─── b      b reads no more: this direction ends; any other error: both end
//! ```
//!
//! `docker attach`, `exec -i` and `build` close one direction and then wait for the answer in the other: a copier that
//! treats the first end as the end of everything loses that answer.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that one direction of one stream may hold while its receiver is slow.
pub const BUFFER: usize = 64 * 1024;

/// Copies both ways until both directions have ended. Not cancel-safe: dropping it loses what is in the buffers.
///
/// # Errors
/// The first error of either direction; both streams are then useless and should be dropped.
pub async fn both_ways<A, B>(a: A, b: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (a_read, a_write) = tokio::io::split(a);
    let (b_read, b_write) = tokio::io::split(b);
    tokio::try_join!(one_way(a_read, b_write), one_way(b_read, a_write))?;
    Ok(())
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0u8; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        match to.write_all(&buffer[..count]).await {
            // The receiver reads no more, and may still have an answer: a server that refuses an upload does that.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
        to.flush().await?;
    }
    match to.shutdown().await {
        // The receiver left first; there is nobody to tell.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let (client, a) = duplex(BUFFER);
        let (b, server) = duplex(BUFFER);
        let relay = both_ways(a, b);
        let talk = async {
            let (mut client, mut server) = (client, server);
            client.write_all(b"question").await.expect("write");
            client.shutdown().await.expect("half-close");
            let mut question = Vec::new();
            server.read_to_end(&mut question).await.expect("the server sees the end");
            assert_eq!(question, b"question");
            server.write_all(b"answer after the end").await.expect("the way back is open");
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("the client gets it");
            assert_eq!(answer, b"answer after the end");
        };
        let (ended, ()) = tokio::join!(relay, talk);
        ended.expect("both directions ended cleanly");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_answer_given_before_the_question_was_read_arrives() {
        let (mut client, a) = tokio::net::UnixStream::pair().expect("pair");
        let (b, mut server) = tokio::net::UnixStream::pair().expect("pair");
        let relay = both_ways(a, b);
        let talk = async {
            let server_reads_no_more = rustix::net::shutdown(&server, rustix::net::Shutdown::Read);
            server_reads_no_more.expect("SHUT_RD");
            client.write_all(b"an upload that is not wanted").await.expect("write");
            // Lets the relay meet the closed end before the answer is there.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            server.write_all(b"413").await.expect("the way back is open");
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("the client gets it");
            assert_eq!(answer, b"413");
            drop(client);
        };
        let (ended, ()) = tokio::join!(relay, talk);
        ended.expect("no failure of the relay");
    }

    #[tokio::test]
    async fn a_megabyte_each_way_at_once_arrives_whole() {
        let (client, a) = duplex(BUFFER);
        let (b, server) = duplex(BUFFER);
        let up: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let down: Vec<u8> = (0..1_000_000u32).map(|i| (i % 241) as u8).collect();
        async fn send_and_receive(stream: DuplexStream, out: &[u8]) -> Vec<u8> {
            let (mut read, mut write) = tokio::io::split(stream);
            let mut got = Vec::new();
            let (sent, received) = tokio::join!(
                async {
                    write.write_all(out).await?;
                    write.shutdown().await
                },
                read.read_to_end(&mut got)
            );
            sent.expect("sent");
            received.expect("received");
            got
        }
        let (ended, at_client, at_server) =
            tokio::join!(both_ways(a, b), send_and_receive(client, &up), send_and_receive(server, &down));
        ended.expect("clean end");
        assert!(at_server == up && at_client == down, "bytes were lost or changed");
    }
}
