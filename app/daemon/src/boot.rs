//! From nothing, or from a shim that lives already, to an answering engine: named phases, each with what explains its
//! failure. Whatever goes wrong, no machine is left behind that nobody asked for.

#[cfg_attr(unix, path = "boot/disk.rs")]
#[cfg_attr(windows, path = "boot/disk_windows.rs")]
pub(crate) mod disk;
#[cfg_attr(target_os = "linux", path = "boot/qemu.rs")]
#[cfg_attr(not(target_os = "linux"), path = "boot/hypervisor.rs")]
pub(crate) mod vmm;

use std::{path::Path, sync::Arc, time::Duration};

use slipway_api::{Machine, PhaseState, Problem, StartRequest};
use slipway_manifest::Manifest;
use slipway_settings::resolved::Settings;
use slipway_shim::{
    client::{Life, ShimClient},
    server::ShimConfig,
    share::ShareConfig,
    spawn::{self, SpawnError},
    wire::Status as ShimStatus,
};
use slipway_vm::{AccelChoice, ExitReason, GuestArch, MachineSpec, Stall, room};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{Context, blocking, board::Board, config, guest::Guest, image, setup};

/// How long the shim may take: a KVM that does not work is given up within 10 s.
const SHIM: Duration = Duration::from_secs(30);
/// How long a machine that is to end gets before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// Free bytes on the host below which a machine is not started: its disk could not grow.
pub(crate) const ROOM: u64 = 256 << 20;
/// Lines of a log that go with a failure.
const SLICE: usize = 12;
/// A machine, and the view of its inside.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) shim: ShimClient,
    pub(crate) guest: Guest,
    /// Why its virtual CPUs stand still unasked, if they do.
    pub(crate) stall: watch::Receiver<Option<Stall>>,
    /// How long its containers get at a stop, by the settings of its start.
    pub(crate) stop_timeout: Duration,
}

/// Boots. A cancelled boot ends its machine and fails with `cancelled`.
pub(crate) async fn boot(
    context: Arc<Context>,
    board: Board,
    request: StartRequest,
    cancel: CancellationToken,
) -> Result<Live, Problem> {
    board.begin("image");
    let (settings, manifest, guest, kept) = {
        let (context, overrides) = (Arc::clone(&context), request.overrides);
        blocking(move || {
            let settings = config::with(&context.paths, &overrides)?;
            config::remember(&context.paths)?;
            let provided = image::provide(&context.paths, &context.exe);
            // A package's image that cannot be had is no reason not to boot the one that is there.
            let kept = match provided {
                Err(problem) if image::version(&context.paths).is_none() => return Err(problem),
                provided => provided.err(),
            };
            let manifest = image::check(&context.paths)?;
            let guest = image::processor(&manifest)?;
            prepare_disk(&context.paths.data_disk(), settings.disk.as_bytes())?;
            Ok((settings, manifest, guest, kept))
        })
        .await??
    };
    board.change(|status| status.image = Some(manifest.version.clone()));
    if let Some(problem) = kept {
        tracing::warn!(code = problem.code, causes = ?problem.causes, "the image beside the program is not taken");
        let notice = format!(
            "the guest image beside the program was not taken: {problem}; `slipway update --check` says more"
        );
        board.change(|status| status.notices.push(notice));
    }
    board.end("image", PhaseState::Done, manifest.version.clone());
    if cancel.is_cancelled() {
        return Err(cancelled());
    }
    board.begin("machine");
    vmm::find(guest)?;
    context.logs.rotate_idle();
    let config = shim_config(&context, &settings, &manifest, guest);
    let paths = &context.paths;
    let shim = spawn::spawn(&context.exe, &config, &paths.shim_config(), &paths.log("shim"), SHIM).await;
    let shim = shim.map_err(|error| shim_problem(&error))?;
    let timeout_s = request.timeout_s.map_or(settings.start_timeout, Duration::from_secs);
    let docker = request.docker_config;
    let setting_up = async {
        let Some(dir) = docker else { return };
        let (context, settings) = (Arc::clone(&context), settings.clone());
        let done =
            tokio::task::spawn_blocking(move || setup::docker(&context.paths, &settings, &manifest, &dir))
                .await;
        if let Ok(done) = done {
            board.change(|status| status.docker = Some(done));
        }
    };
    // While the machine boots, which takes longer.
    let (live, ()) =
        tokio::join!(inside(&context, &board, shim, &settings, timeout_s, false, &cancel), setting_up);
    let paths = context.paths.clone();
    match live {
        Ok(live) => {
            blocking(move || image::booted(&paths)).await?;
            Ok(live)
        }
        Err(problem) => {
            let (problem, image) =
                blocking(move || (image::boot_failed(&paths, problem), image::version(&paths))).await?;
            board.change(|status| status.image = image);
            Err(problem)
        }
    }
}

