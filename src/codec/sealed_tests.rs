use super::*;
use crate::codec::{FrameDecompressor, SealedWriter};
use proptest::prelude::*;

/// Opens a whole object.
fn open(kind: &str, object: &[u8], check: VerifyLevel, sink: &mut Vec<u8>) -> Result<(), Damaged> {
    let Envelope { header, len } =
        Envelope::of_whole(kind, object).map_err(|error| Damaged(error.to_string()))?;
    unseal(&header, &object[len as usize..], check, sink).unwrap()
}

fn sealed(content: &[u8]) -> Vec<u8> {
    let about = serde_json::json!({});
    let sealed = seal("test", &about, &mut &content[..], content.len() as u64, 1).unwrap();
    [sealed.envelope, sealed.body].concat()
}

fn content() -> Vec<u8> {
    (0..600_000u32)
        .flat_map(|n| (n / 7).to_le_bytes())
        .collect()
}

#[test]
fn what_was_sealed_opens() {
    for content in [content(), Vec::new(), vec![0; CHUNK], vec![1; CHUNK + 1]] {
        let mut opened = Vec::new();
        open("test", &sealed(&content), VerifyLevel::Content, &mut opened).unwrap();
        assert!(opened == content);
    }
}

#[test]
fn a_sealer_serves_again_also_after_an_error() {
    for level in [-5, 1, 3] {
        let mut sealer = Sealer::new(level).unwrap();
        assert!(sealer.compress(&mut &b"abc"[..], 9, 9).is_err());
        let content = content();
        let again: Vec<Vec<u8>> = (0..2)
            .map(|_| {
                sealer
                    .compress(&mut &content[..], content.len() as u64, u64::MAX)
                    .unwrap()
            })
            .map(|compressed| compressed.seal("test", &serde_json::json!({})))
            .map(|sealed| [sealed.envelope, sealed.body].concat())
            .collect();
        assert_eq!(again[0], again[1]);
        assert!(zstd::decode_all(&again[0][..]).unwrap() == content);
    }
}

#[test]
fn a_body_gives_its_buffer_back_when_nobody_holds_it() {
    let mut sealer = Sealer::new(1).unwrap();
    let content = content();
    let mut compress = || {
        sealer
            .compress(&mut &content[..], content.len() as u64, u64::MAX)
            .unwrap()
    };
    let (first, second) = (compress(), compress());
    let places = [first.body.as_ptr(), second.body.as_ptr()];
    let kept = first.body.clone();
    drop((first, second));
    let third = compress();
    assert_eq!(third.body.as_ptr(), places[1]);
    assert!(third.body == kept, "what is still held is not written over");
    drop(sealer);
    assert!(third.body == kept);
}

#[test]
fn random_bytes_survive() {
    let mut content = vec![0; 3 << 20];
    getrandom::fill(&mut content).unwrap();
    for frame in [3 << 20, CHUNK] {
        let mut opened = Vec::new();
        let object = in_frames(&content, frame).1;
        assert!((object.len() as u64) < sealed_bound(content.len() as u64));
        open("test", &object, VerifyLevel::Content, &mut opened).unwrap();
        assert!(opened == content);
    }
}

/// The frames' stored lengths, and the object.
fn in_frames(content: &[u8], frame: usize) -> (Vec<u64>, Vec<u8>) {
    let compressed = Sealer::new(1)
        .unwrap()
        .compress(&mut &content[..], content.len() as u64, frame as u64)
        .unwrap();
    let frames = compressed.frames().to_vec();
    let sealed = compressed.seal("test", &serde_json::json!({}));
    (frames, [sealed.envelope, sealed.body].concat())
}

#[test]
fn frames_open_together_and_each_by_itself() {
    let content = content();
    for frame in [
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        content.len() / 8,
        content.len(),
        usize::MAX,
    ] {
        let (frames, object) = in_frames(&content, frame);
        assert_eq!(frames.len(), content.len().div_ceil(frame));
        assert!(zstd::decode_all(&object[..]).unwrap() == content);
        let mut opened = Vec::new();
        open("test", &object, VerifyLevel::Content, &mut opened).unwrap();
        assert!(opened == content);
        let mut decompressor = FrameDecompressor::new().unwrap();
        let mut body = &object[Envelope::of_whole("test", &object).unwrap().len as usize..];
        for (length, plain) in frames.iter().zip(content.chunks(frame)) {
            let (stored, rest) = body.split_at(*length as usize);
            decompressor.decompress(stored, frame, &mut opened).unwrap();
            assert!(opened == plain);
            body = rest;
        }
        assert!(body.is_empty());
    }
}

#[test]
fn plain_zstd_opens_it_too() {
    assert!(zstd::decode_all(&sealed(&content())[..]).unwrap() == content());
}

#[test]
fn what_was_written_piece_by_piece_opens() {
    let mut sealer = SealedWriter::new(3).unwrap();
    content()
        .chunks(1000)
        .for_each(|piece| sealer.write_all(piece).unwrap());
    let sealed = sealer.finish("test", &serde_json::json!({})).unwrap();
    let mut opened = Vec::new();
    open(
        "test",
        &[sealed.envelope, sealed.body].concat(),
        VerifyLevel::Content,
        &mut opened,
    )
    .unwrap();
    assert!(opened == content());
}

#[test]
fn a_source_of_another_length_is_an_error() {
    let about = serde_json::json!({});
    assert!(seal("test", &about, &mut &b"abc"[..], 4, 1).is_err());
    assert!(seal("test", &about, &mut &b"abc"[..], 2, 1).is_err());
    for size in [2, 4, 5, 6] {
        assert!(
            Sealer::new(1)
                .unwrap()
                .compress(&mut &b"abc"[..], size, 2)
                .is_err(),
            "{size}"
        );
    }
}

#[test]
fn content_that_is_not_what_was_sealed_is_told() {
    let whole = sealed(&content());
    let Envelope { header, len } = Envelope::of_whole("test", &whole).unwrap();
    let with = |change: &dyn Fn(&mut EnvelopeHeader), check| {
        let mut header = header.clone();
        change(&mut header);
        let object = [&Envelope::render(&header), &whole[len as usize..]].concat();
        open("test", &object, check, &mut Vec::new())
    };
    let other = |header: &mut EnvelopeHeader| header.plain.digest = Digest::of(b"other");
    assert!(with(&other, VerifyLevel::Stored).is_ok());
    assert!(
        with(&other, VerifyLevel::Content)
            .unwrap_err()
            .0
            .contains("digest")
    );
    for size in [content().len() as u64 - 1, content().len() as u64 + 1] {
        let result = with(
            &|header: &mut EnvelopeHeader| header.plain.size = size,
            VerifyLevel::Stored,
        );
        assert!(result.unwrap_err().0.contains("bytes"), "{size}");
    }
}

#[test]
fn another_kind_is_refused() {
    let result = open("other", &sealed(b"x"), VerifyLevel::Stored, &mut Vec::new());
    assert!(result.unwrap_err().0.contains("kind \"test\""));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_flipped_bit_never_passes(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut object = sealed(&content());
        let place = place.index(object.len());
        object[place] ^= 1 << bit;
        for check in [VerifyLevel::Stored, VerifyLevel::Content] {
            prop_assert!(open("test", &object, check, &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn a_truncated_object_never_passes(place in any::<prop::sample::Index>()) {
        let object = sealed(&content());
        let place = place.index(object.len());
        prop_assert!(open("test", &object[..place], VerifyLevel::Stored, &mut Vec::new()).is_err());
    }
}
