//! A program that was started and runs on, read line by line as it speaks.

use std::{
    io::{BufRead, BufReader},
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{Command, Running};

/// The lines of a program, each with the moment in which it came; dropping it ends the program.
#[derive(Debug)]
pub struct Lines {
    running: Option<Running>,
    came: Receiver<(Instant, String)>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    /// Starts a program and reads what it says.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of(command: Command) -> Self {
        let mut running = command.spawn();
        let out = BufReader::new(running.stdout.take().expect("a pipe"));
        let (tell, came) = channel();
        // Ends with the program's output, or when nobody wants to hear more.
        let reader = std::thread::spawn(move || {
            let _ = out.lines().map_while(Result::ok).try_for_each(|line| tell.send((Instant::now(), line)));
        });
        Self { running: Some(running), came, reader: Some(reader) }
    }

    /// The next line, when one comes in time.
    pub fn next(&self, patience: Duration) -> Option<(Instant, String)> {
        self.came.recv_timeout(patience).ok()
    }

    /// The program itself, for its input.
    ///
    /// # Panics
    /// Never: it is there until this is dropped.
    pub fn program(&mut self) -> &mut Running {
        self.running.as_mut().expect("there until it is dropped")
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(reader) = self.reader.take() {
            // What it panicked with was printed.
            let _ = reader.join();
        }
    }
}
