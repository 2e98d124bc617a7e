//! Half-close: each direction of each stream ends on its own, whoever ends first, and the exit code arrives.
//!
//! Two hundred streams through the real client: `exec -i` and attached `run -i` with their input closed first, their
//! output closed first and both at once; `cp` both ways, `load` and `build` from standard input.

use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use slipway_test_harness::Home;

use crate::Shared;

pub(crate) const TESTS: &[Shared] = &[
    ("streams_half_close_200_of_200", matrix),
    ("streams_carry_100_mb_there_and_back", bulk),
    ("streams_a_terminal_is_one", terminal),
    ("streams_are_joined_in_the_guests_kernel", joined),
];

/// Streams at once: enough to cross each other.
const AT_ONCE: usize = 4;

type Case = (&'static str, usize, fn(&Home, usize) -> Result<(), String>);
const CASES: &[Case] = &[
    ("exec -i, input closed first", 40, |home, n| input_first(home, &["exec", "-i", "streams"], n)),
    ("exec -i, output closed first", 40, |home, n| output_first(home, &["exec", "-i", "streams"], n)),
    ("exec -i, both at once", 40, |home, n| both(home, &["exec", "-i", "streams"], n)),
    ("run -i, input closed first", 8, |home, n| input_first(home, &["run", "--rm", "-i", "box"], n)),
    ("run -i, output closed first", 8, |home, n| output_first(home, &["run", "--rm", "-i", "box"], n)),
    ("run -i, both at once", 8, |home, n| both(home, &["run", "--rm", "-i", "box"], n)),
    ("cp in and out", 32, cp),
    ("load", 16, load),
    ("build", 8, build),
];

/// How many streams the guest's kernel carries.
pub(crate) fn carried(home: &Home) -> usize {
    counted(home, "streams")
}

/// One of the counts of our module in the guest's kernel.
pub(crate) fn counted(home: &Home, name: &str) -> usize {
    let count = format!("/sys/module/slipway_splice/parameters/{name}");
    let said = home.slipway(["shell", "--", "cat", &count]).run().ok().text();
    said.trim().parse().unwrap_or_else(|_| panic!("a number: {said}"))
}

fn joined(home: &Home) {
    const FOLLOWERS: usize = 20;
    let before = carried(home);
    let followers: Vec<_> = (0..FOLLOWERS).map(|_| home.docker(["events"]).spawn()).collect();
    home.wait_for("streams in the kernel", Duration::from_secs(60), |home| {
        carried(home) >= before + FOLLOWERS
    });
    drop(followers);
    // The daemon's own come and go.
    home.wait_for("their end there", Duration::from_secs(60), |home| carried(home) < before + FOLLOWERS / 2);
}

fn matrix(home: &Home) {
    home.docker(["run", "-d", "--name", "streams", "box", "sleep", "100000"]).run().ok();
    let jobs: Vec<(&Case, usize)> =
        CASES.iter().flat_map(|case| (0..case.1).map(move |n| (case, n))).collect();
    assert_eq!(jobs.len(), 200);
    let next = AtomicUsize::new(0);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while let Some(((name, _, case), n)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(why) = case(home, *n) {
                            failed.push(format!("{name}, number {n}: {why}"));
                        }
                    }
                    failed
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().expect("no panic")).collect()
    });
    home.docker(["rm", "-f", "streams"]).run().ok();
    println!("half-close: {} of {} right", jobs.len() - failed.len(), jobs.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Bytes that tell streams apart; none is a line's end too few.
fn payload(n: usize) -> Vec<u8> {
    (0..40_000 + n * 37).map(|i| b'a' + ((i * 7 + n) % 26) as u8).collect()
}

fn told(right: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(what()) }
}

/// The input ends, and only then does the program speak.
fn input_first(home: &Home, how: &[&str], n: usize) -> Result<(), String> {
    let (code, bytes) = (n % 100 + 1, payload(n));
    let script = format!("cat >/tmp/in.$$; cat /tmp/in.$$; rm /tmp/in.$$; exit {code}");
    let ran = home.docker(how.iter().chain(&["sh", "-c", &script])).stdin(bytes.clone()).run();
    told(ran.out == bytes && ran.code == code as i32, || {
        format!("code {} for {code}, {} of {} bytes; {}", ran.code, ran.out.len(), bytes.len(), ran.err)
    })
}

