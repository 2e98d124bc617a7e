//! `slipway-desktop`: the window and the tray, or with `--serve` the same pages for a browser on this computer.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use slipway_api::paths::{Env, Paths};
use slipway_desktop::{bridge::Bridge, daemon, serve::Server};

/// containers, images and the machine in a window
#[derive(Debug, Parser)]
#[command(name = "slipway-desktop", version)]
struct Cli {
    /// machine to show
    #[arg(long, value_name = "NAME", env = "SLIPWAY_PROFILE", default_value = "default")]
    profile: String,
    /// show the tray and open no window yet
    #[arg(long, conflicts_with = "serve")]
    minimized: bool,
    /// serve the pages to a browser on this computer instead of opening a window
    #[arg(long)]
    serve: bool,
    /// with `--serve`: the port; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// with `--serve`: the folder of the built pages
    #[arg(long, value_name = "DIR", env = "SLIPWAY_UI", default_value = "ui/dist")]
    ui: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match Paths::resolve(&Env::of_process(), &cli.profile) {
        Err(error) => Err(error.into()),
        Ok(paths) if cli.serve => serve(&cli, &paths),
        Ok(paths) => window(&cli, &paths),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("caused by: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

type Ended = Result<(), Box<dyn std::error::Error>>;

fn bridge(paths: &Paths) -> Bridge {
    Bridge::new(&paths.api_sock()).with_tools(paths.bin_dir())
}

fn serve(cli: &Cli, paths: &Paths) -> Ended {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let server = Server::bind(bridge(paths), &cli.profile, &cli.ui, cli.port).await?;
        println!("{}", server.url());
        // The pages say what is wrong, and offer to try again.
        if let Err(problem) = daemon::ensure(&cli.profile).await {
            eprintln!("error: {problem}");
        }
        tokio::select! {
            ended = server.run() => ended?,
            stopped = tokio::signal::ctrl_c() => stopped?,
        }
        Ok(())
    })
}

#[cfg(feature = "window")]
fn window(cli: &Cli, paths: &Paths) -> Ended {
    slipway_desktop::run(bridge(paths), cli.profile.clone(), cli.minimized)
}

#[cfg(not(feature = "window"))]
fn window(cli: &Cli, _: &Paths) -> Ended {
    let shown = if cli.minimized { "its tray" } else { "its window" };
    Err(format!("this program was built without {shown}; `--serve` shows the same pages in a browser").into())
}
