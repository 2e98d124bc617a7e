use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A place to listen at, and what keeps it.
fn place(name: &str) -> (PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("folder");
    let path = match cfg!(windows) {
        true => PathBuf::from(format!(r"\\.\pipe\slipway_test-{name}-{}", std::process::id())),
        false => dir.path().join("x.sock"),
    };
    (path, dir)
}

/// Both ends of one connection.
async fn pair(name: &str) -> (Stream, Client) {
    let (path, _dir) = place(name);
    let mut listener = Listener::bind(&path).expect("listens");
    let (stream, client) = tokio::join!(connect(&path), listener.accept());
    (stream.expect("connects"), client.expect("accepted"))
}

async fn rest(mut from: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.expect("the end, and no error");
    bytes
}

#[tokio::test]
async fn who_asks_may_end_first_and_still_hears_the_answer() {
    let (mut asks, mut answers) = pair("asks").await;
    asks.write_all(b"question").await.expect("write");
    asks.shutdown().await.expect("half-close");
    assert_eq!(rest(&mut answers).await, b"question");
    assert_eq!(rest(&mut answers).await, b"", "an end stays one");
    answers.write_all(b"answer after the end").await.expect("the way back is open");
    answers.shutdown().await.expect("half-close");
    assert_eq!(rest(&mut asks).await, b"answer after the end");
}

#[tokio::test]
async fn who_answers_may_end_first_and_still_hears_the_rest() {
    let (mut asks, mut answers) = pair("answers").await;
    answers.write_all(b"413").await.expect("write");
    answers.shutdown().await.expect("half-close");
    assert_eq!(rest(&mut asks).await, b"413");
    asks.write_all(b"an upload that goes on").await.expect("the way there is open");
    asks.shutdown().await.expect("half-close");
    assert_eq!(rest(&mut answers).await, b"an upload that goes on");
}

#[tokio::test]
async fn an_end_without_a_word_is_the_end_of_both_directions_and_loses_nothing() {
    let (mut asks, answers) = pair("leaves").await;
    asks.write_all(b"last words").await.expect("write");
    drop(asks);
    assert_eq!(rest(answers).await, b"last words");
    let (asks, mut answers) = pair("closes").await;
    answers.write_all(&[7; 100_000][..]).await.expect("write");
    drop(answers);
    assert_eq!(rest(asks).await.len(), 100_000);
}

#[tokio::test]
async fn an_empty_write_ends_nothing() {
    let (mut asks, mut answers) = pair("empty").await;
    asks.write_all(b"a").await.expect("write");
    assert_eq!(asks.write(b"").await.expect("nothing is written"), 0);
    asks.write_all(b"b").await.expect("write");
    asks.shutdown().await.expect("half-close");
    assert_eq!(rest(&mut answers).await, b"ab");
}

#[tokio::test]
async fn two_megabytes_each_way_at_once_arrive_whole() {
    let (asks, answers) = pair("both").await;
    let pattern = |step: u32| (0..2_000_000u32).map(|i| (i % step) as u8).collect::<Vec<u8>>();
    async fn talk(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite, out: &[u8]) -> Vec<u8> {
        let (read, mut write) = tokio::io::split(stream);
        let send = async {
            write.write_all(out).await?;
            write.shutdown().await
        };
        let (sent, got) = tokio::join!(send, rest(read));
        sent.expect("sent");
        got
    }
    let (up, down) = (pattern(251), pattern(241));
    let (at_asks, at_answers) = tokio::join!(talk(asks, &up), talk(answers, &down));
    assert!(at_asks == down && at_answers == up, "bytes were lost or changed");
}

#[tokio::test]
async fn clients_at_once_are_all_served_and_one_that_never_speaks_stops_nobody() {
    let (path, _dir) = place("many");
    let mut listener = Listener::bind(&path).expect("listens");
    let echo = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..33 {
            let mut client = listener.accept().await.expect("accepted");
            tasks.spawn(async move {
                let mut bytes = [0; 4];
                if client.read_exact(&mut bytes).await.is_ok() {
                    client.write_all(&bytes).await.expect("write");
                }
            });
        }
        tasks.join_all().await;
    });
    let silent = connect(&path).await.expect("connects");
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..32u32 {
        let path = path.clone();
        clients.spawn(async move {
            let mut client = connect(&path).await.expect("connects");
            client.write_all(&n.to_be_bytes()).await.expect("write");
            let mut bytes = [0; 4];
            client.read_exact(&mut bytes).await.expect("read");
            assert_eq!(u32::from_be_bytes(bytes), n);
        });
    }
    clients.join_all().await;
    drop(silent);
    echo.await.expect("all were served");
}

#[tokio::test]
async fn nobody_there_is_told_as_such() {
    let (path, _dir) = place("nobody");
    let error = connect(&path).await.map(drop).expect_err("nobody");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
