//! Listings: whole, in pieces, and fit to be remembered.

use std::collections::BTreeSet;

use virtiofsd::filesystem::DirectoryIterator;

use super::*;

/// Names from `offset` on, each with where the next is.
fn piece(shares: &Shares, folder: u64, size: u32, offset: u64) -> Vec<(String, u64)> {
    let mut listing = shares.readdir(who(0), folder, 0, size, offset).expect("lists");
    let mut names = Vec::new();
    while let Some(entry) = listing.next() {
        names.push((entry.name.to_str().expect("text").to_owned(), entry.offset));
    }
    names
}

fn with_files(count: usize) -> (Shares, tempfile::TempDir, u64) {
    let (shares, _heard) = shares();
    let dir = tempfile::tempdir().expect("folder");
    for number in 0..count {
        std::fs::write(dir.path().join(format!("file {number}")), "x").expect("writes");
    }
    shares.add("one", tree(dir.path()), None).expect("adds");
    let root = walk(&shares, &["one"]).expect("there").inode;
    (shares, dir, root)
}

#[test]
fn a_kernel_that_can_opens_folders_without_us() {
    let (shares, _heard) = shares();
    assert!(shares.opendir(who(0), ROOT_ID, 0).is_ok(), "this one must ask");
    let wanted = shares.init(FsOptions::ZERO_MESSAGE_OPENDIR).expect("init");
    assert!(wanted.contains(FsOptions::ZERO_MESSAGE_OPENDIR));
    let refused = shares.opendir(who(0), ROOT_ID, 0).expect_err("need not ask");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSYS));
}

#[test]
fn a_listing_in_pieces_misses_nothing_while_what_it_gave_is_removed() {
    let (shares, dir, root) = with_files(500);
    let (mut at, mut seen) = (0, BTreeSet::new());
    // Several at once, as one guest does.
    let other = piece(&shares, root, 512, 0);
    loop {
        let names = piece(&shares, root, 512, at);
        // The guest takes what has room in its answer, which is seldom all of it.
        let taken = names.len().div_ceil(2);
        let Some((_, next)) = names.get(taken.saturating_sub(1)) else { break };
        at = *next;
        for (name, _) in names.into_iter().take(taken).filter(|(name, _)| !name.starts_with('.')) {
            std::fs::remove_file(dir.path().join(&name)).expect("removes");
            assert!(seen.insert(name), "given twice");
        }
    }
    assert_eq!(seen.len(), 500);
    assert!(piece(&shares, root, 512, other.last().expect("entries").1).is_empty());
}

#[test]
fn who_never_ends_a_listing_keeps_few_folders_open() {
    let (shares, dir, root) = with_files(0);
    let before = open_folders(dir.path());
    for number in 0..3 * super::super::listing::STREAMS {
        let folder = dir.path().join(number.to_string());
        std::fs::create_dir(&folder).expect("makes");
        let inode = shares.lookup(who(0), root, &name(&number.to_string())).expect("there").inode;
        assert_eq!(piece(&shares, inode, 4096, 0).len(), 2);
    }
    assert_eq!(open_folders(dir.path()), before + super::super::listing::STREAMS);
    // Who reads to the end keeps none.
    let end = piece(&shares, root, 1 << 16, 0).last().expect("entries").1;
    assert!(piece(&shares, root, 4096, end).is_empty());
    let kept = open_folders(dir.path());
    assert_eq!(kept, before + super::super::listing::STREAMS - 1, "its own, and the one it drove out");
    shares.remove("one");
    assert_eq!(open_folders(dir.path()), 0);
}

/// What this process has open of a folder for reading.
fn open_folders(below: &Path) -> usize {
    let below = below.canonicalize().expect("real");
    let entries = std::fs::read_dir("/proc/self/fd").expect("descriptors").filter_map(Result::ok);
    let is_one = |entry: &std::fs::DirEntry| {
        let flags =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", entry.file_name().to_string_lossy()));
        let for_reading = flags.is_ok_and(|text| {
            let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
            flags.and_then(|flags| i32::from_str_radix(flags, 8).ok()).is_some_and(|f| f & libc::O_PATH == 0)
        });
        for_reading && std::fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(&below))
    };
    entries.filter(is_one).count()
}

#[test]
fn a_change_after_a_listing_is_seen_by_the_folders_time() {
    let (shares, dir, root) = with_files(0);
    let time =
        || shares.getattr(who(0), root, None).map(|(attr, _)| (attr.mtime, attr.mtimensec)).expect("asks");
    for round in 0..50 {
        std::fs::write(dir.path().join(format!("before {round}")), "").expect("writes");
        let before = time();
        piece(&shares, root, 4096, 0);
        std::fs::write(dir.path().join(format!("after {round}")), "").expect("writes");
        assert_ne!(time(), before, "round {round}: whoever remembers that listing would believe it");
    }
    // Who may not wait is not kept waiting.
    std::fs::write(dir.path().join("last"), "").expect("writes");
    assert!(put_off(|| shares.readdir(who(0), root, 0, 4096, 0)).is_none());
    // Nor is a folder that the watcher tells of.
    shares.vouch(&[("one".into(), vec![])], vec![], false);
    std::fs::write(dir.path().join("told"), "").expect("writes");
    assert!(put_off(|| shares.readdir(who(0), root, 0, 4096, 0)).is_some());
}

#[test]
fn our_roots_time_changes_with_what_it_lists() {
    let (shares, dir, _) = with_files(0);
    let time = || shares.getattr(who(0), ROOT_ID, None).map(|(attr, _)| attr.mtime).expect("asks");
    let first = time();
    shares.add("two", tree(dir.path()), None).expect("adds");
    let second = time();
    shares.remove("two");
    assert!(first < second && second < time());
}

#[test]
fn a_folder_that_its_owner_may_not_read_is_listed_for_who_may_in_the_guest() {
    let (shares, dir, root) = with_files(1);
    let folder = dir.path().join("closed");
    std::fs::create_dir(&folder).expect("makes");
    std::fs::write(folder.join("in"), "").expect("writes");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o300)).expect("chmod");
    let inode = shares.lookup(who(0), root, c"closed").expect("there").inode;
    assert_eq!(piece(&shares, inode, 4096, 0).len(), 3);
    let mode = std::fs::metadata(&folder).expect("there").mode();
    assert_eq!(mode & 0o777, 0o300);
}
