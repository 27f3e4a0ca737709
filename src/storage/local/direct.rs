//! Writing objects around the page cache: few are read soon, and finding memory for them costs the kernel more than the
//! disk does.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::storage::Body;

/// Shorter objects gain nothing.
pub(super) const SHORTEST: u64 = 256 << 10;
/// Memory, place and length of a direct write are multiples of this on any disk.
const BLOCK: usize = 4096;
/// Bytes of one write.
const CHUNK: usize = 1 << 20;

/// Writes `body` to a new file. Where the file system takes no direct writes, through the page cache.
pub(super) fn write_all(file: &mut File, body: &Body) -> io::Result<()> {
    // Refused here or at the first write, where the file system has no direct writes.
    let _ = fcntl_setfl(&*file, fcntl_getfl(&*file)? | OFlags::DIRECT);
    let mut room = vec![0; CHUNK + BLOCK];
    let begin = room.as_ptr().align_offset(BLOCK);
    let (chunk, mut filled) = (&mut room[begin..][..CHUNK], 0);
    for mut piece in body.0.iter().map(|piece| &piece[..]) {
        while !piece.is_empty() {
            let (now, rest) = piece.split_at(piece.len().min(CHUNK - filled));
            chunk[filled..][..now.len()].copy_from_slice(now);
            (filled, piece) = (filled + now.len(), rest);
            if filled == CHUNK {
                write(file, chunk)?;
                filled = 0;
            }
        }
    }
    let (blocks, rest) = chunk[..filled].split_at(filled - filled % BLOCK);
    write(file, blocks)?;
    give_up_direct(file)?;
    file.write_all(rest)
}

fn write(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) if is_refusal(&error) && give_up_direct(file)? => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How file systems say that they have no direct writes.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)
    )
}

/// From now on through the page cache; whether that is new.
fn give_up_direct(file: &File) -> io::Result<bool> {
    let flags = fcntl_getfl(file)?;
    fcntl_setfl(file, flags - OFlags::DIRECT)?;
    Ok(flags.contains(OFlags::DIRECT))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_object_of_any_length_and_pieces_is_written_whole() {
        let folders = [std::env::temp_dir(), "/dev/shm".into()];
        for folder in folders
            .iter()
            .filter(|folder: &&std::path::PathBuf| Path::is_dir(folder))
        {
            for length in [
                0,
                1,
                BLOCK,
                CHUNK - 1,
                CHUNK,
                CHUNK + BLOCK,
                3 * CHUNK + BLOCK + 1,
            ] {
                let content: Bytes = (0..length as u32)
                    .map(|n| (n.wrapping_mul(n) >> 5) as u8)
                    .collect();
                let body = Body(
                    content
                        .chunks(99_999)
                        .map(|piece| content.slice_ref(piece))
                        .collect(),
                );
                let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
                write_all(file.as_file_mut(), &body).unwrap();
                assert!(
                    std::fs::read(file.path()).unwrap() == content,
                    "{length} bytes"
                );
            }
        }
    }

    #[test]
    fn what_a_file_system_refuses_directly_goes_through_the_page_cache() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let _ = fcntl_setfl(file.as_file(), OFlags::DIRECT);
        // No disk takes these directly: neither place nor length fit.
        write(file.as_file_mut(), b"short").unwrap();
        write(file.as_file_mut(), b"er").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"shorter");
    }
}
