//! `iptables` for dockerd: each command goes to the agent, which starts the real program once for all of them.
//!
//! dockerd asks and tells in single commands, some two hundred at each start. Where processes are dear, and they are under
//! emulation, starting the real program for each is most of what dockerd's start costs: it looks up its libraries anew every
//! time. So what dockerd starts is a small thing that only asks ([`run`]), and whoever it asks ([`server`]) knows two cheaper ways:
//!
//! ```text
//!   -C -D      the chain is not there, or none of its rules can be the one that is meant ─▶ "no"     (netlink)
//!   -F -X -L   the chain is not there ─▶ "no"; flushing one that is empty ─▶ done                    (netlink)
//!   -N         its table is there ─▶ the chain is made, or is there already                          (netlink)
//!   -A -I … and what is left of these ─▶ one `iptables-restore` that stays ─▶ done
//!   everything else, whatever is unclear, and whatever did not succeed ─▶ the real program, for this command alone
//! ```
//!
//! The agent speaks for its own network only. dockerd also runs `iptables` inside a container's, for the resolver of user-defined
//! networks: there the real program does it all.
//!
//! A rule can be the one that is meant only if it names the interfaces that the command names, and ends as the command says
//! ([`rule`]). Whether it *is* the one, only the real program knows. And only it says why something failed.

mod ask;
mod kernel;
mod rule;
pub(crate) mod server;

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::{net::UnixStream, process::CommandExt},
    process::{Command, ExitCode},
    time::Duration,
};

use kernel::Family;

/// The real program; it is told by its first argument what it is to be.
const REAL: &str = "/usr/sbin/xtables-nft-multi";
/// How long the agent may take: longer than it gives itself, so that nothing is done twice.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the agent says about a command: one byte, and words for a person after a refusal.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Refused(String),
    /// Nothing was done.
    AskReal,
}

impl Answer {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Done => vec![0],
            Self::Refused(why) => [&[1], why.as_bytes()].concat(),
            Self::AskReal => vec![2],
        }
    }

    fn decode(bytes: &[u8]) -> Self {
        match bytes {
            [0] => Self::Done,
            [1, why @ ..] => Self::Refused(String::from_utf8_lossy(why).into_owned()),
            _ => Self::AskReal,
        }
    }
}

/// The words of a command with the name before them, as they are sent: each ends in a NUL, which none can hold.
fn encode(name: &str, arguments: &[String]) -> Vec<u8> {
    let words = [name].into_iter().chain(arguments.iter().map(String::as_str));
    words.flat_map(|word| [word.as_bytes(), &[0]].concat()).collect()
}

fn decode(bytes: &[u8]) -> Option<(Family, Vec<String>)> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\0')?;
    let mut words = text.split('\0').map(str::to_owned);
    let family = match words.next()?.as_str() {
        "iptables" => Family::Ipv4,
        "ip6tables" => Family::Ipv6,
        _ => return None,
    };
    Some((family, words.collect()))
}

/// Does what the command says. `name` is `iptables` or `ip6tables`.
pub fn run(name: &str, arguments: &[String]) -> ExitCode {
    let answer = if is_agents_network() { ask(name, arguments) } else { Ok(Answer::AskReal) };
    // Without the agent the real program does it all.
    match answer.unwrap_or(Answer::AskReal) {
        Answer::Done => ExitCode::SUCCESS,
        Answer::Refused(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
        Answer::AskReal => {
            let error = Command::new(REAL).arg(name).args(arguments).exec();
            eprintln!("{name}: failed to run {REAL}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether this process is in the network in which the agent is.
fn is_agents_network() -> bool {
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    network("1").is_some_and(|agents| network("self") == Some(agents))
}

fn ask(name: &str, arguments: &[String]) -> io::Result<Answer> {
    let mut agent = UnixStream::connect(server::SOCKET)?;
    agent.set_read_timeout(Some(PATIENCE))?;
    agent.write_all(&encode(name, arguments))?;
    agent.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    agent.read_to_end(&mut answer)?;
    Ok(Answer::decode(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers_arrive_as_they_were_sent() {
        let words = ["--wait".to_owned(), String::new(), "a b".to_owned()];
        assert_eq!(decode(&encode("ip6tables", &words)), Some((Family::Ipv6, words.to_vec())));
        assert_eq!(decode(&encode("iptables", &[])), Some((Family::Ipv4, Vec::new())));
        for broken in [&b""[..], b"iptables", b"nft\0-A\0", b"iptables\0\xff\0"] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
        for answer in [Answer::Done, Answer::Refused("why".into()), Answer::AskReal] {
            assert_eq!(Answer::decode(&answer.encode()), answer);
        }
        // The agent died in between.
        assert_eq!(Answer::decode(b""), Answer::AskReal);
    }
}
