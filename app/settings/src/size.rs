//! Amounts of bytes as people write them: `4GiB`, `512 MiB`, `100G`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(u64);

/// The text is not an amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a number and a unit, such as `4GiB` or `512MiB`")]
pub struct NotASize(String);

/// Units by the power of 1024. A plain `G` is what `docker` and QEMU mean by it: GiB.
const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];

impl Size {
    /// That many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many MiB; more than fits counts as all that does.
    pub const fn mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// In bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// In MiB, rounded down.
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }
}

impl std::str::FromStr for Size {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let wrong = || NotASize(text.to_owned());
        let text_trimmed = text.trim();
        let end = text_trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(text_trimmed.len());
        let (number, unit) = text_trimmed.split_at(end);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim().to_ascii_uppercase();
        let power = match unit.as_str() {
            "" | "B" => 0,
            unit => {
                let letter = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
                UNITS.iter().position(|u| !u.is_empty() && *u == letter).ok_or_else(wrong)?
            }
        };
        let factor = 1u64 << (10 * power);
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    /// The largest unit that is exact, so that what is printed can be read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let power = (0..UNITS.len()).rev().find(|p| self.0.is_multiple_of(1 << (10 * p))).unwrap_or(0);
        match power {
            _ if self.0 == 0 => write!(f, "0B"),
            0 => write!(f, "{}B", self.0),
            power => write!(f, "{}{}iB", self.0 >> (10 * power), UNITS[power]),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = NotASize;

    fn try_from(text: String) -> Result<Self, NotASize> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_write_sizes_in_many_ways() {
        let four_gib = Size::mib(4096);
        for text in ["4GiB", "4G", "4GB", "4 gib", "4096M", " 4294967296 "] {
            assert_eq!(text.parse(), Ok(four_gib), "{text}");
        }
        for text in ["", "GiB", "-1G", "4.5G", "4X", "4GiBs", "18446744073709551615K"] {
            assert_eq!(text.parse::<Size>(), Err(NotASize(text.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_read_back(bytes: u64) {
            let size = Size::bytes(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") {
            let _ = text.parse::<Size>();
        }
    }
}
