//! What was there, and what of it is different now.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{OsStr, OsString},
    path::{Component, Path, PathBuf},
};

use super::look;
use crate::mask::{ATTRIB, CLOSE_WRITE, CREATE, DELETE, ISDIR, MODIFY, MOVED_FROM, MOVED_TO};

/// Folders in folders; a guest may make more, and they are not looked into.
const DEPTH: usize = 256;

/// What the system says happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// Something at this path. `renamed`: maybe it got, or lost, this name.
    Look { path: PathBuf, renamed: bool },
    /// A name became another one.
    Moved { from: PathBuf, to: PathBuf },
    /// Anything may have happened.
    Lost,
    /// There will be no more hints, and why.
    Ended(String),
}

impl Hint {
    pub(super) fn ended(&self) -> Option<&str> {
        match self {
            Self::Ended(why) => Some(why),
            _ => None,
        }
    }
}

/// What the guest is to hear: inotify's words, and a path of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) mask: u32,
    pub(super) cookie: u32,
    pub(super) folder: PathBuf,
    /// Empty: the folder itself.
    pub(super) name: OsString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    /// A link, which is not followed, or what is neither.
    Other,
}

/// How something stands on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) kind: Kind,
    /// The file's number, which it keeps under another name; 0 where it has none.
    pub(super) id: u64,
    pub(super) size: u64,
    /// When its contents were changed, in whatever unit.
    pub(super) changed: i128,
    /// Mode, owner and group, or Windows' attributes.
    pub(super) attributes: [u32; 3],
    /// It has other names.
    pub(super) linked: bool,
}

impl State {
    pub(super) fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    fn same_file(&self, other: &Self) -> bool {
        self.kind == other.kind && (self.id == other.id || self.id == 0 || other.id == 0)
    }
}

#[derive(Debug)]
struct Node {
    state: State,
    below: BTreeMap<OsString, Node>,
}

impl Node {
    fn count(&self) -> usize {
        1 + self.below.values().map(Self::count).sum::<usize>()
    }
}

/// A watched folder with all that is below it, or one file of it.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    only: Option<OsString>,
    exclude: Vec<String>,
    state: Option<State>,
    below: BTreeMap<OsString, Node>,
    known: usize,
}

/// While hints are judged.
struct Telling<'a> {
    cookie: &'a mut u32,
    told: &'a mut Vec<Told>,
}

impl Telling<'_> {
    fn cookie(&mut self) -> u32 {
        *self.cookie = self.cookie.checked_add(1).unwrap_or(1);
        *self.cookie
    }

    fn say(&mut self, root: &Path, rel: &Path, kind: Kind, mask: u32, cookie: u32) {
        let dir = if kind == Kind::Folder { ISDIR } else { 0 };
        let (folder, name) = match (rel.parent(), rel.file_name()) {
            (Some(parent), Some(name)) => (join(root, parent), name.to_owned()),
            _ => (root.to_owned(), OsString::new()),
        };
        self.told.push(Told { mask: mask | dir, cookie, folder, name });
    }
}

/// Without a separator at the end where nothing is joined.
fn join(base: &Path, rel: &Path) -> PathBuf {
    if rel.as_os_str().is_empty() { base.to_owned() } else { base.join(rel) }
}

impl Tree {
    /// Looks at all that is there, but stops soon after `room`.
    pub(super) fn new(root: PathBuf, only: Option<OsString>, exclude: Vec<String>, room: usize) -> Self {
        let state = look::state(&root);
        let mut tree = Self { root, only, exclude, state, below: BTreeMap::new(), known: 0 };
        let (below, known) = tree.walk(Path::new(""), room);
        (tree.below, tree.known) = (below, known);
        tree
    }

    /// Files and folders that are kept in mind.
    pub(super) fn known(&self) -> usize {
        self.known
    }

