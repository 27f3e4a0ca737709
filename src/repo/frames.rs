//! Frames of stored objects: those that lie near each other come with one ranged read, the next ones under way while one
//! is worked on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{ObjectError, Repository, reread};
use crate::codec::{Damaged, FrameDecompressor, frame_length};
use crate::storage::{Key, StorageError};

/// Stored bytes of one read, at most (one frame may be larger by itself).
const READ: u64 = 4 << 20;
/// Stored bytes under way or being worked on, at most: several reads, so that a far store is not waited for.
const AT_ONCE: u64 = 3 * READ;
/// Bytes between two frames that are rather read than saved by a second read.
const READ_OVER: u64 = 128 << 10;

/// Where a frame lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePlace {
    pub key: Key,
    pub offset: u64,
    /// Stored bytes.
    pub length: u64,
}

/// Reads and opens frames of a repository.
#[derive(Debug, Clone)]
pub struct Frames {
    repository: Repository,
    /// Bytes that a frame holds at most.
    most: usize,
}

impl Frames {
    /// For frames of at most so many bytes.
    pub fn new(repository: Repository, most: usize) -> Self {
        Self { repository, most }
    }

    /// Gives the content of each frame to `take`, in order, with whom it is for: a frame that follows itself is opened
    /// once for all. What comes damaged is read once more. For a blocking thread of the runtime `runtime`. Errors: the
    /// store does not answer, but for an object that must be thawed; those of `take`.
    pub fn each<T>(
        &self,
        runtime: &Handle,
        places: impl Iterator<Item = (FramePlace, T)>,
        mut take: impl FnMut(&[T], Result<&[u8], ObjectError>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut reads = coalesce(places).into_iter().peekable();
        let (mut ahead, mut at_once) = (VecDeque::new(), 0);
        with_opener(|opener| {
            loop {
                while let Some(read) =
                    reads.next_if(|next| at_once == 0 || at_once + next.length() <= AT_ONCE)
                {
                    at_once += read.length();
                    ahead.push_back((self.fetch(runtime, &read.key, read.range.clone()), read));
                }
                let Some((fetch, read)) = ahead.pop_front() else {
                    return Ok(());
                };
                let fetched = match runtime.block_on(fetch)? {
                    // The store answered; what is not cold may be read.
                    Err(error) if error.is_cold() => {
                        for (_, whose) in &read.frames {
                            take(whose, Err(self.repository.cold(&read.key)))?;
                        }
                        at_once -= read.length();
                        continue;
                    }
                    fetched => fetched?,
                };
                for (at, whose) in &read.frames {
                    let opened = match &fetched {
                        Some(all) => self.open(opener, &read, at, all.get(at.clone())),
                        None => Err(self.repository.absent(&read.key)),
                    };
                    let opened = match opened {
                        Err(damaged) if damaged.is_damage() => {
                            tracing::debug!("{damaged}: reading it once more");
                            self.again(runtime, opener, &read, at)?
                        }
                        opened => opened,
                    };
                    take(whose, opened.map(|()| opener.plain.as_slice()))?;
                }
                at_once -= read.length();
            }
        })?
    }

    /// Reads one frame by itself and opens it.
    fn again<T>(
        &self,
        runtime: &Handle,
        opener: &mut Opener,
        read: &RangedRead<T>,
        at: &Range<usize>,
    ) -> anyhow::Result<Result<(), ObjectError>> {
        let fetch = self.fetch(runtime, &read.key, read.place(at));
        Ok(match runtime.block_on(fetch)?? {
            Some(again) => self.open(opener, read, at, again.get(..at.len())),
            None => Err(self.repository.absent(&read.key)),
        })
    }

    fn fetch(&self, runtime: &Handle, key: &Key, range: Range<u64>) -> Fetch {
        let (storage, key) = (self.repository.shared_storage(), key.clone());
        runtime.spawn(async move { storage.get(&key, range).await })
    }

    fn open<T>(
        &self,
        opener: &mut Opener,
        read: &RangedRead<T>,
        at: &Range<usize>,
        stored: Option<&[u8]>,
    ) -> Result<(), ObjectError> {
        let opened = match stored {
            Some(stored) => opener.open(stored, self.most),
            None => Err(Damaged("it ends before the frame does".into())),
        };
        opened.map_err(|damaged| {
            self.repository
                .damaged(&read.key, in_frame(damaged, read.place(at).start))
        })
    }

    /// A whole object of at most `longest` bytes that is frames one behind the other and nothing else, all of them
    /// opened, and the bytes of their content. What comes damaged is read once more.
    pub async fn whole(&self, key: &Key, longest: u64) -> Result<(Bytes, u64), ObjectError> {
        let read = async || {
            let object = self
                .repository
                .get_whole(key, longest)
                .await?
                .ok_or_else(|| self.repository.absent(key))?;
            let (stored, most) = (object.clone(), self.most);
            match spawn_blocking(move || with_opener(|opener| opener.open_all(&stored, most))).await
            {
                Ok(Ok(Ok(bytes))) => Ok((object, bytes)),
                Ok(Ok(Err(damaged))) => Err(self.repository.damaged(key, damaged)),
                Ok(Err(error)) => Err(self.repository.unchecked(key, error.into())),
                Err(panicked) => Err(self.repository.unchecked(key, panicked.into())),
            }
        };
        reread(ObjectError::is_damage, read).await
    }
}

type Fetch = JoinHandle<Result<Option<Bytes>, StorageError>>;

fn in_frame(Damaged(why): Damaged, begin: u64) -> Damaged {
    Damaged(format!("{why} (frame at byte {begin})"))
}

/// One ranged read, and the frames in it as ranges of what it returns, each with whom it is for.
#[derive(Debug)]
struct RangedRead<T> {
    key: Key,
    range: Range<u64>,
    frames: Vec<(Range<usize>, Vec<T>)>,
}

impl<T> RangedRead<T> {
    fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Where in the object a frame lies.
    fn place(&self, at: &Range<usize>) -> Range<u64> {
        let begin = self.range.start + at.start as u64;
        begin..begin.saturating_add(at.len() as u64)
    }
}

/// Puts frames that lie near each other into one read, keeping their order.
fn coalesce<T>(places: impl Iterator<Item = (FramePlace, T)>) -> Vec<RangedRead<T>> {
    let mut reads: Vec<RangedRead<T>> = Vec::new();
    for (
        FramePlace {
            key,
            offset,
            length,
        },
        whose,
    ) in places
    {
        let end = offset.saturating_add(length);
        if let Some(read) = reads.last_mut().filter(|read| read.key == key) {
            let from = offset.wrapping_sub(read.range.start) as usize;
            let at = from..from.wrapping_add(length as usize);
            match read.frames.last_mut() {
                Some((last, all)) if *last == at => {
                    all.push(whose);
                    continue;
                }
                _ => (),
            }
            let near = read.range.end <= offset && offset - read.range.end <= READ_OVER;
            if near && end - read.range.start <= READ {
                read.frames.push((at, vec![whose]));
                read.range.end = end;
                continue;
            }
        }
        reads.push(RangedRead {
            key,
            range: offset..end,
            frames: vec![(0..length as usize, vec![whose])],
        });
    }
    reads
}

/// What opens frames serves again on a thread: the kernel takes long to clear new memory. Longer content does not stay.
const LONGEST_KEPT: usize = 1 << 20;
thread_local! {
    static KEPT: RefCell<Option<Opener>> = const { RefCell::new(None) };
}

struct Opener {
    decompressor: FrameDecompressor,
    /// Content of the frame opened last.
    plain: Vec<u8>,
}

fn with_opener<T>(work: impl FnOnce(&mut Opener) -> T) -> io::Result<T> {
    let new = || {
        Ok::<_, io::Error>(Opener {
            decompressor: FrameDecompressor::new()?,
            plain: Vec::new(),
        })
    };
    let mut opener = KEPT.take().map_or_else(new, Ok)?;
    let done = work(&mut opener);
    if opener.plain.capacity() <= LONGEST_KEPT {
        KEPT.set(Some(opener));
    }
    Ok(done)
}

impl Opener {
    fn open(&mut self, stored: &[u8], most: usize) -> Result<(), Damaged> {
        self.decompressor.decompress(stored, most, &mut self.plain)
    }

