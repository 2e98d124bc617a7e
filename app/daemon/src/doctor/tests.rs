use std::{
    fs::{self, File, Permissions},
    os::unix::{fs::PermissionsExt, net::UnixListener},
};

use super::*;

struct Home {
    dir: tempfile::TempDir,
    subject: Subject,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let paths = crate::paths_in(&dir.path().join("h"));
        let subject = Subject {
            paths,
            exe: "/nonexistent/bin/slipway".into(),
            docker_config: Some(dir.path().join("docker")),
            shell: Some(Shell::default()),
            seen: DaemonSeen::Nobody,
        };
        Self { dir, subject }
    }

    async fn look(&self, fix: Fix) -> DoctorReport {
        examine(self.subject.clone(), fix).await.expect("looked")
    }

    async fn of(&self, id: &str, fix: Fix) -> Check {
        self.look(fix).await.checks.into_iter().find(|check| check.id == id).expect("it is looked at")
    }

    async fn nothing_mended(&self, id: &str) -> Check {
        self.of(id, Fix::Only(Vec::new())).await
    }
}

/// As a killed process leaves it.
fn dead_socket(path: &std::path::Path) {
    drop(UnixListener::bind(path).expect("bound"));
}

#[tokio::test]
async fn everything_is_looked_at_once_and_what_is_wrong_says_what_to_do() {
    let report = Home::new().look(Fix::Only(Vec::new())).await;
    let ids: Vec<&str> = report.checks.iter().map(|check| check.id.as_str()).collect();
    let once: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!((once.len(), ids.len()), (CHECKS.len(), CHECKS.len()), "{ids:?}");
    for check in &report.checks {
        let wrong = matches!(check.state, CheckState::Warning | CheckState::Failed);
        assert!(!wrong || check.hint.is_some(), "{check:?}");
        assert!(!check.message.is_empty() && !check.message.ends_with('.'), "{check:?}");
        assert!(!check.fixed, "nothing was asked for: {check:?}");
    }
    let image = report.checks.iter().find(|check| check.id == "image").expect("looked at");
    assert_eq!(image.state, CheckState::Failed, "there is none: {image:?}");
}

#[tokio::test]
async fn a_dead_socket_is_removed_when_asked_for_and_a_living_one_never() {
    let home = Home::new();
    let paths = home.subject.paths.clone();
    assert_eq!(home.nothing_mended("leftovers").await.state, CheckState::Ok);
    dead_socket(&paths.api_sock());
    dead_socket(&paths.shim_sock());
    let living = UnixListener::bind(paths.docker_sock()).expect("bound");
    let found = home.nothing_mended("leftovers").await;
    assert!(found.state == CheckState::Warning && found.fixable, "{found:?}");
    assert_eq!(found.causes.len(), 2, "{found:?}");
    assert!(paths.api_sock().exists(), "looking changes nothing");
    assert!(home.of("leftovers", Fix::Only(vec!["home".into()])).await.state == CheckState::Warning);
    let mended = home.of("leftovers", Fix::Only(vec!["leftovers".into()])).await;
    assert!(mended.fixed && mended.state == CheckState::Ok, "{mended:?}");
    assert!(!paths.api_sock().exists() && !paths.shim_sock().exists() && paths.docker_sock().exists());
    drop(living);
}

#[tokio::test]
async fn a_socket_whose_lock_is_held_stays() {
    let home = Home::new();
    let paths = home.subject.paths.clone();
    dead_socket(&paths.api_sock());
    dead_socket(&paths.shim_sock());
    let lock = File::create(paths.daemon_lock()).expect("made");
    lock.try_lock().expect("held");
    home.look(Fix::All).await;
    assert!(paths.api_sock().exists(), "a daemon lives, and it is its own");
    assert!(!paths.shim_sock().exists(), "no shim lives");
    let daemon = home.nothing_mended("daemon").await;
    assert_eq!(daemon.state, CheckState::Failed, "it lives and does not answer: {daemon:?}");
    lock.unlock().expect("let go");
}

