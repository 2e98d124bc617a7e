//! `slipway.yaml` as types, for one processor. What is not understood is an error: a misspelt key or word must not silently
//! leave something out.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_yaml_ng::Value;
use sha2::{Digest, Sha256};

/// A processor, by Debian's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// This computer's.
    pub(crate) const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// What ELF calls it (`EM_…`).
    pub(crate) fn elf_machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Amd64 => Self::Arm64,
            Self::Arm64 => Self::Amd64,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Definition {
    pub(crate) version: String,
    /// In the file: each that there is, and its words.
    pub(crate) arch: Arch,
    pub(crate) kernel: Kernel,
    pub(crate) packages: Packages,
    pub(crate) host_tools: HostTools,
    pub(crate) drop: Vec<String>,
    pub(crate) applets: String,
    pub(crate) links: BTreeMap<String, String>,
    pub(crate) folders: Vec<String>,
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) services: Vec<Service>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Kernel {
    pub(crate) suite: String,
    pub(crate) package: String,
    /// Written without its decompressor.
    pub(crate) unpacked: bool,
    pub(crate) cmdline: Vec<String>,
    /// Everywhere.
    pub(crate) initramfs: Vec<String>,
    pub(crate) modules: Vec<String>,
    /// Besides, in a machine with virtio's devices.
    pub(crate) virtio: Devices,
    /// Besides, in one of Hyper-V's.
    pub(crate) hyperv: Devices,
    pub(crate) ours: Ours,
}

/// Modules for the devices of some hypervisors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Devices {
    pub(crate) initramfs: Vec<String>,
    pub(crate) modules: Vec<String>,
}

/// The modules of our own, and what they are compiled with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Ours {
    /// Folders beside the definition.
    pub(crate) sources: Vec<String>,
    pub(crate) of_kernel: OfKernel,
    pub(crate) install: Vec<String>,
    pub(crate) without: Vec<String>,
    /// Besides, on the other processor.
    pub(crate) cross_install: Vec<String>,
    pub(crate) cross_without: Vec<String>,
}

/// Modules of the kernel's own source that its package leaves out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfKernel {
    /// The package with the source.
    pub(crate) source: String,
    /// What a kernel that has them would have been configured with, as modules.
    pub(crate) config: Vec<String>,
    /// Where each is in the source, without `.ko`.
    pub(crate) modules: Vec<String>,
    /// File of the source, words that are in it once, and what is put in their place.
    pub(crate) edits: Vec<(String, String, String)>,
}

impl OfKernel {
    /// The modules' folders in the source, each once.
    pub(crate) fn folders(&self) -> Vec<&str> {
        let mut folders: Vec<&str> =
            self.modules.iter().filter_map(|module| Some(module.rsplit_once('/')?.0)).collect();
        folders.dedup();
        folders
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Packages {
    pub(crate) suite: String,
    pub(crate) install: Vec<String>,
    pub(crate) without: Vec<String>,
    /// Package, and the patterns of the only paths that are taken out of it.
    #[serde(default)]
    pub(crate) only: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostTools {
    pub(crate) suite: String,
    /// Package, and the program's path in it.
    pub(crate) programs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<String>,
}

impl Definition {
    /// The definition of the guest for `arch`.
    pub(crate) fn read(path: &Path, arch: Arch) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
        Self::parse(&text, arch).with_context(|| format!("failed to understand `{}`", path.display()))
    }

    fn parse(text: &str, arch: Arch) -> Result<Self> {
        let mut file: Value = serde_yaml_ng::from_str(text)?;
        let all = file.get_mut("arch").context("`arch` is missing")?;
        let all = std::mem::replace(all, serde_yaml_ng::to_value(arch)?);
        let mut all: BTreeMap<String, BTreeMap<String, String>> =
            serde_yaml_ng::from_value(all).context("in `arch`")?;
        let name = arch.name();
        let mut words = all.remove(name).with_context(|| format!("there is no processor `{name}`"))?;
        words.insert("arch".into(), name.into());
        put_words(&mut file, &words)?;
        Ok(serde_yaml_ng::from_value(file)?)
    }

    /// Every suite that packages come from, each once.
    pub(crate) fn suites(&self) -> Vec<&str> {
        let mut suites = vec![self.kernel.suite.as_str(), &self.packages.suite, &self.host_tools.suite];
        suites.sort_unstable();
        suites.dedup();
        suites
    }

    /// Changes with whatever decides which packages are needed, and with nothing else.
    pub(crate) fn fingerprint(&self) -> String {
        let compiler = &self.kernel.ours;
        let decides = (
            self.arch,
            (&self.kernel.suite, &self.kernel.package),
            (&compiler.install, &compiler.without, &compiler.cross_install, &compiler.cross_without),
            &compiler.of_kernel.source,
            &self.packages,
            (&self.host_tools.suite, self.host_tools.programs.keys().collect::<Vec<_>>()),
        );
        let json = serde_json::to_vec(&decides).unwrap_or_default();
        hex(&Sha256::digest(json))
    }
}

/// Puts words in for `${word}`, in every text but keys.
fn put_words(value: &mut Value, words: &BTreeMap<String, String>) -> Result<()> {
    match value {
        Value::String(text) => *text = with_words(text, words)?,
        Value::Sequence(values) => values.iter_mut().try_for_each(|value| put_words(value, words))?,
        Value::Mapping(entries) => entries.values_mut().try_for_each(|value| put_words(value, words))?,
        _ => {}
    }
    Ok(())
}

fn with_words(text: &str, words: &BTreeMap<String, String>) -> Result<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let Some((word, after)) = after.split_once('}') else { bail!("`{text}`: a `${{` without its `}}`") };
        let value = words.get(word).with_context(|| format!("`{text}`: nobody says what `{word}` is"))?;
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// In lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_definition_is_understood_for_each_processor() {
        for (arch, kernel, console) in [
            (Arch::Amd64, "linux-image-cloud-amd64", "console=ttyS0"),
            (Arch::Arm64, "linux-image-cloud-arm64", "console=ttyAMA0"),
        ] {
            let definition = Definition::read(Path::new("../slipway.yaml"), arch).expect("reads");
            assert!(definition.services.iter().any(|s| s.name == "dockerd"));
            assert_eq!(definition.suites(), ["testing", "trixie"]);
            assert_eq!((definition.arch, definition.kernel.package.as_str()), (arch, kernel));
            assert_eq!(definition.kernel.cmdline[0], console);
            let words = serde_json::to_string(&definition).expect("text");
            assert!(!words.contains("${"), "{words}");
            let foreign = arch.other().name();
            assert!(!words.contains(foreign), "nothing of {foreign}");
        }
    }

    #[test]
    fn a_processor_or_a_word_that_is_not_there_is_named() {
        let told = |text: &str| format!("{:#}", Definition::parse(text, Arch::Arm64).expect_err("wrong"));
        assert!(told("version: 1").contains("`arch` is missing"));
        assert!(told("arch: {amd64: {}}").contains("no processor `arm64`"));
        assert!(told("arch: {arm64: {}}\nversion: \"${gun}\"").contains("nobody says what `gun` is"));
        assert!(told("arch: {arm64: {}}\nversion: \"${arch\"").contains("without its `}`"));
        assert!(told("arch: {arm64: {}}\nversoin: ${arch}").contains("versoin"));
    }
}