/// Takes over a machine that runs already.
pub(crate) async fn adopt(
    context: Arc<Context>,
    board: Board,
    shim: ShimClient,
    cancel: CancellationToken,
) -> Result<Live, Problem> {
    let settings = settings_of_adopted(&context)?;
    board.change(|status| status.image = image::version(&context.paths));
    let patience = settings.start_timeout;
    inside(&context, &board, shim, &settings, patience, true, &cancel).await
}

/// Takes over a machine whose processors stand still: it is asked nothing, and kept as it is.
pub(crate) fn adopt_paused(
    context: &Arc<Context>,
    board: &Board,
    shim: ShimClient,
    status: &ShimStatus,
) -> Result<Live, Problem> {
    let settings = settings_of_adopted(context)?;
    board.change(|status| status.image = image::version(&context.paths));
    show_machine(context, board, status, &settings);
    let guest = Guest::watch(shim.clone(), status.pid.unwrap_or(0), context, board.clone(), 0);
    Ok(Live { stall: shim.stall(), shim, guest, stop_timeout: settings.stop_timeout })
}

/// The settings may have become wrong since its start; the machine runs all the same.
fn settings_of_adopted(context: &Context) -> Result<Settings, Problem> {
    config::with(&context.paths, &[])
        .or_else(|_| Settings::resolve(&Default::default(), slipway_settings::resolved::Host::here()))
        .map_err(|_| Problem::new("settings-too-much", "this host has less than the smallest machine needs"))
}

/// Puts on the board what the machine is made of.
fn show_machine(context: &Context, board: &Board, status: &ShimStatus, settings: &Settings) {
    let spec = spec_of(&context.paths.shim_config());
    let has = &status.capabilities;
    let accel = serde_json::to_value(has.accel).ok().and_then(|v| v.as_str().map(str::to_owned));
    board.change(|shown| {
        shown.machine = Some(Machine {
            cpus: spec.as_ref().map_or(settings.cpus, |s| s.cpus),
            memory_mib: spec.as_ref().map_or(settings.memory.as_mib(), |s| s.memory_mib),
            pid: status.pid,
            vmm: has.vmm.clone(),
            accel: accel.unwrap_or_default(),
            accel_reason: has.accel_reason.clone(),
            transport: has.transport.clone(),
        });
        if let Some(reason) = &has.accel_reason {
            shown.notices.push(format!(
                "running without hardware acceleration: {reason}; everything works, several times slower"
            ));
        }
    });
}

