//! Questions to nf_tables, by netlink.

use std::io;

use rustix::net::netlink::NETFILTER;

use crate::netlink::{self, NLM_F_DUMP, Netlink};

use super::rule::Rule;

/// Named as the protocols are in netlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4 = 2,
    Ipv6 = 10,
}

pub(super) const CHAIN_EXISTS: &str = "Chain already exists.";

/// A socket to nf_tables.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: Netlink,
    family: Family,
}

// From linux/netlink.h and linux/netfilter/nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE_ONLY: u16 = 0x600;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
/// The same numbers for chains and rules: the table, and the chain's name.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;
/// Length of `struct nfgenmsg`, with which each message begins.
const GENERIC: usize = 4;

impl Kernel {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        Ok(Self { socket: Netlink::open(NETFILTER)?, family })
    }

    /// The rules of a chain; `None` when there is no such chain.
    pub(super) fn chain(&self, table: &str, chain: &str) -> io::Result<Option<Vec<Rule>>> {
        let there = self.ask(NFT_MSG_GETCHAIN, 0, &[(TABLE, table), (CHAIN_NAME, chain)]);
        match there {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
            Ok(_) => {
                let rules = self.ask(NFT_MSG_GETRULE, NLM_F_DUMP, &[(TABLE, table), (RULE_CHAIN, chain)])?;
                Ok(Some(rules.into_iter().map(Rule::new).collect()))
            }
        }
    }

    /// Makes a chain; fails where there is no such table.
    pub(super) fn make_chain(&self, table: &str, chain: &str) -> io::Result<Result<(), &'static str>> {
        let border = |kind| {
            let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
            netlink::request(kind, 0, &[0, 0, high, low])
        };
        let flags = NLM_F_ACK | NLM_F_CREATE_ONLY;
        let chain = [(TABLE, table), (CHAIN_NAME, chain)];
        let make = request(self.family as u8, of_nftables(NFT_MSG_NEWCHAIN), flags, &chain);
        let batch = [border(NFNL_MSG_BATCH_BEGIN), make, border(NFNL_MSG_BATCH_END)].concat();
        match self.socket.exchange(&batch, false) {
            Ok(_) => Ok(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Err(CHAIN_EXISTS)),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, kind: u16, flags: u16, attributes: &[(u16, &str)]) -> io::Result<Vec<Vec<u8>>> {
        let request = request(self.family as u8, of_nftables(kind), flags, attributes);
        let answers = self.socket.exchange(&request, flags & NLM_F_DUMP != 0)?;
        Ok(answers.into_iter().map(|body| body.get(GENERIC..).unwrap_or_default().to_vec()).collect())
    }
}

fn of_nftables(kind: u16) -> u16 {
    (NFNL_SUBSYS_NFTABLES << 8) | kind
}

fn request(family: u8, kind: u16, flags: u16, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut bytes = vec![family, 0, 0, 0];
    for (kind, value) in attributes {
        let length = 4 + value.len() + 1;
        bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value.as_bytes());
        // The NUL, and up to the next multiple of four.
        bytes.resize(bytes.len() + 1 + (4 - length % 4) % 4, 0);
    }
    netlink::request(kind, flags, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_kernel_wants_it() {
        let bytes = request(2, of_nftables(NFT_MSG_GETCHAIN), 0, &[(TABLE, "nat"), (CHAIN_NAME, "DOCKER")]);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes[..4], u32::try_from(bytes.len()).expect("short").to_ne_bytes());
        assert_eq!(bytes[16..28], [2, 0, 0, 0, 8, 0, 1, 0, b'n', b'a', b't', 0]);
        assert_eq!(bytes[28..], [11, 0, 3, 0, b'D', b'O', b'C', b'K', b'E', b'R', 0, 0]);
    }
}
