//! Programs that people run on their folders, as Debian has them: a server that starts anew when its file is saved, and a
//! database that keeps its data there.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use slipway_test_harness::{Home, NODE, Ran};

use crate::{
    Shared,
    events::Watcher,
    ports::{free, page},
};

/// Run by `--ignored` alone: they fetch some 60 MB of packages.
pub(crate) const ON_DEMAND: &[Shared] = &[
    ("programs_node_starts_anew_when_its_file_is_saved", node),
    ("programs_postgres_keeps_its_data", postgres),
];

const POSTGRES: &[&str] = &[
    "busybox-static",
    "postgresql-15",
    "postgresql-client-15",
    "tzdata",
    "libaudit1",
    "libbsd0",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcom-err2",
    "libcrypt1",
    "libedit2",
    "libffi8",
    "libgcc-s1",
    "libgcrypt20",
    "libgmp10",
    "libgnutls30",
    "libgpg-error0",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libicu72",
    "libidn2-0",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libldap-2.5-0",
    "liblz4-1",
    "liblzma5",
    "libmd0",
    "libnettle8",
    "libp11-kit0",
    "libpam0g",
    "libpcre2-8-0",
    "libpq5",
    "libreadline8",
    "libsasl2-2",
    "libselinux1",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libtasn1-6",
    "libtinfo6",
    "libunistring2",
    "libuuid1",
    "libxml2",
    "libzstd1",
    "zlib1g",
];

/// What an emulated machine on a busy host may take for anything that these programs do.
const PATIENCE: Duration = Duration::from_secs(400);
/// An emulated machine takes seconds to start node.
const ANEW: Duration = Duration::from_secs(120);

fn folder(home: &Home, name: &str) -> PathBuf {
    let dir = home.path().join("programs").join(name);
    fs::create_dir_all(&dir).expect("made");
    dir
}

