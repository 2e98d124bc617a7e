//! Settings as the API shows and changes them.

use slipway_api::{Problem, Setting, paths::Paths};
use slipway_settings::{
    file::{FileError, Raw, SettingsFile},
    keys::{self, KEYS, Key},
    resolved::{Host, LimitError, Settings},
};

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

/// Sets one, or gives it its default back; a value that this host cannot give is refused before it is written.
pub(crate) fn change(paths: &Paths, name: &str, value: Option<&str>) -> Result<Setting, Problem> {
    let file = SettingsFile::new(paths.settings_file());
    match value {
        Some(value) => {
            with(paths, &[(name.to_owned(), value.to_owned())])?;
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