    /// Judges what the hints are about, each path once.
    pub(super) fn judge(&mut self, hints: Vec<Hint>, cookie: &mut u32, told: &mut Vec<Told>) {
        let mut telling = Telling { cookie, told };
        let telling = &mut telling;
        if hints.contains(&Hint::Lost) {
            self.look_at_all(telling);
            return;
        }
        let mut looks: Vec<(PathBuf, bool)> = Vec::new();
        for hint in hints {
            match hint {
                Hint::Look { path, renamed } => looks.extend(self.inside(&path).map(|rel| (rel, renamed))),
                Hint::Moved { from, to } => match (self.inside(&from), self.inside(&to)) {
                    (Some(from), Some(to)) => {
                        // What was said before was about what has another name now.
                        for (path, _) in &mut looks {
                            if let Ok(rest) = path.strip_prefix(&from) {
                                *path = join(&to, rest);
                            }
                        }
                        self.moved(&from, &to, telling);
                        looks.push((to, true));
                    }
                    (Some(one), None) | (None, Some(one)) => looks.push((one, true)),
                    (None, None) => {}
                },
                Hint::Lost | Hint::Ended(_) => {}
            }
        }
        self.find_moves(&looks, telling);
        let renamed: HashSet<PathBuf> =
            looks.iter().filter(|(_, renamed)| *renamed).map(|(path, _)| path.clone()).collect();
        let mut done = HashSet::new();
        for (path, _) in looks {
            if done.insert(path.clone()) {
                self.look(&path, &renamed, telling);
            }
        }
    }

