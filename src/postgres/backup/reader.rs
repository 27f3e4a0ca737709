//! Reads frames out of packs. Neighbouring frames come with one access to the store.

use std::sync::Arc;

use bytes::Bytes;

use super::manifest::FRAME_SIZE;
use crate::codec::{Damaged, FrameDecompressor};
use crate::postgres::layout::{Layout, PackName};
use crate::storage::{Storage, StorageError};

/// Bytes read at once: a stretch of a pack. Files follow each other in the packs as in the manifest.
const STRETCH: u64 = 4 << 20;

/// Why a frame could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The store did not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no such pack.
    #[error("there is no such object")]
    Absent,
    /// The pack ends too early, or the frame in it is damaged.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// Where a frame lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePlace {
    pub pack: PackName,
    pub offset: u64,
    /// Stored bytes.
    pub length: u32,
}

/// Reads and opens frames, best in the order in which they lie in the packs.
pub struct FrameReader {
    storage: Arc<dyn Storage>,
    layout: Layout,
    decompressor: FrameDecompressor,
    stretch: Option<(PackName, u64, Bytes)>,
    /// The place of the frame whose content is in `plain`.
    opened: Option<FramePlace>,
    plain: Vec<u8>,
}

impl FrameReader {
    /// A reader for the packs of one cluster.
    pub fn new(storage: Arc<dyn Storage>, layout: Layout) -> std::io::Result<Self> {
        let decompressor = FrameDecompressor::new()?;
        let plain = Vec::with_capacity(FRAME_SIZE);
        Ok(Self { storage, layout, decompressor, stretch: None, opened: None, plain })
    }

    /// A frame's content, fetched once more if it is damaged. The one read last is still there: small files share frames.
    pub async fn read(&mut self, place: &FramePlace) -> Result<&[u8], FrameError> {
        if self.opened.as_ref() != Some(place) {
            self.opened = None;
            match self.open(place).await {
                Err(FrameError::Damaged(damaged)) => {
                    tracing::debug!("{damaged}: reading it once more");
                    // Else the same bytes would be served again.
                    self.stretch = None;
                    self.open(place).await?;
                }
                opened => opened?,
            }
            self.opened = Some(place.clone());
        }
        Ok(&self.plain)
    }

    async fn open(&mut self, place: &FramePlace) -> Result<(), FrameError> {
        let stored = self.stored(place).await?;
        Ok(self.decompressor.decompress(&stored, FRAME_SIZE, &mut self.plain)?)
    }

    async fn stored(&mut self, place: &FramePlace) -> Result<Bytes, FrameError> {
        if let Some(bytes) = self.in_stretch(place) {
            return Ok(bytes);
        }
        let end = place.offset.saturating_add(STRETCH.max(place.length.into()));
        let key = self.layout.pack(&place.pack);
        let bytes = self.storage.get(&key, place.offset..end).await?;
        let bytes = bytes.ok_or(FrameError::Absent)?;
        self.stretch = Some((place.pack.clone(), place.offset, bytes));
        let found = self.in_stretch(place);
        found.ok_or_else(|| Damaged(format!("it ends before the frame at byte {} does", place.offset)).into())
    }

    fn in_stretch(&self, place: &FramePlace) -> Option<Bytes> {
        let (pack, start, bytes) = self.stretch.as_ref().filter(|(pack, ..)| *pack == place.pack)?;
        debug_assert_eq!(*pack, place.pack);
        let from = usize::try_from(place.offset.checked_sub(*start)?).ok()?;
        let to = from.checked_add(place.length as usize)?;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }
}
