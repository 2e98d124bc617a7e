//! The HTTP front: who may come in, and that what comes through is what was asked.

use std::time::Duration;

use crate::servers::Servers;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use slipway_desktop::serve::{ServeError, Server};
use tokio::{task::JoinHandle, time::timeout};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

struct Door {
    servers: Servers,
    serving: JoinHandle<()>,
    base: String,
    token: String,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Door {
    async fn open() -> Self {
        let servers = Servers::start();
        let pages = servers.dir().join("dist");
        std::fs::create_dir_all(pages.join("assets")).expect("made");
        std::fs::write(pages.join("index.html"), "<!doctype html>page").expect("written");
        std::fs::write(pages.join("assets/a.js"), "1").expect("written");
        let server = Server::bind(servers.bridge(), "default", &pages, 0).await.expect("listens");
        let url = server.url();
        let (base, token) = url.split_once("/?token=").expect("a token");
        let (base, token) = (base.to_owned(), token.to_owned());
        let serving = tokio::spawn(async move { server.run().await.expect("serves") });
        Self { servers, serving, base, token }
    }

    fn cookie(&self) -> String {
        let port = self.base.rsplit_once(':').expect("a port").1;
        format!("other=1; slipway-{port}={}", self.token)
    }

    /// A request with these headers and no others but the ones that HTTP needs.
    async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<hyper::body::Incoming> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        timeout(Duration::from_secs(20), client.request(request)).await.expect("soon").expect("answers")
    }

    /// As a page of this server asks.
    async fn page(&self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let cookie = self.cookie();
        let answer = self.raw(method, path, &[("cookie", &cookie), ("origin", &self.base)], body).await;
        (answer.status(), text(answer).await)
    }
}

