//! Builds the guest image, on any Linux, without root.
//!
//! ```text
//! slipway.yaml ─resolve─▶ a lock       ─fetch, sha256─▶ .deb ─unpack, trim─▶ tree ─┬─▶ root.erofs
//!   (signed indexes)       (every input)                  │                        ├─▶ initramfs, kernel
//!                                                         │                        ├─▶ host-tools/, sbom
//!                                                         │                        └─▶ manifest, signed
//!                    compiler, kernel headers, source ◀───┴─▶ kernel modules, into the tree
//! ```
//!
//! The same lock gives the same bytes: nothing of the time, the machine or the mirror gets in. No maintainer script is run;
//! of the packages only those run that compile modules ([`module`]), in a root of their own. An image can be for another
//! processor than the one that builds it: what runs is of the builder's, and all else is the image's ([`resolve`]).

mod archive;
mod assemble;
mod cpio;
mod deb;
mod definition;
mod fetch;
mod initramfs;
mod lock;
mod module;
mod modules;
mod resolve;
mod sbom;
mod sign;
mod sources;
mod tree;
mod version;
mod vmlinux;
mod welcome;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

/// Builds Slipway's guest image.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds the image that `slipway.yaml` defines.
    Build(BuildArgs),
    /// Resolves the definition anew and writes its lock, `slipway.ARCH.lock`; prints what changed.
    Lock(SourceArgs),
}

#[derive(Debug, Args)]
struct SourceArgs {
    /// The definition; its lock, one for each processor, lies beside it.
    #[arg(long, default_value = "guest-image/slipway.yaml")]
    definition: PathBuf,
    /// The processor that the image is for; any computer builds for each [default: this computer's].
    #[arg(long, value_enum, default_value_t = definition::Arch::HOST, hide_default_value = true)]
    arch: definition::Arch,
    /// Debian mirror [default: the first one of the host's apt configuration].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Where downloads and the development key are kept [default: the user's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct BuildArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Use what the lock pins or fail; never resolve.
    #[arg(long)]
    locked: bool,
    /// Where the image goes [default: `guest-image/out`, for another processor than this computer's `guest-image/out.ARCH`].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The static agent; like the other two for the image's processor.
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// The static program that stands before the real iptables.
    #[arg(long, value_name = "FILE")]
    iptables: PathBuf,
    /// The static program of the welcome image.
    #[arg(long, value_name = "FILE")]
    welcome: PathBuf,
    /// Sign with this minisign key instead of the development key that is made on the first build.
    #[arg(long, value_name = "FILE")]
    secret_key: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start")
        .and_then(|runtime| runtime.block_on(run(cli)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.chain().skip(1).for_each(|cause| eprintln!("caused by: {cause}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Lock(args) => {
            let source = Source::new(&args)?;
            source.resolve().await.map(drop)
        }
        Verb::Build(args) => build(&args).await,
    }
}

/// What is built, and where its packages come from.
struct Source {
    definition: definition::Definition,
    lock_path: PathBuf,
    fetcher: fetch::Fetcher,
}

impl Source {
    fn new(args: &SourceArgs) -> Result<Self> {
        let definition = definition::Definition::read(&args.definition, args.arch)?;
        let mirror = match &args.mirror {
            Some(mirror) => mirror.clone(),
            None => sources::mirror_of_host()
                .context("failed to find a Debian mirror; name one with `--mirror URL`")?,
        };
        let cache = match &args.cache {
            Some(dir) => dir.clone(),
            None => default_cache()?,
        };
        let fetcher = fetch::Fetcher::new(&mirror, &cache)?;
        Ok(Self {
            definition,
            lock_path: args.definition.with_extension(format!("{}.lock", args.arch.name())),
            fetcher,
        })
    }

    async fn resolve(&self) -> Result<lock::Lock> {
        let mut archives = Vec::new();
        let arch = self.definition.arch;
        let indexes = self.definition.suites().into_iter().map(|suite| (suite, arch));
        // And what compiles on the other processor.
        for (suite, arch) in indexes.chain([(self.definition.kernel.suite.as_str(), arch.other())]) {
            archives.push(archive::Archive::fetch(&self.fetcher, suite, arch).await?);
        }
        let new = resolve::resolve(&self.definition, &archives)?;
        let old = lock::Lock::read(&self.lock_path)?;
        for change in new.changes_from(old.as_ref()) {
            println!("  {change}");
        }
        new.write(&self.lock_path)?;
        Ok(new)
    }
}

fn default_cache() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if Path::new(&cache).is_absolute() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => bail!("neither HOME nor XDG_CACHE_HOME is set; name a folder with `--cache DIR`"),
    };
    Ok(base.join("slipway/image"))
}

