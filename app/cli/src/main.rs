//! `slipway`: what a person types, and the processes behind it.
//!
//! One program plays three parts: the verbs, which know the control API and nothing else; and, under hidden verbs, the
//! daemon and the shim ([`inner`]), so that all three are always of one version.

mod args;
mod autostart;
mod config;
mod desktop;
mod diagnose;
mod disk;
mod doctor;
mod follow;
mod image;
mod inner;
mod integrate;
mod logs;
mod mount;
mod phases;
mod port;
mod reach;
mod reset;
mod say;
mod shell;
mod start;
mod status;
mod system;
mod terminal;
mod update;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::{
    args::{Cli, Verb},
    reach::Session,
    say::{Fail, Say},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb {
        // Before any thread runs: they leave the starter's session first.
        Verb::Daemon { detach: false } => inner::daemon(cli.profile),
        Verb::Shim { config } => inner::shim(&config),
        Verb::Share => inner::share(),
        verb => {
            let say = Say::of_process(cli.quiet);
            let ended = match tokio::runtime::Runtime::new() {
                Ok(runtime) => {
                    let ended = runtime.block_on(run(&cli.profile, verb, say));
                    // Not waiting for what is blocked in a read of the terminal.
                    runtime.shutdown_background();
                    ended
                }
                Err(error) => Err(error.into()),
            };
            ExitCode::from(ended.unwrap_or_else(|fail| say.fail(&fail)))
        }
    }
}

/// Does what the verb says; the exit code.
async fn run(profile: &str, verb: Verb, say: Say) -> Result<u8, Fail> {
    if let Verb::Completion { shell } = verb {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "slipway", &mut script);
        return say.data(&String::from_utf8_lossy(&script)).map(|()| 0);
    }
    if let Verb::Man { dir } = verb {
        return clap_mangen::generate_to(Cli::command(), dir).map(|()| 0).map_err(Fail::from);
    }
    let session = Session::new(profile, say)?;
    match verb {
        Verb::Start(how) => start::start(&session, &how).await,
        Verb::Stop(how) => start::stop(&session, &how).await,
        Verb::Restart(how) => start::restart(&session, &how).await,
        Verb::Pause => start::pause(&session).await,
        Verb::Resume => start::resume(&session).await,
        Verb::Status { json } => status::status(&session, json).await,
        Verb::Logs(which) => logs::logs(&session, &which).await,
        Verb::Shell { command } => shell::shell(&session, command).await,
        Verb::Config(what) => config::config(&session, &what).await,
        Verb::Reset(what) => reset::reset(&session, what.what(), what.yes).await,
        Verb::Delete { yes } => reset::reset(&session, slipway_api::Reset::All, yes).await,
        Verb::Port(what) => port::port(&session, &what).await,
        Verb::Image(what) => image::image(&session, &what).await,
        Verb::Update(how) => update::update(&session, &how).await,
        Verb::Mount(what) => mount::mount(&session, &what).await,
        Verb::Disk(what) => disk::disk(&session, &what).await,
        Verb::Context(what) => integrate::context(&session, &what).await,
        Verb::Env { shell } => integrate::env(&session, shell),
        Verb::Version { json } => integrate::version(&session, json).await,
        Verb::Doctor { fix, json } => doctor::doctor(&session, fix, json).await,
        Verb::Diagnose { output, json } => diagnose::diagnose(&session, output, json).await,
        Verb::Autostart(what) => autostart::autostart(&session, &what),
        Verb::Desktop => desktop::desktop(&session).await,
        Verb::Daemon { .. } => session.ensured().await.map(|_| 0),
        Verb::Completion { .. } | Verb::Man { .. } | Verb::Shim { .. } | Verb::Share => Ok(0),
    }
}
