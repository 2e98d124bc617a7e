//! A scripted agent at the other end of an in-memory stream.

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

async fn hello(stream: &mut DuplexStream, min: u32, max: u32) {
    let greeting = v1::Hello { min_version: min, max_version: max, build: "test".into(), features: vec![] };
    frame::read::<v1::Hello, _>(stream).await.expect("a greeting").expect("not the end");
    frame::write(stream, &greeting).await.expect("write");
}

async fn next(stream: &mut DuplexStream) -> v1::Request {
    frame::read(stream).await.expect("a request").expect("not the end")
}

async fn answer(stream: &mut DuplexStream, id: u64, result: reply::Result) {
    frame::write(stream, &v1::Reply { id, result: Some(result) }).await.expect("write");
}

const OK: reply::Result = reply::Result::Ok(v1::Ok {});

/// An agent that has greeted and answered the first ping.
async fn connected() -> (AgentClient, DuplexStream) {
    let (host, mut guest) = duplex(1 << 16);
    let agent = async {
        hello(&mut guest, 1, 1).await;
        let ping = next(&mut guest).await;
        assert_eq!(ping.call, Some(request::Call::Ping(v1::Ping {})));
        answer(&mut guest, ping.id, OK).await;
        guest
    };
    let (client, guest) = tokio::join!(AgentClient::connect(host, "test"), agent);
    (client.expect("connects").0, guest)
}

#[tokio::test]
async fn an_agent_one_version_newer_is_spoken_to_and_one_without_ours_is_not() {
    let (host, mut guest) = duplex(1 << 16);
    let agent = async {
        hello(&mut guest, 1, 2).await;
        let ping = next(&mut guest).await;
        answer(&mut guest, ping.id, OK).await;
    };
    assert!(tokio::join!(AgentClient::connect(host, "test"), agent).0.is_ok());

    let (host, mut guest) = duplex(1 << 16);
    let refused = tokio::join!(AgentClient::connect(host, "test"), hello(&mut guest, 7, 9)).0;
    assert!(matches!(refused, Err(ConnectError::Version(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_open_and_silent_is_given_up() {
    let (host, _guest) = duplex(1 << 16);
    assert!(matches!(AgentClient::connect(host, "test").await, Err(ConnectError::Silent)));
}

#[tokio::test]
async fn answers_find_their_askers_in_any_order() {
    let (client, mut guest) = connected().await;
    let agent = async {
        let (first, second) = (next(&mut guest).await, next(&mut guest).await);
        for request in [second, first] {
            let result = match request.call {
                Some(request::Call::GetStatus(_)) => {
                    reply::Result::Status(v1::Status { engine_ready: true, ..Default::default() })
                }
                _ => reply::Result::Trimmed(v1::Trimmed { bytes: 7 }),
            };
            answer(&mut guest, request.id, result).await;
        }
    };
    let (status, trimmed, ()) = tokio::join!(client.status(), client.trim(CALL), agent);
    assert!(status.expect("status").engine_ready);
    assert_eq!(trimmed.expect("trimmed"), 7);
}

#[tokio::test]
async fn a_refusal_keeps_its_code_for_the_caller() {
    let (client, mut guest) = connected().await;
    let failure =
        v1::Failure { code: "NO_DISK".into(), message: "there is no disk".into(), hint: String::new() };
    let agent = async {
        let id = next(&mut guest).await.id;
        answer(&mut guest, id, reply::Result::Failure(failure.clone())).await;
    };
    match tokio::join!(client.trim(CALL), agent).0 {
        Err(CallError::Failed(f)) => assert_eq!(f, failure),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn events_reach_every_listener_and_an_end_every_asker() {
    let (client, mut guest) = connected().await;
    let (mut one, mut two) = (client.events(), client.events());
    let ready =
        v1::Event { kind: Some(v1::event::Kind::EngineReady(v1::EngineReady { version: "28.5.2".into() })) };
    answer(&mut guest, 0, reply::Result::Event(ready.clone())).await;
    assert_eq!(one.recv().await.expect("event"), ready);
    assert_eq!(two.recv().await.expect("event"), ready);
    let gone = async {
        next(&mut guest).await;
        drop(guest);
    };
    assert!(matches!(tokio::join!(client.status(), gone).0, Err(CallError::Closed)));
    client.closed().await;
    assert!(matches!(client.ping().await, Err(CallError::Closed)), "later calls fail at once");
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_connection_and_nothing_else() {
    let (client, mut guest) = connected().await;
    guest.write_all(&[0xff; 64]).await.expect("write");
    client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_disturbs_nobody() {
    let (client, mut guest) = connected().await;
    assert!(matches!(client.status().await, Err(CallError::TimedOut(_))));
    let late = next(&mut guest).await.id;
    answer(&mut guest, late, OK).await;
    let agent = async {
        let id = next(&mut guest).await.id;
        answer(&mut guest, id, OK).await;
    };
    tokio::join!(client.ping(), agent).0.expect("the connection still works");
}
