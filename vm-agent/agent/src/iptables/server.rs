//! Where `slipway-iptables` asks: a socket that only root of the guest reaches.
//!
//! ```text
//!   no program ──first command──▶ reads lines ──each answered in its turn──▶ … ──idle, or one failed──▶ no program
//! ```
//!
//! The program reads rules from its standard input for as long as that is open, puts them in force at each `COMMIT`, and repeats
//! comments: that is how its answer is known. It notices what others changed, because the kernel refuses what was decided on
//! older rules. At the first line that it cannot do it ends, with nothing of that line done.

use std::{
    ffi::{CStr, OsStr},
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use slipway_iptables::{HEADER, REAL, SOCKET, network, read_header};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::pipe},
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Answer,
    ask::{Ask, Verb},
    decode,
    kernel::{Family, Kernel},
};
use crate::{listen, logs::Logs, reaper::Reaper};

/// Most bytes of a command's words.
const LONGEST: usize = 64 << 10;
/// How long a command may take to arrive, and a line to be done.
const LIMIT: Duration = Duration::from_secs(20);
/// Without a command for so long the program is ended: it holds memory.
const IDLE: Duration = Duration::from_secs(10);

/// Serves commands for ever.
///
/// # Errors
/// The socket cannot be made.
pub(crate) async fn run(reaper: Arc<Reaper>, logs: &Logs) -> io::Result<()> {
    let path = |text: &'static CStr| Path::new(OsStr::from_bytes(text.to_bytes()));
    let listener = listen::private(path(SOCKET))?;
    let tables = [Family::Ipv4, Family::Ipv6].map(|family| Tables::new(family, path(REAL).to_owned()));
    let tables = Arc::new(tables);
    let network = network();
    let mut commands = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = commands.join_next() => {}
            accepted = timeout(IDLE, listener.accept()) => match accepted {
                Ok(Ok((stream, _))) => {
                    let (tables, reaper) = (Arc::clone(&tables), Arc::clone(&reaper));
                    // A client that is gone does not want to know.
                    commands.spawn(async move { drop(one(stream, network, &tables, &reaper).await) });
                }
                Ok(Err(error)) => {
                    logs.say(format!("failed to accept a command for iptables: {error}"));
                    sleep(Duration::from_millis(100)).await;
                }
                Err(_) => for tables in tables.iter() {
                    tables.restore.lock().await.take();
                },
            }
        }
    }
}

async fn one(
    mut stream: UnixStream,
    network: Option<u64>,
    tables: &[Tables; 2],
    reaper: &Reaper,
) -> io::Result<()> {
    let Some(words) = timeout(LIMIT, command(&mut stream, network)).await?? else {
        return stream.write_all(&Answer::AskReal.encode()).await;
    };
    let answer = match decode(&words) {
        Some((family, words)) => {
            let [four, six] = tables;
            let tables = if family == Family::Ipv4 { four } else { six };
            tables.answer(&words, reaper).await
        }
        None => Answer::AskReal,
    };
    stream.write_all(&answer.encode()).await
}

/// The words of a command; `None` if it is about another network than the agent's, or too long.
async fn command(stream: &mut UnixStream, network: Option<u64>) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let (cookie, length) = read_header(header);
    let length = length as usize;
    if Some(cookie) != network || length > LONGEST {
        return Ok(None);
    }
    let mut words = vec![0; length];
    stream.read_exact(&mut words).await?;
    Ok(Some(words))
}

/// The rules of one protocol.
struct Tables {
    family: Family,
    program: PathBuf,
    restore: Mutex<Option<Restore>>,
}

impl Tables {
    fn new(family: Family, program: PathBuf) -> Self {
        Self { family, program, restore: Mutex::default() }
    }

    async fn answer(&self, words: &[String], reaper: &Reaper) -> Answer {
        let Some(ask) = Ask::parse(words) else { return Answer::AskReal };
        match self.known(&ask) {
            Some(Ok(())) => Answer::Done,
            Some(Err(why)) => Answer::Refused(why),
            None => match self.done(&ask, reaper).await {
                true => Answer::Done,
                false => Answer::AskReal,
            },
        }
    }

