//! The splice against every way in which people and programs write JSON.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

struct Docker {
    dir: tempfile::TempDir,
    it: DockerContext,
}

fn docker(config: Option<&str>) -> Docker {
    let dir = tempfile::tempdir().expect("folder");
    let it = DockerContext::new(dir.path().join(".docker"));
    if let Some(config) = config {
        fs::create_dir(dir.path().join(".docker")).expect("made");
        fs::write(it.config(), config).expect("written");
    }
    Docker { dir, it }
}

impl Docker {
    fn config(&self) -> String {
        fs::read_to_string(self.it.config()).expect("read")
    }
    fn mode(&self) -> u32 {
        fs::metadata(self.it.config()).expect("there").mode() & 0o7777
    }
}

#[test]
fn a_context_is_described_where_docker_looks_for_it() {
    let docker = docker(None);
    assert!(docker.it.ensure("slipway", Path::new("/h/a b/docker.sock")).expect("written"));
    assert!(!docker.it.ensure("slipway", Path::new("/h/a b/docker.sock")).expect("is there"));
    let meta = fs::read_to_string(docker.it.meta_dir("slipway").join("meta.json")).expect("read");
    assert_eq!(
        serde_json::from_str::<Value>(&meta).expect("JSON"),
        json!({"Name": "slipway", "Metadata": {"Description": "Slipway"},
            "Endpoints": {"docker": {"Host": "unix:///h/a b/docker.sock", "SkipTLSVerify": false}}})
    );
    assert!(docker.it.ensure("slipway", Path::new("/elsewhere.sock")).expect("moved"));
    assert!(docker.it.remove("slipway").expect("removed"));
    assert!(!docker.it.remove("slipway").expect("is gone"));
    assert!(!docker.it.meta_dir("slipway").exists());
}

#[test]
fn a_look_tells_whose_a_context_is_and_changes_nothing() {
    let docker = docker(None);
    let (here, there) = (Path::new("/h/docker.sock"), Path::new("/elsewhere.sock"));
    let look = |socket| docker.it.look("slipway", socket).expect("looked");
    assert_eq!(look(here), Described::Missing);
    assert!(!docker.it.meta_file("slipway").exists());
    docker.it.ensure("slipway", there).expect("written");
    assert_eq!(
        (look(there), look(here)),
        (Described::Right, Described::Wrong(Some("unix:///elsewhere.sock".into())))
    );
    let meta = docker.it.meta_file("slipway");
    fs::write(&meta, "{").expect("written");
    assert_eq!(look(here), Described::Wrong(None));
    let theirs = json!({"Name": "slipway", "Endpoints": {"docker": {"Host": "tcp://x"}}});
    fs::write(&meta, theirs.to_string()).expect("written");
    assert_eq!(look(here), Described::Foreign);
}

#[test]
fn the_folder_is_named_by_the_sha256_of_the_name() {
    let dir = docker(None).it.meta_dir("abc");
    assert!(dir.ends_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "{dir:?}");
}

#[test]
fn a_context_of_somebody_else_is_left_alone() {
    let docker = docker(None);
    let dir = docker.it.meta_dir("slipway");
    fs::create_dir_all(&dir).expect("made");
    let theirs = r#"{"Name":"slipway","Metadata":{},"Endpoints":{"docker":{"Host":"ssh://me@there"}}}"#;
    fs::write(dir.join("meta.json"), theirs).expect("written");
    let error = docker.it.ensure("slipway", Path::new("/s")).expect_err("taken");
    assert!(matches!(error, ContextError::Foreign(_)), "{error}");
    assert!(!docker.it.remove("slipway").expect("looked"));
    assert_eq!(fs::read_to_string(dir.join("meta.json")).expect("read"), theirs);
}

#[test]
fn a_file_that_is_not_there_is_made_for_the_person_alone() {
    let docker = docker(None);
    assert_eq!(docker.it.current().expect("looked"), None);
    assert!(!docker.it.release("slipway").expect("nothing to release"));
    assert_eq!(docker.it.use_it("slipway").expect("used"), Used::Changed { before: None });
    assert_eq!(docker.mode(), 0o600);
    assert_eq!(docker.config(), "{\n\t\"currentContext\": \"slipway\"\n}\n");
    assert_eq!(docker.it.current().expect("read").as_deref(), Some("slipway"));
    assert_eq!(docker.it.use_it("slipway").expect("used"), Used::Already);
}

