//! Processes that are killed: what runs goes on, what was written stays, and the state tells the truth.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use slipway_test_harness::{Command, Home, Logind, gone, kill};

use crate::Shared;

pub(crate) const TESTS: &[Shared] = &[
    ("crash_a_killed_daemon_stops_nothing", daemon_killed),
    ("crash_a_paused_machine_stands_still_goes_on_and_outlives_its_daemon", paused),
    ("crash_after_a_sleep_of_this_computer_the_clock_of_the_machine_is_right_at_once", slept),
    ("crash_killed_containerd_and_dockerd_come_back", services_killed),
    ("crash_a_killed_qemu_is_told_and_no_acknowledged_write_is_lost", qemu_killed),
    ("crash_ten_starts_at_once_are_one_machine", ten_starts),
    ("crash_a_stop_is_orderly_and_the_disk_is_clean", orderly_stop),
];

fn daemon_killed(home: &Home) {
    let script = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done";
    home.docker(["run", "-d", "--name", "counter", "box", "sh", "-c", script]).run().ok();
    let mut follower = home.docker(["logs", "-f", "counter"]).spawn();
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let mut next = move || lines.next().expect("it goes on").expect("text").parse::<u64>().expect("a number");
    assert_eq!(next(), 0);
    let started = home.docker(["inspect", "-f", "{{.State.StartedAt}}", "counter"]).run().ok().text();
    let (machine, daemon) = (home.machine_pid(), home.daemon_pid().expect("it runs"));
    kill(daemon, "KILL");
    home.wait_for("the daemon is gone", Duration::from_secs(5), |_| gone(daemon));
    // The stream goes on without it.
    for expected in 1..30 {
        assert_eq!(next(), expected);
    }
    let began = Instant::now();
    home.wait_for("a new daemon has the machine", Duration::from_secs(10), |home| {
        home.slipway(["status"]).run().code == 0
    });
    println!("a new daemon had the machine after {} ms", began.elapsed().as_millis());
    assert_eq!(home.machine_pid(), machine, "the same machine");
    assert_ne!(home.daemon_pid(), Some(daemon), "another daemon");
    for expected in 30..50 {
        assert_eq!(next(), expected);
    }
    let after = home.docker(["inspect", "-f", "{{.State.StartedAt}}", "counter"]).run().ok().text();
    assert_eq!(after, started, "the container never stopped");
    drop(follower);
    home.docker(["rm", "-f", "counter"]).run().ok();
}

fn paused(home: &Home) {
    let script = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done";
    home.docker(["run", "-d", "--name", "counter", "box", "sh", "-c", script]).run().ok();
    let started = home.docker(["inspect", "-f", "{{.State.StartedAt}}", "counter"]).run().ok().text();
    home.slipway(["pause"]).run().ok();
    home.slipway(["pause"]).run().ok();
    assert_eq!(home.status()["state"], "paused");
    assert_eq!(home.slipway(["status", "--quiet"]).run().code, 3, "nobody answers");
    let refused = home.docker(["ps"]).run();
    assert!(refused.code != 0 && refused.err.contains("paused"), "{refused}");
    assert!(refused.err.contains("slipway resume"), "what to do is said: {refused}");
    let refused = home.slipway(["shell", "--", "true"]).run();
    assert!(
        refused.code != 0 && refused.err.contains("slipway resume"),
        "at once, with what to do: {refused}"
    );
    let folder = home.file("shared-later");
    std::fs::create_dir(&folder).expect("made");
    let refused = home.slipway(["mount", "add"]).arg(&folder).run();
    assert!(refused.code != 0 && refused.err.contains("slipway resume"), "nor is it half done: {refused}");
    let usage: serde_json::Value =
        serde_json::from_slice(&home.slipway(["disk", "usage", "--json"]).run().ok().out).expect("JSON");
    assert_eq!(usage["missing"][0]["code"], "paused", "{usage}");
    let before = wakings(home);
    std::thread::sleep(Duration::from_secs(2));
    let woken = wakings(home) - before;
    // The next daemon finds it so, and leaves it so.
    let daemon = home.daemon_pid().expect("a daemon");
    kill(daemon, "KILL");
    home.wait_for("the daemon is gone", Duration::from_secs(5), |_| gone(daemon));
    home.wait_for("a new daemon says so too", Duration::from_secs(10), |home| {
        home.slipway(["status"]).run().text().contains("paused")
    });
    home.slipway(["resume"]).run().ok();
    assert_eq!(woken, 0, "it stands still");
    let (here, there) = clocks(home);
    assert!(here.abs_diff(there) <= 1, "its clock goes on too: {here} here, {there} there");
    let after = home.docker(["inspect", "-f", "{{.State.StartedAt}}", "counter"]).run().ok().text();
    assert_eq!(after, started, "the container never stopped");
    // A start is for a machine that answers, too; and within one daemon's life.
    home.slipway(["pause"]).run().ok();
    home.slipway(["start"]).run().ok();
    home.docker(["rm", "-f", "counter"]).run().ok();
}