async fn text(answer: Response<hyper::body::Incoming>) -> String {
    let bytes = answer.into_body().collect().await.expect("read").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn the_token_becomes_a_cookie_that_scripts_cannot_read() {
    let door = Door::open().await;
    let first = door.raw("GET", &format!("/?token={}", door.token), &[], "").await;
    assert_eq!(
        (first.status(), &first.headers()[header::LOCATION]),
        (StatusCode::SEE_OTHER, &"/".parse().expect("value"))
    );
    let cookie = first.headers()[header::SET_COOKIE].to_str().expect("text");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().expect("a pair");
    let page = door.raw("GET", "/", &[("cookie", pair)], "").await;
    assert_eq!(page.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert_eq!(text(page).await, "<!doctype html>page");
}

#[tokio::test]
async fn nobody_else_comes_in() {
    let door = Door::open().await;
    let cookie = door.cookie();
    let wrong = cookie.replace(&door.token, &"0".repeat(door.token.len()));
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let tries: &[(&str, &str, Headers<'_>)] = &[
        ("GET", "/", &[]),
        ("GET", "/?token=", &[]),
        ("GET", "/?token=0000", &[]),
        ("GET", "/bridge/engine/_ping", &[("cookie", &wrong)]),
        // Rebinding: the page's name leads here, and the browser says so.
        ("GET", "/bridge/engine/_ping", &[("cookie", &cookie), ("host", "evil.example:80")]),
        ("GET", &format!("/?token={}", door.token), &[("host", "evil.example")]),
        ("GET", "/bridge/engine/_ping", &[("cookie", &cookie), ("origin", "http://evil.example")]),
        ("GET", "/bridge/engine/_ping", &[("cookie", &cookie), ("origin", "null")]),
        ("POST", "/bridge/engine/echo", &[("cookie", &cookie)]),
        ("POST", "/bridge/engine/echo", &[("cookie", &cookie), ("origin", "https://evil.example")]),
        (
            "GET",
            "/bridge/open/engine/exec/x/start",
            &[("cookie", &cookie), ("connection", "upgrade"), ("upgrade", "websocket")],
        ),
    ];
    for (method, path, headers) in tries {
        let answer = door.raw(method, path, headers, "{}").await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method} {path} {headers:?}");
    }
    assert_eq!(
        door.page("GET", "/bridge/engine/_ping", "").await,
        (StatusCode::OK, "OK".into()),
        "and the page does"
    );
}

#[tokio::test]
async fn what_is_not_among_the_pages_is_not_given() {
    let door = Door::open().await;
    assert_eq!(door.page("GET", "/assets/a.js", "").await, (StatusCode::OK, "1".into()));
    for path in
        ["/assets/../../api.sock", "/..%2fapi.sock", "/assets/", "/x", "/bridge/elsewhere/x", "/index.html/"]
    {
        assert_eq!(door.page("GET", path, "").await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let pages = door.servers.dir().join("none");
    std::fs::create_dir(&pages).expect("made");
    let missing = Server::bind(door.servers.bridge(), "default", &pages, 0).await.expect_err("no pages");
    let ServeError::Assets { source, .. } = missing else { panic!("{missing:?}") };
    assert!(source.to_string().contains("npm run build"), "{source}");
}

#[tokio::test]
async fn requests_go_through_as_they_are_and_answers_too() {
    let door = Door::open().await;
    let (status, body) = door.page("GET", "/bridge/control/v1/status", "").await;
    assert!(status.is_success() && body.contains("\"running\""), "{status} {body}");
    let (status, body) = door.page("POST", "/bridge/engine/echo?a=%2F%20b", "{\"x\":1}").await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (status, &body["query"], &body["body"]),
        (StatusCode::OK, &json!("a=%2F%20b"), &json!({ "x": 1 }))
    );
    let missing = door.page("GET", "/bridge/engine/missing", "").await;
    assert_eq!(missing, (StatusCode::NOT_FOUND, "{\"message\":\"no such thing\"}".into()));
    // A container's page must not run as ours.
    let cookie = door.cookie();
    let page = door.raw("GET", "/bridge/engine/page", &[("cookie", &cookie)], "").await;
    assert_eq!(page.headers()[header::CONTENT_SECURITY_POLICY], "sandbox");
    assert_eq!(page.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
}

#[tokio::test]
async fn an_engine_that_is_gone_is_a_problem_of_the_door() {
    let door = Door::open().await;
    door.servers.stop_engine().await;
    let cookie = door.cookie();
    let answer = door.raw("GET", "/bridge/engine/_ping", &[("cookie", &cookie)], "").await;
    assert_eq!(
        (answer.status(), &answer.headers()["x-slipway-problem"]),
        (StatusCode::BAD_GATEWAY, &"1".parse().expect("value"))
    );
    let problem: Value = serde_json::from_str(&text(answer).await).expect("JSON");
    assert_eq!(problem["code"], "engine-unreachable");
}

#[tokio::test]
async fn a_page_that_leaves_ends_its_stream() {
    let door = Door::open().await;
    let cookie = door.cookie();
    let mut events = door.raw("GET", "/bridge/engine/events", &[("cookie", &cookie)], "").await;
    let first = events.frame().await.expect("one").expect("whole").into_data().expect("data");
    assert_eq!(first, "{\"event\":0}\n");
    drop(events);
    door.servers.wait_gone("/events").await;
}

#[tokio::test]
async fn files_go_both_ways_with_their_figures_and_an_end() {
    let door = Door::open().await;
    let file = door.servers.dir().join("a b.tar");
    std::fs::write(&file, "xyz").expect("written");
    let name = file.display().to_string().replace(' ', "%20");
    let lines = |text: String| -> Vec<Value> {
        text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
    };
    let (_, said) = door.page("POST", &format!("/bridge/upload?path=/images/load&file={name}"), "").await;
    let said = lines(said);
    assert!(said.contains(&json!({ "sent": 3, "total": 3 })), "{said:?}");
    assert_eq!(said.last(), Some(&json!({ "done": true })));
    let (_, said) =
        door.page("POST", &format!("/bridge/upload?path=/images/load%3Fbroken&file={name}"), "").await;
    let said = lines(said);
    assert_eq!(said.last().expect("an end")["error"]["message"], "no archive", "{said:?}");
    let out = door.servers.dir().join("out.tar").display().to_string();
    let (_, said) = door.page("POST", &format!("/bridge/download?path=/images/get&file={out}"), "").await;
    assert!(lines(said).ends_with(&[json!({ "received": 1_000_000 }), json!({ "done": true })]));
    assert_eq!(std::fs::metadata(out).expect("there").len(), 1_000_000);
}

async fn connect(
    door: &Door,
    path: &str,
) -> tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>> {
    let url = format!("{}{path}", door.base.replace("http", "ws"));
    let mut request = url.into_client_request().expect("a URL");
    request.headers_mut().insert("cookie", door.cookie().parse().expect("value"));
    request.headers_mut().insert("origin", door.base.parse().expect("value"));
    tokio_tungstenite::connect_async(request).await.expect("connects").0
}

#[tokio::test]
async fn a_terminal_is_typed_into_over_a_websocket() {
    let door = Door::open().await;
    let mut page =
        connect(&door, "/bridge/open/engine/exec/x/start?slipway-body=%7B%22Tty%22%3Atrue%7D").await;
    assert_eq!(page.next().await.expect("one").expect("whole"), Message::text("{\"status\":101}"));
    page.send(Message::binary(&b"hello"[..])).await.expect("sends");
    assert_eq!(page.next().await.expect("one").expect("whole"), Message::binary(&b"HELLO"[..]));
    page.send(Message::text("close-write")).await.expect("sends");
    assert_eq!(page.next().await.expect("one").expect("whole"), Message::binary(&b"bye"[..]));
    assert_eq!(closed(&mut page).await, 1000);

    let mut page = connect(&door, "/bridge/open/engine/missing").await;
    let Message::Text(problem) = page.next().await.expect("one").expect("whole") else { panic!("no text") };
    assert!(problem.contains("no such thing"), "{problem}");
}

async fn closed(
    page: &mut (impl StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin),
) -> u16 {
    match page.next().await {
        Some(Ok(Message::Close(Some(frame)))) => frame.code.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn streams_go_over_websockets_with_their_own_query_and_their_end() {
    let door = Door::open().await;
    let mut page = connect(
        &door,
        "/bridge/stream/engine/echo?a=%26b&slipway-method=POST&c=1&slipway-body=%7B%22x%22%3A2%7D",
    )
    .await;
    assert_eq!(page.next().await.expect("one").expect("whole"), Message::text("{\"status\":200}"));
    let Message::Binary(bytes) = page.next().await.expect("one").expect("whole") else { panic!("no bytes") };
    let echoed: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!((&echoed["query"], &echoed["body"]), (&json!("a=%26b&c=1"), &json!({ "x": 2 })));
    assert_eq!(closed(&mut page).await, 1000);

    let mut cut = connect(&door, "/bridge/stream/engine/cut").await;
    let code = loop {
        match cut.next().await {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1011, "a break is told from an end");

    let mut events = connect(&door, "/bridge/stream/engine/events").await;
    for _ in 0..2 {
        events.next().await.expect("one").expect("whole");
    }
    drop(events);
    door.servers.wait_gone("/events").await;
}
