//! A processor that is software, and what programs are told about it.
//!
//! QEMU does each of AVX's instructions by a call of its own, so what Go's runtime and its checksums do with them takes longer
//! than without: loading an image by about a third. Containers still see the processor as it is.

/// For the environment of the engine's programs, which are written in Go. Containers do not inherit it.
pub(crate) const WITHOUT_VECTORS: (&str, &str) = ("GODEBUG", "cpu.avx=off,cpu.avx2=off,cpu.fma=off");

/// Whether QEMU's software emulation ("TCG") is the processor.
pub(crate) fn is_software() -> bool {
    hypervisor().as_ref() == Some(b"TCGTCGTCGTCG")
}

/// Whether the machine is Hyper-V's, whose devices are its own.
pub(crate) fn is_hyperv() -> bool {
    hypervisor().as_ref() == Some(b"Microsoft Hv")
}

/// What the hypervisor calls itself, if there is one that does.
#[cfg(target_arch = "x86_64")]
fn hypervisor() -> Option<[u8; 12]> {
    use std::arch::x86_64::{__cpuid, CpuidResult};

    /// The first of the leaves that a hypervisor answers, with its name in three registers.
    const HYPERVISOR: u32 = 0x4000_0000;
    // Older Rust calls it unsafe, newer does not; as this it is the same for both.
    let cpuid: unsafe fn(u32) -> CpuidResult = __cpuid;
    // SAFETY: every processor that the image boots on has the instruction.
    let leaf = |number| unsafe { cpuid(number) };
    if leaf(1).ecx & (1 << 31) == 0 {
        return None;
    }
    let said = leaf(HYPERVISOR);
    let mut name = [0; 12];
    for (to, from) in name.chunks_exact_mut(4).zip([said.ebx, said.ecx, said.edx]) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    Some(name)
}

/// Other processors have no such instructions.
#[cfg(not(target_arch = "x86_64"))]
fn hypervisor() -> Option<[u8; 12]> {
    None
}