fn node(home: &Home) {
    home.debian_image("node", NODE, PATIENCE);
    let dir = folder(home, "node");
    let (file, aside) = (dir.join("server.js"), dir.join(".server.js.swp"));
    let server = |says: &str| {
        format!(
            "const says = require('./words.js');\n\
             require('http').createServer((_, answer) => answer.end(says('{says}'))).listen(80);\n"
        )
    };
    let words = |mark: &str| format!("module.exports = word => `{mark}${{word}}{mark}`;\n");
    fs::write(&file, server("first")).expect("written");
    fs::write(dir.join("words.js"), words("-")).expect("written");
    let (bind, port) = (format!("{}:/app", dir.display()), free());
    let publish = format!("127.0.0.1:{port}:80");
    let run = ["run", "-d", "--init", "--name", "node", "-v", &bind, "-w", "/app", "-p", &publish, "node"];
    home.docker(run).args(["node", "--watch", "server.js"]).run().ok();
    let shows = |wanted: &str, began: Instant| {
        while !page(port).contains(wanted) {
            if began.elapsed() > ANEW {
                panic!("no {wanted}: {}", home.docker(["logs", "node"]).run());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    };
    shows("-first-", Instant::now());
    home.wait_watched(&dir);
    let logs = Watcher::read(home.docker(["logs", "-f", "node"]));
    let saved = |wanted: &str, save: &dyn Fn()| {
        // Node may have started more than once for the save before.
        while logs.line(Duration::from_secs(1)).is_some() {}
        let began = Instant::now();
        save();
        while !logs.line(ANEW).expect("node says that it starts anew").contains("Restarting") {}
        let heard = began.elapsed();
        let shown = shows(wanted, began);
        eprintln!("{wanted} saved: node starts anew after {heard:.1?}, has done so after {shown:.1?}");
    };
    saved("-second-", &|| fs::write(&file, server("second")).expect("written"));
    // A module of it.
    saved("+second+", &|| fs::write(dir.join("words.js"), words("+")).expect("written"));
    // As editors save.
    saved("+third+", &|| {
        fs::write(&aside, server("third")).expect("written");
        fs::rename(&aside, &file).expect("renamed");
    });
    drop(logs);
    home.docker(["rm", "-f", "node"]).run().ok();
}

fn postgres(home: &Home) {
    home.debian_image("unpacked", POSTGRES, PATIENCE);
    let build = folder(home, "postgres image");
    let dockerfile = "FROM unpacked\n\
        RUN echo 'postgres:x:999:999:PostgreSQL:/db:/bin/sh' > /etc/passwd && chmod 1777 /tmp\n\
        ENV PATH=/usr/lib/postgresql/15/bin:/bin PGHOST=/tmp PGUSER=postgres\n";
    fs::write(build.join("Dockerfile"), dockerfile).expect("written");
    home.docker(["build", "-q", "-t", "postgres"]).arg(&build).within(PATIENCE).run().ok();

    let dir = folder(home, "postgres data");
    let bind = format!("{}:/db", dir.display());
    let once = |user: &str, script: &str| -> Ran {
        let run = ["run", "--rm", "--user", user, "-v", &bind, "postgres", "sh", "-c", script];
        home.docker(run).within(PATIENCE).run().ok()
    };
    once("0", "chown 999:999 /db && chmod 700 /db");
    let began = Instant::now();
    once("999:999", "initdb -D /db/data --locale=C --encoding=UTF8 --auth=trust --data-checksums");
    eprintln!("initdb in {:?}", began.elapsed());

    let run = ["run", "-d", "--name", "postgres", "--user", "999:999", "-v", &bind, "postgres"];
    home.docker(run).args(["postgres", "-D", "/db/data", "-k", "/tmp"]).run().ok();
    let ready = |home: &Home| home.docker(["exec", "postgres", "pg_isready", "-q"]).run().code == 0;
    let sql = |text: &str| {
        home.docker(["exec", "postgres", "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", text])
            .within(PATIENCE)
            .run()
            .ok()
            .text()
    };
    home.wait_for("the database takes connections", PATIENCE, ready);
    sql("create table notes (id int primary key, note text)");
    sql("insert into notes select -n, md5(n::text) from generate_series(1, 20000) n");

    // Somebody writes while it is killed: what it has said to be committed counts.
    let script = "i=0; while :; do i=$((i+1)); echo \"insert into notes values ($i, 'note $i') returning id;\"; done | psql -qAt";
    let mut writer = home.docker(["exec", "postgres", "sh", "-c", script]).spawn();
    let mut committed = 0;
    for line in BufReader::new(writer.stdout.take().expect("a pipe")).lines().map_while(Result::ok) {
        committed = line.parse().expect("a number");
        if committed == 200 {
            home.docker(["kill", "-s", "KILL", "postgres"]).run().ok();
        }
    }
    drop(writer);
    assert!(committed >= 200, "{committed}");
    let code = home.docker(["inspect", "-f", "{{.State.ExitCode}}", "postgres"]).run().ok();
    assert_eq!(code.text(), "137");

    let began = Instant::now();
    home.docker(["start", "postgres"]).run().ok();
    home.wait_for("it has recovered", PATIENCE, ready);
    eprintln!("{committed} commits before it was killed, back after {:?}", began.elapsed());
    let logs = home.docker(["logs", "postgres"]).run().ok();
    assert!(logs.err.contains("was not properly shut down"), "{logs}");
    let known = sql(&format!(
        "select count(*) from notes where id between 1 and {committed} and note = 'note ' || id"
    ));
    assert_eq!(known, committed.to_string(), "all that was committed");
    assert_eq!(sql("select count(*) from notes where id < 0 and note = md5((-id)::text)"), "20000");
    home.docker(["exec", "postgres", "pg_amcheck", "--install-missing", "-d", "postgres"])
        .within(PATIENCE)
        .run()
        .ok();

    home.docker(["stop", "-s", "INT", "-t", "60", "postgres"]).within(PATIENCE).run().ok();
    let checked =
        once("999:999", "pg_checksums --check -D /db/data && stat -c '%u:%g %a' /db/data/PG_VERSION");
    assert!(checked.text().contains("Bad checksums:  0"), "{checked}");
    assert!(checked.text().ends_with("999:999 600"), "as the database made it: {checked}");
    home.docker(["rm", "postgres"]).run().ok();

    let person = fs::symlink_metadata(home.path()).expect("there").uid();
    let mut folders = vec![dir];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).expect("the person may list it").map(|entry| entry.expect("an entry"))
        {
            let meta = fs::symlink_metadata(entry.path()).expect("there");
            assert_eq!(meta.uid(), person, "{} stays the person's", entry.path().display());
            files += 1;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert!(files > 900, "a whole database: {files}");
}
