//! The real window on a screen of its own, against a real machine, driven as a person drives it.
//!
//! ```text
//!   Xvfb, D-Bus ─▶ WebKitWebDriver ─▶ slipway-desktop ─▶ daemon ─▶ machine
//!        └─▶ a panel's part: the tray's menu and the notifications (`tray.rs`)
//! ```
//!
//! One machine and one window, the tests in the order of a person's first day with it. Screenshots go to
//! `target/screenshots/`.

mod day;
mod figures;
mod pages;
mod processes;
mod screen;
mod tray;
mod webdriver;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use libtest_mimic::{Arguments, Trial};
use slipway_test_harness::Built;

use crate::day::{Day, Named, TESTS};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let (built, window) = match (Built::of_environment(), std::env::var_os("SLIPWAY_TEST_WINDOW")) {
        (Ok(built), Some(window)) => (built, PathBuf::from(window)),
        (Err(why), _) => {
            println!("skipped: {why}");
            return ExitCode::SUCCESS;
        }
        (_, None) => {
            println!("skipped: SLIPWAY_TEST_WINDOW is not set: `tests/run` builds the window and sets it");
            return ExitCode::SUCCESS;
        }
    };
    // Begun by the first test that wants it. None inside when that failed: the others say so and no more.
    let day: Arc<Mutex<Option<Option<Day>>>> = Arc::default();
    let trial = |(name, test): Named| {
        let (day, built, window) = (Arc::clone(&day), built.clone(), window.clone());
        Trial::test(name, move || {
            let mut day = day.lock().unwrap_or_else(PoisonError::into_inner);
            if day.is_none() {
                *day = Some(None);
                *day = Some(Some(Day::begin(&built, &window)));
            }
            let day = day
                .as_mut()
                .and_then(Option::as_mut)
                .expect("the window did not open: see the first failure");
            test(day);
            Ok(())
        })
    };
    let conclusion = libtest_mimic::run(&arguments, TESTS.iter().copied().map(trial).collect());
    // Ends the window, the machine and the screen.
    drop(day);
    conclusion.exit_code()
}
