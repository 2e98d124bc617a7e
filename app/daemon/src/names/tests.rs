//! Against name servers on the loopback.

use tokio::net::TcpListener;

use super::*;

const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

/// A server's answer: the question with this code, and a mark.
fn answer(question: &[u8], code: u8, mark: u8) -> Vec<u8> {
    let mut answer = [question, &[mark]].concat();
    answer[2] |= 0x80;
    answer[3] = code;
    answer
}

/// One that answers every question by UDP and TCP like this.
async fn server(code: u8, mark: u8) -> (SocketAddr, JoinSet<()>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = tcp.local_addr().expect("an address");
    let udp = UdpSocket::bind(at).await.expect("bound");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut question = [0; 512];
        loop {
            let (length, client) = udp.recv_from(&mut question).await.expect("a question");
            // Somebody else's comes first, and is not taken for it.
            udp.send_to(&answer(&[0; HEAD], 0, 9), client).await.expect("sent");
            udp.send_to(&answer(&question[..length], code, mark), client).await.expect("answered");
        }
    });
    serving.spawn(async move {
        loop {
            let (mut client, _) = tcp.accept().await.expect("a connection");
            let mut question = vec![0; client.read_u16().await.expect("a length").into()];
            client.read_exact(&mut question).await.expect("a question");
            let answer = answer(&question, code, mark + 1);
            client.write_u16(answer.len() as u16).await.expect("answered");
            client.write_all(&answer).await.expect("answered");
        }
    });
    (at, serving)
}

#[tokio::test]
async fn a_server_that_fails_or_is_not_there_leaves_the_word_to_the_next() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
    let ((failing, _f), (refusing, _r), (good, _g)) =
        (server(2, 1).await, server(5, 3).await, server(0, 5).await);
    for by_tcp in [false, true] {
        let mark = |first: u8| vec![first + u8::from(by_tcp)];
        let told =
            ask(&[nobody, failing, refusing, good, failing], QUESTION, by_tcp).await.expect("an answer");
        assert_eq!((told[3], told[QUESTION.len()..].to_vec()), (0, mark(5)));
        // A name that is not there is an answer.
        let (no_such, _n) = server(3, 7).await;
        let told = ask(&[no_such, good], QUESTION, by_tcp).await.expect("an answer");
        assert_eq!((told[3], told[QUESTION.len()..].to_vec()), (3, mark(7)));
        let told = ask(&[nobody, failing, refusing], QUESTION, by_tcp).await.expect("an answer");
        assert_eq!((told[3], told[QUESTION.len()..].to_vec()), (2, mark(1)), "the first that spoke");
        assert_eq!(ask(&[nobody], QUESTION, by_tcp).await, None);
        assert_eq!(ask(&[good], &QUESTION[..HEAD - 1], by_tcp).await, None, "no question");
    }
}

#[tokio::test]
async fn a_silent_server_costs_its_time_and_no_more() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let (good, _serving) = server(0, 5).await;
    let at = silent.local_addr().expect("an address");
    let told = timeout(SERVER * 2, ask(&[at, good], QUESTION, false)).await.expect("in time");
    assert_eq!(told.expect("an answer")[QUESTION.len()..], [5]);
}

#[tokio::test]
async fn the_guest_is_told_by_the_servers_of_the_moment() {
    let ((one, _o), (two, _t)) = (server(0, 1).await, server(0, 3).await);
    let (servers, watched) = watch::channel(Some(vec![one]));
    let (host, mut guest) = tokio::io::duplex(1 << 16);
    let guest = async {
        let greeting = frame::read::<Resolve, _>(&mut guest).await.expect("a frame");
        assert!(greeting.is_some());
        let mut marks = Vec::new();
        for (id, stream) in [(1, false), (2, true)] {
            let ask = NamesAsk { id, question: QUESTION.to_vec(), stream };
            frame::write(&mut guest, &ask).await.expect("asked");
            let told: NamesAnswer = frame::read(&mut guest).await.expect("a frame").expect("an answer");
            assert_eq!(told.id, id);
            marks.push(told.answer[QUESTION.len()]);
            servers.send_replace(Some(vec![two]));
        }
        // What is no question has no answer.
        frame::write(&mut guest, &NamesAsk { id: 3, question: b"?".to_vec(), stream: false })
            .await
            .expect("asked");
        let told: NamesAnswer = frame::read(&mut guest).await.expect("a frame").expect("an answer");
        assert_eq!((told.id, told.answer.len()), (3, 0));
        drop(guest);
        marks
    };
    let (spoken, marks) = tokio::join!(speak(Box::new(host), &watched), guest);
    spoken.expect("an orderly end");
    assert_eq!(marks, [1, 4]);
}
