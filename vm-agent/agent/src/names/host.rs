//! The host's name servers, asked by the host: it knows which they are at the moment and who answers for which domain.
//!
//! The host opens the stream, because the guest never dials; the newest one is asked. While there is none, and for what was not
//! answered when one ended, the answer is "ask elsewhere".

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use slipway_protocol::{
    frame,
    v1::{NamesAnswer, NamesAsk, Resolve},
};
use tokio::sync::{mpsc, oneshot};

use crate::serve::{self, ServeError, Stream};

/// Questions that wait to be sent.
const BEHIND: usize = 64;
/// Answers that are awaited; whoever gave up waiting is forgotten at the latest then.
const AWAITED: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct HostResolver(Mutex<Option<mpsc::Sender<Question>>>);

#[derive(Debug)]
struct Question {
    message: Vec<u8>,
    by_tcp: bool,
    tell: oneshot::Sender<Vec<u8>>,
}

impl HostResolver {
    /// What the host's name servers answer; empty when none does, `None` when the host is not there to be asked. Takes as long as the
    /// host does. Cancel-safe.
    pub(crate) async fn ask(&self, question: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let host = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (tell, answer) = oneshot::channel();
        host.send(Question { message: question.to_vec(), by_tcp, tell }).await.ok()?;
        answer.await.ok()
    }

    /// Serves one stream of the names port until the host closes it, or another one comes.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub(crate) async fn serve(&self, mut stream: impl Stream) -> Result<(), ServeError> {
        if serve::first::<Resolve>(&mut stream).await?.is_none() {
            return Ok(());
        }
        // The only sender: another stream's takes its place, and that is the end of this one.
        let (ask, mut asked) = mpsc::channel(BEHIND);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ask);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let awaited = Mutex::new(HashMap::<u64, oneshot::Sender<Vec<u8>>>::new());
        let awaited = || awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let asking = async {
            let mut id = 0;
            while let Some(Question { message, by_tcp, tell }) = asked.recv().await {
                id += 1;
                {
                    let mut awaited = awaited();
                    if awaited.len() >= AWAITED {
                        awaited.retain(|_, tell| !tell.is_closed());
                    }
                    awaited.insert(id, tell);
                }
                frame::write(&mut writer, &NamesAsk { id, question: message, stream: by_tcp }).await?;
            }
            Ok::<_, ServeError>(())
        };
        let answers = async {
            while let Some(NamesAnswer { id, answer }) = frame::read(&mut reader).await? {
                if let Some(tell) = awaited().remove(&id) {
                    // Whoever asked may have given up.
                    let _ = tell.send(answer);
                }
            }
            Ok::<_, ServeError>(())
        };
        tokio::select! {
            asked = asking => asked,
            answered = answers => answered,
        }
    }
}
