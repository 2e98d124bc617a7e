//! As many connections as the system lets a process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// Two descriptors for each in this one process: the client's and ours, and for a moment a third.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_at_once_are_all_served() {
    const WANTED: u64 = 10_000;
    // For the tests that run beside this one in the same process, one of them with a thousand clients.
    const OTHERS: u64 = 8_000;
    let mut limit = getrlimit(Resource::Nofile);
    let needed = WANTED * 3 + OTHERS;
    // Root may raise the upper limit, too.
    let more = Rlimit { current: Some(needed), maximum: limit.maximum.map(|most| most.max(needed)) };
    if limit.current.is_some_and(|now| now < needed) && setrlimit(Resource::Nofile, more).is_err() {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).expect("its own upper limit");
    }
    let allowed = getrlimit(Resource::Nofile).current.map_or(WANTED, |now| now.saturating_sub(OTHERS) / 3);
    let count = WANTED.min(allowed);
    if count < WANTED {
        println!("only {count} connections: the system allows no more open files");
    }
    let (guest, publisher) = guest();
    let mut forwarded = guest.serve(FORWARD);
    let host = free(Protocol::Tcp, "127.0.0.1");
    publisher.publish(spec(1, Protocol::Tcp, host)).expect("listens");
    let serving = tokio::spawn(async move {
        let mut containers = Vec::new();
        while (containers.len() as u64) < count {
            let mut container = forwarded.recv().await.expect("a stream");
            dialled(&mut container).await;
            containers.push(container);
        }
        for container in &mut containers {
            let mut asked = [0; 4];
            container.read_exact(&mut asked).await.expect("a question");
            container.write_all(&asked).await.expect("answers");
        }
        containers
    });
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(timeout(SOON, TcpStream::connect(host)).await.expect("in time").expect("connects"));
    }
    for (number, client) in (0u32..).zip(&mut clients) {
        client.write_all(&number.to_be_bytes()).await.expect("asks");
    }
    for (number, client) in (0u32..).zip(&mut clients) {
        let mut answer = [0; 4];
        timeout(SOON * 6, client.read_exact(&mut answer)).await.expect("in time").expect("its own answer");
        assert_eq!(u32::from_be_bytes(answer), number);
    }
    drop(serving.await.expect("joins"));
}
