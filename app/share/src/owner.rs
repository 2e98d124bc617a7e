//! Who owns a file in the guest's eyes, when the host's file cannot be theirs.
//!
//! The server is one ordinary user, so every file that it makes is that user's. What a container set instead is kept in an
//! extended attribute of the file and shown to it from then on; the host's file stays the person's own.
//!
//! A folder's attribute also says whether anything *in* it has an owner of its own: nobody else's files are asked, so
//! ordinary trees pay one look per folder and none per file.

/// The attribute's name. The guest neither sees nor changes it.
pub(crate) const ATTRIBUTE: &std::ffi::CStr = c"user.slipway.owner";
/// Longest value in bytes; a longer one is not ours.
pub(crate) const LONGEST: u32 = 64;

/// What the attribute says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User and group in the guest; none: the host's.
    pub(crate) ids: Option<(u32, u32)>,
    /// Of a folder: files in it have attributes too.
    pub(crate) below: bool,
}

impl Owner {
    /// What a value says; anything that we did not write says nothing.
    pub(crate) fn parse(value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).unwrap_or("");
        let mut owner = Self::default();
        for word in text.split(' ') {
            if word == "below" {
                owner.below = true;
            } else if let Some((uid, gid)) = word.split_once(':')
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                owner.ids = Some((uid, gid));
            }
        }
        owner
    }

    /// The value that says this.
    pub(crate) fn value(self) -> String {
        let ids = self.ids.map(|(uid, gid)| format!("{uid}:{gid}"));
        let below = self.below.then(|| "below".to_owned());
        ids.into_iter().chain(below).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ids in any::<Option<(u32, u32)>>(), below in any::<bool>()) {
            let owner = Owner { ids, below };
            prop_assert_eq!(Owner::parse(owner.value().as_bytes()), owner);
            prop_assert!(owner.value().len() <= LONGEST as usize);
        }

        #[test]
        fn anything_else_says_nothing_and_harms_nothing(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let owner = Owner::parse(&value);
            prop_assert_eq!(Owner::parse(owner.value().as_bytes()), owner);
        }
    }
}
