//! The kernel without its own decompressor: an emulated processor unpacks for about a third of the kernel's boot, and here it is
//! done once.
//!
//! What is inside is an ELF file that says how it is entered without the decompressor (the note `XEN_ELFNOTE_PHYS32_ENTRY`,
//! "PVH"), as QEMU and others can. The decompressor is also what moves the kernel to an address of chance; without it the
//! kernel lies where it was linked.
//!
//! ```text
//!   bzImage:  setup code │ decompressor │ packed ELF, its length │ …       Documentation/arch/x86/boot.rst
//!   written:  ELF header, program headers │ segments, without the zeroes at their ends │ nothing else
//! ```

use std::io::Read;

use anyhow::{Context, Result, bail};

/// More than any kernel.
const LONGEST: u64 = 512 << 20;
/// Of ELF's 64-bit form.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PAGE: usize = 4096;

/// The ELF file in a bzImage, with what boots and nothing else. A kernel for arm64 has nothing to be rid of.
pub(crate) fn unpack(image: &[u8]) -> Result<Vec<u8>> {
    // Documentation/arch/arm64/booting.rst; one that unpacks itself is an EFI program without this.
    if image.get(0x38..0x3c) == Some(b"ARM\x64") {
        return Ok(image.to_owned());
    }
    trim(&payload(image)?)
}

fn payload(image: &[u8]) -> Result<Vec<u8>> {
    let byte = |at: usize| image.get(at).copied().context("the kernel is cut off");
    let word = |at| u32_at(image, at).map(|word| word as usize);
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("the kernel is no bzImage");
    }
    let setup = (usize::from(byte(0x1f1)?) + 1) * 512;
    let (offset, length) = (word(0x248)?, word(0x24c)?);
    // The last four bytes say how long it is unpacked.
    let packed = image
        .get(setup..)
        .and_then(|rest| rest.get(offset..)?.get(..length)?.split_last_chunk::<4>())
        .context("the kernel is cut off")?;
    let (packed, length) = (packed.0, u32::from_le_bytes(*packed.1) as usize);
    let mut elf = Vec::new();
    match packed {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            zstd::stream::read::Decoder::new(packed)?.take(LONGEST).read_to_end(&mut elf)?
        }
        [0xfd, b'7', b'z', ..] => {
            liblzma::read::XzDecoder::new(packed).take(LONGEST).read_to_end(&mut elf)?
        }
        _ => bail!("the kernel is packed neither with zstd nor with xz"),
    };
    if elf.len() != length {
        bail!("the kernel unpacks to {} bytes and says {length}", elf.len());
    }
    Ok(elf)
}

fn trim(elf: &[u8]) -> Result<Vec<u8>> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("what is in the kernel is no ELF file of 64 bits");
    }
    let (at, count) = (usize::try_from(u64_at(elf, 32)?)?, usize::from(u16_at(elf, 56)?));
    let table = at.checked_add(count * PROGRAM_HEADER).and_then(|end| elf.get(at..end));
    let table = table.context("the kernel's program headers are cut off")?;
    let mut headers: Vec<Vec<u8>> = table.chunks_exact(PROGRAM_HEADER).map(<[u8]>::to_vec).collect();
    let mut out = elf.get(..HEADER).context("the kernel's header is cut off")?.to_vec();
    out.resize((HEADER + table.len()).next_multiple_of(PAGE), 0);
    // Where each segment lay in the file, how much of it is kept, and where that is now.
    let mut moved = Vec::new();
    for header in headers.iter_mut().filter(|header| kind(header) == PT_LOAD) {
        let (from, length) = (usize::try_from(u64_at(header, 8)?)?, usize::try_from(u64_at(header, 32)?)?);
        let bytes = from.checked_add(length).and_then(|end| elf.get(from..end));
        let bytes = bytes.context("a segment of the kernel is cut off")?;
        // Memory beyond what the file has is zero.
        let kept = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        moved.push((from, kept, out.len()));
        put(header, 8, out.len());
        put(header, 32, kept);
        out.extend_from_slice(&bytes[..kept]);
        out.resize(out.len().next_multiple_of(PAGE), 0);
    }
    let mut enters = false;
    for header in headers.iter_mut().filter(|header| kind(header) == PT_NOTE) {
        let (from, length) = (usize::try_from(u64_at(header, 8)?)?, usize::try_from(u64_at(header, 32)?)?);
        let within = |(start, kept, _): &&(usize, usize, usize)| {
            from.checked_sub(*start).is_some_and(|into| into.saturating_add(length) <= *kept)
        };
        let (start, _, now) = moved.iter().find(within).context("the kernel's notes are in no segment")?;
        put(header, 8, now + (from - start));
        enters |= has_pvh_note(&elf[from..from + length]);
    }
    if !enters {
        bail!("the kernel cannot be entered without its decompressor (CONFIG_PVH)");
    }
    // The program headers follow at once; sections are for linkers and debuggers.
    put(&mut out, 32, HEADER);
    put(&mut out, 40, 0);
    out[58..HEADER].fill(0);
    out[HEADER..HEADER + table.len()].copy_from_slice(&headers.concat());
    Ok(out)
}

