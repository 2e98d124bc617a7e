//! FSEvents, by the `notify` crate. One watcher for each folder: another folder would begin its stream anew, and lose what
//! happens meanwhile.

use std::{any::Any, path::Path};

use notify::{Event, EventKind, RecursiveMode, Watcher, event::ModifyKind, event::RenameMode};

use super::{Hints, tree::Hint};

/// See [`super::Begin`].
pub(super) fn begin(folder: &Path, below: bool, hints: Hints) -> Result<Box<dyn Any + Send>, String> {
    let give = move |event| read(event).into_iter().for_each(|hint| hints.give(hint));
    let mut watcher = notify::recommended_watcher(give).map_err(|error| error.to_string())?;
    let mode = if below { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
    watcher.watch(folder, mode).map_err(|error| error.to_string())?;
    Ok(Box::new(watcher))
}

fn read(event: notify::Result<Event>) -> Vec<Hint> {
    let event = match event {
        Ok(event) => event,
        Err(error) => return vec![Hint::Ended(error.to_string())],
    };
    if event.need_rescan() {
        return vec![Hint::Lost];
    }
    let renamed = match event.kind {
        EventKind::Access(_) => return Vec::new(),
        // Both halves, where the system knows them.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) if event.paths.len() == 2 => {
            let mut paths = event.paths.into_iter();
            return match (paths.next(), paths.next()) {
                (Some(from), Some(to)) => vec![Hint::Moved { from, to }],
                _ => Vec::new(),
            };
        }
        EventKind::Modify(ModifyKind::Name(_)) => true,
        _ => false,
    };
    event.paths.into_iter().map(|path| Hint::Look { path, renamed }).collect()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag};

    use super::*;

    #[test]
    fn what_fsevents_says_is_a_hint() {
        let hints = |kind| read(Ok(Event::new(kind).add_path("/a/b".into())));
        let look = |renamed| vec![Hint::Look { path: "/a/b".into(), renamed }];
        assert_eq!(hints(EventKind::Create(CreateKind::File)), look(false));
        assert_eq!(hints(EventKind::Modify(ModifyKind::Data(DataChange::Content))), look(false));
        assert_eq!(hints(EventKind::Modify(ModifyKind::Name(RenameMode::Any))), look(true));
        assert_eq!(hints(EventKind::Access(notify::event::AccessKind::Any)), []);
        let dropped = Event::new(EventKind::Other).set_flag(Flag::Rescan).add_path("/a".into());
        assert_eq!(read(Ok(dropped)), [Hint::Lost]);
        assert!(
            matches!(read(Err(notify::Error::generic("no"))).as_slice(), [Hint::Ended(why)] if why == "no")
        );
    }
}