#[tokio::test]
async fn folders_that_others_may_write_to_are_closed() {
    let home = Home::new();
    let paths = &home.subject.paths;
    assert_eq!(home.nothing_mended("home").await.state, CheckState::Ok);
    fs::set_permissions(paths.root(), Permissions::from_mode(0o777)).expect("opened");
    fs::set_permissions(paths.run_dir(), Permissions::from_mode(0o755)).expect("opened");
    let found = home.nothing_mended("home").await;
    assert!(found.state == CheckState::Warning && found.fixable, "{found:?}");
    let mended = home.of("home", Fix::All).await;
    assert!(mended.fixed, "{mended:?}");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(paths.root()), mode(paths.run_dir())), (0o755, 0o700), "others may still look");
}

#[tokio::test]
async fn the_docker_context_is_made_and_mended_and_another_ones_is_left() {
    let home = Home::new();
    let docker = home.dir.path().join("docker");
    assert_eq!(home.nothing_mended("docker-context").await.state, CheckState::NotApplicable, "never started");
    fs::write(home.subject.paths.data_disk(), "").expect("written");
    let missing = home.nothing_mended("docker-context").await;
    assert!(missing.state == CheckState::Warning && missing.fixable, "{missing:?}");
    let mended = home.of("docker-context", Fix::All).await;
    assert!(mended.fixed && mended.message.contains("current"), "{mended:?}");
    let text = fs::read_to_string(docker.join("config.json")).expect("there");
    fs::write(docker.join("config.json"), text.replace("slipway", "other")).expect("written");
    let other = home.nothing_mended("docker-context").await;
    assert!(other.state == CheckState::Warning && other.message.contains("`other`"), "{other:?}");
    assert!(home.of("docker-context", Fix::All).await.fixed);
    fs::write(docker.join("config.json"), "{").expect("written");
    let broken = home.of("docker-context", Fix::All).await;
    assert!(broken.state == CheckState::Failed && !broken.fixed, "{broken:?}");
    assert_eq!(fs::read_to_string(docker.join("config.json")).expect("there"), "{", "it is the person's");
}

#[tokio::test]
async fn wrong_settings_are_told_with_the_mistake() {
    let home = Home::new();
    fs::write(home.subject.paths.settings_file(), "[machine]\ncpu = 2\n").expect("written");
    let found = home.nothing_mended("settings").await;
    assert!(found.state == CheckState::Failed && found.message.contains("machine.cpus"), "{found:?}");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_and_a_missing_authority_are_warnings_without_the_login() {
    let home = Home::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").port();
    let text = format!(
        "[network]\nhttps-proxy = \"http://me:hushhush@127.0.0.1:{port}\"\nauthorities = \"/nonexistent/ca.pem\"\n"
    );
    fs::write(home.subject.paths.settings_file(), text).expect("written");
    let report = home.look(Fix::Only(Vec::new())).await;
    for (id, says) in [("proxies", "refused"), ("authorities", "/nonexistent/ca.pem")] {
        let check = report.checks.iter().find(|check| check.id == id).expect("looked at");
        assert!(check.state == CheckState::Warning && check.causes.concat().contains(says), "{check:?}");
    }
    assert!(!format!("{report:?}").contains("hush"), "{report:?}");
}

#[tokio::test]
async fn a_mend_that_fails_says_why_and_changes_no_verdict() {
    fn look(_: &Ward) -> Finding {
        Finding::warning("ill").hint("rest").fixable()
    }
    fn mend(_: &Ward) -> Result<(), Problem> {
        Err(Problem::new("x", "no medicine").because("sold out"))
    }
    let home = Home::new();
    let settings = config::with(&home.subject.paths, &[]);
    let facts = host::Facts::gather(&home.subject, None).await;
    let ward = Ward { subject: home.subject.clone(), settings, facts };
    let check = examined(&Examination { id: "x", look, mend: Some(mend) }, &ward, &Fix::All);
    assert_eq!((check.state, check.fixed), (CheckState::Warning, false));
    assert_eq!(check.causes, ["it could not be mended: no medicine", "sold out"]);
    assert_eq!(check.hint.as_deref(), Some("rest"));
}
