//! Whether everything is there that a machine needs. Looks by itself, so that it says most when nothing runs.

use slipway_api::{Check, CheckState, DOCKER_CONTEXT, DaemonSeen, DoctorReport, DoctorRequest};

use crate::{
    inner,
    reach::{Session, docker_config},
    say::{Fail, Paint, clean},
};

/// Looks, mends if asked, and prints what was found.
///
/// # Errors
/// A daemon that is to be renewed and cannot be.
pub(crate) async fn doctor(session: &Session, fix: bool, json: bool) -> Result<u8, Fail> {
    let mut seen = session.seen().await;
    if fix {
        // A machine without a daemon gets one, and an old daemon makes room; the machine goes on. What cannot be helped is told
        // by the checks.
        let mended = match seen {
            DaemonSeen::Nobody => session.found().await.map(drop),
            DaemonSeen::Answers { .. } => session.renewed().await.map(drop),
            DaemonSeen::Silent(_) => Ok(()),
        };
        seen = match mended {
            Err(Fail::Problem(problem)) => DaemonSeen::Silent(problem),
            _ => session.seen().await,
        };
    }
    let dir = docker_config().ok();
    // What the daemon tells of it mends itself: else window and tray would go on showing how it was.
    let by_daemon = match &seen {
        DaemonSeen::Answers { .. } if fix => {
            let request = DoctorRequest { fix: vec![DOCKER_CONTEXT.into()], docker_config: dir.clone() };
            // One that went meanwhile is told by the checks.
            match session.ensured().await {
                Ok(api) => api.doctor(&request).await.ok(),
                Err(_) => None,
            }
        }
        _ => None,
    };
    let mut report = inner::doctor(&session.paths, dir, seen, fix).await?;
    for mended in by_daemon.iter().flat_map(|report| &report.checks).filter(|check| check.fixed) {
        report.checks.iter_mut().filter(|check| check.id == mended.id).for_each(|check| check.fixed = true);
    }
    if json {
        session.say.json(&report)?;
    } else if !session.say.quiet() {
        session.say.data(&human(&report, session.say.out()))?;
        session.say.talk(&summary(&report));
    }
    Ok(exit_code(&report))
}

/// What scripts learn: warnings are no failure.
fn exit_code(report: &DoctorReport) -> u8 {
    u8::from(report.count(CheckState::Failed) > 0)
}

fn human(report: &DoctorReport, paint: Paint) -> String {
    let width = report.checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    report.checks.iter().map(|check| shape(check, width, paint)).collect()
}

/// A line, and below it what a person needs when it is not well.
fn shape(check: &Check, width: usize, paint: Paint) -> String {
    let mark = match check.state {
        CheckState::Ok => paint.good("✓"),
        CheckState::Warning => paint.notable("!"),
        CheckState::Failed => paint.bad("✗"),
        CheckState::NotApplicable => paint.faint("-"),
    };
    let message = clean(&check.message);
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    let fixed = if check.fixed { " (mended just now)" } else { "" };
    let mut text = format!("{mark} {:<width$}  {first}{fixed}\n", check.id);
    if matches!(check.state, CheckState::Ok | CheckState::NotApplicable) {
        return text;
    }
    let mut below = |word: &str, said: &str| {
        for line in clean(said).lines() {
            text.push_str(&format!("  {:width$}  {}{line}\n", "", paint.faint(word)));
        }
    };
    lines.for_each(|line| below("", line));
    check.causes.iter().for_each(|cause| below("caused by: ", cause));
    check.hint.iter().for_each(|hint| below("hint: ", hint));
    text
}

fn summary(report: &DoctorReport) -> String {
    let count = |state| report.count(state);
    let many = |n: usize, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
    let mut said = vec![
        format!("{} ok", count(CheckState::Ok)),
        many(count(CheckState::Warning), "warning", "warnings"),
        format!("{} failed", count(CheckState::Failed)),
    ];
    let fixable = report.checks.iter().filter(|c| c.fixable && c.state != CheckState::Ok).count();
    if fixable > 0 {
        said.push(format!("`slipway doctor --fix` can mend {fixable}"));
    }
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, state: CheckState) -> Check {
        Check {
            id: id.into(),
            state,
            message: "found".into(),
            causes: Vec::new(),
            hint: None,
            fixable: false,
            fixed: false,
        }
    }

    fn report(checks: Vec<Check>) -> DoctorReport {
        DoctorReport { slipway: "1".into(), profile: "default".into(), checks }
    }

    #[test]
    fn a_line_each_and_what_to_do_below_what_is_not_well() {
        let mut ill = check("leftovers", CheckState::Warning);
        ill.causes = vec!["`/h/api.sock`".into()];
        ill.hint = Some("slipway doctor --fix".into());
        ill.fixable = true;
        let mut well = check("qemu", CheckState::Ok);
        well.hint = Some("never shown".into());
        let report = report(vec![well, ill, check("shares", CheckState::NotApplicable)]);
        assert_eq!(
            human(&report, Paint::Plain),
            "✓ qemu       found\n\
             ! leftovers  found\n             caused by: `/h/api.sock`\n             hint: slipway doctor --fix\n\
             - shares     found\n"
        );
        assert_eq!(summary(&report), "1 ok, 1 warning, 0 failed, `slipway doctor --fix` can mend 1");
        assert_eq!(exit_code(&report), 0, "a warning is no failure");
    }

    #[test]
    fn a_failed_check_is_told_to_scripts() {
        let failed = report(vec![check("image", CheckState::Failed), check("qemu", CheckState::Ok)]);
        assert_eq!(exit_code(&failed), 1);
        assert!(summary(&failed).contains("1 failed"));
    }
}
