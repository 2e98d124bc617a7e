//! Settings as the API shows and changes them.

use std::collections::BTreeMap;

use slipway_api::{Problem, Setting, paths::Paths};
use slipway_settings::{
    file::{FileError, Raw, SettingsFile, replace},
    keys::{self, KEYS, Key},
    resolved::{Host, LimitError, Settings},
};

use crate::disk;

/// What is wrong with the settings, all of it at once.
pub(crate) fn problem(error: &FileError) -> Problem {
    match error {
        FileError::Mistakes(mistakes) => {
            let mut told = mistakes.iter().map(ToString::to_string);
            let first = told.next().unwrap_or_default();
            told.fold(Problem::new("settings-wrong", first), Problem::because)
                .hint("`slipway config list` shows what there is")
        }
        other => Problem::from_error("settings-unreadable", other)
            .hint("`slipway config edit` opens the file; `slipway reset --settings` starts anew"),
    }
}

fn limits(crossed: &[LimitError]) -> Problem {
    let mut told = crossed.iter().map(ToString::to_string);
    let first = told.next().unwrap_or_default();
    told.fold(Problem::new("settings-too-much", first), Problem::because)
        .hint("set less: `slipway config set machine.memory 4GiB`, `slipway config set machine.cpus 2`")
}

fn resolve(raw: &Raw) -> Result<Settings, Problem> {
    Settings::resolve(raw, Host::here()).map_err(|crossed| limits(&crossed))
}

/// The settings that hold, with overrides for one start.
pub(crate) fn with(paths: &Paths, overrides: &[(String, String)]) -> Result<Settings, Problem> {
    let raw = SettingsFile::new(paths.settings_file()).read_with(overrides).map_err(|e| problem(&e))?;
    resolve(&raw)
}

/// Remembers what is set as a machine starts, for [`pending`]; overrides are for one start and not remembered.
pub(crate) fn remember(paths: &Paths) -> Result<(), Problem> {
    let raw = SettingsFile::new(paths.settings_file()).read().map_err(|e| problem(&e))?;
    let file = paths.started_settings();
    let json = serde_json::to_vec(&raw).unwrap_or_default();
    replace(&file, &json).map_err(|error| {
        Problem::new("settings-unremembered", format!("failed to write `{}`", file.display()))
            .because(error.to_string())
            .hint("make room, and see that the folder can be written")
    })
}

/// The settings that changed since [`remember`] and hold from the next start only. A file that is wrong changes nothing.
pub(crate) fn pending(paths: &Paths) -> Vec<String> {
    let Ok(now) = SettingsFile::new(paths.settings_file()).read() else { return Vec::new() };
    let then = std::fs::read(paths.started_settings()).ok();
    let Some(then) = then.and_then(|json| serde_json::from_slice::<BTreeMap<String, String>>(&json).ok())
    else {
        return Vec::new();
    };
    let changed = |key: &&Key| key.needs_restart && now.get(key.name) != then.get(key.name);
    KEYS.iter().filter(changed).map(|key| key.name.to_owned()).collect()
}

/// Every setting.
pub(crate) fn list(paths: &Paths) -> Result<Vec<Setting>, Problem> {
    let raw = SettingsFile::new(paths.settings_file()).read().map_err(|e| problem(&e))?;
    // A file that asks for too much is still shown as it is.
    let decided = resolve(&raw).ok();
    Ok(KEYS.iter().map(|key| shown(key, &raw, decided.as_ref())).collect())
}

fn shown(key: &Key, raw: &Raw, decided: Option<&Settings>) -> Setting {
    let default = || match (key.name, decided) {
        ("machine.cpus", Some(settings)) => settings.cpus.to_string(),
        ("machine.memory", Some(settings)) => settings.memory.to_string(),
        _ => key.default.to_owned(),
    };
    Setting {
        name: key.name.to_owned(),
        value: raw.get(key.name).cloned().unwrap_or_else(default),
        set: raw.contains_key(key.name),
        doc: key.doc.to_owned(),
        expected: key.kind.expected(),
        needs_restart: key.needs_restart,
    }
}

/// Sets one, or gives it its default back; a value that this host cannot give, or that would change nothing, is refused before
/// it is written.
pub(crate) fn change(paths: &Paths, name: &str, value: Option<&str>) -> Result<Setting, Problem> {
    let file = SettingsFile::new(paths.settings_file());
    match value {
        Some(value) => {
            let settings = with(paths, &[(name.to_owned(), value.to_owned())])?;
            if name == "machine.disk" {
                disk::check_size(paths, settings.disk)?;
            }
            file.set(name, value)
        }
        None => file.unset(name),
    }
    .map_err(|e| problem(&e))?;
    let raw = file.read().map_err(|e| problem(&e))?;
    let key = keys::find(name)
        .ok_or_else(|| Problem::new("settings-wrong", format!("there is no setting `{name}`")))?;
    Ok(shown(key, &raw, resolve(&raw).ok().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_since_the_start_is_pending_until_it_is_changed_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let paths = crate::paths_in(dir.path());
        assert_eq!(pending(&paths), [""; 0], "nothing was started");
        let file = SettingsFile::new(paths.settings_file());
        file.set("machine.memory", "1GiB").expect("set");
        remember(&paths).expect("remembered");
        file.set("machine.cpus", "1").expect("set");
        file.set("stop.timeout", "20").expect("set");
        assert_eq!(pending(&paths), ["machine.cpus"], "the time to stop holds at once");
        file.unset("machine.memory").expect("unset");
        assert_eq!(pending(&paths), ["machine.cpus", "machine.memory"]);
        file.unset("machine.cpus").expect("unset");
        file.set("machine.memory", "1GiB").expect("set");
        assert_eq!(pending(&paths), [""; 0]);
    }
}
