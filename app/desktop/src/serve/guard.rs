//! Who may come in.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::App;

/// The token and the names that this server answers to.
pub(super) struct Guard {
    port: u16,
    token: String,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Guard {
    pub(super) fn new(port: u16) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self { port, token: bytes.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token)
    }

    /// Cookies know no ports: two servers must not take each other's away.
    fn cookie(&self) -> String {
        format!("slipway-{}", self.port)
    }

    fn is_token(&self, given: &str) -> bool {
        // In the same time for every wrong one.
        given.len() == self.token.len()
            && given.bytes().zip(self.token.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let ours = self.cookie();
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| name == ours && self.is_token(value))
    }

    /// The origin that a request names as its own, when it is one of ours.
    fn host(&self, headers: &HeaderMap) -> Option<String> {
        let host = headers.get(header::HOST)?.to_str().ok()?;
        let ours = ["127.0.0.1", "localhost"].iter().any(|name| host == format!("{name}:{}", self.port));
        ours.then(|| host.to_owned())
    }

    /// Why the request may not pass; none when it may.
    fn refuses(&self, request: &Request) -> Option<&'static str> {
        let headers = request.headers();
        let Some(host) = self.host(headers) else { return Some("this name is not this server's") };
        let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        let ours = format!("http://{host}");
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        // A WebSocket opens with GET and is bound by no other rule of the browser, so it must name its page.
        let must_name = !reads || headers.contains_key(header::UPGRADE);
        match origin {
            Some(origin) if origin != ours.as_bytes() => return Some("another page may not ask"),
            None if must_name => return Some("the asking page is not named"),
            _ => {}
        }
        (!self.knows(headers))
            .then_some("open the URL with its token, as `slipway-desktop --serve` printed it")
    }
}

/// Lets in who may come in, and gives every answer the rules under which the browser shows it.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let guard = &app.guard;
    let token = request.uri().query().and_then(|query| query.strip_prefix("token="));
    let mut response = match token {
        Some(token) if request.uri().path() == "/" && guard.host(request.headers()).is_some() => {
            if guard.is_token(token) {
                // Away from the URL that holds the token, so that it is in no history of pages and no screenshot.
                let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", guard.cookie(), guard.token);
                (StatusCode::SEE_OTHER, [(header::SET_COOKIE, cookie), (header::LOCATION, "/".into())])
                    .into_response()
            } else {
                refused("the token is another one: this URL is of a server that has ended")
            }
        }
        _ => match guard.refuses(&request) {
            Some(why) => refused(why),
            None => next.run(request).await,
        },
    };
    let headers = response.headers_mut();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src \
         'self' data:; connect-src 'self' ws://127.0.0.1:{0} ws://localhost:{0}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        guard.port
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn refused(why: &'static str) -> Response {
    (StatusCode::FORBIDDEN, why).into_response()
}
