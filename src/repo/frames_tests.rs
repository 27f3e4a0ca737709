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
