//! Slipway of an ordinary user, who may do on this host none of what root in a container does to files.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
};

use slipway_test_harness::{Built, Home};

use crate::{Alone, events};

pub(crate) const TESTS: &[Alone] =
    &[("alone_for_an_ordinary_user_containers_own_what_they_make_on_a_share", owners)];

/// Whoever has no files on this host.
const USER: u32 = 64_123;

/// A machine of such a user; none where every test is one of an ordinary user.
pub(crate) fn machine(built: &Built) -> Option<Home> {
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        println!("skipped: who runs these tests is an ordinary user already");
        return None;
    }
    let home = Home::of_user(built, USER);
    home.start();
    home.busybox_image();
    Some(home)
}

fn owners(built: &Built) {
    let Some(home) = machine(built) else { return };
    let dir = home.path().join("work");
    fs::create_dir(&dir).expect("made");
    fs::write(dir.join("object"), "theirs\n").expect("written");
    fs::set_permissions(dir.join("object"), fs::Permissions::from_mode(0o400)).expect("chmod");
    for path in [&dir, &dir.join("object")] {
        chown(path, Some(USER), Some(USER)).expect("given to them");
    }
    let bind = format!("{}:/x", dir.display());
    let run = |user: &str, script: &str| {
        let run = ["run", "--rm", "--network", "none", "-u", user, "-v", &bind, "box", "sh", "-c", script];
        home.docker(run).run().ok().text()
    };
    // As an installer does it, and then as root always could.
    let said = run(
        "0",
        "set -e; cd /x; mkdir -p home/.config; echo hi > home/.config/rc; ln -s .config home/link; echo s > home/secret; \
         chown -R 1001:1001 home; chmod 600 home/secret; mkdir -m 700 db; chown 999:998 db; echo more >> object; \
         stat -c '%u:%g %a %n' home home/.config/rc home/secret db",
    );
    assert_eq!(
        said,
        "1001:1001 755 home\n1001:1001 644 home/.config/rc\n1001:1001 600 home/secret\n999:998 700 db"
    );
    // As the database itself, in another container.
    let said = run(
        "999:998",
        "cd /x; umask 077; echo row > db/base; mkdir db/wal; stat -c '%u:%g %a %n' db/base db/wal; cat home/secret; \
         chown 1001 db/base || echo not allowed",
    );
    assert_eq!(said, "999:998 600 db/base\n999:998 700 db/wal\nnot allowed");
    assert_eq!(run("0", "cat /x/db/base /x/object"), "row\ntheirs\nmore");
    // And every file is the person's, as they had it.
    for path in ["home", "home/.config/rc", "home/secret", "db", "db/base", "object"] {
        let found = fs::metadata(dir.join(path)).expect("there");
        assert_eq!((found.uid(), found.gid()), (USER, USER), "{path}");
    }
    assert_eq!(fs::metadata(dir.join("object")).expect("there").mode() & 0o777, 0o400);
    events::editor(&home);
}
