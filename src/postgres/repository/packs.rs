//! Packs: which ones a manifest names, and whether one is whole by itself.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codec::{Damaged, FrameDecompressor, frame_length};
use crate::postgres::backup::manifest::{Entry, FRAME_SIZE, entries};
use crate::postgres::layout::PackName;
use crate::postgres::trouble::Why;
use crate::repo::SealedObject;

/// The packs that a manifest names, and how many bytes each must have at least. Blocks.
pub fn needed(object: &SealedObject) -> anyhow::Result<BTreeMap<PackName, u64>> {
    let mut packs: BTreeMap<PackName, u64> = BTreeMap::new();
    for entry in entries(object)? {
        let Entry::File(file) = entry? else { continue };
        for extent in &file.extents {
            let end = extent.offset.saturating_add(extent.stored_len());
            match packs.get_mut(&extent.pack) {
                Some(least) => *least = end.max(*least),
                None => drop(packs.insert(extent.pack.clone(), end)),
            }
        }
    }
    Ok(packs)
}

/// Opens all frames of a whole pack; the bytes of their content. A pack is frames one behind the other and nothing
/// else, and each frame carries a checksum.
pub async fn check(pack: Bytes) -> Result<u64, Why> {
    let checking = tokio::task::spawn_blocking(move || check_frames(&pack));
    checking.await.unwrap_or_else(|panicked| Err(Why::unread(&panicked.into())))
}

fn check_frames(pack: &[u8]) -> Result<u64, Why> {
    let mut decompressor = FrameDecompressor::new().map_err(|error| Why::unread(&error.into()))?;
    let mut plain = Vec::with_capacity(FRAME_SIZE);
    let (mut at, mut bytes) = (0, 0);
    while at < pack.len() {
        let wrong = |damaged: Damaged| Damaged(format!("{} (frame at byte {at})", damaged.0));
        let length = frame_length(&pack[at..]).map_err(wrong)?;
        decompressor.decompress(&pack[at..at + length], FRAME_SIZE, &mut plain).map_err(wrong)?;
        bytes += plain.len() as u64;
        at += length;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::FrameCompressor;

    fn pack() -> Vec<u8> {
        let mut compressor = FrameCompressor::new(1).unwrap();
        let frames = [vec![7; FRAME_SIZE], (0..9999u32).flat_map(u32::to_le_bytes).collect(), vec![1]];
        frames.iter().flat_map(|plain| compressor.compress(plain).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_whole_pack_passes_and_a_damaged_one_never_does() {
        let whole = pack();
        assert_eq!(check(whole.clone().into()).await.unwrap(), FRAME_SIZE as u64 + 4 * 9999 + 1);
        for place in (0..whole.len()).step_by(whole.len() / 100) {
            let mut flipped = whole.clone();
            // Of single bits some are of no use to zstd, and flip without harm.
            flipped[place..(place + 4).min(whole.len())].iter_mut().for_each(|byte| *byte ^= 0x5A);
            assert!(check(flipped.into()).await.is_err(), "damaged at {place}");
        }
        assert!(check(whole[..whole.len() - 1].to_vec().into()).await.is_err());
    }
}