/// What boots here is not replaced by what is for elsewhere.
fn default_out(arch: definition::Arch) -> PathBuf {
    let out = PathBuf::from("guest-image/out");
    if arch == definition::Arch::HOST { out } else { out.with_extension(arch.name()) }
}

async fn build(args: &BuildArgs) -> Result<()> {
    let source = Source::new(&args.source)?;
    let fits = |lock: &lock::Lock| lock.definition == source.definition.fingerprint();
    let lock = match lock::Lock::read(&source.lock_path)? {
        Some(lock) if fits(&lock) => lock,
        Some(_) | None if args.locked => {
            bail!("`{}` does not fit the definition; run without `--locked`", source.lock_path.display())
        }
        _ => {
            println!("resolving the definition");
            source.resolve().await?
        }
    };
    let (lock, packages) = match source.fetcher.packages(&lock, source.definition.arch).await {
        Ok(packages) => (lock, packages),
        Err(error) if args.locked => return Err(error.context("a pinned package cannot be had")),
        Err(error) => {
            // Old versions leave the mirrors; what replaced them is printed.
            println!("a pinned package cannot be had ({error:#}): resolving anew");
            let lock = source.resolve().await?;
            let packages = source.fetcher.packages(&lock, source.definition.arch).await?;
            (lock, packages)
        }
    };
    let program = |path: &Path| program(path, source.definition.arch);
    let (agent, iptables, welcome) =
        (program(&args.agent)?, program(&args.iptables)?, program(&args.welcome)?);
    let beside = source.lock_path.parent().unwrap_or(Path::new("."));
    let ours = &source.definition.kernel.ours;
    let compiled = module::compile(beside, ours, &packages, source.fetcher.cache())?;
    let inputs = assemble::Inputs {
        definition: &source.definition,
        lock: &lock,
        packages,
        agent,
        iptables,
        welcome,
        compiled,
        signer: sign::Signer::load(args.secret_key.as_deref(), source.fetcher.cache())?,
    };
    let out = args.out.clone().unwrap_or_else(|| default_out(source.definition.arch));
    let report = assemble::assemble(inputs, &out)?;
    print!("{report}");
    println!("image in `{}`", out.display());
    Ok(())
}

/// A program for the image. One for another processor would be found at the boot.
fn program(path: &Path, arch: definition::Arch) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    // Of ELF's header: its mark, 64 bits, little-endian; at 18 the processor.
    let machine = bytes.starts_with(b"\x7fELF\x02\x01").then(|| bytes.get(18..20)).flatten();
    if machine != Some(&arch.elf_machine().to_le_bytes()) {
        bail!("`{}` is no program for {}", path.display(), arch.name());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use definition::Arch;

    #[test]
    fn a_program_for_another_processor_is_refused() {
        let own = std::env::current_exe().expect("this test");
        assert!(program(&own, Arch::HOST).is_ok());
        let error = program(&own, Arch::HOST.other()).expect_err("another's").to_string();
        assert!(error.contains(&format!("is no program for {}", Arch::HOST.other().name())), "{error}");
        assert!(program(Path::new("Cargo.toml"), Arch::HOST).is_err());
    }
}
