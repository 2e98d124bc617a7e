//! Folders of the host in containers: `-v` both ways, and what is not shared is refused with what to do.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_test_harness::{Home, Ran};

use crate::Shared;

pub(crate) const TESTS: &[Shared] = &[
    ("shares_a_home_folder_works_both_ways", both_ways),
    ("shares_a_host_edit_is_seen_by_a_running_container", edit_is_seen),
    ("shares_owners_are_remembered_and_the_file_stays_the_persons", owners),
    ("shares_what_is_not_shared_is_refused_with_what_to_do", refused),
    ("shares_a_link_leads_out_of_what_is_shared_for_nobody", link_out),
    ("shares_mount_add_and_rm_while_the_machine_runs", add_and_rm),
    ("shares_slipways_own_folder_is_empty_to_containers", own_folder),
];

/// A folder of the person's, empty.
fn folder(home: &Home, name: &str) -> PathBuf {
    let dir = home.path().join("shares").join(name);
    fs::create_dir_all(&dir).expect("made");
    dir
}

/// `docker run --rm -v SOURCE:OPTIONS box sh -c SCRIPT`.
pub(crate) fn with(home: &Home, source: &Path, target: &str, script: &str) -> Ran {
    let bind = format!("{}:{target}", source.display());
    home.docker(["run", "--rm", "-v", &bind, "box", "sh", "-c", script]).run()
}

fn both_ways(home: &Home) {
    let dir = folder(home, "both ways, ünïcode 'q'");
    fs::write(dir.join("from host"), "host\n").expect("written");
    let script = "set -e; cd /x; cat 'from host'; echo guest > new; mkdir -p deep/er; mv 'from host' deep/er/moved; \
        ln -s deep/er/moved link; cat link; ln new hard; echo x > gone; rm gone; truncate -s 1M sparse";
    let ran = with(home, &dir, "/x", script).ok();
    assert_eq!(ran.text(), "host\nhost");
    assert_eq!(fs::read_to_string(dir.join("new")).expect("there"), "guest\n");
    assert_eq!(fs::read_to_string(dir.join("deep/er/moved")).expect("there"), "host\n");
    assert_eq!(fs::read_link(dir.join("link")).expect("a link"), Path::new("deep/er/moved"));
    assert_eq!(fs::metadata(dir.join("new")).expect("there").nlink(), 2);
    assert_eq!(fs::metadata(dir.join("sparse")).expect("there").len(), 1 << 20);
    assert!(!dir.join("gone").exists() && !dir.join("from host").exists());

    // One file, and not to be changed.
    let ran = with(home, &dir.join("new"), "/one:ro", "cat /one; echo no > /one");
    assert!(ran.code != 0 && ran.text() == "guest" && ran.err.contains("Read-only"), "{ran}");
    assert_eq!(fs::read_to_string(dir.join("new")).expect("there"), "guest\n");

    // As the engine does it: `-v` makes the folder that is not there, on the host and not in the machine.
    with(home, &dir.join("not/yet"), "/x", "touch /x/made").ok();
    assert!(dir.join("not/yet/made").is_file());
}

fn edit_is_seen(home: &Home) {
    let dir = folder(home, "edit");
    let file = dir.join("file");
    fs::write(&file, "one").expect("written");
    let bind = format!("{}:/x", dir.display());
    let script = "while sleep 0.1; do echo $(cat /x/file) $(ls /x); done";
    home.docker(["run", "-d", "--name", "looker", "-v", &bind, "box", "sh", "-c", script]).run().ok();
    // Much more than the second that it may take, because logs and an emulated machine take their time too.
    let sees = |what: &str| {
        home.wait_for(what, Duration::from_secs(10), |home| {
            home.docker(["logs", "--tail", "1", "looker"]).run().ok().text() == what
        });
    };
    sees("one file");
    fs::write(&file, "two").expect("written");
    sees("two file");
    // As an editor saves.
    fs::write(dir.join("aside"), "three").expect("written");
    fs::rename(dir.join("aside"), &file).expect("renamed");
    sees("three file");
    fs::write(dir.join("more"), "").expect("written");
    sees("three file more");
    fs::remove_file(dir.join("more")).expect("removed");
    sees("three file");
    home.docker(["rm", "-f", "looker"]).run().ok();
}

fn owners(home: &Home) {
    let dir = folder(home, "owners");
    let before = fs::metadata(&dir).expect("there");
    let script = "touch /x/f; chown 999:998 /x/f; chmod 600 /x/f; stat -c '%u:%g %a' /x/f";
    assert_eq!(with(home, &dir, "/x", script).ok().text(), "999:998 600");
    // Another container, later.
    assert_eq!(with(home, &dir, "/x", "stat -c '%u:%g %a' /x/f").ok().text(), "999:998 600");
    let file = fs::metadata(dir.join("f")).expect("there");
    assert_eq!((file.uid(), file.gid()), (before.uid(), before.gid()));
}

