//! The bridge against a daemon and an engine of the tests, over real unix sockets.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::servers::Servers;
use serde_json::{Value, json};
use slipway_api::Problem;
use slipway_desktop::{
    Transfer,
    bridge::{Ask, Target},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(10);

fn ask(target: Target, method: &str, path: &str) -> Ask {
    Ask::new(target, method, path).expect("asks")
}

#[tokio::test]
async fn answers_come_back_as_json_or_text_whatever_their_status() {
    let servers = Servers::start();
    let bridge = servers.bridge();
    let status = bridge.request(ask(Target::Control, "GET", "/v1/status"), None).await.expect("answers");
    assert_eq!((status.status, &status.body["state"]), (200, &json!("running")));
    let echoed = bridge
        .request(ask(Target::Engine, "POST", "/echo?a=%20b"), Some(&json!({ "ä": 1 })))
        .await
        .expect("answers");
    assert_eq!(echoed.body, json!({ "query": "a=%20b", "body": { "ä": 1 }, "type": "application/json" }));
    let text = bridge.request(ask(Target::Engine, "GET", "/_ping"), None).await.expect("answers");
    assert_eq!(text.body, json!("OK"));
    let missing = bridge.request(ask(Target::Engine, "GET", "/missing"), None).await.expect("answers");
    assert_eq!((missing.status, missing.body), (404, json!({ "message": "no such thing" })));
    let empty = bridge.request(ask(Target::Engine, "DELETE", "/nothing"), None).await.expect("answers");
    assert_eq!((empty.status, empty.body), (204, Value::Null));
}

#[tokio::test]
async fn what_nobody_answers_says_who_is_missing_and_what_to_do() {
    let servers = Servers::start();
    let bridge = servers.bridge();
    let ping = || ask(Target::Engine, "GET", "/_ping");
    bridge.request(ping(), None).await.expect("answers");
    servers.stop_engine().await;
    let problem = bridge.request(ping(), None).await.expect_err("the engine is gone");
    assert_eq!(problem.code, "engine-unreachable");
    assert!(problem.hint.is_some() && problem.message.contains("engine.sock"), "{problem:?}");
    servers.start_engine();
    bridge.request(ping(), None).await.expect("it is found again");

    let nobody = slipway_desktop::bridge::Bridge::new("/nonexistent/api.sock".as_ref());
    for target in [Target::Control, Target::Engine] {
        let problem = nobody.request(ask(target, "GET", "/v1/status"), None).await.expect_err("nobody");
        assert_eq!(problem.code, "daemon-unreachable");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_refused_and_not_collected() {
    let servers = Servers::start();
    let ended =
        timeout(SOON * 3, servers.bridge().request(ask(Target::Engine, "GET", "/endless"), None)).await;
    let problem = ended.expect("it ends").expect_err("too long");
    assert_eq!(problem.code, "connection-broken");
    servers.wait_gone("/endless").await;
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_and_ends_when_it_is_dropped() {
    use http_body_util::BodyExt;
    let servers = Servers::start();
    let bridge = servers.bridge();
    let mut events = bridge.stream(ask(Target::Engine, "GET", "/events"), None).await.expect("streams");
    for number in 0..3 {
        let frame = timeout(SOON, events.frame()).await.expect("soon").expect("one").expect("whole");
        assert_eq!(frame.into_data().expect("data"), format!("{{\"event\":{number}}}\n"));
    }
    drop(events);
    servers.wait_gone("/events").await;
    let refused = bridge.stream(ask(Target::Engine, "GET", "/missing"), None).await.expect_err("refused");
    assert_eq!((refused.code.as_str(), refused.message.as_str()), ("engine-refused", "no such thing"));
}

#[tokio::test]
async fn an_opened_connection_carries_both_ways_and_half_closes() {
    let servers = Servers::start();
    let bridge = servers.bridge();
    let exec = ask(Target::Engine, "POST", "/exec/x/start");
    let mut stream = bridge.open(exec, Some(&json!({ "Tty": true }))).await.expect("opens");
    stream.write_all(b"hello").await.expect("writes");
    let mut hello = [0; 5];
    timeout(SOON, stream.read_exact(&mut hello)).await.expect("soon").expect("reads");
    assert_eq!(&hello, b"HELLO");
    stream.shutdown().await.expect("half-closes");
    let mut rest = String::new();
    timeout(SOON, stream.read_to_string(&mut rest)).await.expect("soon").expect("reads");
    assert_eq!(rest, "bye", "what comes after our end is not lost");

    let refused = bridge.open(ask(Target::Engine, "POST", "/missing"), None).await.expect_err("refused");
    assert_eq!(refused.message, "no such thing");
    let plain = bridge.open(ask(Target::Engine, "GET", "/_ping"), None).await.expect_err("no connection");
    assert_eq!(plain.code, "not-upgraded");
}

async fn upload(
    servers: &Servers,
    path: &str,
    file: &std::path::Path,
) -> (Vec<Transfer>, Result<(), Problem>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let ended =
        servers.bridge().upload("POST", path, file, move |t| tell.lock().expect("lock").push(t)).await;
    let told = told.lock().expect("lock").clone();
    (told, ended)
}

#[tokio::test]
async fn a_file_is_sent_whole_with_figures_and_the_engines_words() {
    let servers = Servers::start();
    let file = servers.dir().join("image.tar");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7) as u8).collect();
    std::fs::write(&file, &bytes).expect("written");
    let (told, ended) = upload(&servers, "/images/load", &file).await;
    ended.expect("loads");
    let last = told.iter().rev().find(|t| matches!(t, Transfer::Sent { .. }));
    assert_eq!(last, Some(&Transfer::Sent { sent: 3_000_000, total: 3_000_000 }));
    let sum: u64 = bytes.iter().map(|b| u64::from(*b)).sum();
    let said = format!("{{\"stream\":\"3000000 bytes, sum {sum}\"}}\n");
    assert!(told.contains(&Transfer::Chunk { chunk: said }), "{told:?}");
}

#[tokio::test]
async fn a_refused_upload_says_why_even_within_a_good_answer() {
    let servers = Servers::start();
    let file = servers.dir().join("image.tar");
    std::fs::write(&file, "bad").expect("written");
    let (_, ended) = upload(&servers, "/images/load?broken", &file).await;
    assert_eq!(ended.expect_err("refused").message, "no archive");
    // Far more than a socket holds: the engine has answered and gone before it is all sent.
    std::fs::write(&file, vec![0; 20_000_000]).expect("written");
    let (_, ended) = upload(&servers, "/images/load?broken", &file).await;
    assert_eq!(ended.expect_err("refused").message, "no archive");
    let (_, ended) = upload(&servers, "/missing", &file).await;
    assert_eq!(ended.expect_err("refused").message, "no such thing");
    for (path, code) in [(servers.dir(), "file-read"), ("relative".as_ref(), "bad-request")] {
        assert_eq!(upload(&servers, "/images/load", path).await.1.expect_err("no file").code, code);
    }
}

#[tokio::test]
async fn a_download_is_whole_or_not_there() {
    let servers = Servers::start();
    let bridge = servers.bridge();
    let file = servers.dir().join("out.tar");
    let mut told = Vec::new();
    bridge.download("/images/get", &file, |t| told.push(t)).await.expect("saves");
    assert_eq!(std::fs::read(&file).expect("there").len(), 1_000_000);
    assert_eq!(told.last(), Some(&Transfer::Received { received: 1_000_000 }));

    let other = servers.dir().join("other.tar");
    let cut = bridge.download("/cut", &other, |_| {}).await.expect_err("the engine went away");
    assert_eq!(cut.code, "connection-broken");
    assert_eq!(
        bridge.download("/missing", &other, |_| {}).await.expect_err("refused").message,
        "no such thing"
    );
    let waiting = bridge.download("/events", &other, |_| {});
    assert!(timeout(Duration::from_millis(300), waiting).await.is_err(), "it goes on until it is dropped");
    let left: Vec<_> =
        std::fs::read_dir(servers.dir()).expect("read").flatten().map(|e| e.file_name()).collect();
    assert!(
        left.iter().all(|n| !n.to_string_lossy().starts_with(".slipway-") && n != "other.tar"),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_pull_is_asked_as_who_the_person_is_at_that_registry() {
    let servers = Servers::start();
    // `anna:secret`, as `docker login` keeps it.
    let config = json!({ "auths": { "registry.example": { "auth": "YW5uYTpzZWNyZXQ=" } } });
    std::fs::write(servers.dir().join("config.json"), config.to_string()).expect("written");
    let bridge = servers.bridge().with_docker_config(servers.dir().to_owned());
    let asked = async |image: &str| {
        let path = format!("/images/create?fromImage={image}&tag=1");
        let ask = Ask::new(Target::Engine, "POST", &path).expect("a request");
        bridge.request(ask, None).await.expect("answered").body["auth"].as_str().map(str::len)
    };
    assert!(asked("registry.example%2Fours").await.is_some_and(|length| length > 80), "with what is known");
    assert_eq!(asked("elsewhere.example%2Ftheirs").await, None, "and never to another");
}
