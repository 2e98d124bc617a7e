//! What is to be started, and how each system has that written. Data alone, so that all of it is tested wherever the tests run.

use std::path::{Path, PathBuf};

use super::KeepError;

/// The profile of a person who named none.
const DEFAULT_PROFILE: &str = "default";
/// Longest command that Windows starts from its Run key.
#[cfg(any(test, windows))]
const LONGEST_RUN: usize = 260;

/// One machine, as it is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// `None`: the default one.
    profile: Option<String>,
    program: PathBuf,
    /// SLIPWAY_HOME, where one is set.
    home: Option<PathBuf>,
}

impl Entry {
    pub(super) fn of(profile: &str, program: &Path, home: Option<PathBuf>) -> Self {
        Self {
            profile: (profile != DEFAULT_PROFILE).then(|| profile.to_owned()),
            program: program.to_owned(),
            home,
        }
    }

    /// A name for it among those of other programs.
    pub(super) fn name(&self) -> String {
        self.profile.as_ref().map_or_else(|| "slipway".into(), |profile| format!("slipway-{profile}"))
    }

    #[cfg(target_os = "linux")]
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it is what a package starts: one machine, at its place.
    #[cfg(target_os = "linux")]
    pub(super) fn is_plain(&self) -> bool {
        self.profile.is_none() && self.home.is_none()
    }

    /// The program's words. It is back at once: nobody waits for a machine at a login.
    fn words(&self, detach: bool) -> Vec<&str> {
        let mut words = vec!["start"];
        words.extend(detach.then_some("--detach"));
        if let Some(profile) = &self.profile {
            words.extend(["--profile", profile]);
        }
        words
    }

    /// A unit of a person's systemd. As the package's own (`installer/linux/slipway.service`), for a program wherever it lies.
    #[cfg(any(test, target_os = "linux"))]
    pub(super) fn unit(&self) -> Result<String, KeepError> {
        let program = text(&self.program)?;
        let words = self.words(false).join(" ");
        let profile =
            self.profile.as_ref().map(|profile| format!(" --profile {profile}")).unwrap_or_default();
        let home = match &self.home {
            Some(home) => format!("Environment={}\n", systemd(&format!("SLIPWAY_HOME={}", text(home)?))),
            None => String::new(),
        };
        Ok(format!(
            "# Made by `slipway autostart enable`.\n\
             [Unit]\n\
             Description=Slipway, the Docker engine in a machine of its own\n\
             ConditionFileIsExecutable={}\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             RemainAfterExit=yes\n\
             {home}\
             ExecStart={} {words}\n\
             ExecStop={} stop{profile}\n\
             TimeoutStartSec=10min\n\
             TimeoutStopSec=3min\n\
             KillMode=none\n\
             \n\
             [Install]\n\
             WantedBy=default.target\n",
            program.replace('%', "%%"),
            systemd(program),
            systemd(program),
        ))
    }

    /// The label of the property list.
    #[cfg(any(test, target_os = "macos"))]
    pub(super) fn label(&self) -> String {
        format!("dev.{}", self.name().replacen('-', ".", 1))
    }

    /// A launch agent.
    #[cfg(any(test, target_os = "macos"))]
    pub(super) fn plist(&self) -> Result<String, KeepError> {
        use std::fmt::Write;
        let mut words = vec![text(&self.program)?];
        words.extend(self.words(true));
        let mut list = String::new();
        for word in words {
            let _ = write!(list, "\n    <string>{}</string>", xml(word));
        }
        let home = match &self.home {
            Some(home) => format!(
                "\n  <key>EnvironmentVariables</key>\n  <dict>\n    <key>SLIPWAY_HOME</key>\n    \
                 <string>{}</string>\n  </dict>",
                xml(text(home)?)
            ),
            None => String::new(),
        };
        // What it starts must outlive it.
        Ok(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
             <plist version=\"1.0\">\n<dict>\n  <key>Label</key>\n  <string>{}</string>\n  \
             <key>ProgramArguments</key>\n  <array>{list}\n  </array>{home}\n  <key>RunAtLoad</key>\n  <true/>\n  \
             <key>AbandonProcessGroup</key>\n  <true/>\n</dict>\n</plist>\n",
            self.label()
        ))
    }

    /// A command of Windows' Run key. SLIPWAY_HOME is not in it: there it is the person's own variable, which each session has.
    #[cfg(any(test, windows))]
    pub(super) fn run(&self) -> Result<String, KeepError> {
        let program = text(&self.program)?;
        let command = format!("\"{program}\" {}", self.words(true).join(" "));
        match command.encode_utf16().count() > LONGEST_RUN || program.contains('"') {
            true => Err(KeepError::Unnamable(program.to_owned())),
            false => Ok(command),
        }
    }
}

