//! Reaches the daemon at its unix socket.

use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyperlocal::{UnixClientExt, UnixConnector};

pub(crate) type Connector = UnixConnector;

/// A client; each request says by its [`uri`] to which socket it goes.
pub(crate) fn client(_socket: &Path) -> Client<Connector, Full<Bytes>> {
    Client::unix()
}

/// `path` at the daemon behind `socket`.
pub(crate) fn uri(socket: &Path, path: &str) -> hyper::Uri {
    hyperlocal::Uri::new(socket, path).into()
}
