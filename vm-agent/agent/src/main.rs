//! Which of its lives the agent is to lead; see the library.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_pid_1 = std::process::id() == 1;
    let path = std::env::args_os().next().unwrap_or_default();
    match std::path::Path::new(&path).file_name().and_then(|name| name.to_str()) {
        Some("docker-proxy") => return slipway_agent::docker_proxy(&arguments),
        Some("slipway-dhcp") => {
            slipway_agent::hand_over_lease(&arguments);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    match arguments.first().map(String::as_str) {
        Some("init") if is_pid_1 => slipway_agent::stage2(),
        Some("serve") => slipway_agent::serve_on_host(&arguments[1..]),
        _ if is_pid_1 => slipway_agent::stage1(),
        _ => {
            eprintln!("usage: slipway-agent serve --dir DIR [--engine SOCKET]");
            ExitCode::from(2)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("slipway-agent runs in the Linux guest only");
    ExitCode::from(2)
}
