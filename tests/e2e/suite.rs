//! A public test suite of file systems, pjdfstest, in a container: on a share, and on the machine's own disk.
//!
//! What fails on the disk too says nothing about shares. What fails on the share alone is in `suite.failures` with its reason;
//! a failure that is not there, and one that is there and passes, fail the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_test_harness::{Built, Command, Home};

use crate::{Alone, Shared, events::program, ordinary};

/// Run by `--ignored` alone: the suite is built from its sources.
pub(crate) const ON_DEMAND: &[Shared] = &[("suite_pjdfstest_on_a_share", on_a_share)];
/// The same.
pub(crate) const ALONE_ON_DEMAND: &[Alone] =
    &[("alone_suite_pjdfstest_on_an_ordinary_users_share", on_an_ordinary_users_share)];

/// To build the suite, and to run it where processors are emulated and the host is busy.
const PATIENCE: Duration = Duration::from_secs(900);

const SETTINGS: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
[dummy_auth]
entries = [[\"one\", \"one\"], [\"other\", \"other\"]]
";

/// How each of the suite's tests ended.
type Outcome = BTreeMap<String, String>;

fn outcome(said: &str) -> Outcome {
    let ended = said.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, how) = (words.next()?, words.next()?);
        let is_test = name.contains("::") && ["ok", "FAILED", "skipped"].contains(&how);
        is_test.then(|| (name.to_owned(), how.to_owned()))
    });
    ended.collect()
}

fn failed(outcome: &Outcome) -> BTreeSet<&str> {
    outcome.iter().filter(|(_, how)| *how == "FAILED").map(|(name, _)| name.as_str()).collect()
}

/// The names in `suite.failures`: a line that is not indented is the reason of those below it.
fn explained(ordinary: bool) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    let mut holds = true;
    for line in include_str!("suite.failures").lines() {
        match line.strip_prefix("    ") {
            Some(name) if holds => assert!(names.insert(name), "{name} is there twice"),
            Some(_) => {}
            None => holds = ordinary || !line.starts_with("ordinary users: "),
        }
    }
    names
}

/// What the suite needs in a container: itself, its settings and users, and a `sleep` that may have any name.
fn prepare(home: &Home) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("pjdfstest");
    let suite = Command::new(script).within(PATIENCE).run().ok().text();
    let dir = home.path().join("suite");
    fs::create_dir_all(&dir).expect("made");
    fs::copy(suite, dir.join("pjdfstest")).expect("copied");
    fs::copy(program(home), dir.join("sleep")).expect("copied");
    let users = "root:x:0:0::/:/bin/sh\none:x:2001:2001::/:/bin/sh\nother:x:2002:2002::/:/bin/sh\n";
    let groups = "root:x:0:\none:x:2001:\nother:x:2002:\n";
    for (name, text) in [("settings", SETTINGS), ("passwd", users), ("group", groups)] {
        fs::write(dir.join(name), text).expect("written");
    }
    dir
}

/// Runs the suite in a container with `source` at `/x`.
fn run(home: &Home, suite: &Path, source: &str) -> (Outcome, String) {
    let at = |name: &str, target: &str| format!("{}:{target}:ro", suite.join(name).display());
    let binds =
        [format!("{source}:/x"), at("", "/suite"), at("passwd", "/etc/passwd"), at("group", "/etc/group")];
    let binds = binds.iter().flat_map(|bind| ["-v", bind]);
    let set = ["--rm", "--network", "none", "--tmpfs", "/other", "-e", "PATH=/suite:/bin"];
    let suite = ["box", "pjdfstest", "-c", "/suite/settings", "-s", "/other", "-p", "/x"];
    let ran = home.docker(["run"]).args(set).args(binds).args(suite).within(PATIENCE).run();
    let outcome = outcome(&ran.text());
    assert!(outcome.values().filter(|how| *how == "ok").count() > 300, "the suite was run: {ran}");
    (outcome, ran.text())
}

fn on_a_share(home: &Home) {
    let suite = prepare(home);
    let dir = home.path().join("suite on a share");
    fs::create_dir(&dir).expect("made");
    let person = fs::metadata(home.path()).expect("there");
    chown(&dir, Some(person.uid()), Some(person.gid())).expect("the person's");

    let (disk, _) = run(home, &suite, "suite");
    let (share, said) = run(home, &suite, dir.to_str().expect("text"));
    assert_eq!(disk.keys().collect::<Vec<_>>(), share.keys().collect::<Vec<_>>(), "the same tests");
    let (on_disk, on_share) = (failed(&disk), failed(&share));
    let found: BTreeSet<&str> = on_share.difference(&on_disk).copied().collect();
    let count = |outcome: &Outcome, wanted: &str| outcome.values().filter(|how| *how == wanted).count();
    eprintln!(
        "{} pass on the disk and {} on the share, of {}; {} are skipped, {} fail on the disk too",
        count(&disk, "ok"),
        count(&share, "ok"),
        share.len(),
        count(&share, "skipped"),
        on_disk.len(),
    );
    let known = explained(person.uid() != 0);
    let unexplained: Vec<_> = found.difference(&known).collect();
    let mended: Vec<_> = known.difference(&found).collect();
    assert!(unexplained.is_empty(), "nobody knows why these fail: {unexplained:#?}\n{said}");
    assert!(mended.is_empty(), "these pass, and `suite.failures` says that they do not: {mended:#?}");
}

fn on_an_ordinary_users_share(built: &Built) {
    if let Some(home) = ordinary::machine(built) {
        on_a_share(&home);
    }
}
