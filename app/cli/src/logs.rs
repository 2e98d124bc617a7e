//! All logs in one place: from the daemon, or from the files when there is none.

use slipway_api::{LogLine, LogQuery, Problem, log_files, time};

use crate::{
    args::LogsArgs,
    reach::Session,
    say::{Fail, Paint, clean},
};

/// Prints lines of the logs.
///
/// # Errors
/// The daemon's; nothing to follow.
pub(crate) async fn logs(session: &Session, which: &LogsArgs) -> Result<u8, Fail> {
    let print = |line: &LogLine| session.say.data(&shape(line, which, session.say.out())?);
    let query =
        LogQuery { unit: which.unit.clone(), since_ms: which.since, tail: which.tail, follow: which.follow };
    if let Some(api) = session.found().await? {
        let mut lines = api.logs(&query).await?;
        while let Some(line) = lines.next().await? {
            print(&line)?;
        }
        return Ok(0);
    }
    // What happened before is worth most just when nothing runs any more.
    for line in log_files::read(&session.paths, &query)? {
        print(&line)?;
    }
    if which.follow {
        let problem = Problem::new("not-running", "there is nothing to follow: no machine runs");
        return Err(problem.hint("run `slipway start`").into());
    }
    Ok(0)
}

fn shape(line: &LogLine, which: &LogsArgs, paint: Paint) -> Result<String, Fail> {
    if which.json {
        let json = serde_json::to_string(line).map_err(std::io::Error::other)?;
        return Ok(format!("{json}\n"));
    }
    // On a terminal the machine's words must not move the cursor; in a file every byte counts.
    let text = if paint == Paint::Colour { clean(&line.line) } else { line.line.clone() };
    let stamp = paint.faint(&time::stamp(line.unix_ms));
    Ok(match &which.unit {
        Some(_) => format!("{stamp} {text}\n"),
        None => format!("{stamp} {:<10} {text}\n", line.unit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_and_its_part() {
        let mut which = LogsArgs { follow: false, since: None, unit: None, tail: None, json: false };
        let line = LogLine { unix_ms: 1_795_512_600_123, unit: "agent".into(), line: "a\x1b[2J".into() };
        let shaped = |which: &LogsArgs, paint| shape(&line, which, paint).expect("shaped");
        assert_eq!(shaped(&which, Paint::Plain), "2026-11-24T09:30:00.123Z agent      a\x1b[2J\n");
        assert!(shaped(&which, Paint::Colour).ends_with(" agent      a\u{fffd}[2J\n"));
        which.unit = Some("agent".into());
        assert_eq!(shaped(&which, Paint::Plain), "2026-11-24T09:30:00.123Z a\x1b[2J\n");
        which.json = true;
        assert!(shaped(&which, Paint::Plain).starts_with("{\"unix_ms\":1795512600123,"));
    }
}
