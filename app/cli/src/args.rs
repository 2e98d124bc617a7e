//! What can be typed, with its help: one place, so that verbs, help and completions are never of different minds.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use slipway_api::{Reset, UNITS};

/// run containers: `slipway start`, then `docker` just works
#[derive(Debug, Parser)]
#[command(
    name = "slipway",
    version,
    propagate_version = false,
    max_term_width = 100,
    after_help = "exit codes: 0 fine, 1 error, 2 usage, 3 stopped, 4 degraded, 130 interrupted\n\n\
        examples:\n  slipway start\n  docker run --rm hello-world\n  slipway status --json\n  slipway stop"
)]
pub(crate) struct Cli {
    /// machine to speak to; each has its own containers and settings
    #[arg(long, global = true, value_name = "NAME", env = "SLIPWAY_PROFILE", default_value = "default")]
    pub(crate) profile: String,
    /// say nothing but data and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// One verb each.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// start the machine and wait until the engine answers
    #[command(
        after_help = "examples:\n  slipway start\n  slipway start --cpus 4 --memory 8GiB\n  slipway start \
        --detach\n\nvalues given here hold for this start; `slipway config set` keeps them"
    )]
    Start(StartArgs),
    /// stop containers and the machine
    #[command(after_help = "examples:\n  slipway stop\n  slipway stop --timeout 10\n  slipway stop --force")]
    Stop(StopArgs),
    /// stop, then start
    #[command(after_help = "examples:\n  slipway restart\n  slipway restart --memory 8GiB")]
    Restart(StartArgs),
    /// let the machine stand still: its containers keep their memory and take no processor time
    #[command(
        after_help = "examples:\n  slipway pause\n  slipway resume\n\n`slipway stop` and `slipway start` end it too"
    )]
    Pause,
    /// let a paused machine go on
    #[command(after_help = "examples:\n  slipway resume")]
    Resume,
    /// say how things stand; exit code 0 running, 3 stopped or paused, 4 degraded, 1 failed
    #[command(
        visible_alias = "ls",
        after_help = "examples:\n  slipway status\n  slipway status --json\n  slipway status --quiet || slipway start"
    )]
    Status {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// print the logs of all parts, oldest first
    #[command(
        after_help = "examples:\n  slipway logs -f\n  slipway logs --since 10m --unit dockerd\n  slipway logs \
        --since 2026-11-24T09:30:00Z -n 100"
    )]
    Logs(LogsArgs),
    /// open a shell in the machine, or run a command there, as root
    #[command(
        after_help = "examples:\n  slipway shell\n  slipway shell -- df -h /\n  tar c . | slipway shell -- tar \
        x -C /tmp"
    )]
    Shell {
        /// program and its arguments; none: a login shell
        #[arg(trailing_var_arg = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// read and change settings
    #[command(
        subcommand,
        after_help = "examples:\n  slipway config list\n  slipway config set machine.memory 8GiB\n  \
        slipway config edit"
    )]
    Config(ConfigVerb),
    /// see which ports lead into containers
    #[command(subcommand, after_help = "examples:\n  slipway port ls\n  slipway port ls --json")]
    Port(PortVerb),
    /// check everything that a machine needs, and say what to do about what is wrong; works without a daemon, too
    #[command(
        after_help = "examples:\n  slipway doctor\n  slipway doctor --fix\n  slipway doctor --json\n\nexit code 0 when \
        all is well or there are only warnings, 1 when a check failed; fixes touch no data"
    )]
    Doctor {
        /// mend what can be mended safely
        #[arg(long)]
        fix: bool,
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// write what somebody needs who is to help into one file, without secrets; it is sent nowhere
    #[command(
        after_help = "examples:\n  slipway diagnose\n  slipway diagnose --output /tmp/for-the-report.tar.gz\n\nlogs, settings, \
        status and what `slipway doctor` finds; look into it before you give it away: `tar -tzf FILE`"
    )]
    Diagnose {
        /// file to make, or the folder for it; default: `slipway-diagnose-TIME.tar.gz` here
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// forget settings, data or both; says what is lost and asks
    #[command(
        after_help = "examples:\n  slipway reset --settings\n  slipway reset --data\n  slipway reset --all --yes"
    )]
    Reset(ResetArgs),
    /// forget everything: the same as `reset --all`
    #[command(after_help = "examples:\n  slipway delete\n  slipway delete --yes")]
    Delete {
        /// do not ask
        #[arg(short, long, visible_short_alias = 'f', alias = "force")]
        yes: bool,
    },
    /// show and change which folders of this computer containers can mount
    #[command(
        subcommand,
        after_help = "examples:\n  slipway mount ls\n  slipway mount add /srv/data --read-only\n  slipway mount rm \
        /srv/data\n\nthe home folder is shared by the setting `shares.home`"
    )]
    Mount(MountVerb),
    /// see what the disk of containers, images and volumes takes, give back what it need not, let it grow further
    #[command(
        subcommand,
        after_help = "examples:\n  slipway disk usage\n  slipway disk trim\n  slipway disk resize 200GiB"
    )]
    Disk(DiskVerb),
    /// show or replace the guest image that the machine boots, or go back to the one before
    #[command(
        subcommand,
        after_help = "examples:\n  slipway image ls\n  slipway image install ./guest-image/out\n  slipway image \
        rollback"
    )]
    Image(ImageVerb),
    /// take the guest image of a newer package, or another; a machine that runs is restarted for it, and goes back by itself if
    /// the new image does not start
    #[command(
        after_help = "examples:\n  slipway update --check\n  slipway update\n  slipway update --from ./guest-image/out \
        --yes\n\nNewer images come with newer packages, and a start takes them by itself; so this is for a machine that \
        runs. exit code of --check: 0 there is an update, 3 there is none, 1 error"
    )]
    Update(UpdateArgs),
    /// set up which engine `docker` speaks to
    #[command(subcommand, after_help = "examples:\n  slipway context use\n  slipway context show")]
    Context(ContextVerb),
    /// print shell commands that point DOCKER_HOST at this machine
    #[command(
        after_help = "examples:\n  eval \"$(slipway env)\"\n  slipway env --shell fish | source\n  slipway env \
        --shell powershell | Invoke-Expression"
    )]
    Env {
        /// shell to print for; default: the one of $SHELL
        #[arg(long, value_enum)]
        shell: Option<EnvShell>,
    },
    /// print versions
    #[command(after_help = "examples:\n  slipway version\n  slipway version --json")]
    Version {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// print a completion script
    #[command(
        after_help = "examples:\n  slipway completion bash > ~/.local/share/bash-completion/completions/slipway\n  \
        slipway completion fish > ~/.config/fish/completions/slipway.fish"
    )]
    Completion {
        /// shell to print for
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// have the machine started when you log in, without the window
    #[command(
        subcommand,
        after_help = "examples:\n  slipway autostart enable\n  slipway autostart show\n\nthe window's own switch starts the \
        tray; this needs neither"
    )]
    Autostart(AutostartVerb),
    /// open the window
    #[command(after_help = "examples:\n  slipway desktop\n  slipway desktop --profile work")]
    Desktop,
    /// (inner) be the daemon
    #[command(hide = true)]
    Daemon {
        /// start one in the background unless one lives, and return when it answers
        #[arg(long)]
        detach: bool,
    },
    /// (inner) write the manual pages into a folder, for a package
    #[command(hide = true)]
    Man {
        /// where to
        dir: PathBuf,
    },
    /// (inner) serve host folders to the machine of the process that owns it
    #[command(hide = true)]
    Share,
    /// (inner) be the process that owns a machine
    #[command(hide = true)]
    Shim {
        /// what the daemon wrote for it
        #[arg(long)]
        config: PathBuf,
    },
}

