//! Settings: the daemon checks and writes them, so that a window and a shell never disagree about what is valid.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use slipway_api::{
    Problem, Setting, State,
    client::{ApiClient, ClientError},
};

use crate::{
    args::ConfigVerb,
    reach::Session,
    reset::ask,
    say::{Fail, Paint},
    system,
};

/// Reads or changes settings.
///
/// # Errors
/// A mistake in a name or a value, with what was probably meant.
pub(crate) async fn config(session: &Session, what: &ConfigVerb) -> Result<u8, Fail> {
    let say = session.say;
    if let ConfigVerb::Path = what {
        say.data(&format!("{}\n", session.paths.settings_file().display()))?;
        return Ok(0);
    }
    let api = session.ensured().await?;
    match what {
        ConfigVerb::List { json: true } => say.json(&api.settings().await?)?,
        ConfigVerb::List { json: false } => say.data(&table(&api.settings().await?, say.out()))?,
        ConfigVerb::Get { name, json } => {
            let settings = api.settings().await?;
            let setting =
                settings.iter().find(|s| s.name == *name).ok_or_else(|| unknown(name, &settings))?;
            if *json { say.json(setting)? } else { say.data(&format!("{}\n", setting.value))? }
        }
        ConfigVerb::Set { name, value } => changed(session, api, &api.set(name, value).await?).await?,
        ConfigVerb::Unset { name } => changed(session, api, &api.unset(name).await?).await?,
        ConfigVerb::Edit => edit(session, api).await?,
        ConfigVerb::Path => {}
    }
    Ok(0)
}

async fn changed(session: &Session, api: &ApiClient, setting: &Setting) -> Result<(), Fail> {
    let from = if setting.set { "" } else { " (the default)" };
    session.say.talk(&format!("{} = {}{from}", setting.name, setting.value));
    if setting.needs_restart
        && matches!(api.status().await?.state, State::Running | State::Degraded | State::Starting)
    {
        session.say.notice(&format!("`{}` holds from the next start", setting.name));
        session.say.hint("`slipway restart` starts again");
    }
    Ok(())
}

fn table(settings: &[Setting], paint: Paint) -> String {
    let widest = |of: fn(&Setting) -> usize| settings.iter().map(of).max().unwrap_or(0);
    let (names, values) = (widest(|s| s.name.chars().count()), widest(|s| s.value.chars().count()));
    let mut text = String::new();
    for setting in settings {
        let value = format!("{:<values$}", setting.value);
        // What the person chose stands out; defaults stay in the background.
        let value = if setting.set { value } else { paint.faint(&value) };
        let doc = setting.doc.lines().next().unwrap_or("");
        text.push_str(&format!("{:<names$}  {value}  {}\n", setting.name, paint.faint(doc)));
    }
    text
}

fn unknown(name: &str, settings: &[Setting]) -> Problem {
    // `cpus` means `machine.cpus`, and `machine.cpu` does too.
    let near = settings.iter().find(|s| {
        let last = s.name.rsplit('.').next().unwrap_or(&s.name);
        last == name || (name.len() > 2 && (s.name.contains(name) || name.contains(last)))
    });
    let meant = near.map_or(String::new(), |s| format!("; did you mean `{}`?", s.name));
    Problem::new("setting-unknown", format!("there is no setting `{name}`{meant}"))
        .hint("`slipway config list` shows them all")
}

/// Lets the person edit a copy and puts it in place if it is valid. An edit is never lost: it stays in the copy.
async fn edit(session: &Session, api: &ApiClient) -> Result<(), Fail> {
    let say = session.say;
    let file = session.paths.settings_file();
    let before = match fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed("read", &file)(e).into()),
    };
    let offered = match &before {
        Some(text) => text.clone(),
        None => template(&api.settings().await?),
    };
    let copy = file.with_file_name("settings.edit.toml");
    if copy.exists() {
        say.notice(&format!("going on with the edit that was left in `{}`", copy.display()));
    } else {
        write(&copy, &offered).map_err(failed("write", &copy))?;
    }
    loop {
        open_editor(&copy)?;
        let after = fs::read_to_string(&copy).map_err(failed("read", &copy))?;
        if after == offered {
            let _ = fs::remove_file(&copy);
            say.talk("nothing changed");
            return Ok(());
        }
        if fs::read_to_string(&file).ok() != before {
            let problem =
                Problem::new("settings-changed", "the settings were changed by somebody else meanwhile");
            return Err(problem.hint(format!("your edit is in `{}`", copy.display())).into());
        }
        match put(api, &file, before.as_deref(), &after).await {
            Ok(()) => {
                let _ = fs::remove_file(&copy);
                say.talk("saved");
                if !api.status().await?.pending_settings.is_empty() {
                    say.hint("some of it holds from the next start: `slipway restart`");
                }
                return Ok(());
            }
            Err(Fail::Problem(problem)) => {
                let kept =
                    problem.clone().hint(format!("your edit is in `{}`; nothing is saved", copy.display()));
                if !io::stdin().is_terminal() || !say.live() {
                    return Err(kept.into());
                }
                say.stderr(&crate::say::render(&problem, say.err()));
                if !ask(say, "edit again?", true)? {
                    return Err(kept.into());
                }
            }
            Err(other) => return Err(other),
        }
    }
}

