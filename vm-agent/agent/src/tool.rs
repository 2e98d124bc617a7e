//! The agent on a host: the real server on unix sockets, without mounts and without being PID 1, so that the daemon can
//! be tested against it where no VM runs.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    clock,
    configuration::Configuration,
    engine,
    listen::{self, Listener},
    logs::Logs,
    phases::Board,
    ports::{self, Ports},
    reaper::Reaper,
    serve::Guest,
};

const USAGE: &str = "usage: slipway-agent serve --dir DIR [--engine SOCKET]";

/// Serves until the host asks for a power-off, which ends the process. The host's clock is never set.
pub fn serve(arguments: &[String]) -> ExitCode {
    let (mut dir, mut socket) = (None, PathBuf::from("/nonexistent/docker.sock"));
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--dir", Some(value)) => dir = Some(PathBuf::from(value)),
            ("--engine", Some(value)) => socket = PathBuf::from(value),
            _ => return usage(),
        }
    }
    let Some(dir) = dir else { return usage() };
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(run(dir, socket)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

async fn run(dir: PathBuf, socket: PathBuf) -> std::io::Result<()> {
    let (tell, mut power_off) = mpsc::channel(1);
    let guest = Arc::new(Guest {
        board: Arc::new(Board::new()),
        logs: Arc::new(Logs::new()),
        data: dir.clone(),
        power_off: tell,
        set_clock: clock::only_check,
        reaper: Reaper::new(false),
        engine: socket.clone(),
        ports: Ports::default(),
        shares: crate::shares::Shares::new(),
        configuration: Configuration::of_nothing(),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&guest.reaper).run());
    let listeners = listen::ports()
        .map(|port| Listener::unix(&dir, port).map(|listener| (port, listener)))
        .collect::<Result<Vec<_>, _>>()?;
    for (port, listener) in listeners {
        tasks.spawn(listen::run(listener, port, Arc::clone(&guest)));
    }
    let (stand_ins, ports, logs) = (dir.join("ports.sock"), guest.ports.clone(), Arc::clone(&guest.logs));
    tasks.spawn(async move { ports::local::run(&stand_ins, ports, &logs).await });
    let (board, logs) = (Arc::clone(&guest.board), Arc::clone(&guest.logs));
    tasks.spawn(async move {
        engine::watch(&board, &logs, &socket).await;
        Ok(())
    });
    tokio::select! {
        _ = power_off.recv() => Ok(()),
        Some(ended) = tasks.join_next() => ended.map_err(std::io::Error::other)?,
    }
}
