//! What is done to a port, and what a connection needs to count as whole.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// After this much of nothing a connection counts as broken.
const SILENCE: Duration = Duration::from_secs(5);
/// Datagrams of one sample, and how many a second.
pub(super) const DATAGRAMS: u32 = 1000;
const EVERY: Duration = Duration::from_millis(1);

/// What a row measures.
pub(super) enum Work {
    Up(u64),
    Down(u64),
    /// Bytes there and back on one connection.
    Dialogue(usize),
    /// Connections one after the other, each with one byte there and back.
    Connections(usize),
}

pub(super) const WORK: &[(&str, Work)] = &[
    ("up, 1 connection", Work::Up(1)),
    ("up, 4 connections", Work::Up(4)),
    ("up, 64 connections", Work::Up(64)),
    ("down, 1 connection", Work::Down(1)),
    ("down, 4 connections", Work::Down(4)),
    ("down, 64 connections", Work::Down(64)),
    ("request and response, 200 times", Work::Dialogue(200)),
    ("100 connections, one after the other", Work::Connections(100)),
];

pub(super) fn connect(port: u16, act: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(&[act])?;
    Ok(stream)
}

fn up(port: u16, bytes: u64) -> io::Result<()> {
    let mut stream = connect(port, b'u')?;
    let block = vec![0; 128 << 10];
    for _ in 0..bytes / block.len() as u64 {
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    whole(u64::from_le_bytes(count), bytes)
}

fn down(port: u16, bytes: u64) -> io::Result<()> {
    let mut stream = connect(port, b'd')?;
    stream.write_all(&bytes.to_le_bytes())?;
    let mut block = vec![0; 128 << 10];
    let mut got = 0;
    loop {
        match stream.read(&mut block)? {
            0 => break,
            length => got += length as u64,
        }
    }
    whole(got, bytes)
}

/// A connection that ended early is as broken as one that was reset.
fn whole(got: u64, bytes: u64) -> io::Result<()> {
    if got == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

pub(super) fn word(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0];
    stream.write_all(b"?")?;
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"?");
    Ok(())
}

impl Work {
    /// How long it took, and how many of its connections broke.
    pub(super) fn run(&self, port: u16, bytes: u64) -> (Duration, usize) {
        let together = |connections: u64, act: fn(u16, u64) -> io::Result<()>| {
            thread::scope(|scope| {
                let acts = (0..connections).map(|_| scope.spawn(move || act(port, bytes / connections)));
                let acts: Vec<_> = acts.collect();
                acts.into_iter().map(|act| act.join().expect("no panic")).filter(Result::is_err).count()
            })
        };
        let began = Instant::now();
        let broken = match self {
            Self::Up(connections) => together(*connections, up),
            Self::Down(connections) => together(*connections, down),
            Self::Dialogue(times) => {
                let said = connect(port, b'e').and_then(|mut s| (0..*times).try_for_each(|_| word(&mut s)));
                usize::from(said.is_err())
            }
            Self::Connections(times) => {
                let one = |_: &usize| connect(port, b'e').and_then(|mut s| word(&mut s)).is_err();
                (0..*times).filter(one).count()
            }
        };
        (began.elapsed(), broken)
    }
}

/// How many of a sample's datagrams did not come back within a second after the last.
pub(super) fn lost(port: u16) -> usize {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    socket.connect((Ipv4Addr::LOCALHOST, port)).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    let receiver = socket.try_clone().expect("cloned");
    let receiving = thread::spawn(move || {
        let mut came = vec![false; DATAGRAMS as usize];
        let mut datagram = [0; 128];
        while came.contains(&false)
            && let Ok(length) = receiver.recv(&mut datagram)
        {
            let number = datagram[..length].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
            came[number.expect("as long as it was sent") as usize] = true;
        }
        came.iter().filter(|came| !**came).count()
    });
    let began = Instant::now();
    for number in 0..DATAGRAMS {
        let mut datagram = [0; 100];
        datagram[..4].copy_from_slice(&number.to_le_bytes());
        // One that is refused is lost.
        let _ = socket.send(&datagram);
        thread::sleep((EVERY * (number + 1)).saturating_sub(began.elapsed()));
    }
    receiving.join().expect("no panic")
}