/// The program closes its output and ends while the client's input is still open.
fn output_first(home: &Home, how: &[&str], n: usize) -> Result<(), String> {
    let code = n % 100 + 1;
    let script = format!("seq 1 {}; exec >&- 2>&-; exit {code}", 2000 + n);
    let mut child = home.docker(how.iter().chain(&["sh", "-c", &script])).spawn();
    // Open until the program has ended.
    let stdin = child.stdin.take();
    let ran = child.end();
    drop(stdin);
    let (lines, last) =
        (ran.text().lines().count(), ran.text().lines().last().unwrap_or_default().to_owned());
    told(lines == 2000 + n && last == (2000 + n).to_string() && ran.code == code as i32, || {
        format!("{lines} lines, the last `{last}`: {ran}")
    })
}

/// Both ends speak and close at the same moment.
fn both(home: &Home, how: &[&str], n: usize) -> Result<(), String> {
    let code = n % 100 + 1;
    let script = format!("seq 1 {}; exit {code}", 1000 + n);
    let mut child = home.docker(how.iter().chain(&["sh", "-c", &script])).spawn();
    let mut stdin = child.stdin.take().ok_or("no input")?;
    // The program may be gone before it is written: that is the point.
    let _ = stdin.write_all(&payload(n));
    drop(stdin);
    let ran = child.end();
    told(ran.text().lines().count() == 1000 + n && ran.code == code as i32, || ran.to_string())
}

/// A tar of one file.
fn tar(name: &str, bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join(name), bytes).expect("written");
    let packed = slipway_test_harness::Command::new("tar").args(["-c", "-C"]).arg(dir.path()).arg(name);
    packed.run().ok().out
}

fn cp(home: &Home, n: usize) -> Result<(), String> {
    let (name, bytes) = (format!("cp{n}"), payload(n));
    let there = home.docker(["cp", "-", "streams:/tmp"]).stdin(tar(&name, &bytes)).run();
    told(there.code == 0, || there.to_string())?;
    let back = home.docker(["cp", &format!("streams:/tmp/{name}"), "-"]).run();
    let whole = back.out.windows(bytes.len()).any(|w| w == bytes);
    told(back.code == 0 && whole, || format!("code {}, {} bytes back", back.code, back.out.len()))
}

fn load(home: &Home, n: usize) -> Result<(), String> {
    let archive = home.docker(["save", "slipway/welcome"]).run();
    told(archive.code == 0, || archive.to_string())?;
    let loaded = home.docker(["load"]).stdin(archive.out).run();
    told(loaded.code == 0 && loaded.text().contains("slipway/welcome"), || format!("{n}: {loaded}"))
}

fn build(home: &Home, n: usize) -> Result<(), String> {
    let dockerfile = format!("FROM box\nRUN echo {n} > /n\n");
    let tag = format!("built{n}");
    let built = home.docker(["build", "-q", "-t", &tag, "-"]).stdin(dockerfile).run();
    told(built.code == 0, || built.to_string())?;
    let ran = home.docker(["run", "--rm", &tag, "cat", "/n"]).run();
    home.docker(["rmi", "-f", &tag]).run();
    told(ran.code == 0 && ran.text() == n.to_string(), || ran.to_string())
}

fn bulk(home: &Home) {
    // Not compressible to nothing, and cheap to make.
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    let bytes: Vec<u8> = (0..100 << 17)
        .flat_map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()
        })
        .collect();
    assert_eq!(bytes.len(), 100 << 20);
    let ran = home
        .docker(["run", "--rm", "-i", "box", "cat"])
        .stdin(bytes.clone())
        .within(Duration::from_secs(300))
        .run();
    assert!(ran.code == 0 && ran.out == bytes, "{} bytes, code {}: {}", ran.out.len(), ran.code, ran.err);
}

fn terminal(home: &Home) {
    // `script` gives the client a terminal of its own.
    let docker = home.path().join("docker-in-a-terminal");
    std::fs::write(
        &docker,
        "#!/bin/sh\nexec script -qec \"$DOCKER run --rm -t box sh -c 'test -t 1 && stty size && echo yes'\" /dev/null\n",
    )
    .expect("written");
    let program = std::env::var_os("SLIPWAY_TEST_IMAGE").expect("set");
    let ran = home.docker(["--version"]).run().ok();
    assert!(ran.text().contains("Docker version"), "{ran}");
    let ran = slipway_test_harness::Command::new("sh")
        .arg(&docker)
        .env("HOME", home.path())
        .env("DOCKER", std::path::Path::new(&program).join("host-tools/docker"))
        .run()
        .ok();
    assert!(ran.text().contains("yes"), "{ran}");
}