fn refused(home: &Home) {
    let outside = tempfile::tempdir().expect("a folder");
    let outside = outside.path().canonicalize().expect("real");
    fs::write(outside.join("secret"), "x").expect("written");
    let shown = outside.display();
    let told = |ran: &Ran| {
        assert_ne!(ran.code, 0, "{ran}");
        assert!(ran.err.contains(&format!("{shown} is not shared with Slipway")), "{ran}");
        assert!(ran.err.contains(&format!("slipway mount add {shown}")), "{ran}");
    };
    told(&with(home, &outside, "/x", "ls /x"));
    let mount = format!("type=bind,src={shown},dst=/x");
    told(&home.docker(["run", "--rm", "--mount", &mount, "box", "true"]).run());
    let device = format!("device={shown}");
    let volume = ["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "outside"];
    told(&home.docker(volume).run());
    // Nothing was made for what was refused.
    let left = home.docker(["ps", "-aq", "--filter", &format!("volume={shown}")]).run().ok();
    assert_eq!(left.text(), "");
    let there = home.slipway(["shell", "--", "ls", "-d"]).arg(&outside).run();
    assert_ne!(there.code, 0, "the machine has no folder there: {there}");
    // What the machine has itself is no folder of the host.
    let socket = "/var/run/docker.sock:/s";
    home.docker(["run", "--rm", "-v", socket, "box", "test", "-S", "/s"]).run().ok();
}

fn link_out(home: &Home) {
    let dir = folder(home, "links");
    let outside = tempfile::tempdir().expect("a folder");
    let outside = outside.path().canonicalize().expect("real");
    fs::write(outside.join("secret"), "x").expect("written");
    symlink(&outside, dir.join("out")).expect("linked");
    // Named as a source it is followed, and refused where it ends.
    let ran = with(home, &dir.join("out"), "/x", "cat /x/secret");
    assert!(ran.code != 0 && ran.err.contains(&format!("{} is not shared", outside.display())), "{ran}");
    // Inside a share a link means a path of the container.
    let ran = with(home, &dir, "/x", "cat /x/out/secret; readlink /x/out");
    assert!(ran.text() == outside.to_str().expect("UTF-8") && ran.err.contains("can't open"), "{ran}");
}

fn add_and_rm(home: &Home) {
    let outside = tempfile::tempdir().expect("a folder");
    let outside = outside.path().canonicalize().expect("real");
    fs::write(outside.join("data"), "data").expect("written");
    home.slipway(["mount", "add", "--read-only"]).arg(&outside).run().ok();
    let listed = || {
        let list = home.slipway(["mount", "ls", "--json"]).run().ok();
        let list: serde_json::Value = serde_json::from_slice(&list.out).expect("JSON");
        let mounts = list["mounts"].as_array().expect("a list").clone();
        mounts.into_iter().find(|mount| mount["path"].as_str() == outside.to_str())
    };
    let mount = listed().expect("it is listed");
    assert!(
        mount["read_only"] == true && mount["origin"] == "added" && mount["problem"].is_null(),
        "{mount}"
    );
    let ran = with(home, &outside, "/x", "cat /x/data; echo no > /x/data");
    assert!(ran.code != 0 && ran.text() == "data" && ran.err.contains("Read-only"), "{ran}");
    assert_eq!(fs::read_to_string(outside.join("data")).expect("there"), "data");

    home.slipway(["mount", "rm"]).arg(&outside).run().ok();
    assert!(listed().is_none());
    let ran = with(home, &outside, "/x", "cat /x/data");
    assert!(ran.code != 0 && ran.err.contains("is not shared with Slipway"), "{ran}");
    let again = home.slipway(["mount", "rm"]).arg(&outside).run();
    assert!(again.code == 1 && again.err.contains("is not shared"), "{again}");
    let missing = home.slipway(["mount", "add", "/nonexistent/folder"]).run();
    assert!(missing.code == 1 && missing.err.contains("cannot be shared"), "{missing}");
}

/// What is in it belongs to the host's side: sockets, settings, the machine's disk, programs that the person runs.
fn own_folder(home: &Home) {
    assert!(home.file("settings.toml").is_file());
    let script = "ls -A /h/.slipway | wc -l; echo x > /h/.slipway/x || echo refused";
    let ran = with(home, home.path(), "/h", script).ok();
    assert_eq!(ran.text(), "0\nrefused", "{ran}");
    let ran = with(home, &home.path().join(".slipway"), "/s", "ls -A /s | wc -l").ok();
    assert_eq!(ran.text(), "0", "{ran}");
}