/// How often a thread of the machine has gone to sleep, and so been woken.
fn wakings(home: &Home) -> u64 {
    let tasks =
        std::fs::read_dir(format!("/proc/{}/task", home.machine_pid().expect("it runs"))).expect("listed");
    let of = |task: PathBuf| {
        let status = std::fs::read_to_string(task.join("status")).expect("read");
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps.and_then(|count| count.trim().parse::<u64>().ok()).expect("counted")
    };
    tasks.map(|task| of(task.expect("an entry").path())).sum()
}

/// Seconds since the epoch, by this computer and by the machine.
fn clocks(home: &Home) -> (u64, u64) {
    let there = home.slipway(["shell", "--", "date", "+%s"]).run().ok().text();
    let here = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    (here, there.parse().expect("seconds"))
}

fn slept(home: &Home) {
    let bus = home.file("bus");
    let Some(logind) = Logind::on(&bus) else {
        return println!("skipped: `dbus-daemon` is not installed");
    };
    kill(home.daemon_pid().expect("a daemon"), "KILL");
    let address = format!("unix:path={}", bus.display());
    home.wait_for("a new daemon on that bus has the machine", Duration::from_secs(10), |home| {
        home.slipway(["status"]).env("DBUS_SYSTEM_BUS_ADDRESS", &address).run().code == 0
    });
    // The daemon looks at the clock every five seconds in any case: five times in a row within one is no accident. The first
    // signals may come before it listens.
    let mut row = 0;
    for _ in 0..15 {
        home.slipway(["shell", "--", "date", "-s", "@86400"]).run().ok();
        logind.says_that_it_sleeps(false);
        let told = Instant::now();
        let mut at_once = false;
        while !at_once && told.elapsed() < Duration::from_secs(1) {
            let (here, there) = clocks(home);
            at_once = here.abs_diff(there) <= 1;
        }
        println!("the clock is right {:?} after the signal: {at_once}", told.elapsed());
        row = if at_once { row + 1 } else { 0 };
        if row == 5 {
            return;
        }
    }
    panic!("the clock stayed wrong for a second after a signal, again and again");
}

fn services_killed(home: &Home) {
    for service in ["dockerd", "containerd"] {
        home.slipway(["shell", "--", "sh", "-c", &format!("kill -9 $(pidof {service})")]).run().ok();
        home.wait_for(&format!("{service} is up again"), Duration::from_secs(120), |home| {
            home.docker(["run", "--rm", "box", "echo", "on"]).run().code == 0
        });
    }
    home.wait_for("all is well again", Duration::from_secs(60), |home| {
        home.slipway(["status"]).run().code == 0
    });
    let status = home.status();
    let services = status["services"].as_array().expect("a list");
    assert!(services.iter().all(|s| s["restarts"].as_u64() >= Some(1)), "{status}");
}

