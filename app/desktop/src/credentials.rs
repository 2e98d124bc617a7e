//! What the person's docker configuration knows for a registry, added to the pulls and pushes of the pages.
//!
//! The pages ask without it, so that no secret ever passes through one: `docker login` is where a person says it, and the
//! helpers that docker uses are used.

use std::{
    collections::HashMap,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use axum::extract::Query;
use base64::{Engine, engine::general_purpose::URL_SAFE};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use hyper::{Method, Uri, header::HeaderValue, http::uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use serde_json::json;
use slipway_api::paths::HOME;

/// Docker Hub, as docker's configuration calls it.
const HUB: &str = "https://index.docker.io/v1/";

/// The value of `X-Registry-Auth` for a request to the engine; none where it needs none, or nothing is known. `config_dir` is
/// the folder of docker's `config.json`. A helper may ask its keyring for a while: call it where blocking is allowed.
pub(crate) fn header(method: &Method, path: &PathAndQuery, config_dir: &Path) -> Option<HeaderValue> {
    let server = server(&reference(method, path)?);
    let file = File::open(config_dir.join("config.json")).ok()?;
    let auth = match get_credential_from_reader(BufReader::new(file), &server) {
        Ok(DockerCredential::IdentityToken(token)) => {
            json!({ "identitytoken": token, "serveraddress": server })
        }
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            json!({ "username": user, "password": password, "serveraddress": server })
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => return None,
        Err(error) => {
            // As docker does: it is tried without, and the registry's own refusal is what the person reads.
            eprintln!("error: no credential for `{server}`: {error}");
            return None;
        }
    };
    let mut value = HeaderValue::try_from(URL_SAFE.encode(auth.to_string())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The folder of docker's configuration of this process.
pub(crate) fn config_dir() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("DOCKER_CONFIG").or_else(|| Some(var(HOME)?.join(".docker")))
}

/// The image that a request pulls or pushes.
fn reference(method: &Method, path: &PathAndQuery) -> Option<String> {
    if method != Method::POST {
        return None;
    }
    if path.path() == "/images/create" {
        let uri = Uri::from(path.clone());
        let mut query = Query::<HashMap<String, String>>::try_from_uri(&uri).ok()?;
        return query.0.remove("fromImage").filter(|image| !image.is_empty());
    }
    let name = path.path().strip_prefix("/images/")?.strip_suffix("/push")?;
    Some(percent_decode_str(name).decode_utf8().ok()?.into_owned())
}

/// The registry of an image, as docker's configuration names it. The first part of a name is a registry when it could be no
/// folder of Docker Hub: with a dot, a port, or `localhost`.
fn server(reference: &str) -> String {
    match reference.split_once('/') {
        Some((first, _)) if ["docker.io", "index.docker.io"].contains(&first) => HUB.into(),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first.to_lowercase(),
        _ => HUB.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str) -> Option<String> {
        let method = method.parse().expect("a method");
        reference(&method, &path.parse().expect("a path")).map(|r| server(&r))
    }

    #[test]
    fn only_pulls_and_pushes_name_a_registry() {
        assert_eq!(asked("POST", "/images/create?fromImage=alpine&tag=3").as_deref(), Some(HUB));
        assert_eq!(asked("POST", "/images/create?fromImage=docker.io%2Fteam%2Fa").as_deref(), Some(HUB));
        assert_eq!(asked("POST", "/images/create?fromImage=team%2Fimage&tag=1").as_deref(), Some(HUB));
        let ours = Some("registry.example:5000");
        assert_eq!(
            asked("POST", "/images/create?tag=1&fromImage=registry.example:5000/a/b").as_deref(),
            ours
        );
        assert_eq!(asked("POST", "/images/registry.example%3A5000/a/b/push?tag=1").as_deref(), ours);
        assert_eq!(asked("POST", "/images/localhost/a/push").as_deref(), Some("localhost"));
        for (method, path) in [
            ("GET", "/images/json"),
            ("POST", "/images/create?fromSrc=-"),
            ("POST", "/images/a/tag"),
            ("DELETE", "/images/a/push"),
            ("POST", "/images/%ff/push"),
            ("POST", "/containers/x/push"),
        ] {
            assert_eq!(asked(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn what_docker_login_kept_is_sent_to_its_registry_and_to_no_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let auth = URL_SAFE.encode("anna:s3:cret");
        let config = json!({ "auths": { "registry.example:5000": { "auth": auth }, HUB: { "identitytoken": "t", "auth": "" } } });
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("written");
        let sent = |path: &str| -> Option<serde_json::Value> {
            let value = header(&Method::POST, &path.parse().expect("a path"), dir.path())?;
            assert!(value.is_sensitive());
            serde_json::from_slice(&URL_SAFE.decode(value.as_bytes()).expect("base64")).expect("JSON")
        };
        let anna =
            json!({ "username": "anna", "password": "s3:cret", "serveraddress": "registry.example:5000" });
        assert_eq!(sent("/images/registry.example:5000/a/push"), Some(anna));
        assert_eq!(
            sent("/images/create?fromImage=alpine"),
            Some(json!({ "identitytoken": "t", "serveraddress": HUB }))
        );
        assert_eq!(sent("/images/create?fromImage=other.example%2Fa"), None);
        std::fs::write(dir.path().join("config.json"), "no JSON").expect("written");
        assert_eq!(sent("/images/create?fromImage=alpine"), None);
    }
}
