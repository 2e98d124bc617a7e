//! Shows a start or a stop as it goes: a line that is rewritten on a terminal, one line per phase elsewhere.

use std::time::{Duration, Instant};

use slipway_api::{Phase, PhaseState, Problem, State, Status, client::ApiClient};

use crate::{
    phases,
    say::{Fail, Say},
    terminal::talk_width,
};

/// Between two pictures of what goes on.
const FRAME: Duration = Duration::from_millis(100);

/// The line on the terminal. Wherever the command ends, what follows begins on a line of its own.
struct Live {
    say: Say,
    /// Lines of the last picture that are still to be rewritten.
    drawn: usize,
    /// Phases that were printed for good, where nothing can be rewritten.
    printed: Vec<String>,
    phases: Vec<Phase>,
    /// A moment of the daemon's count, and the same moment here.
    clock: (u64, Instant),
}

impl Live {
    fn new(say: Say) -> Self {
        Self { say, drawn: 0, printed: Vec::new(), phases: Vec::new(), clock: (0, Instant::now()) }
    }

    fn now_ms(&self) -> u64 {
        self.clock.0 + u64::try_from(self.clock.1.elapsed().as_millis()).unwrap_or(0)
    }

    fn update(&mut self, phases: &[Phase]) {
        let latest = phases::latest_ms(phases);
        // A new count, or one that is ahead of ours.
        if latest > self.now_ms() || phases.len() < self.phases.len() {
            self.clock = (latest, Instant::now());
        }
        self.phases = phases.to_vec();
        self.draw();
    }

    fn draw(&mut self) {
        if self.say.quiet() {
            return;
        }
        if !self.say.live() {
            let over = |p: &&Phase| p.state != PhaseState::Running && !self.printed.contains(&p.name);
            let mut over: Vec<&Phase> = self.phases.iter().filter(over).collect();
            // Several come at once, because the guest's are known when its agent is there.
            over.sort_by_key(|phase| phase.ended_ms);
            for phase in over {
                self.say.talk(&phases::ended(phase, self.say.err()));
                self.printed.push(phase.name.clone());
            }
            return;
        }
        // One less: a terminal that is full to the last column moves on by itself.
        let width = talk_width().map_or(80, usize::from).max(20) - 1;
        let lines = phases::lines(&self.phases, self.now_ms(), width, self.say.err());
        let mut text = self.back();
        text.push_str(&lines.join("\n"));
        self.drawn = lines.len();
        self.say.stderr(&text);
    }

    /// What takes the cursor back to the picture's beginning and clears it.
    fn back(&self) -> String {
        match self.drawn {
            0 => String::new(),
            1 => "\r\x1b[J".into(),
            n => format!("\r\x1b[{}A\x1b[J", n - 1),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.drawn > 0 {
            self.say.stderr("\n");
        }
    }
}

/// Follows a start to its end: the status in which it ended, well or not.
///
/// # Errors
/// The daemon was lost on the way.
pub(crate) async fn start(api: &ApiClient, say: Say, first: Status) -> Result<Status, Fail> {
    let mut live = Live::new(say);
    let mut status = first;
    let mut changes = api.watch().await?;
    let mut frames = tokio::time::interval(FRAME);
    loop {
        if status.state != State::Starting {
            live.update(&status.phases);
            return Ok(status);
        }
        live.update(&status.phases);
        status = loop {
            tokio::select! {
                change = changes.next() => break change?.ok_or_else(gone)?,
                _ = frames.tick(), if say.live() => live.draw(),
            }
        };
    }
}

/// Shows every start that goes on until something else has ended: what that said.
///
/// # Errors
/// The daemon cannot be followed, or what the other said.
pub(crate) async fn during<T>(
    api: &ApiClient,
    say: Say,
    work: impl Future<Output = Result<T, Fail>>,
) -> Result<T, Fail> {
    let mut changes = api.watch().await?;
    let mut frames = tokio::time::interval(FRAME);
    let mut shown: Option<Live> = None;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            // A daemon that goes is told by the work.
            Ok(Some(status)) = changes.next() => {
                if status.state == State::Starting {
                    shown.get_or_insert_with(|| Live::new(say)).update(&status.phases);
                } else if let Some(mut live) = shown.take() {
                    live.update(&status.phases);
                }
            }
            _ = frames.tick(), if say.live() => shown.iter_mut().for_each(Live::draw),
        }
    }
}

/// Follows until it is so.
///
/// # Errors
/// The daemon was lost on the way.
pub(crate) async fn until(
    api: &ApiClient,
    first: Status,
    reached: impl Fn(State) -> bool,
) -> Result<Status, Fail> {
    let mut status = first;
    let mut changes = api.watch().await?;
    while !reached(status.state) {
        status = changes.next().await?.ok_or_else(gone)?;
    }
    Ok(status)
}

fn gone() -> Problem {
    Problem::new("daemon-gone", "the daemon ended meanwhile").hint("run `slipway status`")
}
