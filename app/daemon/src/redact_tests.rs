use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Where secrets stand in what programs write; `@` is the secret.
const PLACES: &[&str] = &[
    "proxy is http://someone:§@proxy.example:3128/",
    "level=info msg=\"using http://someone:§@proxy.example:3128\" n=1",
    "pull https://§@registry.example/v2/",
    "HTTP_PROXY=someone:§@proxy.example:3128",
    "Authorization: Bearer §",
    "> proxy-authorization: Basic §",
    "{\"headers\":{\"Authorization\":[\"Bearer §\"]}}",
    "X-Registry-Auth: §",
    "Set-Cookie: sid=§; Path=/",
    "MYSQL_ROOT_PASSWORD=§",
    "export GITHUB_TOKEN=\"§\"",
    "AWS_SECRET_ACCESS_KEY='§' aws s3 ls",
    "msg=\"run with DB_PASSWD=\\\"§\\\" set\"",
    "password: §",
    "{\"username\":\"me\",\"password\":\"§\"}",
    "{\"auths\":{\"r.example\":{\"auth\":\"§\"}}}",
    "{\"identitytoken\": \"§\"}",
    "docker login -u me --password § r.example",
    "argv=[\"--api-key\", \"§\"]",
    "curl -u me:§ https://x.example",
    "docker run -e ANYTHING=§ box",
    "docker build --build-arg ANYTHING=§ .",
    "form data: {\"Env\":[\"ANYTHING=§\",\"B=2\"],\"Image\":\"box\"}",
    "POST /v1.47/build?buildargs=§&t=x",
    "https://bucket.example/o?X-Amz-Signature=§&x=1",
];

/// Nothing that ends a value, and long and odd enough to be in no other text.
fn secret() -> impl Strategy<Value = String> {
    "Zq[A-Za-z0-9!#$%*+._~-]{8,24}xQ"
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        "level=info msg=\"API listen on /run/docker.sock\"",
        "pulled docker.io/library/alpine:3.20@sha256:0a4eaa0eecf5f8c050e5bba433f58c052be7587ee8af3e8b3910ef9ab5fbe9f5",
        "PWD=/home/me HOME=/home/me",
        "https://registry.example/@types/node is there",
        "http://127.0.0.1:8080/path?x=1",
        "author=me authorities=/etc/ssl/x.pem compass=north",
        "[    0.000000] Linux version 6.12.48 (gcc 12.2.0)",
        "container 4f is bypassed",
    ] {
        assert_eq!(line(text), text);
    }
}

#[test]
fn what_lies_around_a_secret_stays() {
    assert_eq!(line("a http://me:hush-hush@h.example:1/ b"), "a http://***@h.example:1/ b");
    assert_eq!(line("x MY_TOKEN=hushhush y"), "x MY_TOKEN=*** y");
    assert_eq!(line("token hunting: nothing found"), "token hunting: nothing found");
    assert_eq!(line("ghp_0123456789abcdefghij was used"), "*** was used");
}

#[test]
fn a_private_key_goes_whole_also_when_it_is_cut() {
    let key = "before\n-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEAsecret\nmoresecret\n-----END RSA PRIVATE KEY-----\nafter";
    assert_eq!(line(key), "before\n***\n***\n***\n***\nafter");
    let one = line("key=\"-----BEGIN PRIVATE KEY-----\\nMIIEsecret\\n-----END PRIVATE KEY-----\"\nafter");
    assert!(!one.contains("MIIEsecret") && one.ends_with("\nafter"), "{one}");
    let cut = "MIIEpAIBAAKCAQEAsecretsecret\nc2VjcmV0c2VjcmV0c2VjcmV0\n-----END PRIVATE KEY-----\nafter";
    let cleaned = line(cut);
    assert!(
        !cleaned.contains("secret") && !cleaned.contains("c2Vj") && cleaned.ends_with("after"),
        "{cleaned}"
    );
    let lines: String =
        ["-----BEGIN PRIVATE KEY-----", "MIIEpAIBAAKCAQEAsecret", "-----END PRIVATE KEY-----", "after"]
            .iter()
            .map(|line| format!("{}\n", json!({"unix_ms": 1, "unit": "agent", "line": line})))
            .collect();
    let log = Redactor::default().log(&lines);
    assert!(!log.contains("MIIE") && log.contains("after"), "{log}");
    let certificate = "-----BEGIN CERTIFICATE-----\nMIIDpublicpublicpublic\n-----END CERTIFICATE-----";
    assert_eq!(line(certificate), certificate, "that one is public");
}