    /// Below the root, if that is watched at all.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let rel = path.strip_prefix(&self.root).ok()?.to_owned();
        let mut parts = rel.components();
        if !parts.clone().all(|part| matches!(part, Component::Normal(_))) {
            return None;
        }
        if let Some(only) = &self.only {
            let one = parts.next().is_some_and(|part| part.as_os_str() == only.as_os_str());
            return (one && parts.next().is_none()).then_some(rel);
        }
        if rel.components().count() > DEPTH {
            return None;
        }
        let above = rel.ancestors().skip(1);
        (!above.into_iter().any(|folder| self.excluded(folder))).then_some(rel)
    }

    fn excluded(&self, rel: &Path) -> bool {
        let path = join(&self.root, rel);
        self.exclude.iter().any(|pattern| path.ends_with(pattern))
    }

    /// May what is in this folder be watched?
    fn is_entered(&self, rel: &Path) -> bool {
        self.only.is_none() && !self.excluded(rel) && rel.components().count() < DEPTH
    }

    fn get(&self, rel: &Path) -> Option<&Node> {
        let mut parts = rel.components();
        let mut node = self.below.get(parts.next()?.as_os_str())?;
        for part in parts {
            node = node.below.get(part.as_os_str())?;
        }
        Some(node)
    }

    /// Where the names of a folder are kept.
    fn names(&mut self, folder: &Path) -> Option<&mut BTreeMap<OsString, Node>> {
        let mut names = &mut self.below;
        for part in folder.components() {
            names = &mut names.get_mut(part.as_os_str())?.below;
        }
        Some(names)
    }

    fn remove(&mut self, rel: &Path) -> Option<Node> {
        let name = rel.file_name()?;
        let node = self.names(rel.parent()?)?.remove(name)?;
        self.known -= node.count();
        Some(node)
    }

    /// Puts it in place of what was there; false when its folder is not known.
    fn put(&mut self, rel: &Path, node: Node) -> bool {
        let (Some(folder), Some(name)) = (rel.parent(), rel.file_name()) else { return false };
        let count = node.count();
        let Some(names) = self.names(folder) else { return false };
        let before = names.insert(name.to_owned(), node);
        self.known = self.known + count - before.map_or(0, |node| node.count());
        true
    }

    /// Looks at what is in a folder, and below; how much it is comes with it.
    fn walk(&self, folder: &Path, room: usize) -> (BTreeMap<OsString, Node>, usize) {
        let mut known = 0;
        let mut names = BTreeMap::new();
        let entered = match self.only {
            None => self.is_entered(folder),
            Some(_) => folder.as_os_str().is_empty(),
        };
        if !entered {
            return (names, known);
        }
        for (name, state) in look::list(&join(&self.root, folder)).unwrap_or_default() {
            if self.only.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            known += 1;
            // Too many, which whoever asked sees by the count.
            if known > room {
                break;
            }
            let mut below = BTreeMap::new();
            if state.is_folder() {
                let (found, more) = self.walk(&folder.join(&name), room - known);
                known += more;
                below = found;
            }
            names.insert(name, Node { state, below });
        }
        (names, known)
    }

    fn node(&self, rel: &Path, state: State) -> Node {
        let below = if state.is_folder() { self.walk(rel, usize::MAX).0 } else { BTreeMap::new() };
        Node { state, below }
    }

    /// A name became another one.
    fn moved(&mut self, from: &Path, to: &Path, telling: &mut Telling<'_>) {
        let Some(mut node) = self.remove(from) else {
            // What it was called before was never seen.
            if let Some(state) = look::state(&join(&self.root, to)) {
                let node = self.node(to, state);
                if self.put(to, node) {
                    let cookie = telling.cookie();
                    telling.say(&self.root, to, state.kind, MOVED_TO, cookie);
                }
            }
            return;
        };
        let kind = node.state.kind;
        if kind == Kind::Folder && self.is_entered(from) != self.is_entered(to) {
            node.below = self.walk(to, usize::MAX).0;
        }
        let cookie = telling.cookie();
        telling.say(&self.root, from, kind, MOVED_FROM, cookie);
        if self.put(to, node) {
            telling.say(&self.root, to, kind, MOVED_TO, cookie);
        }
    }

    /// Finds what has another name now by its number, where the system does not say which two names belong together.
    fn find_moves(&mut self, looks: &[(PathBuf, bool)], telling: &mut Telling<'_>) {
        let (mut left, mut arrived) = (HashMap::new(), Vec::new());
        for (path, _) in looks {
            let now = look::state(&join(&self.root, path)).filter(|now| now.id != 0);
            let known = self.get(path).map(|node| node.state.id).filter(|id| *id != 0);
            if known == now.map(|now| now.id) {
                continue;
            }
            if let Some(known) = known {
                left.insert(known, path.clone());
            }
            arrived.extend(now.map(|now| (path.clone(), now)));
        }
        // What is in a folder goes with it.
        arrived.sort_by_key(|(path, _)| path.components().count());
        for (to, now) in arrived {
            let Some(from) = left.get(&now.id).filter(|from| **from != to) else { continue };
            if self.get(from).is_some_and(|node| node.state.id == now.id && node.state.kind == now.kind) {
                self.moved(from, &to, telling);
            }
        }
    }

    fn look(&mut self, rel: &Path, renamed: &HashSet<PathBuf>, telling: &mut Telling<'_>) {
        if rel.as_os_str().is_empty() {
            self.look_at_root(telling);
            return;
        }
        // Of a folder that is new, all is told with it.
        let mut above: Vec<&Path> = rel.ancestors().skip(1).collect();
        above.pop();
        for folder in above.into_iter().rev() {
            match self.get(folder) {
                None => return self.look(folder, renamed, telling),
                Some(node) if !node.state.is_folder() => return,
                Some(_) => {}
            }
        }
        let known = self.get(rel).map(|node| node.state);
        let now = look::state(&join(&self.root, rel));
        let renamed = renamed.contains(rel);
        match (known, now) {
            (None, None) => {}
            (None, Some(now)) => self.appears(rel, now, renamed, telling),
            (Some(_), None) => self.vanishes(rel, renamed, telling),
            (Some(known), Some(now)) if known.same_file(&now) => self.changes(rel, known, now, telling),
            (Some(_), Some(now)) => {
                // In place of the other. A rename does that in one.
                if renamed {
                    self.remove(rel);
                } else {
                    self.vanishes(rel, false, telling);
                }
                self.appears(rel, now, renamed, telling);
            }
        }
    }

    fn look_at_root(&mut self, telling: &mut Telling<'_>) {
        let now = look::state(&self.root);
        if let (Some(known), Some(now)) = (self.state, now)
            && known.attributes != now.attributes
        {
            telling.say(&self.root, Path::new(""), now.kind, ATTRIB, 0);
        }
        self.state = now.or(self.state);
    }

    fn appears(&mut self, rel: &Path, now: State, renamed: bool, telling: &mut Telling<'_>) {
        let node = self.node(rel, now);
        if renamed {
            let cookie = telling.cookie();
            telling.say(&self.root, rel, now.kind, MOVED_TO, cookie);
        } else {
            tell_new(&self.root, rel, &node, telling);
        }
        self.put(rel, node);
    }

    fn vanishes(&mut self, rel: &Path, renamed: bool, telling: &mut Telling<'_>) {
        let Some(node) = self.remove(rel) else { return };
        if renamed {
            let cookie = telling.cookie();
            telling.say(&self.root, rel, node.state.kind, MOVED_FROM, cookie);
        } else {
            tell_gone(&self.root, rel, &node, telling);
        }
    }

    fn changes(&mut self, rel: &Path, known: State, now: State, telling: &mut Telling<'_>) {
        tell_changed(&self.root, rel, &known, &now, telling);
        if let (Some(folder), Some(name)) = (rel.parent(), rel.file_name())
            && let Some(node) = self.names(folder).and_then(|names| names.get_mut(name))
        {
            node.state = now;
        }
    }

    /// Something was lost: everything is compared.
    fn look_at_all(&mut self, telling: &mut Telling<'_>) {
        self.look_at_root(telling);
        let (now, known) = self.walk(Path::new(""), usize::MAX);
        let before = std::mem::take(&mut self.below);
        compare(&self.root, Path::new(""), &before, &now, telling);
        (self.below, self.known) = (now, known);
    }
}

