//! Dumps are copied with their manifest last, and damaged ones are not.

use super::*;
use crate::postgres::layout::{DumpFormat, DumpObject};

#[tokio::test]
async fn a_dump_is_copied_with_its_manifest_last_and_a_damaged_one_is_not() {
    let (source, storage) = example().await;
    let (good, bad) = (
        id("shop", "14:05:00", DumpKind::Full),
        id("shop", "15:05:00", DumpKind::Full),
    );
    let key = |id, object| source.layout.dump(id, &object);
    for id in [&good, &bad] {
        store(&source, id).await;
        // When a restore proved it, it was the source's.
        let proof = key(id, DumpObject::Proof);
        let _ = storage.put(&proof, "{}".into(), PutMode::CreateOnly).await;
    }
    let broken = key(&bad, DumpObject::Whole(DumpFormat::Custom));
    damage(&*storage, broken.as_str()).await;
    let to = Arc::new(MemoryStorage::default());
    let first = copied(&source, to.clone(), &options()).await.unwrap();
    assert_eq!(
        problems(&first),
        [(CopySide::Source, ProblemKind::Damaged, broken.as_str())]
    );
    let counts = |copied: &Copied| (copied.counts.dumps.copied, copied.counts.dumps.present);
    assert_eq!((first.complete, counts(&first)), (false, (1, 0)));
    let destination = open_again(&to).await;
    let kept = list(&destination, None).await.unwrap();
    assert_eq!((kept.complete.len(), &kept.complete[0].id), (1, &good));
    assert!(!kept.complete[0].has(&DumpObject::Proof));
    assert!(kept.complete[0].has(&DumpObject::Sha256(DumpFormat::Custom)));
    let latest = source.layout.latest_dump("shop", DumpKind::Full);
    let named = to.linked(&latest).await.unwrap();
    assert_eq!(named, Some(good.name().file(DumpFormat::Custom)));
    let sound = |result: crate::postgres::repository::verify::VerifyResult| {
        let found = result.findings.list.iter();
        let objects = found.map(|found| found.object.clone()).collect::<Vec<_>>();
        (result.dumps, objects)
    };
    let of = async |cluster: &Cluster| sound(verify(cluster, VerifyScope::All, 1).await.unwrap());
    assert_eq!(of(&destination).await, (1, vec![]));
    assert_eq!(of(&source).await, (2, vec![broken.to_string()]));

    // What an interrupted copy left is compared, and never taken for what it is not.
    let manifest = key(&good, DumpObject::Manifest);
    to.delete(&manifest).await.unwrap();
    let again = copied(&source, to.clone(), &options()).await.unwrap();
    assert_eq!(counts(&again), (1, 0));
    to.delete(&manifest).await.unwrap();
    damage(&*to, key(&good, DumpObject::Globals).as_str()).await;
    let conflict = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(
        problems(&conflict)
            .iter()
            .any(|(at, problem, _)| (*at, *problem)
                == (CopySide::Destination, ProblemKind::Conflict))
    );
    assert!(to.head(&manifest).await.unwrap().is_none());
}
