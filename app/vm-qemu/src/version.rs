//! Which QEMU this is.

/// Major and minor number; the third never decides anything for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
}

/// Oldest QEMU that is supported: Debian 12's own.
pub(crate) const OLDEST: Version = Version::new(7, 2);

impl Version {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads the first line of `qemu-system-x86_64 --version`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix("QEMU emulator version ")?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        Some(Self::new(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_and_upstreams_versions_are_read() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright";
        assert_eq!(Version::parse(debian), Some(Version::new(7, 2)));
        assert_eq!(Version::parse("QEMU emulator version 10.0.2"), Some(Version::new(10, 0)));
        assert_eq!(Version::parse("bash: not found"), None);
        assert!(Version::new(7, 1) < OLDEST && Version::new(10, 0) > OLDEST);
    }
}