/// Puts the text in place and asks the daemon whether it can be read; if not, the one before comes back.
async fn put(api: &ApiClient, file: &Path, before: Option<&str>, after: &str) -> Result<(), Fail> {
    write(file, after).map_err(failed("write", file))?;
    let Err(error) = api.settings().await else { return Ok(()) };
    match before {
        Some(text) => write(file, text).map_err(failed("write", file))?,
        None => fs::remove_file(file).map_err(failed("remove", file))?,
    }
    match error {
        ClientError::Problem(problem) => Err((*problem).into()),
        other => Err(other.into()),
    }
}

/// A newcomer's file: everything explained, nothing set.
fn template(settings: &[Setting]) -> String {
    let mut text =
        String::from("# Slipway's settings. Everything here is optional; remove a `#` to set a value.\n");
    let mut table = "";
    for setting in settings {
        let (of, name) = setting.name.split_once('.').unwrap_or(("", &setting.name));
        if of != table {
            text.push_str(&format!("\n[{of}]\n"));
            table = of;
        }
        setting.doc.lines().for_each(|line| text.push_str(&format!("# {line}\n")));
        let bare = setting.value.parse::<i64>().is_ok() || setting.value.parse::<bool>().is_ok();
        let value = if bare { setting.value.clone() } else { format!("\"{}\"", setting.value) };
        text.push_str(&format!("# {name} = {value}\n"));
    }
    text
}

fn open_editor(file: &Path) -> Result<(), Problem> {
    let var = |name| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
    let editor = var("VISUAL").or_else(|| var("EDITOR")).unwrap_or_else(|| system::DEFAULT_EDITOR.into());
    let ended = system::edit(&editor, file);
    let problem = |why: String| {
        Problem::new("editor-failed", format!("the editor `{editor}` failed"))
            .because(why)
            .hint(format!("set $EDITOR to another one; your edit is in `{}`", file.display()))
    };
    match ended {
        Ok(code) if code.success() => Ok(()),
        Ok(code) => Err(problem(code.to_string())),
        Err(e) => Err(problem(e.to_string())),
    }
}

fn failed(act: &str, path: &Path) -> impl Fn(io::Error) -> Problem {
    let what = format!("failed to {act} `{}`", path.display());
    move |e| Problem::new("settings-file", what.clone()).because(e.to_string())
}

/// Replaces a file whole; one that is a link stays one, and a mode stays.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let path: PathBuf = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut aside = path.clone().into_os_string();
    aside.push(format!(".{}", std::process::id()));
    let write = || {
        let mut file = system::private().write(true).create(true).truncate(true).open(&aside)?;
        if let Ok(there) = fs::metadata(&path) {
            system::same_rights(&file, &there)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        drop(file);
        fs::rename(&aside, &path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str, set: bool) -> Setting {
        let (doc, expected) = ("What it is.\nAnd more.".into(), "a number".into());
        Setting { name: name.into(), value: value.into(), set, doc, expected, needs_restart: true }
    }

    #[test]
    fn the_list_stands_in_columns() {
        let settings = [setting("machine.cpus", "4", true), setting("stop.timeout", "60", false)];
        assert_eq!(
            table(&settings, Paint::Plain),
            "machine.cpus  4   What it is.\nstop.timeout  60  What it is.\n"
        );
        assert!(table(&settings, Paint::Colour).contains("\x1b[2m60\x1b[0m"));
    }

    #[test]
    fn a_near_miss_is_helped() {
        let settings = [setting("machine.cpus", "4", true), setting("stop.timeout", "60", false)];
        for name in ["cpus", "machine.cpu", "vm.cpus"] {
            assert!(unknown(name, &settings).message.ends_with("did you mean `machine.cpus`?"), "{name}");
        }
        assert_eq!(unknown("colour", &settings).message, "there is no setting `colour`");
    }

    #[test]
    fn the_template_sets_nothing() {
        let settings = [
            setting("machine.cpus", "4", false),
            setting("machine.memory", "4GiB", false),
            setting("docker.install-cli", "true", false),
        ];
        let text = template(&settings);
        for line in [
            "[machine]",
            "# cpus = 4",
            "# memory = \"4GiB\"",
            "[docker]",
            "# install-cli = true",
            "# And more.",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}:\n{text}");
        }
        assert!(text.lines().all(|l| l.is_empty() || l.starts_with(['#', '['])), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn a_written_file_keeps_its_link_and_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("folder");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "a").expect("written");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("chmod");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        write(&link, "b").expect("written");
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("read"), "b");
        assert_eq!(fs::metadata(&real).expect("there").permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 2, "nothing is left aside");
    }
}
