//! `iptables` for dockerd: each command goes to the agent, which starts the real program once for all of them.
//!
//! dockerd asks and tells in single commands, some two hundred at each start. Where processes are dear, and they are under
//! emulation, starting the real program for each is most of what dockerd's start costs: it looks up its libraries anew every
//! time. So what dockerd starts is a small thing that only asks (`slipway-iptables`), and whoever it asks ([`server`]) knows two
//! cheaper ways:
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

use kernel::Family;
use slipway_iptables::{ASK_REAL, DONE, REFUSED};

/// What the agent says about a command.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    /// With words for a person.
    Refused(&'static str),
    /// Nothing was done.
    AskReal,
}

impl Answer {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Done => vec![DONE],
            Self::Refused(why) => [&[REFUSED], why.as_bytes()].concat(),
            Self::AskReal => vec![ASK_REAL],
        }
    }
}

/// The words of a command with the name before them; each ends in a NUL, which none can hold.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_were_sent() {
        let words = ["--wait".to_owned(), String::new(), "a b".to_owned()];
        assert_eq!(decode(b"ip6tables\0--wait\0\0a b\0"), Some((Family::Ipv6, words.to_vec())));
        assert_eq!(decode(b"iptables\0"), Some((Family::Ipv4, Vec::new())));
        for broken in [&b""[..], b"iptables", b"nft\0-A\0", b"iptables\0\xff\0"] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn what_is_refused_fits_into_an_answer() {
        for why in [ask::NO_RULE, ask::NO_CHAIN] {
            let answer = Answer::Refused(why).encode();
            assert!(answer.len() <= slipway_iptables::LONGEST_ANSWER, "{why}");
            assert_eq!(answer.first(), Some(&REFUSED));
        }
    }
}