#[test]
fn json_stays_json_and_keeps_what_it_says() {
    let mut value = json!({
        "proxies": {"http-proxy": "http://me:hushhush@proxy:1"},
        "log-opts": {"splunk-token": "hushhush", "max-size": "10m"},
        "runtimes": {"x": {"runtimeArgs": ["--token", "hushhush", "--debug"]}},
        "Env": ["A=hushhush", "hushhush"],
        "environment": {"A": "hushhush"},
        "auths": {"r.example": {"auth": "hushhush", "email": "me@example.com"}},
        "debug": true,
        "http://me:hushhush@mirror": 1,
        "nothing": {"secret": null, "password": ""},
    });
    Redactor::default().json(&mut value);
    let text = value.to_string();
    assert!(!text.contains("hush"), "{text}");
    assert_eq!(value["log-opts"]["max-size"], "10m");
    assert_eq!(value["runtimes"]["x"]["runtimeArgs"], json!(["--token", "***", "--debug"]));
    assert_eq!(value["Env"][0], "A=***");
    assert_eq!(value["nothing"], json!({"secret": null, "password": ""}));
    assert_eq!(value["debug"], true);
}

#[test]
fn json_that_is_nested_without_end_is_no_trap() {
    let mut value = json!("hush");
    for _ in 0..100 {
        value = json!([value]);
    }
    Redactor::default().json(&mut value);
    assert!(!value.to_string().contains("hush"));
}

#[test]
fn secrets_are_found_where_people_write_them() {
    let mut found = Vec::new();
    secrets_in(
        &json!({"proxies": {"http-proxy": "http://me:one@p:1"}, "log-opts": {"splunk-token": "two"},
            "mirrors": ["https://three@m.example", "https://m.example"]}),
        &mut found,
    );
    found.sort();
    assert_eq!(found, ["one", "three", "two"]);
    assert_eq!(secrets_in_url("me:p@ss/w@host"), Some("p@ss/w".into()));
    assert_eq!(secrets_in_url("http://host/path"), None);
}

proptest! {
    #[test]
    fn no_secret_is_left_where_programs_write_them(secret in secret()) {
        for place in PLACES {
            let text = place.replace('§', &secret);
            let cleaned = line(&text);
            prop_assert!(!cleaned.contains(&secret), "{text} → {cleaned}");
            let stored = json!({"unix_ms": 1, "unit": "dockerd", "line": text}).to_string();
            let log = Redactor::default().log(&stored);
            let is_json = serde_json::from_str::<Value>(&log).is_ok();
            prop_assert!(is_json && !log.contains(&secret), "{stored} → {log}");
        }
    }

    #[test]
    fn what_is_known_is_gone_however_it_is_written(secret in "[ -~]{4,20}", around in "[a-z ]{0,10}") {
        let redactor = Redactor::knowing([secret.clone()]);
        let url = utf8_percent_encode(&secret, ESCAPED).to_string();
        for text in [format!("{around}{secret}{around}"), format!("{around}{url}{around}"), format!("{around}{}", json!({"x": secret}))] {
            let cleaned = redactor.text(&text);
            // A secret out of nothing but what stands in its place is none that can be told.
            prop_assume!(!GONE.contains(secret.trim()) && !secret.contains(GONE));
            prop_assert!(!cleaned.contains(&secret) && !cleaned.contains(&url), "{text} → {cleaned}");
        }
    }

    #[test]
    fn no_bytes_of_a_log_are_a_trap(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        let redactor = Redactor::knowing(["secret".to_owned()]);
        prop_assert!(!redactor.log(&text).contains("secret"));
        redactor.text(&text);
    }
}
