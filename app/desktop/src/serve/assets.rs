//! The built pages, read once: what is not among them cannot be asked for.

use std::{collections::HashMap, io, path::Path};

use axum::{
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// Most bytes of all pages together: a folder that is another one is refused early.
const MOST: u64 = 64 << 20;
/// Folders below folders.
const DEEPEST: usize = 8;

/// Every file by its path in the URL.
pub(super) struct Assets {
    files: HashMap<String, (&'static str, Bytes)>,
}

impl std::fmt::Debug for Assets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

impl Assets {
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let mut assets = Self { files: HashMap::new() };
        let mut left = MOST;
        assets.folder(dir, "", DEEPEST, &mut left)?;
        if !assets.files.contains_key("/index.html") {
            let why = "there is no `index.html`: `npm run build` in `ui/` makes it";
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        Ok(assets)
    }

    fn folder(&mut self, dir: &Path, url: &str, deep: usize, left: &mut u64) -> io::Result<()> {
        let too_much = || io::Error::other("this is more than the built pages");
        if deep == 0 {
            return Err(too_much());
        }
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let url = format!("{url}/{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folder(&entry.path(), &url, deep - 1, left)?;
            } else if kind.is_file() {
                *left = left.checked_sub(entry.metadata()?.len()).ok_or_else(too_much)?;
                self.files.insert(url, (media_type(&name), std::fs::read(entry.path())?.into()));
            }
        }
        Ok(())
    }

    pub(super) fn answer(&self, path: &str) -> Response {
        let path = if path == "/" { "/index.html" } else { path };
        match self.files.get(path) {
            Some((kind, bytes)) => {
                // Names of built files hold their hash; the page itself has always the same name.
                let keep =
                    if path.starts_with("/assets/") { "max-age=31536000, immutable" } else { "no-cache" };
                ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, keep)], bytes.clone())
                    .into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