/// A path that such files can name.
fn text(path: &Path) -> Result<&str, KeepError> {
    let named = path.to_str().filter(|text| !text.chars().any(char::is_control));
    named.ok_or_else(|| KeepError::Unnamable(path.display().to_string()))
}

/// One word in a line of systemd's.
#[cfg(any(test, target_os = "linux"))]
fn systemd(word: &str) -> String {
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(any(test, target_os = "macos"))]
fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Entry {
        Entry::of("default", Path::new("/usr/bin/slipway"), None)
    }

    fn odd() -> Entry {
        Entry::of("work", Path::new("/opt/a \"b\" & 100%/slipway"), Some("/data/my <home>".into()))
    }

    #[test]
    fn a_unit_is_as_the_packages_own() {
        let packaged = include_str!("../../../../installer/linux/slipway.service");
        let lines = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
            // Found by the package, and quoted only where a path may need it.
            let ours = |line: &&str| !line.starts_with("Condition") && !line.starts_with("Documentation");
            lines.filter(ours).map(|line| line.replace('"', "")).collect()
        };
        assert_eq!(lines(&plain().unit().expect("named")), lines(packaged));
    }

    #[test]
    fn names_with_odd_characters_are_read_back_as_they_are() {
        let unit = odd().unit().expect("named");
        for line in [
            r#"ExecStart="/opt/a \"b\" & 100%%/slipway" start --profile work"#,
            r#"ExecStop="/opt/a \"b\" & 100%%/slipway" stop --profile work"#,
            r#"ConditionFileIsExecutable=/opt/a "b" & 100%%/slipway"#,
            r#"Environment="SLIPWAY_HOME=/data/my <home>""#,
        ] {
            assert!(unit.lines().any(|l| l == line), "{line}\n{unit}");
        }
        let plist = odd().plist().expect("named");
        assert!(plist.contains("<string>/opt/a \"b\" &amp; 100%/slipway</string>"), "{plist}");
        assert!(plist.contains("<string>/data/my &lt;home&gt;</string>"), "{plist}");
        assert_eq!((odd().name().as_str(), odd().label().as_str()), ("slipway-work", "dev.slipway.work"));
        let evil = Entry::of("default", Path::new("/tmp/x\nExecStart=rm"), None);
        assert!(matches!((evil.unit(), evil.plist()), (Err(KeepError::Unnamable(_)), Err(_))));
    }

    #[test]
    fn a_launch_agent_starts_once_and_lets_go() {
        assert_eq!(
            plain().plist().expect("named"),
            r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>dev.slipway</string>
  <key>ProgramArguments</key>
  <array>
    <string>/usr/bin/slipway</string>
    <string>start</string>
    <string>--detach</string>
  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>AbandonProcessGroup</key>
  <true/>
</dict>
</plist>
"#
        );
    }

    #[test]
    fn a_run_command_is_quoted_and_short_enough() {
        let at = |program: &str, profile| Entry::of(profile, Path::new(program), None).run();
        assert_eq!(
            at(r"C:\Program Files\Slipway\slipway.exe", "work").expect("short"),
            r#""C:\Program Files\Slipway\slipway.exe" start --detach --profile work"#
        );
        assert!(at(&format!(r"C:\{}.exe", "x".repeat(260)), "default").is_err());
    }
}
