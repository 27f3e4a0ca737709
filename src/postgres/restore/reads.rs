//! Frames of packs, fetched in few and large ranged reads, the next one under way while one is being worked on.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::codec::{Damaged, FrameDecompressor};
use crate::error::Hint;
use crate::postgres::backup::manifest::{Extent, FRAME_SIZE};
use crate::postgres::layout::{Layout, PackName};
use crate::repo::Repository;
use crate::storage::{Key, Storage, StorageError};

/// Stored bytes of one read, at most (one frame may be larger by itself).
const READ: u64 = 4 << 20;
/// Bytes between two frames that are rather read than saved by a second read.
const READ_OVER: u64 = 128 << 10;

/// One frame: where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePlace {
    pub pack: PackName,
    pub offset: u64,
    pub length: u32,
}

/// The frames of extents, in order.
pub fn frames(extents: &[Extent]) -> impl Iterator<Item = FramePlace> + '_ {
    extents.iter().flat_map(|extent| {
        let mut offset = extent.offset;
        extent.frames.iter().map(move |length| {
            let place = FramePlace { pack: extent.pack.clone(), offset, length: *length };
            offset = offset.saturating_add(u64::from(*length));
            place
        })
    })
}

/// One ranged read and the frames in it, as ranges of what it returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangedRead {
    pub pack: PackName,
    pub range: Range<u64>,
    pub frames: Vec<Range<usize>>,
}

/// Puts frames that lie near each other into one read, keeping their order.
pub fn coalesce(places: impl Iterator<Item = FramePlace>) -> Vec<RangedRead> {
    let mut reads: Vec<RangedRead> = Vec::new();
    for place in places {
        let end = place.offset.saturating_add(u64::from(place.length));
        let joined = reads.last_mut().filter(|read| {
            let near = read.range.end <= place.offset && place.offset - read.range.end <= READ_OVER;
            read.pack == place.pack && near && end - read.range.start <= READ
        });
        match joined {
            Some(read) => {
                let at = (place.offset - read.range.start) as usize;
                read.frames.push(at..at + place.length as usize);
                read.range.end = end;
            }
            None => reads.push(RangedRead {
                pack: place.pack,
                range: place.offset..end,
                frames: std::iter::once(0..place.length as usize).collect(),
            }),
        }
    }
    reads
}

/// Fetches reads one after the other, one ahead. For blocking threads.
pub struct FrameSource {
    repository: Repository,
    layout: Layout,
    runtime: Handle,
    decompressor: FrameDecompressor,
    plain: Vec<u8>,
}

type Fetch = JoinHandle<Result<Option<Bytes>, StorageError>>;

impl FrameSource {
    /// Reads packs of a cluster in `repository`.
    pub fn new(repository: Repository, layout: Layout, runtime: Handle) -> anyhow::Result<Self> {
        let plain = Vec::with_capacity(FRAME_SIZE);
        Ok(Self { repository, layout, runtime, decompressor: FrameDecompressor::new()?, plain })
    }

    /// Gives the plain content of each frame to `take`, in order, with the frame's number.
    pub fn each(
        &mut self,
        places: impl Iterator<Item = FramePlace>,
        mut take: impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut reads = coalesce(places).into_iter();
        let mut number = 0;
        let mut ahead = reads.next().map(|read| self.start(read));
        while let Some((read, fetch)) = ahead.take() {
            ahead = reads.next().map(|read| self.start(read));
            let key = self.layout.pack(&read.pack);
            let mut bytes = self.fetched(&key, fetch)?;
            let mut is_second = false;
            for frame in &read.frames {
                let mut opened = self.open(&read, &bytes, frame);
                if let Err(damaged) = &opened
                    && !is_second
                {
                    tracing::debug!("object \"{key}\": {damaged}: reading it once more");
                    let (_, fetch) = self.start(read.clone());
                    (bytes, is_second) = (self.fetched(&key, fetch)?, true);
                    opened = self.open(&read, &bytes, frame);
                }
                opened.map_err(|damaged| self.repository.damaged(&key, damaged)).hint(DAMAGED)?;
                take(number, &self.plain)?;
                number += 1;
            }
        }
        Ok(())
    }

    fn start(&self, read: RangedRead) -> (RangedRead, Fetch) {
        let (storage, key, range): (Arc<dyn Storage>, Key, Range<u64>) =
            (self.repository.shared_storage(), self.layout.pack(&read.pack), read.range.clone());
        let fetch = self.runtime.spawn(async move { storage.get(&key, range).await });
        (read, fetch)
    }

    fn fetched(&self, key: &Key, fetch: Fetch) -> anyhow::Result<Bytes> {
        self.runtime
            .block_on(fetch)??
            .ok_or_else(|| anyhow!("object \"{key}\" is missing in {}", self.repository.describe()))
            .hint(DAMAGED)
            .context("the backup is not whole")
    }

    /// Opens a frame of what a read gave.
    fn open(&mut self, read: &RangedRead, bytes: &[u8], frame: &Range<usize>) -> Result<(), Damaged> {
        let Some(stored) = bytes.get(frame.clone()) else {
            let end = read.range.start + bytes.len() as u64;
            return Err(Damaged(format!("it ends after {end} bytes, {} are needed", read.range.end)));
        };
        self.decompressor.decompress(stored, FRAME_SIZE, &mut self.plain)
    }
}

/// What to do about an object that is damaged or gone.
pub(super) const DAMAGED: &str = "bring the object back from a copy of the repository, or restore another backup with \
                                  --backup; `walden backup verify` tells which are whole";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(pack: u32, offset: u64, length: u32) -> FramePlace {
        FramePlace { pack: PackName { backup: "20260101-000000Z".parse().unwrap(), number: pack }, offset, length }
    }

    #[test]
    fn neighbours_share_a_read_and_others_do_not() {
        let places =
            [place(1, 0, 100), place(1, 100, 50), place(1, 150 + READ_OVER, 10), place(1, 10 << 20, 7), place(2, 5, 5)];
        let reads = coalesce(places.into_iter());
        assert_eq!(reads.iter().map(|read| read.frames.len()).collect::<Vec<_>>(), [3, 1, 1]);
        assert_eq!(reads[0].range, 0..160 + READ_OVER);
    }

    proptest! {
        #[test]
        fn every_frame_is_read_once_in_order_and_within_bounds(
            raw in prop::collection::vec((1u32..3, 0u64..20 << 20, 1u32..300_000), 0..50)
        ) {
            let places: Vec<FramePlace> = raw.into_iter().map(|(pack, offset, length)| place(pack, offset, length)).collect();
            let reads = coalesce(places.clone().into_iter());
            let found: Vec<FramePlace> = reads.iter().flat_map(|read| read.frames.iter().map(|frame| FramePlace {
                pack: read.pack.clone(),
                offset: read.range.start + frame.start as u64,
                length: frame.len() as u32,
            })).collect();
            prop_assert_eq!(found, places);
            for read in reads {
                prop_assert!(read.range.end - read.range.start <= READ || read.frames.len() == 1);
                prop_assert_eq!(read.frames.last().unwrap().end as u64, read.range.end - read.range.start);
            }
        }
    }
}
