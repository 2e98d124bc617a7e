//! What a command is about, and what can be said about it from the kernel's rules alone.

use std::io;

pub(super) const NO_RULE: &str = "Bad rule (does a matching rule exist in that chain?).";
pub(super) const NO_CHAIN: &str = "No chain/target/match by that name.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    New,
    Append,
    Insert,
    Check,
    Delete,
    Flush,
    Remove,
    List,
}

/// A command of a form that dockerd uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask<'a> {
    pub(super) verb: Verb,
    pub(super) table: &'a str,
    pub(super) chain: &'a str,
    rule: &'a [String],
    /// All of it but the table.
    words: &'a [String],
}

impl<'a> Ask<'a> {
    /// `None` for every form that dockerd does not use.
    pub(super) fn parse(arguments: &'a [String]) -> Option<Self> {
        let mut words = arguments;
        let mut table = "filter";
        loop {
            words = match words {
                [wait, rest @ ..] if wait == "--wait" => rest,
                [option, name, rest @ ..] if option == "-t" => {
                    table = name;
                    rest
                }
                _ => break,
            };
        }
        let verb = |word: &str| match word {
            "-N" => Some(Verb::New),
            "-A" => Some(Verb::Append),
            "-I" => Some(Verb::Insert),
            "-C" => Some(Verb::Check),
            "-D" => Some(Verb::Delete),
            "-F" => Some(Verb::Flush),
            "-X" => Some(Verb::Remove),
            _ => None,
        };
        match words {
            [numeric, list, chain] if numeric == "-n" && list == "-L" => {
                Some(Self { verb: Verb::List, table, chain, rule: &[], words })
            }
            [word, chain, rule @ ..] if !chain.starts_with('-') => {
                let verb = verb(word)?;
                let takes_rule = matches!(verb, Verb::Append | Verb::Insert | Verb::Check | Verb::Delete);
                // `-D CHAIN 3` is a number, and no rule.
                let fits = if takes_rule { rule.iter().any(|w| w.starts_with('-')) } else { rule.is_empty() };
                fits.then_some(Self { verb, table, chain, rule, words })
            }
            _ => None,
        }
    }

