//! What the data disk takes of this computer, and giving it back.

use serde_json::Value;
use slipway_test_harness::{Home, Ran};

use crate::Shared;

pub(crate) const TESTS: &[Shared] =
    &[("disk_what_a_volume_took_is_given_back", given_back), ("disk_grows_and_never_shrinks", grows)];

const MIB: u64 = 1 << 20;

fn json(ran: Ran) -> Value {
    serde_json::from_slice(&ran.ok().out).expect("JSON")
}

fn usage(home: &Home) -> Value {
    json(home.slipway(["disk", "usage", "--json"]).run())
}

fn kind(usage: &Value, name: &str) -> Value {
    let holdings = usage["holdings"].as_array().expect("a list");
    holdings
        .iter()
        .find(|holding| holding["kind"] == name)
        .cloned()
        .unwrap_or_else(|| panic!("{name}: {usage}"))
}

fn given_back(home: &Home) {
    let before = usage(home);
    assert_eq!(before["missing"], serde_json::json!([]), "all is known");
    let fill = "dd if=/dev/urandom of=/v/x bs=1M count=48 2>/dev/null && sync";
    home.docker(["run", "--rm", "-v", "disk-test:/v", "box", "sh", "-c", fill]).run().ok();
    let full = usage(home);
    let (number, volumes) = (|value: &Value| value.as_u64().expect("a number"), kind(&full, "volumes"));
    assert!(number(&volumes["reclaimable_bytes"]) >= 48 * MIB, "{full}");
    assert!(number(&full["host_bytes"]) >= number(&before["host_bytes"]) + 40 * MIB, "{before} {full}");
    assert!(number(&full["guest_bytes"]) >= number(&before["guest_bytes"]) + 40 * MIB, "{before} {full}");
    let human = home.slipway(["disk", "usage"]).run().ok().text();
    assert!(human.contains("on host") && human.contains("build cache"), "{human}");

    home.docker(["volume", "rm", "disk-test"]).run().ok();
    let trimmed = json(home.slipway(["disk", "trim", "--json"]).run());
    assert!(number(&trimmed["after_bytes"]) + 40 * MIB <= number(&full["host_bytes"]), "{full} {trimmed}");
}

fn grows(home: &Home) {
    let limit = usage(home)["limit_bytes"].as_u64().expect("a number");
    let ran = home.slipway(["disk", "resize", "1GiB"]).run();
    assert!(ran.code == 1 && ran.err.contains("slipway disk trim"), "{ran}");
    let larger = format!("{}GiB", (limit >> 30) + 1);
    let ran = home.slipway(["disk", "resize", &larger]).run().ok();
    assert!(ran.err.contains("slipway restart"), "it says when it holds: {ran}");
    assert_eq!(home.slipway(["config", "get", "machine.disk"]).run().ok().text(), larger);
    home.slipway(["config", "unset", "machine.disk"]).run().ok();
}
