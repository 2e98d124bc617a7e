use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    time::Instant,
};

use proptest::prelude::*;
use serde_json::json;
use slipway_api::{Status, Version};

use super::*;

struct Home {
    dir: tempfile::TempDir,
    subject: Subject,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let paths = crate::paths_in(&dir.path().join("h"));
        let docker_config = Some(dir.path().to_owned());
        let exe = "/nonexistent/bin/slipway".into();
        let subject = Subject { paths, exe, docker_config, shell: None, seen: DaemonSeen::Nobody };
        Self { dir, subject }
    }

    fn with_engine(mut self) -> Self {
        let status = json!({"profile": "default", "state": "running", "engine": "28.5.1", "socket": "/s", "machine": null,
            "image": null, "docker": null, "running_since": 1});
        let status: Status = serde_json::from_value(status).expect("a status");
        let version = Version { slipway: "1".into(), pid: 1, engine: None, image: None };
        self.subject.seen = DaemonSeen::Answers { version, status: Box::new(status), mounts: None };
        self
    }

    /// Secrets wherever a person or a program may have put them.
    fn plant(&self, secret: &str) {
        let paths = &self.subject.paths;
        let engine = json!({"log-opts": {"splunk-token": secret}, "registry-mirrors": [format!("https://me:{secret}@m.example")]});
        let text = format!(
            "# the password is {secret}\n[network]\nhttp-proxy = \"http://me:{secret}@proxy.example:3128\"\n[engine]\nconfig = {}\n",
            json!(engine.to_string())
        );
        fs::write(paths.settings_file(), text).expect("written");
        let auth = format!("me:{secret}");
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &auth);
        let docker = json!({"auths": {"r.example": {"auth": auth}}, "HttpHeaders": {"X-Meta": secret}});
        fs::write(self.dir.path().join("config.json"), docker.to_string()).expect("written");
        let line = |text: String| format!("{}\n", json!({"unix_ms": 1, "unit": "dockerd", "line": text}));
        let said = [
            format!("proxy http://me:{secret}@proxy.example:3128 is used"),
            format!("Authorization: Basic {auth}"),
            format!("run -e MYSQL_ROOT_PASSWORD={secret} mysql"),
            // By no name at all: it is known.
            format!("whatever {secret} is"),
            "a line that stays".to_owned(),
        ];
        fs::write(paths.log("dockerd"), said.map(line).concat()).expect("written");
        fs::write(paths.log("console"), format!("X_TOKEN={secret}\nfine\n")).expect("written");
        fs::write(paths.log("shim").with_extension("log.1"), format!("--password {secret}\n"))
            .expect("written");
        let shim = json!({"spec": {"cmdline": format!("a.password={secret} quiet")}});
        fs::write(paths.shim_config(), shim.to_string()).expect("written");
    }
}

/// What lies in a bundle, by its name without the folder.
fn unpacked(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(path).expect("there")));
    let mut files = BTreeMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        let (_, name) = name.split_once('/').expect("in a folder");
        let name = name.to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        files.insert(name, text);
    }
    files
}