    /// What is to be done, as far as `chains` (a chain's rules as the kernel keeps them, by table and name) says it; `None` is for
    /// the real program.
    pub(super) fn answer(
        &self,
        chains: impl Fn(&str, &str) -> io::Result<Option<Vec<Vec<u8>>>>,
    ) -> io::Result<Option<Result<(), &'static str>>> {
        let rules = chains(self.table, self.chain)?;
        Ok(match (self.verb, rules) {
            (Verb::Check | Verb::Delete, None) => Some(Err(NO_RULE)),
            (Verb::Flush | Verb::Remove | Verb::List, None) => Some(Err(NO_CHAIN)),
            (Verb::Flush, Some(rules)) if rules.is_empty() => Some(Ok(())),
            (Verb::Check | Verb::Delete, Some(rules)) => {
                let names = self.names(|chain| Ok(chains(self.table, chain)?.is_some()))?;
                let fits = |rule: &Vec<u8>| names.iter().all(|name| contains(rule, name));
                (!rules.iter().any(fits)).then_some(Err(NO_RULE))
            }
            _ => None,
        })
    }

    /// The command as a line of `iptables-save`; `None` when it cannot be one.
    pub(super) fn line(&self) -> Option<String> {
        let plain = |word: &String| {
            !word.is_empty() && !word.contains(|c: char| c.is_control() || matches!(c, '"' | '\\' | '\''))
        };
        if self.verb == Verb::List || !self.words.iter().all(plain) {
            return None;
        }
        let quoted = |word: &String| if word.contains(' ') { format!("\"{word}\"") } else { word.clone() };
        let line = self.words.iter().map(quoted).collect::<Vec<_>>().join(" ");
        // The program reads no longer ones.
        (line.len() < 8 << 10).then_some(line)
    }

    /// What the meant rule holds for sure: names of interfaces and of the chain that it jumps to, with the NUL that ends them.
    fn names(&self, is_chain: impl Fn(&str) -> io::Result<bool>) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for pair in self.rule.windows(2) {
            let [option, value] = pair else { continue };
            let sure = match option.as_str() {
                // `eth+` stands for many.
                "-i" | "-o" => !value.ends_with('+'),
                // A target that is no chain may be kept as something else than its name.
                "-j" => is_chain(value)?,
                _ => false,
            };
            if sure {
                names.push([value.as_bytes(), &[0]].concat());
            }
        }
        Ok(names)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    /// A kernel with the chains `EMPTY`, `DOCKER` (which has one rule) and none else.
    fn answer(line: &str) -> Option<Result<(), &'static str>> {
        let words = words(line);
        let chains = |table: &str, chain: &str| {
            let rule = b"\x01\x02docker0\0..DOCKER-CT\0\x03".to_vec();
            Ok(match (table, chain) {
                ("nat" | "filter", "EMPTY" | "DOCKER-CT") => Some(Vec::new()),
                ("nat" | "filter", "DOCKER") => Some(vec![rule]),
                _ => None,
            })
        };
        Ask::parse(&words)?.answer(chains).expect("the kernel answers")
    }

    #[test]
    fn what_is_not_there_needs_no_program() {
        assert_eq!(answer("--wait -t nat -C GONE -j DOCKER"), Some(Err(NO_RULE)));
        assert_eq!(answer("--wait -t raw -D DOCKER -i docker0 -j DROP"), Some(Err(NO_RULE)));
        assert_eq!(answer("--wait -t nat -F GONE"), Some(Err(NO_CHAIN)));
        assert_eq!(answer("--wait -X GONE"), Some(Err(NO_CHAIN)));
        assert_eq!(answer("--wait -t filter -n -L GONE"), Some(Err(NO_CHAIN)));
        assert_eq!(answer("--wait -t nat -F EMPTY"), Some(Ok(())));
        assert_eq!(answer("--wait -C EMPTY -j ACCEPT"), Some(Err(NO_RULE)));
        assert_eq!(answer("-C DOCKER -i docker1 -j ACCEPT"), Some(Err(NO_RULE)), "another interface");
        assert_eq!(answer("-C DOCKER ! -o br-1 -j ACCEPT"), Some(Err(NO_RULE)));
        assert_eq!(answer("-C DOCKER -i docker0 -j EMPTY"), Some(Err(NO_RULE)), "another chain");
    }

    #[test]
    fn what_may_be_there_is_for_the_real_program() {
        for line in [
            "-C DOCKER -i docker0 -j DOCKER-CT",
            // Targets and addresses are not kept as they are written.
            "-D DOCKER -i docker0 -j MASQUERADE",
            "-C DOCKER -s 10.0.0.0/8 -j DROP",
            "-C DOCKER -i docker+ -j DROP",
            "-F DOCKER",
            "-X EMPTY",
            "-n -L EMPTY",
            "-A GONE -j DROP",
            "-F EMPTY EMPTY",
            "-D DOCKER 3",
            "-D DOCKER",
            "-N GONE",
            "-I DOCKER 1 -j DROP",
            "-w 5 -C GONE -j DROP",
            "-F",
            "-L -n",
            "--version",
        ] {
            assert_eq!(answer(line), None, "{line}");
        }
    }

    #[test]
    fn a_command_is_a_line_if_it_can_be_one() {
        let line = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            Ask::parse(&words)?.line()
        };
        assert_eq!(
            line(&[
                "--wait",
                "-t",
                "nat",
                "-I",
                "POSTROUTING",
                "1",
                "!",
                "-o",
                "docker0",
                "-j",
                "MASQUERADE"
            ]),
            Some("-I POSTROUTING 1 ! -o docker0 -j MASQUERADE".into())
        );
        let comment = ["-A", "X", "-m", "comment", "--comment", "DOCKER FORWARD # x", "-j", "RETURN"];
        assert_eq!(line(&comment), Some("-A X -m comment --comment \"DOCKER FORWARD # x\" -j RETURN".into()));
        assert_eq!(line(&["-N", "X"]), Some("-N X".into()));
        for other in ["a\nCOMMIT", "a\"b", "a\\b", ""] {
            assert_eq!(line(&["-A", "X", "-m", "comment", "--comment", other]), None, "{other:?}");
        }
        let long = "x".repeat(9 << 10);
        assert_eq!(line(&["-A", "X", "-m", "comment", "--comment", &long]), None);
        assert_eq!(line(&["-n", "-L", "X"]), None, "what is said cannot be had that way");
    }
}