/// How to start.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// virtual CPUs
    #[arg(short, long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// memory, such as `4GiB`
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// size that the data disk can grow to, such as `100GiB`
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) disk: Option<String>,
    /// return at once; the start goes on in the background
    #[arg(long)]
    pub(crate) detach: bool,
    /// seconds until the engine must answer
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
}

/// How to stop.
#[derive(Debug, Default, Args)]
pub(crate) struct StopArgs {
    /// end the machine at once, like pulling the plug
    #[arg(long)]
    pub(crate) force: bool,
    /// seconds that containers get to stop
    #[arg(long, value_name = "SECS")]
    pub(crate) timeout: Option<u64>,
}

/// Which lines.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// go on with new lines
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// leave out what is older: `90s`, `10m`, `1h30m`, `2d`, or a time such as `2026-11-24T09:30:00Z`
    #[arg(long, value_name = "DUR|TIME", value_parser = slipway_api::time::since)]
    pub(crate) since: Option<u64>,
    /// one part alone
    #[arg(short, long, value_parser = PossibleValuesParser::new(UNITS))]
    pub(crate) unit: Option<String>,
    /// at most so many of the newest lines
    #[arg(short = 'n', long = "tail", value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// print every setting with what holds
    List {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// print one value
    Get {
        /// such as `machine.cpus`
        name: String,
        /// print JSON, with what the setting takes
        #[arg(long)]
        json: bool,
    },
    /// set one value
    #[command(
        after_help = "examples:\n  slipway config set machine.cpus 4\n  slipway config set machine.memory 8GiB"
    )]
    Set {
        /// such as `machine.cpus`
        name: String,
        /// such as `4`
        value: String,
    },
    /// go back to the default of one setting
    Unset {
        /// such as `machine.cpus`
        name: String,
    },
    /// open the settings file in $VISUAL or $EDITOR; mistakes are told before they count
    Edit,
    /// print where the settings file is
    Path,
}

