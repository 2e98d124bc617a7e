//! The one disk format of Hyper-V's that is a raw image with something behind it: a fixed VHD is the image's bytes and a footer
//! of 512. The image's own bytes, and so its hashes, stay as they are.

/// Length of the footer in bytes.
pub const FOOTER: usize = 512;
/// A disk is a whole number of these.
const SECTOR: u64 = 512;
/// What Windows takes for a VHD at most.
const LARGEST: u64 = 2040 << 30;

/// An image that cannot be a VHD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an image of {0} bytes cannot be a VHD: that is a whole number of sectors of 512 bytes, 2040 GiB at most"
)]
pub struct NoVhd(pub u64);

/// The footer behind an image of `size` bytes. `id` tells disks apart that one machine has at a time.
///
/// # Errors
/// [`NoVhd`] for a size that no VHD has.
pub fn footer(size: u64, id: [u8; 16]) -> Result<[u8; FOOTER], NoVhd> {
    if size == 0 || !size.is_multiple_of(SECTOR) || size > LARGEST {
        return Err(NoVhd(size));
    }
    let mut bytes = [0; FOOTER];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"conectix");
    // Features: the bit that is reserved and always set.
    put(8, &2u32.to_be_bytes());
    put(12, &0x0001_0000u32.to_be_bytes());
    // No dynamic header follows.
    put(16, &u64::MAX.to_be_bytes());
    // Time stamp 0, so that the same image gives the same bytes.
    // The creator is Windows: of disks of some others, tools believe the geometry, which is rounded down, and not the size.
    put(28, b"win ");
    put(32, &0x0001_0000u32.to_be_bytes());
    put(36, b"Wi2k");
    put(40, &size.to_be_bytes());
    put(48, &size.to_be_bytes());
    let (cylinders, heads, sectors) = geometry(size / SECTOR);
    put(56, &cylinders.to_be_bytes());
    put(58, &[heads, sectors]);
    put(60, &2u32.to_be_bytes());
    put(68, &id);
    let sum = bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[64..68].copy_from_slice(&(!sum).to_be_bytes());
    Ok(bytes)
}

/// Cylinders, heads and sectors per track by the rule of the format's specification; nobody uses them, and some check them.
fn geometry(total: u64) -> (u16, u8, u8) {
    let total = total.min(65535 * 16 * 255);
    let (mut heads, mut sectors): (u64, u64);
    let mut cylinders_heads;
    if total >= 65535 * 16 * 63 {
        (heads, sectors) = (16, 255);
        cylinders_heads = total / sectors;
    } else {
        sectors = 17;
        cylinders_heads = total / sectors;
        heads = cylinders_heads.div_ceil(1024).max(4);
        if cylinders_heads >= heads * 1024 || heads > 16 {
            (heads, sectors) = (16, 31);
            cylinders_heads = total / sectors;
        }
        if cylinders_heads >= heads * 1024 {
            (heads, sectors) = (16, 63);
            cylinders_heads = total / sectors;
        }
    }
    // Each fits: `total` is bounded above.
    ((cylinders_heads / heads) as u16, heads as u8, sectors as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footer_adds_up_and_says_the_size() {
        let size = 3 << 20;
        let footer = footer(size, [7; 16]).expect("fits");
        assert_eq!((&footer[..8], &footer[68..84]), (&b"conectix"[..], &[7; 16][..]));
        assert_eq!(footer[48..56], size.to_be_bytes());
        let told = u32::from_be_bytes(footer[64..68].try_into().expect("four"));
        let others = footer[..64].iter().chain(&footer[68..]);
        assert_eq!(told, !others.fold(0u32, |sum, byte| sum + u32::from(*byte)));
    }

    #[test]
    fn the_geometry_is_the_specifications() {
        // As other tools write them for these sizes.
        assert_eq!(geometry((3 << 20) / 512), (90, 4, 17));
        assert_eq!(geometry((100 << 20) / 512), (1003, 12, 17));
        assert_eq!(geometry((8u64 << 30) / 512), (16644, 16, 63));
        assert_eq!(geometry((200u64 << 30) / 512), (65535, 16, 255));
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        for size in [0, 511, 513, (2040u64 << 30) + 512] {
            assert_eq!(footer(size, [0; 16]), Err(NoVhd(size)));
        }
    }
}
