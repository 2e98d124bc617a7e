//! Certificates as the engine's library reads them.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Characters in a line, as everybody writes them.
const LINE: usize = 64;

/// One certificate.
pub(super) fn certificate(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // All of one byte each.
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_long_as_readers_take_them() {
        let pem = certificate(&[0xff; 50]);
        let lines: Vec<&str> = pem.lines().collect();
        assert_eq!(lines[1].len() + lines[2].len(), 68, "{pem}");
        assert_eq!((lines[1].len(), lines.len()), (64, 4), "{pem}");
        let back = STANDARD.decode(lines[1..3].concat()).expect("base64");
        assert_eq!(back, [0xff; 50]);
    }
}