#[tokio::test]
async fn a_bundle_without_a_daemon_has_all_that_is_there_and_no_secret() {
    let home = Home::new();
    let secret = "Zq7hush!hush8xQ";
    home.plant(secret);
    let path = home.dir.path().join("x.tar.gz");
    let bundle = bundle(home.subject.clone(), path.clone()).await.expect("made");
    let found = fs::metadata(&path).expect("there");
    assert_eq!((found.permissions().mode() & 0o777, found.len()), (0o600, bundle.bytes));
    let files = unpacked(&path);
    assert_eq!(files.keys().cloned().collect::<Vec<_>>(), {
        let mut names = bundle.files.clone();
        names.sort();
        names
    });
    for (name, text) in &files {
        assert!(!text.contains(secret) && !text.contains("hush"), "{name}: {text}");
    }
    let manifest: Value = serde_json::from_str(&files["manifest.json"]).expect("JSON");
    let listed: Vec<&str> =
        manifest["files"].as_array().expect("a list").iter().filter_map(|f| f["name"].as_str()).collect();
    assert_eq!(listed.len() + 1, files.len(), "all but itself: {listed:?}");
    assert!(manifest["missing"].to_string().contains("no daemon runs"), "{manifest}");
    // What helps is still there.
    assert!(files["logs/dockerd.log"].contains("a line that stays"), "{}", files["logs/dockerd.log"]);
    assert!(files["logs/dockerd.log"].lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(files["logs/console.log"], "X_TOKEN=***\nfine\n");
    assert!(files["settings.json"].contains("proxy.example:3128"), "{}", files["settings.json"]);
    assert!(files["doctor.json"].contains("\"leftovers\"") && files.contains_key("machine/shim.json"));
    let rest = fs::read_dir(home.dir.path())
        .expect("list")
        .filter(|f| f.as_ref().is_ok_and(|f| f.file_name().to_string_lossy().starts_with(".slipway-")));
    assert_eq!(rest.count(), 0, "nothing is left aside");
}

#[tokio::test]
async fn nothing_is_overwritten_and_what_cannot_be_written_is_told() {
    let home = Home::new();
    let path = home.dir.path().join("x.tar.gz");
    fs::write(&path, "mine").expect("written");
    let error = bundle(home.subject.clone(), path.clone()).await.expect_err("it is there");
    assert!(error.code == "file-exists" && error.hint.is_some(), "{error:?}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "mine");
    // Also when it came meanwhile.
    let error = write(&path, &[]).expect_err("it is there");
    assert_eq!(
        (error.code.as_str(), fs::read_to_string(&path).expect("there").as_str()),
        ("file-exists", "mine")
    );
    let error =
        bundle(home.subject.clone(), home.dir.path().join("none/x.tar.gz")).await.expect_err("no folder");
    assert!(error.code == "diagnose-write" && error.hint.is_some(), "{error:?}");
    let error = bundle(home.subject.clone(), "x.tar.gz".into()).await.expect_err("relative");
    assert_eq!(error.code, "bad-request");
}

#[tokio::test]
async fn an_engine_that_hangs_is_not_waited_for() {
    let home = Home::new().with_engine();
    let _silent = UnixListener::bind(home.subject.paths.docker_sock()).expect("bound");
    let began = Instant::now();
    let path = home.dir.path().join("x.tar.gz");
    bundle(home.subject.clone(), path.clone()).await.expect("made");
    assert!(began.elapsed() < PATIENCE * 5, "{:?}", began.elapsed());
    let files = unpacked(&path);
    assert!(files["manifest.json"].contains("did not answer in 3 s"), "{}", files["manifest.json"]);
    assert!(files["status.json"].contains("running"));
}

#[tokio::test]
async fn what_the_engine_says_goes_in_without_its_secrets() {
    let home = Home::new().with_engine();
    let listener = tokio::net::UnixListener::bind(home.subject.paths.docker_sock()).expect("bound");
    let info = json!({"HttpProxy": "http://me:hushhush@proxy:1", "Driver": "overlayfs", "Name": "box"});
    let router = axum::Router::new()
        .route("/info", axum::routing::get(async move || axum::Json(info)))
        .route("/version", axum::routing::get(async || axum::Json(json!({"Version": "28.5.1"}))));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let path = home.dir.path().join("x.tar.gz");
    bundle(home.subject.clone(), path.clone()).await.expect("made");
    server.abort();
    let files = unpacked(&path);
    let info = &files["engine/info.json"];
    assert!(info.contains("overlayfs") && info.contains("http://***@proxy:1"), "{info}");
    assert!(files["engine/version.json"].contains("28.5.1"));
}

#[test]
fn a_long_log_is_cut_at_a_line() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("x.log");
    fs::write(&path, "SECRET=first-line-of-all\nsecond\nthird\n").expect("written");
    assert_eq!(end_of(&path, 20).expect("read"), ("second\nthird\n".to_owned(), false));
    assert!(end_of(&path, 1000).expect("read").1);
    fs::write(&path, "one endless line").expect("written");
    assert_eq!(end_of(&path, 4).expect("read").0, "", "the rest of it may be a secret");
}

#[test]
fn its_name_says_when() {
    assert_eq!(file_name(1_795_512_600_123), "slipway-diagnose-20261124T093000Z.tar.gz");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_planted_secret_is_in_any_file(secret in "Zq[A-Za-z0-9!#$*+._~-]{6,20}xQ") {
        let home = Home::new();
        home.plant(&secret);
        let report = DoctorReport { slipway: "1".into(), profile: "default".into(), checks: Vec::new() };
        let engine = vec![("info", Ok(json!({"HttpsProxy": format!("http://me:{secret}@p:1"), "Labels": [format!("a={secret}")]})))];
        let files = Collected::of(&home.subject, &report, engine).finished(&home.subject);
        prop_assert!(files.iter().any(|(name, _)| name == "logs/dockerd.log"));
        for (name, bytes) in files {
            let text = String::from_utf8(bytes).expect("text");
            prop_assert!(!text.contains(&secret), "{name}: {text}");
        }
    }
}