#[test]
fn every_other_byte_stays() {
    let cases = [
        ("{\n\t\"auths\": {}\n}\n", "{\n\t\"auths\": {},\n\t\"currentContext\": \"slipway\"\n}\n"),
        ("{\"b\":1,\"a\":[1,2]}", "{\"b\":1,\"a\":[1,2],\"currentContext\":\"slipway\"}"),
        ("{\r\n  \"a\" : 1\r\n}\r\n", "{\r\n  \"a\" : 1,\r\n  \"currentContext\" : \"slipway\"\r\n}\r\n"),
        ("\u{feff}{\"a\": 1}", "\u{feff}{\"a\": 1,\"currentContext\": \"slipway\"}"),
        ("{}", "{\n\t\"currentContext\": \"slipway\"\n}"),
        ("{\n}\n", "{\n\t\"currentContext\": \"slipway\"\n}\n"),
        (" \n", " \n{\n\t\"currentContext\": \"slipway\"\n}\n"),
        ("{\"currentContext\": \"desktop\" , \"z\":0}", "{\"currentContext\": \"slipway\" , \"z\":0}"),
        ("{\"currentContext\":null}", "{\"currentContext\":\"slipway\"}"),
        // Of several the last counts; in others' objects it is not ours; escapes and cases are docker's to read.
        (
            "{\"currentContext\":\"a\",\"x\":{\"currentContext\":\"b\"},\"currentContext\":\"c\"}",
            "{\"currentContext\":\"a\",\"x\":{\"currentContext\":\"b\"},\"currentContext\":\"slipway\"}",
        ),
        (
            "{\"x\":[{\"currentContext\":\"b\"},\"}\\\"{\\\\\"]}",
            "{\"x\":[{\"currentContext\":\"b\"},\"}\\\"{\\\\\"],\"currentContext\":\"slipway\"}",
        ),
        ("{\"curr\\u0065ntContext\":\"a\\\"}\"}", "{\"curr\\u0065ntContext\":\"slipway\"}"),
        ("{\"CURRENTCONTEXT\":\"a\"}", "{\"CURRENTCONTEXT\":\"slipway\"}"),
        ("{\"a\":\"currentContext\"}", "{\"a\":\"currentContext\",\"currentContext\":\"slipway\"}"),
        ("{\"a\":-1.5e3 }", "{\"a\":-1.5e3,\"currentContext\":\"slipway\" }"),
    ];
    for (before, after) in cases {
        let docker = docker(Some(before));
        docker.it.use_it("slipway").expect("used");
        assert_eq!(docker.config(), after, "{before:?}");
        assert_eq!(docker.it.current().expect("read").as_deref(), Some("slipway"), "{after:?}");
    }
}

#[test]
fn a_release_takes_only_what_is_ours() {
    let cases = [
        ("{\n\t\"currentContext\": \"slipway\",\n\t\"auths\": {}\n}\n", "{\n\t\"auths\": {}\n}\n"),
        ("{\"a\":1, \"currentContext\":\"slipway\" ,\"b\":2}", "{\"a\":1 ,\"b\":2}"),
        ("{\n\t\"currentContext\": \"slipway\"\n}\n", "{\n}\n"),
        ("{\"currentContext\":\"other\"}", "{\"currentContext\":\"other\"}"),
        ("{\"currentContext\":\"slipway\",\"currentContext\":\"slipway\"}", "{}"),
        ("{\"currentContext\":\"other\",\"currentContext\":\"slipway\"}", "{\"currentContext\":\"other\"}"),
    ];
    for (before, after) in cases {
        let docker = docker(Some(before));
        assert_eq!(docker.it.release("slipway").expect("released"), before != after);
        assert_eq!(docker.config(), after, "{before:?}");
    }
}

#[test]
fn what_is_not_json_is_left_alone() {
    for before in ["{", "[]", "\"x\"", "{\"a\":1}}", "{\"a\":1,}", "// mine\n{}", "{'a':1}", "nul"] {
        let docker = docker(Some(before));
        let error = docker.it.use_it("slipway").expect_err(before);
        assert!(matches!(error, ContextError::Json { .. } | ContextError::NotAnObject(_)), "{error}");
        assert!(error.to_string().contains("config.json"), "{error}");
        assert!(docker.it.release("slipway").is_err());
        assert_eq!(docker.config(), before);
    }
    let docker = docker(Some(""));
    fs::write(docker.it.config(), b"{\"a\":\"\xff\"}").expect("written");
    assert!(matches!(docker.it.use_it("slipway"), Err(ContextError::Read { .. })));
}