/// Waits until the engine of a machine answers; ends the machine when it does not.
async fn inside(
    context: &Arc<Context>,
    board: &Board,
    shim: ShimClient,
    settings: &Settings,
    patience: Duration,
    adopted: bool,
    cancel: &CancellationToken,
) -> Result<Live, Problem> {
    let deadline = Instant::now() + patience;
    let ready = async {
        let status = shim.status().await.map_err(|e| Problem::from_error("machine-lost", &e))?;
        show_machine(context, board, &status, settings);
        let power_on = if adopted { 0 } else { board.elapsed_ms() };
        if !adopted {
            board.end("machine", PhaseState::Done, status.capabilities.vmm.clone());
        }
        board.begin("agent");
        let guest = Guest::watch(shim.clone(), status.pid.unwrap_or(0), context, board.clone(), power_on);
        let mut seen = guest.inside.clone();
        // The sender lives in the guest's tasks, which live as long as `guest`.
        let _ = seen.wait_for(|inside| inside.agent.is_some()).await;
        board.end("agent", PhaseState::Done, "");
        let found = seen.wait_for(|inside| inside.engine.is_some() || inside.failed.is_some()).await;
        let failed = found.ok().and_then(|inside| inside.failed.clone());
        match failed {
            Some((phase, detail)) => Err(phase_problem(context, &phase, &detail)),
            None => Ok(guest),
        }
    };
    let mut life = shim.life();
    let outcome = tokio::select! {
        ready = timeout_at(deadline, ready) => match ready {
            Ok(ready) => ready,
            Err(_) => Err(too_late(context, board, patience)),
        },
        _ = life.wait_for(|life| *life != Life::Runs) => Err(ended_problem(context, &shim, true)),
        () = cancel.cancelled() => Err(cancelled()),
    };
    match outcome {
        Ok(guest) => Ok(Live { stall: shim.stall(), shim, guest, stop_timeout: settings.stop_timeout }),
        Err(problem) => {
            end(&shim).await;
            Err(problem)
        }
    }
}

/// Ends a machine that did not come up, and waits for its end.
pub(crate) async fn end(shim: &ShimClient) {
    if let Err(error) = shim.kill(GRACE).await {
        tracing::warn!(%error, "the machine could not be asked to end");
    }
    let mut life = shim.life();
    if timeout(GRACE * 3, life.wait_for(|life| *life != Life::Runs)).await.is_err() {
        tracing::error!("the machine does not end");
    }
}

pub(crate) fn cancelled() -> Problem {
    Problem::new("cancelled", "the start was cancelled by a stop")
}

/// Makes the data disk where there is none, or larger when the settings say so. Never smaller.
fn prepare_disk(path: &Path, bytes: u64) -> Result<(), Problem> {
    if let Some(dir) = path.parent() {
        let free = room::free(dir).map_err(|error| not_prepared(path, &error, None))?;
        if free < ROOM {
            return Err(Problem::new("host-disk-full", format!("the disk of `{}` is full", dir.display()))
                .because(format!("{} MiB are free, and at least {} are needed", free >> 20, ROOM >> 20))
                .hint("free some space; nothing of yours in Slipway was touched"));
        }
    }
    disk::prepare(path, bytes)
}

fn not_prepared(path: &Path, error: &dyn std::error::Error, hint: Option<&str>) -> Problem {
    let problem = Problem::new("data-disk", format!("failed to prepare the data disk `{}`", path.display()));
    let problem = problem.because(error.to_string()).because_of(error);
    hint.into_iter().fold(problem, Problem::hint)
}

fn shim_config(context: &Context, settings: &Settings, manifest: &Manifest, guest: GuestArch) -> ShimConfig {
    let paths = &context.paths;
    let image = paths.image_dir();
    let accel = match settings.accel.as_str() {
        "kvm" => AccelChoice::Kvm,
        "tcg" => AccelChoice::Tcg,
        _ => AccelChoice::Auto,
    };
    ShimConfig {
        spec: MachineSpec {
            name: paths.profile().to_owned(),
            cpus: settings.cpus,
            memory_mib: settings.memory.as_mib(),
            kernel: image.join("kernel"),
            initramfs: image.join("initramfs"),
            root_image: image.join("root.erofs"),
            data_disk: paths.data_disk(),
            cmdline: manifest.cmdline.clone(),
            run_dir: paths.run_dir().to_owned(),
            console_log: paths.log("console"),
            accel,
            share_socket: None,
        },
        lock: paths.shim_lock(),
        socket: paths.shim_sock(),
        exit_file: paths.exit_file(),
        accel_verdict: paths.accel_verdict(),
        guest,
        vmm_binary: None,
        share: Some(ShareConfig {
            socket: paths.run_dir().join("share.sock"),
            exports: context.shares.exports(),
            hidden: vec![paths.home().to_owned()],
        }),
    }
}

