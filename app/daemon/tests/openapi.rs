//! The pages' types are generated from `ui/openapi.json`; this says when it is no longer the API's.

#[test]
fn the_document_that_the_pages_are_made_from_is_this_api() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ui/openapi.json");
    let now = format!("{}\n", slipway_daemon::openapi().to_pretty_json().expect("JSON"));
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(file, &now).expect("written");
    }
    let kept = std::fs::read_to_string(file).expect("it is there");
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert!(
        parsed(&kept) == parsed(&now),
        "the control API changed: `UPDATE_OPENAPI=1 cargo test -p slipway-daemon --test openapi`, then `npm run types` in ui/"
    );
}