#[test]
fn mode_and_links_stay() {
    let docker = docker(Some("{}"));
    for mode in [0o600, 0o644, 0o640] {
        fs::set_permissions(docker.it.config(), fs::Permissions::from_mode(mode)).expect("chmod");
        docker.it.use_it(&format!("m{mode}")).expect("used");
        assert_eq!(docker.mode(), mode);
    }
    let real = docker.dir.path().join("dotfiles.json");
    for there in [true, false] {
        fs::remove_file(docker.it.config()).expect("removed");
        fs::remove_file(&real).ok();
        if there {
            fs::write(&real, "{\"a\":1}").expect("written");
        }
        // Relative, as people's link farms make them.
        symlink("../dotfiles.json", docker.it.config()).expect("linked");
        docker.it.use_it("slipway").expect("used");
        assert!(docker.it.config().is_symlink(), "the link stays");
        assert!(fs::read_to_string(&real).expect("read").contains("slipway"), "its file is changed");
    }
    fs::remove_file(docker.it.config()).expect("removed");
    symlink("config.json", docker.it.config()).expect("linked");
    assert!(docker.it.use_it("slipway").is_err(), "a link to itself leads nowhere");
    let rest: Vec<_> = fs::read_dir(docker.dir.path().join(".docker")).expect("list").collect();
    assert_eq!(rest.len(), 1, "nothing is left aside: {rest:?}");
}

#[test]
fn names_are_written_as_json() {
    let docker = docker(Some("{}"));
    docker.it.use_it("a\"\\b").expect("used");
    assert_eq!(docker.it.current().expect("read").as_deref(), Some("a\"\\b"));
}

fn blanks() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(vec![" ", "\t", "\n", "\r\n"]), 0..3)
        .prop_map(|b| b.concat())
}

fn key() -> impl Strategy<Value = String> {
    let any = any::<String>().prop_map(|s| Value::from(s).to_string());
    let near =
        proptest::sample::select(vec!["\"currentContext\"", "\"\\u0063urrentContext\"", "\"}\"", "\"\""]);
    prop_oneof![4 => any, 1 => near.prop_map(str::to_owned)]
}

/// JSON as text, with blanks wherever they may be.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("-1.5E+10".to_owned()),
        any::<String>().prop_map(|s| Value::from(s).to_string()),
        Just("\"\\\\\\\"{[\\u0041\"".to_owned()),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let list = proptest::collection::vec((blanks(), inner.clone(), blanks()), 0..4);
        let list = list.prop_map(|l| {
            format!("[{}]", l.iter().map(|(a, v, b)| format!("{a}{v}{b}")).collect::<Vec<_>>().join(","))
        });
        prop_oneof![list, object(inner)]
    })
}

fn object(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (blanks(), key(), blanks(), blanks(), inner, blanks());
    (proptest::collection::vec(member, 0..4), blanks()).prop_map(|(members, empty)| {
        let members: Vec<String> =
            members.iter().map(|(a, k, b, c, v, d)| format!("{a}{k}{b}:{c}{v}{d}")).collect();
        format!("{{{}}}", if members.is_empty() { empty } else { members.join(",") })
    })
}

proptest! {
    #[test]
    fn all_other_bytes_of_any_object_stay(
        (bom, head, body, tail) in (any::<bool>(), blanks(), object(value()), blanks()),
        name in any::<String>(),
    ) {
        let before = format!("{}{head}{body}{tail}", if bom { "\u{feff}" } else { "" });
        let path = Path::new("config.json");
        let found = document(path, &before).expect("an object").expect("not empty");
        let after = with_current(path, &before, &name).expect("spliced");
        // Exactly one piece differs: the old value, or nothing where there was none.
        let (from, to) = match found.ours {
            Some(at) => (found.members[at].value, found.members[at].value_end),
            None => found.members.last().map_or((found.open, found.open), |m| (m.value_end, m.value_end)),
        };
        prop_assert!(after.starts_with(&before[..from]));
        prop_assert!(after[from..].ends_with(&before[to..]));
        let again = document(path, &after).expect("still an object").expect("not empty");
        prop_assert_eq!(again.members.len(), found.members.len() + usize::from(found.ours.is_none()));
        let said = &after[again.members[again.ours.expect("there")].value..];
        let said: String = serde_json::Deserializer::from_str(said).into_iter().next().expect("one").expect("text");
        prop_assert_eq!(&said, &name);
        if found.ours.is_none() {
            let released = again.without_current(&after);
            if found.members.is_empty() {
                serde_json::from_str::<IgnoredAny>(released.trim_start_matches('\u{feff}')).expect("valid");
            } else {
                prop_assert_eq!(released, before);
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let path = Path::new("config.json");
        drop(with_current(path, &text, "slipway"));
        drop(with_current(path, &format!("{{{text}}}"), "slipway"));
    }
}
