use std::{sync::Mutex as StdMutex, time::Duration};

use proptest::prelude::*;
use tokio::{
    io::{DuplexStream, duplex},
    time::timeout,
};

use super::*;

struct Judge {
    verdict: Verdict,
    asked: StdMutex<Vec<Review>>,
}

#[async_trait]
impl Reviewer for Judge {
    async fn review(&self, asked: Review) -> Verdict {
        self.asked.lock().expect("lock").push(asked);
        self.verdict.clone()
    }
}

/// What reaches the engine and what the client gets, when the client sends `pieces` and half-closes, and the engine answers
/// `answer` at the end.
async fn carried(pieces: &[&[u8]], verdict: Verdict, answer: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<Review>) {
    let judge = Judge { verdict, asked: StdMutex::default() };
    let (mut client, ours) = duplex(1 << 10);
    let (theirs, mut engine) = duplex(1 << 10);
    let talk = async {
        let (mut reader, mut writer) = tokio::io::split(&mut client);
        let sending = async {
            for piece in pieces {
                writer.write_all(piece).await.expect("sends");
                tokio::task::yield_now().await;
            }
            writer.shutdown().await.expect("half-closes");
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(sending, reader.read_to_end(&mut got));
        read.expect("reads");
        got
    };
    let serve = async {
        let mut got = Vec::new();
        engine.read_to_end(&mut got).await.expect("reads");
        engine.write_all(answer).await.expect("answers");
        engine.shutdown().await.expect("closes");
        got
    };
    let all = async { tokio::join!(carry(ours, theirs, &judge), talk, serve) };
    let (done, to_client, to_engine) = timeout(Duration::from_secs(10), all).await.expect("in time");
    done.expect("carries");
    let asked = judge.asked.into_inner().expect("lock");
    (to_engine, to_client, asked)
}

const GET: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
const CREATE: &[u8] =
    b"POST /v1.47/containers/create?name=a HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\nbody";
const CHUNKED: &[u8] = b"POST /volumes/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n\
    2;x=y\r\nbo\r\n2\r\ndy\r\n0\r\nTrailer: t\r\n\r\n";

#[tokio::test]
async fn a_create_among_other_requests_is_reviewed_and_passes_byte_for_byte() {
    let sent = [GET, CREATE, GET, CHUNKED, GET].concat();
    let (engine, client, asked) = carried(&[&sent], Verdict::Pass, b"answer").await;
    assert_eq!(engine, sent);
    assert_eq!(client, b"answer");
    let expected = [("/v1.47/containers/create?name=a", b"body"), ("/volumes/create", b"body")];
    let asked: Vec<_> = asked.iter().map(|r| (r.path.as_str(), r.body.as_slice())).collect();
    assert_eq!(asked, expected.map(|(path, body)| (path, body.as_slice())));
}

#[tokio::test]
async fn a_refused_request_never_reaches_the_engine_and_the_connection_goes_on() {
    let refusal = Verdict::Refuse { status: 400, message: "/srv is not shared\nhint: do".into() };
    let (engine, client, _) = carried(&[GET, CREATE, CHUNKED, GET], refusal, b"").await;
    assert_eq!(engine, [GET, GET].concat());
    let client = String::from_utf8(client).expect("text");
    assert_eq!(client.matches("HTTP/1.1 400 Bad Request").count(), 2);
    assert!(client.ends_with(r#"{"message":"/srv is not shared\nhint: do"}"#), "{client}");
}

#[tokio::test]
async fn a_replaced_body_gets_its_own_length() {
    let (engine, _, _) = carried(&[CREATE], Verdict::Replace(b"longer body".to_vec()), b"").await;
    let expected =
        "POST /v1.47/containers/create?name=a HTTP/1.1\r\nHost: d\r\nContent-Length: 11\r\n\r\nlonger body";
    assert_eq!(String::from_utf8_lossy(&engine), expected);
    let (engine, _, _) = carried(&[CHUNKED], Verdict::Replace(b"x".to_vec()), b"").await;
    let expected = "POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(String::from_utf8_lossy(&engine), expected);
}

#[tokio::test]
async fn a_body_that_cannot_be_looked_at_whole_goes_nowhere() {
    let head = "POST /v1.47/containers/create HTTP/1.1\r\nHost: d\r\n";
    let bodies = [
        // Longer than is held back, in both framings.
        (
            format!("Content-Length: {}\r\n\r\n{}", LONGEST + 1, "x".repeat(LONGEST + 1)),
            "413 Content Too Large",
        ),
        (
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                format!("10000\r\n{}\r\n", "x".repeat(1 << 16)).repeat(70)
            ),
            "413 Content Too Large",
        ),
        (format!("Transfer-Encoding: chunked\r\n\r\nfffffff\r\n{}", "x".repeat(1 << 20)), "400 Bad Request"),
        // Whose JSON is whole, and which is not.
        ("Content-Length: 9\r\n\r\n{}".to_owned(), "400 Bad Request"),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n".to_owned(), "400 Bad Request"),
    ];
    for (body, status) in bodies {
        let sent = [GET, format!("{head}{body}").as_bytes()].concat();
        let (engine, client, asked) = carried(&[&sent], Verdict::Pass, b"").await;
        let client = String::from_utf8(client).expect("text");
        assert!(engine == GET && asked.is_empty(), "{}", body.len());
        assert!(client.contains(status) && client.contains("Connection: close"), "{status}: {client}");
    }
}

#[tokio::test]
async fn after_a_hijack_or_an_upgrade_nothing_is_looked_at() {
    let after = CREATE;
    for head in [
        "POST /v1.47/containers/a/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /exec/a/start HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        "POST /session HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET /events HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /events HTTP/1.0\r\n\r\n",
        "not HTTP at all \0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let sent = [head.as_bytes(), after].concat();
        let refusal = Verdict::Refuse { status: 400, message: String::new() };
        let (engine, _, asked) = carried(&[&sent], refusal, b"").await;
        assert!(engine == sent && asked.is_empty(), "{head}");
    }
}

#[tokio::test]
async fn a_half_closed_client_still_gets_its_answer_and_an_early_end_of_the_engine_is_told() {
    let (engine, client, _) =
        carried(&[b"POST /build HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"], Verdict::Pass, b"late").await;
    assert!(engine.ends_with(b"half") && client == b"late");
    let judge = Judge { verdict: Verdict::Pass, asked: StdMutex::default() };
    let (mut client, ours) = duplex(64);
    let (theirs, engine) = duplex(64);
    drop(engine);
    let told = async {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("the end");
        drop(client);
    };
    let (_, ()) = timeout(Duration::from_secs(5), async { tokio::join!(carry(ours, theirs, &judge), told) })
        .await
        .expect("in time");
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_gets_it() {
    let judge = Judge { verdict: Verdict::Pass, asked: StdMutex::default() };
    let (mut client, ours) = duplex(1 << 10);
    let (theirs, mut engine): (DuplexStream, DuplexStream) = duplex(1 << 10);
    let talk = async {
        let head = b"POST /containers/create HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        client.write_all(head).await.expect("sends");
        let mut leave = [0; 25];
        client.read_exact(&mut leave).await.expect("leave");
        assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"{}").await.expect("sends");
        client.shutdown().await.expect("half-closes");
        let mut got = Vec::new();
        engine.read_to_end(&mut got).await.expect("reads");
        assert!(got.ends_with(b"\r\n\r\n{}"));
        drop((client, engine));
    };
    let (_, ()) = timeout(Duration::from_secs(5), async { tokio::join!(carry(ours, theirs, &judge), talk) })
        .await
        .expect("in time");
}

#[test]
fn requests_that_name_folders_are_known_in_every_version() {
    assert_eq!(creates("/v1.47/containers/create?name=a%20b"), Some(Kind::Container));
    assert_eq!(creates("/containers/create"), Some(Kind::Container));
    assert_eq!(creates("/v1.24/services/abc/update?version=3"), Some(Kind::Service));
    assert_eq!(creates("/v1.47/volumes/create"), Some(Kind::Volume));
    for spelled in [
        "/v1.47/containers/cre%61te",
        "/containers%2Fcreate?x=%",
        "http://docker/v1.47/containers/create",
        "//containers/create/",
    ] {
        assert_eq!(creates(spelled), Some(Kind::Container), "{spelled}");
    }
    for other in ["/v1.47/containers/json", "/containers/create/x", "/networks/create", "/", "", "/volumes"] {
        assert_eq!(creates(other), None, "{other}");
    }
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..300);
    let path = prop::sample::select(vec![
        "/_ping",
        "/containers/create",
        "/v1.47/build?x=/a",
        "/images/load",
        "/volumes/create",
    ]);
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "HEAD", "DELETE"]);
    (method, path, body, any::<bool>(), prop::collection::vec(1..50usize, 1..6)).prop_map(
        |(method, path, body, chunked, sizes)| {
            let mut bytes =
                format!("{method} {path} HTTP/1.1\r\nHost: d\r\nX-Odd:  {} \r\n", body.len()).into_bytes();
            if chunked {
                bytes.extend_from_slice(b"transfer-encoding: Chunked\r\n\r\n");
                let mut rest = body.as_slice();
                let mut sizes = sizes.iter().cycle();
                while !rest.is_empty() {
                    let size = (*sizes.next().expect("endless")).min(rest.len());
                    bytes.extend_from_slice(format!("{size:X}\r\n").as_bytes());
                    bytes.extend_from_slice(&rest[..size]);
                    bytes.extend_from_slice(b"\r\n");
                    rest = &rest[size..];
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            } else {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(&body);
            }
            bytes
        },
    )
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn requests_pass_unchanged_however_they_are_cut(
        requests in prop::collection::vec(request(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let sent = requests.concat();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len())).collect();
        at.extend([0, sent.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &sent[pair[0]..pair[1]]).collect();
        let (engine, client, asked) = run(carried(&pieces, Verdict::Pass, b"answer"));
        prop_assert_eq!(&engine, &sent);
        prop_assert_eq!(client, b"answer".to_vec());
        let creates = requests.iter().filter(|r| r.starts_with(b"POST /containers/create") || r.starts_with(b"POST /volumes/create"));
        prop_assert_eq!(asked.len(), creates.count());
    }

    #[test]
    fn any_bytes_pass_unchanged(sent in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (engine, _, _) = run(carried(&[&sent], Verdict::Pass, b""));
        prop_assert_eq!(engine, sent);
    }

    #[test]
    fn no_bytes_make_the_parser_panic_or_claim_more_than_there_is(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        if let Parsed::Head(head) = parse(&bytes) {
            prop_assert!(head.length <= bytes.len());
        }
    }
}