fn compare(
    root: &Path,
    folder: &Path,
    before: &BTreeMap<OsString, Node>,
    now: &BTreeMap<OsString, Node>,
    telling: &mut Telling<'_>,
) {
    let at = |name: &OsStr| join(folder, Path::new(name));
    for (name, node) in before.iter().filter(|(name, _)| !now.contains_key(*name)) {
        tell_gone(root, &at(name), node, telling);
    }
    for (name, node) in now {
        let rel = at(name);
        match before.get(name) {
            None => tell_new(root, &rel, node, telling),
            Some(known) if known.state.same_file(&node.state) => {
                tell_changed(root, &rel, &known.state, &node.state, telling);
                compare(root, &rel, &known.below, &node.below, telling);
            }
            Some(known) => {
                tell_gone(root, &rel, known, telling);
                tell_new(root, &rel, node, telling);
            }
        }
    }
}

/// As they would be made: a folder before what is in it, a file with its contents.
fn tell_new(root: &Path, rel: &Path, node: &Node, telling: &mut Telling<'_>) {
    let state = &node.state;
    // Of a file that had a name the count of names has changed too.
    let link = if state.kind == Kind::File && state.linked { ATTRIB } else { 0 };
    telling.say(root, rel, state.kind, CREATE | link, 0);
    if state.kind == Kind::File && link == 0 {
        tell_contents(root, rel, state, telling);
    }
    for (name, node) in &node.below {
        tell_new(root, &rel.join(name), node, telling);
    }
}

/// As they would be removed: a folder when it is empty.
fn tell_gone(root: &Path, rel: &Path, node: &Node, telling: &mut Telling<'_>) {
    for (name, node) in &node.below {
        tell_gone(root, &rel.join(name), node, telling);
    }
    telling.say(root, rel, node.state.kind, DELETE, 0);
}

fn tell_changed(root: &Path, rel: &Path, known: &State, now: &State, telling: &mut Telling<'_>) {
    if now.kind == Kind::File && (known.size, known.changed) != (now.size, now.changed) {
        telling.say(root, rel, now.kind, MODIFY, 0);
        telling.say(root, rel, now.kind, CLOSE_WRITE, 0);
    }
    if known.attributes != now.attributes {
        telling.say(root, rel, now.kind, ATTRIB, 0);
    }
}

fn tell_contents(root: &Path, rel: &Path, now: &State, telling: &mut Telling<'_>) {
    if now.size > 0 {
        telling.say(root, rel, now.kind, MODIFY, 0);
    }
    // Nobody says when it is closed: it counts as closed at each look.
    telling.say(root, rel, now.kind, CLOSE_WRITE, 0);
}