/// What the running machine was started with.
fn spec_of(config: &Path) -> Option<MachineSpec> {
    Some(serde_json::from_slice::<ShimConfig>(&std::fs::read(config).ok()?).ok()?.spec)
}

fn shim_problem(error: &SpawnError) -> Problem {
    Problem::from_error("machine-start", error).hint("`slipway logs --unit shim` says more")
}

fn phase_problem(context: &Context, phase: &str, detail: &str) -> Problem {
    let problem = Problem::new(&format!("guest-{phase}"), format!("`{phase}` failed in the machine"));
    let problem = detail.lines().fold(problem, Problem::because);
    if phase == "data-disk" {
        let disk = context.paths.data_disk();
        return problem.hint(format!(
            "nothing on it was changed; copy `{}` away before you try to repair it, or begin with an empty one: \
             `slipway reset --data`",
            disk.display()
        ));
    }
    problem.hint("`slipway logs` says more")
}

fn too_late(context: &Context, board: &Board, patience: Duration) -> Problem {
    let status = board.now();
    let phase = status.phases.iter().rev().find(|p| p.state == PhaseState::Running);
    let phase = phase.map_or("engine", |p| p.name.as_str()).to_owned();
    let unit = match phase.as_str() {
        "engine" | "images" => "dockerd",
        "containerd" => "containerd",
        "agent" => "console",
        _ => "agent",
    };
    let message = format!("the engine did not answer within {} s: `{phase}` is not done", patience.as_secs());
    let problem = Problem::new("start-timeout", message);
    context.logs.tail(unit, SLICE).into_iter().fold(problem, Problem::because).hint(format!(
        "try `slipway start --timeout {}`; `slipway logs --unit {unit}` says more",
        patience.as_secs() * 2
    ))
}

/// Why a machine stands still.
pub(crate) fn stall_problem(context: &Context, stall: Stall) -> Problem {
    match stall {
        Stall::HostDiskFull => {
            let disk = context.paths.data_disk();
            let dir = disk.parent().unwrap_or(&disk).display();
            Problem::new("host-disk-full", "the machine waits: this computer has no room for what it writes")
                .because(format!("the disk of `{dir}` is full"))
                .hint("free some space, and it goes on by itself; nothing is lost")
        }
    }
}

/// Why a machine that was not asked to end did.
pub(crate) fn ended_problem(context: &Context, shim: &ShimClient, booting: bool) -> Problem {
    let life = shim.life().borrow().clone();
    let problem = match life {
        Life::Ended(reason) => exit_problem(&reason),
        Life::Lost | Life::Runs => Problem::new("machine-lost", "the machine's process was killed"),
    };
    // While it boots its console is all that is known.
    let slice = if booting { context.logs.tail("console", SLICE) } else { Vec::new() };
    slice.into_iter().fold(problem, Problem::because)
}

/// The same for a reason that was left on disk.
pub(crate) fn exit_problem(reason: &ExitReason) -> Problem {
    let problem = match reason {
        ExitReason::Crashed { detail } => {
            Problem::new("machine-crashed", "the machine ended unexpectedly").because(detail.clone())
        }
        ExitReason::PoweredOff => Problem::new("machine-powered-off", "the machine powered itself off"),
        ExitReason::Reset => Problem::new("machine-reset", "the machine asked for a reset"),
        ExitReason::Killed => Problem::new("machine-killed", "the machine was ended"),
    };
    problem.hint("`slipway start` starts it again; what was written is on the data disk")
}