fn qemu_killed(home: &Home) {
    home.docker(["volume", "create", "ledger"]).run().ok();
    // Each number is on the disk before it is said.
    let script = "i=0; while true; do echo $i >> /v/ledger; sync /v/ledger; echo $i; i=$((i+1)); done";
    home.docker(["run", "-d", "--name", "clerk", "-v", "ledger:/v", "box", "sh", "-c", script]).run().ok();
    let mut follower = home.docker(["logs", "-f", "clerk"]).spawn();
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    for _ in 0..100 {
        lines.next().expect("it goes on").expect("text");
    }
    let pid = home.machine_pid().expect("it runs");
    kill(pid, "KILL");
    // What was read until the end was acknowledged.
    let mut acknowledged = 99;
    while let Some(Ok(line)) = lines.next() {
        match line.parse::<u64>() {
            Ok(number) => acknowledged = number,
            Err(_) => break,
        }
    }
    drop(follower);
    home.wait_for("the end is told", Duration::from_secs(10), |home| {
        home.slipway(["status"]).run().code == 1
    });
    let ran = home.slipway(["status"]).run();
    assert!(ran.text().contains("ended unexpectedly") && ran.text().contains("signal 9"), "{ran}");
    let refused = home.docker(["ps"]).run();
    assert!(refused.code != 0 && refused.err.contains("ended unexpectedly"), "{refused}");
    assert!(refused.err.contains("slipway"), "what to do is said: {refused}");

    home.start();
    let read = home.docker(["run", "--rm", "-v", "ledger:/v", "box", "cat", "/v/ledger"]).run().ok();
    let kept: Vec<u64> = read.text().lines().map(|l| l.parse().expect("whole lines")).collect();
    assert!(kept.len() as u64 > acknowledged, "{} kept, {acknowledged} acknowledged", kept.len());
    assert!(kept.iter().enumerate().all(|(at, n)| at as u64 == *n), "in order");
    home.docker(["rm", "-f", "clerk"]).run();
    home.docker(["volume", "rm", "ledger"]).run().ok();
}

fn ten_starts(home: &Home) {
    home.slipway(["stop"]).run().ok();
    assert_eq!(home.slipway(["status"]).run().code, 3);
    let starters: Vec<_> = (0..10).map(|_| home.slipway(["start"]).spawn()).collect();
    for starter in starters {
        starter.end().ok();
    }
    let disk = home.file("machine/data.raw");
    let users = Command::new("sh")
        .args([
            "-c",
            "for p in /proc/[0-9]*; do ls -l $p/fd 2>/dev/null | grep -q \"$0\" && echo $p; done; true",
        ])
        .arg(&disk)
        .run()
        .ok();
    assert_eq!(users.text().lines().count(), 1, "one process has the data disk open:\n{users}");
    home.docker(["image", "inspect", "box"]).run().ok();
}

fn orderly_stop(home: &Home) {
    let script = "trap 'echo bye > /v/word; exit 0' TERM; while true; do sleep 0.1; done";
    home.docker(["run", "-d", "--name", "polite", "-v", "words:/v", "box", "sh", "-c", script]).run().ok();
    let pid = home.machine_pid().expect("it runs");
    // What stands still goes on to end in order.
    home.slipway(["pause"]).run().ok();
    home.slipway(["stop"]).run().ok();
    home.wait_for("the machine's process is gone", Duration::from_secs(5), |_| gone(pid));
    let checked =
        Command::new("/usr/sbin/e2fsck").args(["-f", "-n"]).arg(home.file("machine/data.raw")).run();
    assert!(checked.code == 0 && !checked.text().contains("recovering journal"), "{checked}");
    let down = home.docker(["ps"]).run();
    assert!(down.code != 0 && down.err.contains("slipway start"), "{down}");
    home.start();
    let word = home.docker(["run", "--rm", "-v", "words:/v", "box", "cat", "/v/word"]).run().ok();
    assert_eq!(word.text(), "bye", "it had its time to end");
    home.docker(["rm", "-f", "polite"]).run().ok();
    home.docker(["volume", "rm", "words"]).run().ok();
}
