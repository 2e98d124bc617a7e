//! Why a machine ended, from what HCS tells of it.

use serde::Deserialize;
use slipway_vm::ExitReason;

/// HCS's `SystemExitStatus`. Fields that a newer Windows adds are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SystemExit {
    status: i32,
    exit_type: Option<String>,
    attribution: Vec<Attribution>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Attribution {
    system_exit: Option<Detail>,
    worker_exit: Option<Detail>,
    guest_crash: Option<GuestCrash>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Detail {
    detail: Option<String>,
    initiator: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct GuestCrash {
    crash_parameters: Vec<u64>,
}

/// The reason behind the data of the event `SystemExited`. `ended_by_us`: we asked HCS to terminate the machine.
pub fn reason(event_data: &str, ended_by_us: bool) -> ExitReason {
    let crashed = |detail: String| ExitReason::Crashed { detail };
    let exit: SystemExit = match serde_json::from_str(event_data) {
        Ok(exit) => exit,
        Err(error) => {
            return crashed(format!("HCS told of its end in words that are not understood: {error}"));
        }
    };
    if let Some(crash) = exit.attribution.iter().find_map(|a| a.guest_crash.as_ref()) {
        let words: Vec<String> = crash.crash_parameters.iter().map(|word| format!("{word:#x}")).collect();
        return crashed(format!("the guest's kernel panicked ({})", words.join(", ")));
    }
    match exit.exit_type.as_deref() {
        _ if ended_by_us => ExitReason::Killed,
        Some("GracefulExit") => ExitReason::PoweredOff,
        Some("Reboot") => ExitReason::Reset,
        Some("ForcedExit") => crashed("somebody else ended it through Hyper-V".into()),
        other => {
            let told = exit.attribution.iter().flat_map(|a| [&a.system_exit, &a.worker_exit]).flatten();
            let told: Vec<String> = told
                .map(|exit| {
                    let by = exit.initiator.as_deref().unwrap_or("nobody named");
                    format!("{} by {by}", exit.detail.as_deref().unwrap_or("an end"))
                })
                .collect();
            let status = exit.status.cast_unsigned();
            let why = if told.is_empty() { "no more is told".to_owned() } else { told.join(", ") };
            crashed(format!("{} with status {status:#010x}: {why}", other.unwrap_or("an end of no kind")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_reason() {
        let crashed = |detail: &str| ExitReason::Crashed { detail: detail.into() };
        for (data, ours, expected) in [
            (r#"{"Status":0,"ExitType":"GracefulExit"}"#, false, ExitReason::PoweredOff),
            (r#"{"Status":0,"ExitType":"Reboot","New":[]}"#, false, ExitReason::Reset),
            (r#"{"Status":0,"ExitType":"ForcedExit"}"#, true, ExitReason::Killed),
            (r#"{"Status":0,"ExitType":"UnexpectedExit"}"#, true, ExitReason::Killed),
            (r#"{"ExitType":"ForcedExit"}"#, false, crashed("somebody else ended it through Hyper-V")),
            (
                r#"{"Status":-1070137085,"ExitType":"UnexpectedExit","Attribution":[{"WorkerExit":{"ExitCode":5,"Detail":"TerminatedUnexpectedly","Initiator":"Internal"}}]}"#,
                false,
                crashed("UnexpectedExit with status 0xc0370103: TerminatedUnexpectedly by Internal"),
            ),
            (
                r#"{"ExitType":"UnexpectedExit","Attribution":[{"GuestCrash":{"CrashParameters":[1,255]}}]}"#,
                false,
                crashed("the guest's kernel panicked (0x1, 0xff)"),
            ),
            ("{}", false, crashed("an end of no kind with status 0x00000000: no more is told")),
        ] {
            assert_eq!(reason(data, ours), expected, "{data}");
        }
        assert!(
            matches!(reason("not JSON", false), ExitReason::Crashed { detail } if detail.contains("not understood"))
        );
    }
}
