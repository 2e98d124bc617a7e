//! The whole, as a person meets it: the real program, the real image under QEMU, real docker clients.
//!
//! ```text
//!   without a machine: wrong, doctor ─▶ one machine for all: engine, streams, platforms, cli, doctor, disk, ports, publishing, web, network, registries, shares, posix, freshness, events, plan9, load ─▶ crash (the same machine, roughly)
//!                                                                            ─▶ alone: tests with homes of their own
//! ```
//!
//! Tests run one after the other, because an emulated machine has no time for two. `tests/run` builds what they need;
//! a filter runs some of them: `cargo test -p slipway-tests --test e2e -- streams`.

mod alone;
mod arm64;
mod cli;
mod crash;
mod disk;
mod doctor;
mod engine;
mod events;
mod freshness;
mod load;
mod network;
mod ordinary;
mod ours;
mod plan9;
mod platforms;
mod ports;
mod posix;
mod programs;
mod publishing;
mod registries;
mod shares;
mod streams;
mod suite;
mod web;
mod wrong;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use libtest_mimic::{Arguments, Trial};
use slipway_test_harness::{Built, Home};

/// A test of the machine that all share.
type Shared = (&'static str, fn(&Home));
/// A test that makes its own home.
type Alone = (&'static str, fn(&Built));

/// The shared machine, booted by the first test that wants it; `None` inside when that failed once.
#[derive(Default)]
struct Lazy(Mutex<Option<Option<Home>>>);

impl Lazy {
    fn run(&self, built: &Built, test: fn(&Home)) {
        // A test that failed leaves the machine to the next one.
        let mut home = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if home.is_none() {
            *home = Some(None);
            let booted = Home::new(built);
            booted.start();
            booted.busybox_image();
            *home = Some(Some(booted));
        }
        test(
            home.as_ref().and_then(Option::as_ref).expect("the machine did not start: see the first failure"),
        );
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let built = match Built::of_environment() {
        Ok(built) => built,
        Err(why) => {
            println!("skipped: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let machine = Arc::new(Lazy::default());
    let alone = |(name, test): Alone| {
        let built = built.clone();
        Trial::test(name, move || {
            test(&built);
            Ok(())
        })
    };
    let shared = |(name, test): Shared| {
        let (built, machine) = (built.clone(), Arc::clone(&machine));
        Trial::test(name, move || {
            machine.run(&built, test);
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = wrong::TESTS.iter().chain(doctor::WITHOUT).copied().map(alone).collect();
    // What the first daemon told of its start is gone with it, and the tests of ports kill it: `cli` comes before.
    let groups = [
        engine::TESTS,
        streams::TESTS,
        platforms::TESTS,
        cli::TESTS,
        doctor::TESTS,
        disk::TESTS,
        ports::TESTS,
        publishing::TESTS,
        web::TESTS,
        network::TESTS,
        registries::TESTS,
        shares::TESTS,
        posix::TESTS,
        freshness::TESTS,
        events::TESTS,
        plan9::TESTS,
        load::TESTS,
        crash::TESTS,
    ];
    trials.extend(groups.into_iter().flatten().copied().map(shared));
    // An emulated machine's time for this is a quarter of an hour, and CI moves an eighth of it: `--ignored` runs it.
    // Debian's packages for the others are some 60 MB, and their programs take minutes there.
    let on_demand = publishing::ON_DEMAND.iter().chain(programs::ON_DEMAND).chain(suite::ON_DEMAND);
    trials.extend(on_demand.copied().map(shared).map(|it| it.with_ignored_flag(true)));
    let alone_on_demand = suite::ALONE_ON_DEMAND.iter().chain(arm64::ON_DEMAND).copied().map(alone);
    trials.extend(alone_on_demand.map(|it| it.with_ignored_flag(true)));
    let with_own_homes = alone::TESTS.iter().chain(ordinary::TESTS).chain(registries::ALONE);
    trials.extend(with_own_homes.copied().map(alone));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Ends the machine.
    drop(machine);
    conclusion.exit_code()
}