fn kind(header: &[u8]) -> u32 {
    u32_at(header, 0).unwrap_or(0)
}

/// Each note: length of the name, length of the contents, kind; then both, filled up to four bytes.
fn has_pvh_note(mut notes: &[u8]) -> bool {
    const PHYS32_ENTRY: u32 = 18;
    while let (Ok(name), Ok(contents), Ok(kind)) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8)) {
        if kind == PHYS32_ENTRY && notes.get(12..16) == Some(b"Xen\0") {
            return true;
        }
        let length = [name, contents].map(|length| (length as usize).next_multiple_of(4));
        let Some(rest) = notes.get(12 + length[0] + length[1]..) else { return false };
        notes = rest;
    }
    false
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().context("the kernel is cut off")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array(bytes, at)?))
}

fn put(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &[u8] = b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0\0\0\0\x01\0\0\0\0";

    fn header(kind: u32, offset: usize, length: usize, memory: usize) -> Vec<u8> {
        let mut header = vec![0; PROGRAM_HEADER];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        for (at, value) in [(8, offset), (32, length), (40, memory)] {
            put(&mut header, at, value);
        }
        header
    }

    /// Two segments, the second of them mostly zeroes, the notes in the first, and sections behind.
    fn elf(note: &[u8]) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(HEADER, 0);
        put(&mut elf, 32, HEADER);
        put(&mut elf, 40, 77_777);
        elf[56..58].copy_from_slice(&3u16.to_le_bytes());
        elf[60] = 9;
        elf.extend(header(PT_LOAD, 0x2000, 0x1000, 0x1000));
        elf.extend(header(PT_NOTE, 0x2100, note.len(), note.len()));
        elf.extend(header(PT_LOAD, 0x5000, 0x9000, 0xa000));
        elf.resize(0x2000, 0xee);
        elf.extend([b"code".to_vec(), vec![0; 0xfc], note.to_vec()].concat());
        elf.resize(0x2fff, 0);
        elf.push(7);
        elf.resize(0x5000, 0xee);
        elf.extend(b"data");
        elf.resize(0x5000 + 0x9000, 0);
        elf.extend(b"sections");
        elf
    }

    fn image(elf: &[u8], pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let packed = [pack(elf), (elf.len() as u32).to_le_bytes().to_vec()].concat();
        let mut image = vec![0; 0x600];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&0x200u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        image.extend(packed);
        image.extend(b"rest");
        image
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).expect("packs")
    }

    #[test]
    fn what_boots_is_kept_and_zeroes_and_sections_are_not() {
        let xz = |bytes: &[u8]| {
            let mut packed = Vec::new();
            liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut packed).expect("packs");
            packed
        };
        for pack in [zstd, xz] {
            let out = unpack(&image(&elf(NOTE), pack)).expect("unpacks");
            assert_eq!(out.len(), 3 * PAGE, "headers, code, data");
            let of = |n: usize, at| u64_at(&out, HEADER + n * PROGRAM_HEADER + at).expect("there") as usize;
            assert_eq!((of(0, 8), of(0, 32), of(0, 40)), (0x1000, 0x1000, 0x1000));
            assert_eq!((of(1, 8), of(1, 32)), (0x1100, NOTE.len()), "where the notes are now");
            assert_eq!((of(2, 8), of(2, 32), of(2, 40)), (0x2000, 4, 0xa000), "as much memory as before");
            assert_eq!(&out[0x1000..0x1004], b"code");
            assert_eq!(&out[0x1100..0x1100 + NOTE.len()], NOTE);
            assert_eq!(&out[0x2000..0x2004], b"data");
            assert_eq!((u64_at(&out, 40).expect("there"), &out[58..64]), (0, &[0; 6][..]));
        }
    }

    #[test]
    fn a_kernel_for_arm64_is_unpacked_already() {
        let image = [&[0; 0x38][..], b"ARM\x64", b"rest"].concat();
        assert_eq!(unpack(&image).expect("is one"), image);
    }

    #[test]
    fn what_is_no_such_kernel_is_an_error() {
        let good = image(&elf(NOTE), zstd);
        let mut longer = good.clone();
        let length = good.len() - 8;
        longer[length] ^= 1;
        let mut other = NOTE.to_vec();
        other[8] = 6;
        for (wrong, why) in [
            (b"arm64".to_vec(), "no bzImage"),
            (good[..0x680].to_vec(), "cut off"),
            (longer, "unpacks to"),
            (image(&elf(&other), zstd), "without its decompressor"),
            (image(b"not an ELF file", zstd), "no ELF file"),
            (image(&elf(NOTE)[..0x6000], zstd), "segment of the kernel is cut off"),
            (image(&elf(NOTE), <[u8]>::to_vec), "neither with zstd nor with xz"),
        ] {
            let error = unpack(&wrong).expect_err(why).to_string();
            assert!(error.contains(why), "{error}, not {why}");
        }
    }
}
