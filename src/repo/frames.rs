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
#[path = "frames_tests.rs"]
mod tests;
