//! What a command is about, and what can be said about it from the kernel's rules alone.

use super::rule::Rule;

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
                // `-D CHAIN 3` is a number, and no rule.
                let is_rule = rule.iter().any(|w| w.starts_with('-'));
                let fits = match verb {
                    Verb::Append | Verb::Insert => is_rule,
                    Verb::Check | Verb::Delete => is_rule || rule.is_empty(),
                    _ => rule.is_empty(),
                };
                fits.then_some(Self { verb, table, chain, rule, words })
            }
            _ => None,
        }
    }

    /// What is to be done, as far as a chain's rules say it (`None`: there is no such chain); `None` is for the real program.
    pub(super) fn answer(&self, rules: Option<&[Rule]>) -> Option<Result<(), &'static str>> {
        match (self.verb, rules) {
            (Verb::Check | Verb::Delete, None) => Some(Err(NO_RULE)),
            (Verb::Flush | Verb::Remove | Verb::List, None) => Some(Err(NO_CHAIN)),
            (Verb::Flush, Some([])) => Some(Ok(())),
            (Verb::Check | Verb::Delete, Some(rules)) => {
                (!rules.iter().any(|rule| self.may_mean(rule))).then_some(Err(NO_RULE))
            }
            _ => None,
        }
    }

    /// Whether it can mean this rule, as far as interfaces, the kind of address and the target say it.
    fn may_mean(&self, rule: &Rule) -> bool {
        let (mut target, mut unclear) = (None, false);
        let mut interfaces = Vec::new();
        for (at, word) in self.rule.iter().enumerate() {
            let value = self.rule.get(at + 1).map_or("", String::as_str);
            match word.as_str() {
                // `eth+` stands for many.
                "-i" | "-o" if !value.ends_with('+') => {
                    interfaces.push(value);
                    // One that comes and goes by the same is named twice.
                    let times = interfaces.iter().filter(|name| **name == value).count();
                    if rule.times(value) < times {
                        return false;
                    }
                }
                // Whoever wrote the rule, it is kept by the one name or the other.
                "-m" if value == "addrtype" && rule.times("addrtype") + rule.times("fib") == 0 => {
                    return false;
                }
                "-j" => target = Some(value),
                "-g" | "--goto" | "--jump" => unclear = true,
                _ => {}
            }
        }
        unclear || rule.may_end(target)
    }

    /// The command as a line of `iptables-save`; `None` when it cannot be one.
    pub(super) fn line(&self) -> Option<String> {
        let plain = |word: &String| {
            !word.is_empty() && !word.contains(|c: char| c.is_control() || matches!(c, '"' | '\\' | '\''))
        };
        let no_rule = matches!(self.verb, Verb::Check | Verb::Delete) && self.rule.is_empty();
        if self.verb == Verb::List || no_rule || !self.words.iter().all(plain) {
            return None;
        }
        let quoted = |word: &String| if word.contains(' ') { format!("\"{word}\"") } else { word.clone() };
        let line = self.words.iter().map(quoted).collect::<Vec<_>>().join(" ");
        // The program reads no longer ones.
        (line.len() < 8 << 10).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rule::tests::rule, *};

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    /// A kernel with the chains `EMPTY`, `DOCKER`, `NAT` (which have a rule each) and none else.
    fn answer(line: &str) -> Option<Result<(), &'static str>> {
        let words = words(line);
        let ask = Ask::parse(&words)?;
        let rules = match (ask.table, ask.chain) {
            ("nat" | "filter", "EMPTY") => Some(vec![]),
            ("nat" | "filter", "DOCKER") => Some(vec![rule("docker0", "jump DOCKER-CT")]),
            ("nat", "NAT") => Some(vec![rule("docker0", "MASQUERADE")]),
            _ => None,
        };
        ask.answer(rules.as_deref())
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
        assert_eq!(answer("-C DOCKER -m set --match-set x dst -j ACCEPT"), Some(Err(NO_RULE)), "no verdict");
        assert_eq!(answer("-C DOCKER -i docker0 -o docker0 -j DOCKER-CT"), Some(Err(NO_RULE)), "one of both");
        assert_eq!(answer("-D DOCKER"), Some(Err(NO_RULE)), "it leads somewhere");
        let local = "-t nat -C NAT -m addrtype --src-type LOCAL -o docker0 -j MASQUERADE";
        assert_eq!(answer(local), Some(Err(NO_RULE)), "it looks at no kind of address");
    }

    #[test]
    fn what_may_be_there_is_for_the_real_program() {
        for line in [
            "-C DOCKER -i docker0 -j DOCKER-CT",
            // Targets and addresses are not kept as they are written.
            "-t nat -D NAT -o docker0 -j MASQUERADE",
            "-t nat -C NAT -s 10.0.0.0/8 -j SNAT --to 10.0.0.1",
            "-C DOCKER -s 10.0.0.0/8 -j DOCKER-CT",
            "-C DOCKER -i docker+ -j DOCKER-CT",
            "-C DOCKER -i docker0 -g DOCKER-CT",
            "-F DOCKER",
            "-X EMPTY",
            "-n -L EMPTY",
            "-A GONE -j DROP",
            "-F EMPTY EMPTY",
            "-D DOCKER 3",
            "-A DOCKER",
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
        assert_eq!(line(&["-D", "X"]), None, "a rule that says nothing is not to be found by accident");
    }
}
