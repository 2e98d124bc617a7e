//! The line that shows a start: pure, so that what a person sees is tested without a terminal.

use slipway_api::{Phase, PhaseState};

use crate::say::{Paint, clean};

/// Between two phases on a line.
const GAP: &str = "   ";
/// Frames of the mark of a phase that goes on.
const SPIN: [char; 8] = ['⣾', '⣽', '⣻', '⢿', '⡿', '⣟', '⣯', '⣷'];
/// A minor phase that took at least this long has earned its place.
const LONG_MS: u64 = 2000;

/// What a phase is called while it goes on and when it is done, and whether it is one of those that are always shown.
fn words(name: &str) -> (String, String, bool) {
    let (doing, done, major) = match name {
        "image" => ("verifying image", "image verified", true),
        "machine" => ("starting machine", "machine started", true),
        "agent" => ("waiting for agent", "agent ready", true),
        "kernel" => ("booting kernel", "kernel booted", false),
        "mounts" => ("mounting file systems", "file systems mounted", false),
        "data-disk" => ("preparing data disk", "data disk ready", false),
        "shares" => ("sharing folders", "folders shared", false),
        "network" => ("setting up network", "network ready", false),
        "containerd" => ("starting containerd", "containerd ready", false),
        "engine" => ("starting engine", "engine ready", true),
        "images" => ("loading images", "images loaded", false),
        // Of a newer daemon.
        other => return (clean(other), format!("{} done", clean(other)), false),
    };
    (doing.into(), done.into(), major)
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// One phase: its text, and how wide that is. What it has to say is cut where it would not fit: a line that the terminal
/// breaks by itself cannot be rewritten, and the whole of it is told at the end.
fn cell(phase: &Phase, now_ms: u64, width: usize, paint: Paint) -> (String, usize) {
    let (doing, done, _) = words(&phase.name);
    let ended = phase.ended_ms.unwrap_or(now_ms);
    let said = clean(&phase.detail).lines().next().unwrap_or("").replace('\t', " ");
    // Mark, blanks, colon, and the time with its brackets.
    let room =
        width.saturating_sub(6 + doing.chars().count().max(done.chars().count()) + seconds(ended).len());
    let detail = match said.chars().count() {
        0 => String::new(),
        n if n + 1 > room => format!(": {}…", said.chars().take(room.saturating_sub(1)).collect::<String>()),
        _ => format!(": {said}"),
    };
    let (mark, coloured, text) = match phase.state {
        PhaseState::Done => ("✓".to_owned(), paint.good("✓"), done),
        PhaseState::Degraded => ("!".to_owned(), paint.notable("!"), format!("{done}{detail}")),
        PhaseState::Failed => ("✗".to_owned(), paint.bad("✗"), format!("{doing}{detail}")),
        PhaseState::Running => {
            let at = usize::try_from(now_ms / 100).unwrap_or(0) % SPIN.len();
            let mark = SPIN[at].to_string();
            (mark.clone(), mark, doing)
        }
    };
    let time = format!("({})", seconds(ended));
    let width = mark.chars().count() + 2 + text.chars().count() + time.chars().count();
    (format!("{coloured} {text} {}", paint.faint(&time)), width)
}

/// Whether a phase is worth a place: the well-known ones, those that go on, and those that say something.
fn shown(phase: &Phase) -> bool {
    let took = phase.ended_ms.unwrap_or(0).saturating_sub(phase.started_ms);
    words(&phase.name).2 || phase.state != PhaseState::Done || took >= LONG_MS
}

/// All phases side by side, broken into lines that fit. Times count from the moment when the start was asked for.
pub(crate) fn lines(phases: &[Phase], now_ms: u64, width: usize, paint: Paint) -> Vec<String> {
    let mut lines: Vec<(String, usize)> = Vec::new();
    for phase in phases.iter().filter(|p| shown(p)) {
        let (text, wide) = cell(phase, now_ms, width, paint);
        match lines.last_mut() {
            Some((line, used)) if *used + GAP.len() + wide <= width => {
                line.push_str(GAP);
                line.push_str(&text);
                *used += GAP.len() + wide;
            }
            _ => lines.push((text, wide)),
        }
    }
    lines.into_iter().map(|(line, _)| line).collect()
}

/// One phase that has ended, as a line of its own.
pub(crate) fn ended(phase: &Phase, paint: Paint) -> String {
    cell(phase, phase.ended_ms.unwrap_or(phase.started_ms), usize::MAX, paint).0
}

/// The latest moment that the phases know of.
pub(crate) fn latest_ms(phases: &[Phase]) -> u64 {
    phases.iter().map(|p| p.ended_ms.unwrap_or(p.started_ms)).max().unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn phase(name: &str, state: PhaseState, started_ms: u64, ended_ms: Option<u64>) -> Phase {
        Phase { name: name.into(), state, started_ms, ended_ms, detail: String::new() }
    }

    fn a_start() -> Vec<Phase> {
        vec![
            phase("image", PhaseState::Done, 0, Some(112)),
            phase("machine", PhaseState::Done, 112, Some(290)),
            phase("agent", PhaseState::Done, 290, Some(934)),
            phase("network", PhaseState::Done, 934, Some(940)),
            phase("engine", PhaseState::Done, 940, Some(2399)),
        ]
    }

    #[test]
    fn a_start_reads_as_promised() {
        assert_eq!(
            lines(&a_start(), 9999, 200, Paint::Plain),
            [
                "✓ image verified (0.1 s)   ✓ machine started (0.2 s)   ✓ agent ready (0.9 s)   ✓ engine ready (2.3 s)"
            ]
        );
    }

    #[test]
    fn what_goes_on_moves_and_what_fails_says_why() {
        let mut phases = a_start();
        phases.truncate(3);
        phases.push(phase("network", PhaseState::Running, 934, None));
        assert!(lines(&phases, 1500, 200, Paint::Plain)[0].ends_with(" setting up network (1.5 s)"));
        assert_ne!(lines(&phases, 1500, 200, Paint::Plain), lines(&phases, 1600, 200, Paint::Plain));
        phases[3].state = PhaseState::Failed;
        phases[3].ended_ms = Some(2000);
        phases[3].detail = "no \x1b[31maddress".into();
        assert!(
            lines(&phases, 0, 200, Paint::Plain)[0]
                .ends_with("✗ setting up network: no \u{fffd}[31maddress (2.0 s)")
        );
    }

    #[test]
    fn minor_phases_show_when_they_took_long_or_are_not_well() {
        let text = |p| lines(&[p], 0, 200, Paint::Plain).concat();
        assert_eq!(text(phase("containerd", PhaseState::Done, 0, Some(300))), "");
        assert_eq!(text(phase("containerd", PhaseState::Done, 0, Some(2000))), "✓ containerd ready (2.0 s)");
        assert_eq!(
            text(phase("mounts", PhaseState::Degraded, 0, Some(300))),
            "! file systems mounted (0.3 s)"
        );
        assert_eq!(text(phase("warp", PhaseState::Running, 0, None)), "⣾ warp (0.0 s)");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut phases = a_start();
        phases[3].state = PhaseState::Degraded;
        phases[3].detail = format!("first {}\nsecond", "word ".repeat(40));
        for width in 30..120 {
            for line in lines(&phases, 0, width, Paint::Plain) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        assert_eq!(lines(&a_start(), 0, 60, Paint::Colour).len(), 2, "colours take no room");
        assert_eq!(lines(&a_start(), 0, 10, Paint::Plain).len(), 4, "one at least on each");
    }
}