    /// What the kernel itself says.
    fn known(&self, ask: &Ask<'_>) -> Option<Result<(), &'static str>> {
        if matches!(ask.verb, Verb::Append | Verb::Insert) {
            return None;
        }
        let kernel = Kernel::open(self.family).ok()?;
        match ask.verb {
            Verb::New => kernel.make_chain(ask.table, ask.chain).ok(),
            _ => ask.answer(kernel.chain(ask.table, ask.chain).ok()?.as_deref()),
        }
    }

    /// Whether the program that stays did it. If not, nothing was done.
    async fn done(&self, ask: &Ask<'_>, reaper: &Reaper) -> bool {
        let Some(line) = ask.line() else { return false };
        let mut restore = self.restore.lock().await;
        // Taken out for as long as it works, so that one that is given up is gone.
        let running = restore.take().map_or_else(|| Restore::start(self.family, &self.program, reaper), Ok);
        let Ok(mut running) = running else { return false };
        match timeout(LIMIT, running.done(ask.table, &line)).await {
            Ok(true) => *restore = Some(running),
            Ok(false) => return false,
            Err(_) => {
                reaper.signal(running.pid, Signal::KILL);
                return false;
            }
        }
        true
    }
}

/// The program, which ends with its standard input.
struct Restore {
    pid: i32,
    lines: pipe::Sender,
    said: BufReader<pipe::Receiver>,
    number: u64,
}

impl Restore {
    fn start(family: Family, program: &Path, reaper: &Reaper) -> io::Result<Self> {
        let (stdin, lines) = io::pipe()?;
        let (said, stdout) = io::pipe()?;
        let mut command = Command::new(program);
        command.arg(if family == Family::Ipv4 { "iptables-restore" } else { "ip6tables-restore" });
        command.args(["--noflush", "--verbose"]).stdin(stdin).stdout(stdout).stderr(Stdio::null());
        let (_child, started) = reaper.spawn(command.process_group(0))?;
        Ok(Self {
            pid: started.pid,
            lines: pipe::Sender::from_owned_fd(lines.into())?,
            said: BufReader::new(pipe::Receiver::from_owned_fd(said.into())?),
            number: 0,
        })
    }

    /// Does one line; false when it could not, which ended the program.
    async fn done(&mut self, table: &str, line: &str) -> bool {
        self.number += 1;
        let word = format!("# {}\n", self.number);
        let text = format!("*{table}\n{line}\nCOMMIT\n{word}");
        if self.lines.write_all(text.as_bytes()).await.is_err() {
            return false;
        }
        let mut said = String::new();
        loop {
            said.clear();
            match self.said.read_line(&mut said).await {
                Ok(0) | Err(_) => return false,
                Ok(_) if said == word => return true,
                // It also says what it does.
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// Writes down what it reads, repeats comments, and ends at a line that it does not like.
    const PROGRAM: &str = r#"#!/bin/sh
echo "start $*" >> "$0.log"
while read -r line; do
    echo "$line" >> "$0.log"
    case $line in
        '#'*) echo "$line" ;;
        *WRONG*) echo wrong >&2; exit 2 ;;
        *) echo "working on $line" ;;
    esac
done
"#;

    #[tokio::test]
    async fn one_program_does_many_commands_and_another_what_comes_after_a_failure() {
        let dir = tempfile::tempdir().expect("folder");
        let program = dir.path().join("program");
        fs::write(&program, PROGRAM).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        let reaper = Reaper::new(false);
        let tables = Tables::new(Family::Ipv6, program.clone());
        let does = async |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            tables.done(&Ask::parse(&words).expect("of dockerd's form"), &reaper).await
        };
        assert!(does("--wait -t nat -A X -j Y").await);
        assert!(does("-I X 1 -j Z").await);
        assert!(!does("-A X -j WRONG").await);
        assert!(does("-t mangle -A X -j Y").await);
        assert!(!does("-n -L X").await, "not for it");
        let log = fs::read_to_string(program.with_extension("log")).expect("a log");
        let expected = "start ip6tables-restore --noflush --verbose\n\
            *nat\n-A X -j Y\nCOMMIT\n# 1\n*filter\n-I X 1 -j Z\nCOMMIT\n# 2\n*filter\n-A X -j WRONG\n\
            start ip6tables-restore --noflush --verbose\n*mangle\n-A X -j Y\nCOMMIT\n# 1\n";
        assert_eq!(log, expected);
    }

    #[tokio::test]
    async fn a_command_is_read_whole_and_only_of_this_network() {
        let Some(ours) = network() else {
            println!(
                "skipped: this kernel, or what stands for one (qemu-user), does not number its networks"
            );
            return;
        };
        let sent = async |cookie: u64, length: u32, words: &[u8]| {
            let (mut client, mut server) = UnixStream::pair().expect("a pair");
            client.write_all(&slipway_iptables::header(cookie, length)).await.expect("sent");
            client.write_all(words).await.expect("sent");
            drop(client);
            command(&mut server, Some(ours)).await.ok()
        };
        assert_eq!(sent(ours, 9, b"iptables\0").await, Some(Some(b"iptables\0".to_vec())));
        assert_eq!(sent(ours + 1, 9, b"iptables\0").await, Some(None), "of another network");
        assert_eq!(sent(ours, 12, b"iptables\0").await, None, "cut off");
        assert_eq!(sent(ours, u32::MAX, b"").await, Some(None), "too long");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_or_says_nothing_leaves_the_command_to_the_real_one() {
        let reaper = Reaper::new(false);
        let words = ["-A", "X", "-j", "Y"].map(str::to_owned);
        let ask = Ask::parse(&words).expect("of dockerd's form");
        for program in ["/nonexistent", "/bin/true"] {
            assert!(!Tables::new(Family::Ipv4, program.into()).done(&ask, &reaper).await, "{program}");
        }
    }
}
