//! A rule as nf_tables keeps it, as far as it must be known to say which commands cannot mean it.

/// The lists that a rule's attributes are made of; from linux/netfilter/nf_tables.h.
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// The register for what becomes of the packet.
const REGISTER_VERDICT: u32 = 0;
/// The two upper bits of an attribute's type are flags.
const KIND: u16 = 0x3fff;
/// Verdicts by the names that `iptables` has for them.
const VERDICTS: [(&str, i32); 3] = [("ACCEPT", 1), ("DROP", 0), ("RETURN", -5)];
/// Expressions that end no rule.
const MATCHES: &[&[u8]] = &[
    b"bitwise",
    b"byteorder",
    b"cmp",
    b"connlimit",
    b"counter",
    b"ct",
    b"exthdr",
    b"fib",
    b"hash",
    b"limit",
    b"lookup",
    b"match",
    b"meta",
    b"numgen",
    b"osf",
    b"payload",
    b"range",
    b"rt",
    b"socket",
    b"xfrm",
];

/// What a rule does with the packets that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Nothing,
    Chain(Vec<u8>),
    Verdict(i32),
    /// An extension, or what is not understood.
    Other,
}

/// One rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    bytes: Vec<u8>,
    end: End,
}

impl Rule {
    /// Takes the attributes of a rule, as the kernel tells them.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { end: end(&bytes).unwrap_or(End::Other), bytes }
    }

    /// Whether `-j target` can mean it; without a target, whether a command without any can.
    pub(super) fn may_end(&self, target: Option<&str>) -> bool {
        let verdict = |name| VERDICTS.iter().find(|(known, _)| *known == name).map(|(_, code)| *code);
        match (&self.end, target) {
            (End::Nothing, target) => target.is_none(),
            (End::Chain(name), target) => target.is_some_and(|target| target.as_bytes() == name),
            (End::Verdict(code), target) => target.and_then(verdict) == Some(*code),
            // What it is called is not always what the command calls it.
            (End::Other, target) => target.is_some_and(|target| verdict(target).is_none()),
        }
    }

    /// How often it holds this name, with the NUL that ends it.
    pub(super) fn times(&self, name: &str) -> usize {
        let name = [name.as_bytes(), &[0]].concat();
        self.bytes.windows(name.len()).filter(|window| *window == name).count()
    }
}

/// `None` if it is not understood.
fn end(rule: &[u8]) -> Option<End> {
    let Some(expressions) = find(rule, RULE_EXPRESSIONS) else { return Some(End::Nothing) };
    for (_, expression) in attributes(expressions) {
        let name = find(expression, EXPRESSION_NAME)?.strip_suffix(&[0])?;
        if MATCHES.contains(&name) {
            continue;
        }
        let data = find(expression, EXPRESSION_DATA)?;
        if name != b"immediate" || number(find(data, IMMEDIATE_REGISTER)?)? != REGISTER_VERDICT {
            return None;
        }
        let verdict = find(find(data, IMMEDIATE_DATA)?, DATA_VERDICT)?;
        return Some(match find(verdict, VERDICT_CHAIN) {
            Some(chain) => End::Chain(chain.strip_suffix(&[0])?.to_vec()),
            None => End::Verdict(number(find(verdict, VERDICT_CODE)?)?.cast_signed()),
        });
    }
    Some(End::Nothing)
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn find(list: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Ends where something is broken.
fn attributes(mut list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let ([a, b, c, d], _) = list.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let value = list.get(4..length)?;
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([*c, *d]) & KIND, value))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn expression(name: &str, data: &[u8]) -> Vec<u8> {
        let name = attribute(EXPRESSION_NAME, format!("{name}\0").as_bytes());
        attribute(1, &[name, attribute(0x8000 | EXPRESSION_DATA, data)].concat())
    }

    fn immediate(verdict: &[u8]) -> Vec<u8> {
        let register = attribute(IMMEDIATE_REGISTER, &REGISTER_VERDICT.to_be_bytes());
        let data = attribute(IMMEDIATE_DATA, &attribute(DATA_VERDICT, verdict));
        expression("immediate", &[register, data].concat())
    }

    /// A rule that looks at something, and then ends as it is said: `jump X`, a verdict, an extension, or not at all.
    pub(in crate::iptables) fn rule(matches: &str, end: &str) -> Rule {
        let counter = expression("counter", &[0; 16]);
        let looks = expression("match", &attribute(1, format!("{matches}\0").as_bytes()));
        let code = |code: i32| attribute(VERDICT_CODE, &code.to_be_bytes());
        let ends = match (end, VERDICTS.iter().find(|(name, _)| *name == end)) {
            ("", _) => Vec::new(),
            (_, Some((_, verdict))) => immediate(&code(*verdict)),
            (end, None) => match end.strip_prefix("jump ") {
                Some(chain) => {
                    let chain = attribute(VERDICT_CHAIN, format!("{chain}\0").as_bytes());
                    immediate(&[code(-3), chain].concat())
                }
                None => expression("target", &attribute(1, format!("{end}\0").as_bytes())),
            },
        };
        let expressions = attribute(0x8000 | RULE_EXPRESSIONS, &[counter, looks, ends].concat());
        Rule::new([attribute(1, b"nat\0"), attribute(2, b"DOCKER\0"), expressions].concat())
    }

    #[test]
    fn a_command_means_no_rule_that_ends_in_another_way() {
        for (end, target, may) in [
            ("jump DOCKER", Some("DOCKER"), true),
            ("jump DOCKER", Some("DOCKER-CT"), false),
            ("jump DOCKER", Some("ACCEPT"), false),
            ("jump DOCKER", None, false),
            ("ACCEPT", Some("ACCEPT"), true),
            ("ACCEPT", Some("DROP"), false),
            ("RETURN", Some("RETURN"), true),
            ("RETURN", Some("DOCKER"), false),
            ("MASQUERADE", Some("MASQUERADE"), true),
            ("MASQUERADE", Some("SNAT"), true),
            ("MASQUERADE", Some("RETURN"), false),
            ("MASQUERADE", None, false),
            ("", None, true),
            ("", Some("DROP"), false),
        ] {
            assert_eq!(rule("addrtype", end).may_end(target), may, "{end:?} by {target:?}");
        }
    }

    #[test]
    fn what_is_not_understood_may_be_anything_but_a_plain_verdict() {
        let whole = rule("addrtype", "jump DOCKER");
        assert_eq!((whole.times("addrtype"), whole.times("addr")), (1, 0));
        for cut in 0..whole.bytes.len() {
            // No panic, whatever the kernel should say.
            let _ = Rule::new(whole.bytes[..cut].to_vec()).may_end(Some("X"));
        }
        let broken = attribute(0x8000 | RULE_EXPRESSIONS, &attribute(1, b"\x05\0\x01\0x"));
        assert!(Rule::new(broken).may_end(Some("X")));
        let elsewhere = attribute(IMMEDIATE_REGISTER, &1u32.to_be_bytes());
        let list = attribute(RULE_EXPRESSIONS, &expression("immediate", &elsewhere));
        assert!(Rule::new(list).may_end(Some("X")));
    }
}