/// What to do with published ports.
#[derive(Debug, Subcommand)]
pub(crate) enum PortVerb {
    /// print every published port: container, protocol, address on this computer, state and since when
    #[command(after_help = "examples:\n  slipway port ls\n  slipway port ls --json")]
    Ls {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to do with the data disk.
#[derive(Debug, Subcommand)]
pub(crate) enum DiskVerb {
    /// print what the disk takes on this computer, what is used in it, and what of that nothing needs
    #[command(
        after_help = "examples:\n  slipway disk usage\n  slipway disk usage --json\n\nwhat is reclaimable, \
        `docker system prune --all --volumes` takes away; then `slipway disk trim` gives the room back"
    )]
    Usage {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// give back to this computer what was deleted in the machine
    #[command(after_help = "examples:\n  slipway disk trim")]
    Trim {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// let the disk grow to this size, from the next start on; it is never made smaller
    #[command(
        after_help = "examples:\n  slipway disk resize 200GiB\n\nthe same as `slipway config set machine.disk \
        200GiB`, which takes less, too, for a disk that is yet to be made"
    )]
    Resize {
        /// such as `200GiB`
        size: String,
    },
}

/// What to forget, and whether to ask.
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    what: What,
    /// do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// the settings; containers, images and volumes stay
    #[arg(long)]
    settings: bool,
    /// containers, images and volumes; the settings stay
    #[arg(long)]
    data: bool,
    /// both, and the logs
    #[arg(long)]
    all: bool,
}

impl ResetArgs {
    /// The one that was chosen.
    pub(crate) fn what(&self) -> Reset {
        match (self.what.settings, self.what.data) {
            (true, _) => Reset::Settings,
            (_, true) => Reset::Data,
            _ => Reset::All,
        }
    }
}

