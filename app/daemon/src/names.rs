//! Asks this computer's name servers what the guest cannot know itself, so that containers are told what programs here are: by
//! the servers of the moment (a new network, a VPN), each asked after the one before it failed, and by the resolver here that
//! knows which domain is whose.
//!
//! ```text
//!   guest ──question──▶ the setting's servers, or resolv.conf's ─┬─ answers ────────────▶ guest, unread
//!                          ▲                                     ├─ fails, refuses, is silent ─▶ the next one
//!                          └── read for each question            └─ none left ─▶ the best that was heard, or nothing
//! ```
//!
//! Questions come from containers: they are passed on unread, and how many are under way at once is bounded. While no daemon is
//! there the guest asks its network's resolver.

mod files;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use slipway_protocol::{
    frame::{self, FrameError},
    ports::NAMES,
    v1::{NamesAnswer, NamesAsk, Resolve},
};
use slipway_shim::client::ShimClient;
use slipway_vsock::{GuestStream, Transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

pub(crate) use files::{HOSTS, RESOLV_CONF, host_names, search};

use crate::{Context, configure};

/// Between two attempts to reach the agent.
const RETRY: Duration = Duration::from_millis(250);
/// How long one name server may take until the next is asked.
const SERVER: Duration = Duration::from_secs(2);
/// How long all of them may: a little less than the agent waits.
const ALL: Duration = Duration::from_millis(4500);
/// Questions under way; those beyond are answered as if no server had.
const QUESTIONS: usize = 256;
/// A DNS message's head; what is shorter is none.
const HEAD: usize = 12;

/// Answers the guest's questions for as long as the machine lives.
pub(crate) async fn follow(shim: ShimClient, context: Arc<Context>) {
    let mut settings = context.settings.subscribe();
    let (tell, servers) = watch::channel(None);
    let learning = async {
        loop {
            settings.borrow_and_update();
            // A file that is wrong changes nothing.
            if let Some(settings) = configure::read_settings(&context).await {
                tell.send_replace(settings.name_servers);
            }
            // The sender lives in the context.
            let _ = settings.changed().await;
        }
    };
    let answering = async {
        while shim.runs() {
            if let Ok(stream) = shim.connect(NAMES).await
                && let Err(error) = speak(stream, &servers).await
            {
                tracing::debug!(%error, "the names stream broke");
            }
            sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = learning => {}
        () = answering => {}
    }
}

/// Serves one stream until it ends.
async fn speak(
    mut stream: GuestStream,
    servers: &watch::Receiver<Option<Vec<SocketAddr>>>,
) -> Result<(), FrameError> {
    frame::write(&mut stream, &Resolve {}).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (answered, mut answers) = mpsc::channel::<NamesAnswer>(QUESTIONS);
    let reading = async move {
        let mut asking = JoinSet::new();
        while let Some(NamesAsk { id, question, stream }) = frame::read(&mut reader).await? {
            while asking.try_join_next().is_some() {}
            let servers = if asking.len() < QUESTIONS { Some(servers.borrow().clone()) } else { None };
            let answered = answered.clone();
            asking.spawn(async move {
                let answer = match servers {
                    Some(servers) => resolve(servers, &question, stream).await.unwrap_or_default(),
                    None => Vec::new(),
                };
                // The stream ended.
                let _ = answered.send(NamesAnswer { id, answer }).await;
            });
        }
        Ok::<_, FrameError>(())
    };
    let writing = async {
        while let Some(answer) = answers.recv().await {
            frame::write(&mut writer, &answer).await?;
        }
        Ok::<_, FrameError>(())
    };
    tokio::select! {
        read = reading => read,
        written = writing => written,
    }
}

/// What these servers answer, or this computer's.
async fn resolve(servers: Option<Vec<SocketAddr>>, question: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
    let servers = match servers {
        Some(servers) => servers,
        None => tokio::task::spawn_blocking(files::name_servers).await.ok()?,
    };
    timeout(ALL, ask(&servers, question, by_tcp)).await.ok()?
}

async fn ask(servers: &[SocketAddr], question: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
    if question.len() < HEAD {
        return None;
    }
    let mut best = None;
    for server in servers {
        let asked = async {
            if by_tcp { ask_by_tcp(*server, question).await } else { ask_by_udp(*server, question).await }
        };
        match timeout(SERVER, asked).await {
            Ok(Ok(answer)) if !is_failure(&answer) => return Some(answer),
            Ok(Ok(answer)) => best = best.or(Some(answer)),
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
            Err(_) => tracing::debug!(%server, "a name server is silent"),
        }
    }
    best
}

/// The server failed, does not know how, or does not want to: another one may.
fn is_failure(answer: &[u8]) -> bool {
    const CODES: [u8; 3] = [2, 4, 5];
    answer.get(3).is_none_or(|flags| CODES.contains(&(flags & 0xf)))
}

/// From a port of its own: nobody else can guess where the answer is awaited.
async fn ask_by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= HEAD && answer[..2] == question[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests;
