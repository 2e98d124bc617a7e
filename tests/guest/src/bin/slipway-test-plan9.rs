//! The agent's own code for Hyper-V's folders, in a guest that has none: their server is a real one on the test's host, reached by TCP.
//!
//! `slipway-test-plan9 ADDRESS WITHIN AT` shares what each line of its input says, `ID PATH [ro|file];…`, and answers each with a line:
//! `ok`, or what failed.

use std::{
    error::Error,
    io::BufRead,
    net::{SocketAddr, TcpStream},
};

use slipway_agent::shares::{Plan9, Shares};
use slipway_protocol::v1::{SetShares, Share};

fn share(words: &str) -> Option<Share> {
    let mut words = words.split_whitespace();
    let (id, path, how) = (words.next()?, words.next()?, words.next());
    let (read_only, file) = (how == Some("ro"), how == Some("file"));
    Some(Share { id: id.into(), path: path.into(), read_only, file })
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, within, at] = words.as_slice() else { return Err("ADDRESS WITHIN AT".into()) };
    let address: SocketAddr = address.parse()?;
    let server = Plan9::new(move || TcpStream::connect(address).map(Into::into), within.clone());
    let shares = Shares::by_plan9(server, at.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for line in std::io::stdin().lock().lines() {
        let wanted = SetShares { shares: line?.split(';').filter_map(share).collect() };
        let state = runtime.block_on(shares.set(wanted));
        let failed: Vec<String> =
            state.failed.into_iter().map(|f| format!("{}: {}", f.code, f.message)).collect();
        println!("{}", if failed.is_empty() { "ok".into() } else { failed.join("; ") });
    }
    Ok(())
}