/// What to do about shared folders.
#[derive(Debug, Subcommand)]
pub(crate) enum MountVerb {
    /// print what is shared
    Ls {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// share a folder or file, now and at every start
    Add {
        /// folder or file; a link is followed
        path: PathBuf,
        /// containers may not change it
        #[arg(long, visible_alias = "ro")]
        read_only: bool,
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// share it no longer; containers that use it get errors
    Rm {
        /// as `slipway mount ls` names it
        path: PathBuf,
        /// print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to do about the guest image.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// print the installed image, and the one before it
    Ls {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
    /// check an image that `slipway-image` built, and boot it from the next start on; for another processor than this
    /// computer's, by emulation
    Install {
        /// folder that the image builder wrote
        dir: PathBuf,
        /// accept, from now on, the key that it is signed with
        #[arg(long)]
        trust_key: bool,
    },
    /// go back to the image before the installed one, from the next start on; the same again goes forth
    #[command(after_help = "examples:\n  slipway stop\n  slipway image rollback\n  slipway start")]
    Rollback,
}

/// Which image, and whether to ask.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// folder that the image builder wrote, instead of the image beside the program
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// say whether there is an update, and change nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) check: bool,
    /// do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do about docker's context.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextVerb {
    /// make this machine the one that `docker` speaks to
    Use,
    /// print which context `docker` uses
    Show {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to do about logins.
#[derive(Debug, Subcommand)]
pub(crate) enum AutostartVerb {
    /// start it at each login
    Enable,
    /// leave it until it is started
    Disable,
    /// print whether it is started
    Show {
        /// print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Whose syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvShell {
    /// sh, bash, zsh and the like
    #[value(alias = "bash", alias = "zsh")]
    Sh,
    /// fish
    Fish,
    /// PowerShell
    #[value(alias = "pwsh")]
    Powershell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_verb_explains_itself_with_an_example() {
        for verb in Cli::command().get_subcommands_mut().filter(|v| !v.is_hide_set()) {
            let (name, help) = (verb.get_name().to_owned(), verb.render_long_help().to_string());
            assert!(help.contains("examples:\n  "), "{name}:\n{help}");
            assert!(help.contains(&format!("slipway {name}")), "{name}:\n{help}");
            let about = verb.get_about().expect("a line").to_string();
            assert!(about.starts_with(char::is_lowercase) && !about.ends_with('.'), "{name}: {about}");
        }
    }

    #[test]
    fn inner_verbs_are_not_offered() {
        let help = Cli::command().render_long_help().to_string();
        for verb in [
            "start",
            "status",
            "logs",
            "shell",
            "config",
            "doctor",
            "reset",
            "mount",
            "context",
            "env",
            "completion",
        ] {
            assert!(help.contains(&format!("\n  {verb} ")), "{verb}:\n{help}");
        }
        assert!(!help.contains("(inner)"), "{help}");
        assert!(help.contains("[alias: ls]"), "{help}");
    }

    #[test]
    fn what_people_type_is_understood() {
        let cli = parse("slipway start -c 4 -m 8GiB --profile work -q").expect("parses");
        assert_eq!((cli.profile.as_str(), cli.quiet), ("work", true));
        assert!(matches!(cli.verb, Verb::Start(StartArgs { cpus: Some(4), detach: false, .. })));
        assert!(matches!(parse("slipway ls --json").expect("parses").verb, Verb::Status { json: true }));
        assert!(matches!(parse("slipway delete -f").expect("parses").verb, Verb::Delete { yes: true }));
        for line in ["slipway shell -- ls -la --profile", "slipway shell ls -la --profile"] {
            let Verb::Shell { command } = parse(line).expect(line).verb else { panic!("{line}") };
            assert_eq!(command, ["ls", "-la", "--profile"]);
        }
        let Verb::Reset(what) = parse("slipway reset --data --yes").expect("parses").verb else { panic!() };
        assert_eq!((what.what(), what.yes), (Reset::Data, true));
        assert!(matches!(
            parse("slipway env --shell bash").expect("parses").verb,
            Verb::Env { shell: Some(EnvShell::Sh) }
        ));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "slipway",
            "slipway reset",
            "slipway reset --data --all",
            "slipway logs --unit nobody",
            "slipway logs --since yesterdayish",
            "slipway start --cpus many",
            "slipway start --timeout 0",
            "slipway strat",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
