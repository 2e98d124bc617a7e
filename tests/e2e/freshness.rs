//! When a change of the host is seen in a container: with its event where the host watches, within a second everywhere.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use slipway_test_harness::{Command, Home};

use crate::{
    Shared,
    events::{Watcher, program},
};

pub(crate) const TESTS: &[Shared] = &[
    ("freshness_who_hears_of_a_change_sees_it", with_its_event),
    ("freshness_where_nobody_watches_a_change_is_seen_within_a_second", without_watcher),
];

/// What an emulated machine on a busy host may add to what is promised.
const SLACK: Duration = Duration::from_secs(3);
const PROMISED: Duration = Duration::from_secs(1);

fn run(home: &Home, dir: &Path, words: &[&str]) -> Command {
    let binds = [format!("{}:/x", dir.display()), format!("{}:/look:ro", program(home).display())];
    let run =
        ["run", "--rm", "--init", "--network", "none", "-v", &binds[0], "-v", &binds[1], "box", "/look"];
    home.docker(run).args(words)
}

fn folder(home: &Home, name: &str) -> PathBuf {
    let dir = home.path().join("freshness").join(name);
    fs::create_dir_all(&dir).expect("made");
    dir
}

fn with_its_event(home: &Home) {
    let dir = folder(home, "watched");
    let looker = Watcher::read(run(home, &dir, &["look", "/x"]));
    assert_eq!(looker.line(Duration::from_secs(60)).as_deref(), Some("ready"));
    home.wait_watched(&dir);
    let says = |wanted: String| assert_eq!(looker.line(Duration::from_secs(30)), Some(wanted));
    let file = dir.join("file");
    for round in 0..10 {
        // Of the same length each time: size tells nothing.
        fs::write(&file, format!("a{round}")).expect("written");
        says(format!("CLOSE_WRITE file a{round}"));
        fs::write(dir.join("aside"), format!("b{round}")).expect("written");
        says(format!("CLOSE_WRITE aside b{round}"));
        fs::rename(dir.join("aside"), &file).expect("renamed");
        says(format!("MOVED_TO file b{round}"));
        fs::remove_file(&file).expect("removed");
        says("DELETE file -".into());
    }
}

fn without_watcher(home: &Home) {
    // The setting's default leaves it out.
    let dir = folder(home, "unwatched");
    let objects = dir.join(".git/objects");
    fs::create_dir_all(&objects).expect("made");
    let file = objects.join("file");
    fs::write(&file, "before").expect("written");
    let poller = Watcher::read(run(home, &dir, &["poll", "/x/.git/objects/file"]));
    assert_eq!(poller.line(Duration::from_secs(60)).as_deref(), Some("before"));
    home.wait_watched(&dir);
    let says = |wanted: &str| {
        let began = Instant::now();
        let found = poller.line(PROMISED + SLACK);
        assert_eq!(found.as_deref(), Some(wanted), "within {:?}", began.elapsed());
    };
    for round in ["one", "two", "six"] {
        fs::write(dir.join("aside"), round).expect("written");
        fs::rename(dir.join("aside"), &file).expect("renamed");
        says(round);
        fs::remove_file(&file).expect("removed");
        says("-");
    }
}