    /// The bytes of the content of all frames.
    fn open_all(&mut self, object: &[u8], most: usize) -> Result<u64, Damaged> {
        let (mut at, mut bytes) = (0, 0);
        while at < object.len() {
            let wrong = |damaged| in_frame(damaged, at as u64);
            let length = frame_length(&object[at..]).map_err(wrong)?;
            self.open(&object[at..at + length], most).map_err(wrong)?;
            bytes += self.plain.len() as u64;
            at += length;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::FrameCompressor;
    use crate::storage::faulty::GarblingStorage;
    use crate::storage::{MemoryStorage, PutMode, Storage};

    const MOST: usize = 100_000;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn plain() -> [Vec<u8>; 3] {
        [
            vec![7; MOST],
            (0..9999u32).flat_map(u32::to_le_bytes).collect(),
            vec![1],
        ]
    }

    fn stored() -> Vec<Vec<u8>> {
        let mut compressor = FrameCompressor::new(1).unwrap();
        plain()
            .iter()
            .map(|plain| compressor.compress(plain).unwrap().to_vec())
            .collect()
    }

    async fn kept(object: Vec<u8>) -> (Repository, Arc<MemoryStorage>) {
        let storage = Arc::new(MemoryStorage::default());
        let repository = Repository::init(storage.clone(), DateTime::UNIX_EPOCH)
            .await
            .unwrap()
            .0;
        let _ = storage
            .put(&key("a"), object.into(), PutMode::CreateOnly)
            .await
            .unwrap();
        (repository, storage)
    }

    /// What each frame of [`stored`] gives, the second asked for twice, and one of an object that is not there.
    async fn given(repository: Repository) -> Vec<(Vec<u32>, Result<Vec<u8>, ObjectError>)> {
        let runtime = Handle::current();
        let read = move || {
            let mut offset = 0;
            let mut places: Vec<FramePlace> = Vec::new();
            for frame in stored() {
                places.push(FramePlace {
                    key: key("a"),
                    offset,
                    length: frame.len() as u64,
                });
                offset += frame.len() as u64;
            }
            places.insert(1, places[1].clone());
            places.push(FramePlace {
                key: key("none"),
                offset: 0,
                length: 5,
            });
            let mut given = Vec::new();
            let take = |whose: &[u32], opened: Result<&[u8], ObjectError>| {
                given.push((whose.to_vec(), opened.map(<[u8]>::to_vec)));
                Ok(())
            };
            Frames::new(repository, MOST)
                .each(&runtime, places.into_iter().zip(0..), take)
                .unwrap();
            given
        };
        spawn_blocking(read).await.unwrap()
    }

    #[tokio::test]
    async fn each_frame_is_opened_once_for_all_that_want_it_and_an_absent_object_is_told() {
        let (repository, _) = kept(stored().concat()).await;
        let given = given(repository).await;
        let whose: Vec<&[u32]> = given.iter().map(|(whose, _)| whose.as_slice()).collect();
        assert_eq!(whose, [&[0][..], &[1, 2], &[3], &[4]]);
        assert!(
            given
                .iter()
                .zip(plain())
                .all(|((_, content), plain)| *content.as_ref().unwrap() == plain)
        );
        assert!(
            matches!(given[3].1, Err(ObjectError::Absent { .. })),
            "{:?}",
            given[3].1
        );
    }

    #[tokio::test]
    async fn a_damaged_frame_is_told_and_does_not_hide_the_others() {
        let mut object = stored();
        object[1][40..44].iter_mut().for_each(|byte| *byte ^= 0x5A);
        let last = object[2].pop();
        assert!(last.is_some());
        let (repository, _) = kept(object.concat()).await;
        let given = given(repository).await;
        assert!(given[0].1.is_ok());
        for damaged in &given[1..3] {
            let error = damaged.1.as_ref().unwrap_err();
            assert!(
                error.is_damage()
                    && std::error::Error::source(error)
                        .unwrap()
                        .to_string()
                        .contains("(frame at byte ")
            );
        }
    }

    #[tokio::test]
    async fn what_is_damaged_on_its_way_is_read_once_more() {
        let (_, storage) = kept(stored().concat()).await;
        for at in 0.. {
            let garbling = Arc::new(GarblingStorage::new(storage.clone(), at));
            let repository = Repository::open(garbling.clone()).await.unwrap();
            assert_eq!(
                given(repository.clone())
                    .await
                    .iter()
                    .filter(|(_, content)| content.is_ok())
                    .count(),
                3
            );
            assert!(
                Frames::new(repository, MOST)
                    .whole(&key("a"), 1 << 20)
                    .await
                    .is_ok()
            );
            if !garbling.garbled() {
                assert!(at > 2, "{at} reads");
                break;
            }
        }
    }

    #[tokio::test]
    async fn an_object_of_frames_passes_when_it_is_whole_and_never_when_it_is_damaged() {
        let whole = stored().concat();
        let check = async |object: Vec<u8>| {
            let (repository, _) = kept(object).await;
            Frames::new(repository, MOST)
                .whole(&key("a"), 1 << 20)
                .await
                .map(|(_, bytes)| bytes)
        };
        assert_eq!(
            check(whole.clone()).await.unwrap(),
            MOST as u64 + 4 * 9999 + 1
        );
        for place in (0..whole.len()).step_by(whole.len() / 100) {
            let mut flipped = whole.clone();
            // Of single bits some are of no use to zstd, and flip without harm.
            flipped[place..(place + 4).min(whole.len())]
                .iter_mut()
                .for_each(|byte| *byte ^= 0x5A);
            assert!(
                check(flipped).await.unwrap_err().is_damage(),
                "damaged at {place}"
            );
        }
        assert!(
            check(whole[..whole.len() - 1].to_vec())
                .await
                .unwrap_err()
                .is_damage()
        );
        let (repository, _) = kept(whole).await;
        let absent = Frames::new(repository, MOST)
            .whole(&key("none"), 1 << 20)
            .await;
        assert!(matches!(absent, Err(ObjectError::Absent { .. })));
    }

    fn place(object: u32, offset: u64, length: u64) -> (FramePlace, ()) {
        (
            FramePlace {
                key: key(&object.to_string()),
                offset,
                length,
            },
            (),
        )
    }

    #[test]
    fn neighbours_share_a_read_and_others_do_not() {
        let places = [
            place(1, 0, 100),
            place(1, 100, 50),
            place(1, 150 + READ_OVER, 10),
            place(1, 10 << 20, 7),
            place(2, 5, 5),
        ];
        let reads = coalesce(places.into_iter());
        assert_eq!(
            reads
                .iter()
                .map(|read| read.frames.len())
                .collect::<Vec<_>>(),
            [3, 1, 1]
        );
        assert_eq!(reads[0].range, 0..160 + READ_OVER);
    }

    proptest! {
        #[test]
        fn every_frame_is_read_once_in_order_and_within_bounds(
            raw in prop::collection::vec((1u32..3, 0u64..20 << 20, 1u64..300_000), 0..50)
        ) {
            let mut places: Vec<(FramePlace, ())> =
                raw.into_iter().map(|(object, offset, length)| place(object, offset, length)).collect();
            let reads = coalesce(places.clone().into_iter());
            let found: Vec<FramePlace> = reads.iter().flat_map(|read| read.frames.iter().map(|(at, _)| FramePlace {
                key: read.key.clone(),
                offset: read.place(at).start,
                length: at.len() as u64,
            })).collect();
            places.dedup();
            prop_assert_eq!(found, places.into_iter().map(|(place, ())| place).collect::<Vec<_>>());
            for read in reads {
                prop_assert!(read.range.end - read.range.start <= READ || read.frames.len() == 1);
                prop_assert_eq!(read.frames.last().unwrap().0.end as u64, read.range.end - read.range.start);
            }
        }
    }
}
