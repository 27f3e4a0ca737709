use super::super::record::testing::evidence;
use std::ops::Range;

use bytes::Bytes;

use super::*;
use crate::storage::MemoryStorage;
use crate::storage::decorator::Decorator;

fn journal() -> Journal {
    Journal {
        storage: Arc::new(MemoryStorage::default()),
        folder: "main/evidence/".into(),
        repository: "0123456789abcdef".into(),
    }
}

fn who(user: &str) -> Who {
    Who {
        user: user.into(),
        host: "db1".into(),
        token: None,
        settings: None,
    }
}

#[tokio::test]
async fn many_that_write_at_once_make_one_chain_each() {
    let journal = journal();
    let all = ["a", "b", "a", "a", "b", "a"].map(|user| {
        let journal = journal.clone();
        tokio::spawn(async move {
            journal
                .append(&who(user), evidence(Act::Drill))
                .await
                .unwrap()
        })
    });
    for one in all {
        one.await.unwrap();
    }
    let chains = journal.load().await.unwrap();
    let counts: Vec<usize> = chains.values().map(Vec::len).collect();
    assert_eq!((counts, verify(&chains)), (vec![4, 2], Vec::new()));
}

#[tokio::test]
async fn a_record_that_somebody_changed_or_removed_is_found_out() {
    let journal = journal();
    for _ in 0..4 {
        journal
            .append(&who("a"), evidence(Act::Restore))
            .await
            .unwrap();
    }
    let key = journal.key("a-at-db1-01234567", 2);
    let text = get_all(&*journal.storage, &key, LONGEST)
        .await
        .unwrap()
        .unwrap();
    let other = String::from_utf8_lossy(&text).replace("passed", "failed");
    let put = journal
        .storage
        .put(&key, other.into(), PutMode::Overwrite)
        .await;
    assert_eq!(put.unwrap(), PutOutcome::Stored);
    assert_eq!(verify(&journal.load().await.unwrap())[0].number, 3);
    journal.storage.delete(&key).await.unwrap();
    assert_eq!(verify(&journal.load().await.unwrap())[0].number, 2);
}

#[tokio::test]
async fn old_records_go_and_the_chain_stays_sound_at_each_crash() {
    use crate::storage::faulty::{CrashPoint, FaultyStorage};
    for stop_at in 0.. {
        let journal = journal();
        for _ in 0..3 {
            journal
                .append(&who("a"), evidence(Act::Restore))
                .await
                .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
        journal
            .append(&who("b"), evidence(Act::Restore))
            .await
            .unwrap();
        let faulty = Arc::new(FaultyStorage::new(
            journal.storage.clone(),
            stop_at,
            CrashPoint::After,
        ));
        let broken = Journal {
            storage: faulty.clone(),
            ..journal.clone()
        };
        let age = Duration::from_millis(8);
        let done = broken.trim(&who("b"), age, chrono::Utc::now()).await;
        assert_eq!(verify(&journal.load().await.unwrap()), [], "{stop_at}");
        if !faulty.stopped() {
            assert_eq!(done.unwrap(), 2);
            assert_eq!(journal.load().await.unwrap()["a-at-db1-01234567"].len(), 1);
            return;
        }
    }
}
/// Refuses to give one object.
#[derive(Debug)]
struct Withholding(Arc<dyn Storage>, Key);

#[async_trait::async_trait]
impl Decorator for Withholding {
    fn inner(&self) -> &dyn Storage {
        &*self.0
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Answer<Option<Bytes>> {
        match *key == self.1 {
            false => self.0.get(key, range).await,
            true => Err(StorageError {
                operation: "get",
                key: key.to_string(),
                store: self.describe(),
                lasting: true,
                source: anyhow::anyhow!("access is denied"),
            }),
        }
    }
}

type Answer<T> = Result<T, StorageError>;

#[tokio::test]
async fn a_newest_record_that_is_not_given_is_noted_and_stops_nobody() {
    let journal = journal();
    let add = async |journal: &Journal, user: &str| {
        journal
            .append(&who(user), evidence(Act::Drill))
            .await
            .unwrap()
    };
    for user in ["a", "b"] {
        add(&journal, user).await;
    }
    let hidden = journal.key("a-at-db1-01234567", 1);
    let storage: Arc<dyn Storage> = Arc::new(Withholding(journal.storage.clone(), hidden));
    let broken = Journal {
        storage,
        ..journal.clone()
    };
    for user in ["a", "b"] {
        assert_eq!(add(&broken, user).await.number, 2);
    }
    let (chains, faults) = broken.verified().await.unwrap();
    assert_eq!(faults.len(), 1);
    assert!(!faults[0].is_break() && faults[0].to_string().contains("access is denied"));
    let second = chains["a-at-db1-01234567"][1].record.as_ref().unwrap();
    assert!(
        second.previous.is_none() && second.unread.len() == 1,
        "{second:?}"
    );
    let (chains, faults) = journal.verified().await.unwrap();
    assert_eq!((faults, chains.len()), (Vec::new(), 2));
}

#[test]
fn a_clock_that_was_wrong_for_two_days_makes_nothing_old() {
    let at = |days: &[u64]| -> Vec<SystemTime> {
        let time = |day: &u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86400 + 7);
        days.iter().map(time).collect()
    };
    let counted = |days: &[u64]| reference(at(days));
    let expected = |day: u64| at(&[day]).pop();
    assert_eq!(reference(Vec::new()), None);
    assert_eq!(counted(&[20_000, 20_000]), expected(20_000));
    assert_eq!(
        counted(&[20_000, 20_001, 25_000, 25_000, 25_001]),
        expected(20_001)
    );
    assert_eq!(counted(&[20_000, 25_000, 25_001, 25_002]), expected(25_000));
}

#[tokio::test]
async fn a_copy_ends_where_a_record_is_not_given_and_goes_on_later() {
    let (source, theirs) = (journal(), journal());
    for user in ["a", "b", "a", "b"] {
        let who = who(user);
        source.append(&who, evidence(Act::Drill)).await.unwrap();
    }
    let hidden = source.key("b-at-db1-01234567", 1);
    let broken = Journal {
        storage: Arc::new(Withholding(source.storage.clone(), hidden)),
        ..source.clone()
    };
    let copied = broken.copy_to(&theirs).await.unwrap();
    assert_eq!((copied.unread.len(), copied.conflicts.len()), (1, 0));
    assert_eq!(theirs.verified().await.unwrap().1, []);
    source.copy_to(&theirs).await.unwrap();
    assert_eq!(theirs.verified().await.unwrap().1, []);
    let again = broken.copy_to(&theirs).await.unwrap();
    assert_eq!((again.unread.len(), again.conflicts.len()), (1, 0));
    assert_eq!(again.present, 3);
}

#[tokio::test]
async fn a_record_that_is_too_long_is_kept_without_its_details() {
    let journal = journal();
    let mut long = evidence(Act::Deletion);
    long.details = "x".repeat(LONGEST as usize).into();
    journal.append(&who("a"), long.clone()).await.unwrap();
    let chains = journal.load().await.unwrap();
    let record = chains["a-at-db1-01234567"][0].record.as_ref().unwrap();
    assert!(record.evidence.details.to_string().contains("left out"));
    long.subject = "x".repeat(LONGEST as usize);
    let error = journal.append(&who("a"), long).await.unwrap_err();
    assert!(error.to_string().contains("may have"), "{error:#}");
}

#[tokio::test]
async fn copies_hold_together_wherever_they_end_and_have_records_of_their_own() {
    use crate::storage::faulty::{CrashPoint, FaultyStorage};
    let source = journal();
    for user in ["a", "b", "b", "a", "c", "a"] {
        source
            .append(&who(user), evidence(Act::Drill))
            .await
            .unwrap();
    }
    for stop_at in 0.. {
        let theirs = Journal {
            repository: "fedcba9876543210".into(),
            ..journal()
        };
        theirs
            .append(&who("a"), evidence(Act::Drill))
            .await
            .unwrap();
        let inner = theirs.storage.clone();
        let faulty = Arc::new(FaultyStorage::new(inner, stop_at, CrashPoint::After));
        let broken = Journal {
            storage: faulty.clone(),
            ..theirs.clone()
        };
        let done = source.copy_to(&broken).await;
        assert_eq!(verify(&theirs.load().await.unwrap()), [], "{stop_at}");
        if faulty.stopped() {
            continue;
        }
        assert_eq!(done.unwrap().copied.len(), 6);
        let again = source.copy_to(&theirs).await.unwrap();
        assert_eq!((again.copied.len(), again.present), (0, 6));
        let _ = theirs
            .storage
            .put(
                &theirs.key("b-at-db1-01234567", 1),
                "x".into(),
                PutMode::Overwrite,
            )
            .await;
        assert_eq!(source.copy_to(&theirs).await.unwrap().conflicts.len(), 1);
        return;
    }
}

#[tokio::test]
async fn what_a_copy_removed_as_too_old_is_not_brought_back() {
    let (source, theirs) = (journal(), journal());
    for _ in 0..3 {
        source
            .append(&who("a"), evidence(Act::Drill))
            .await
            .unwrap();
    }
    source.copy_to(&theirs).await.unwrap();
    tokio::time::sleep(Duration::from_millis(15)).await;
    theirs
        .append(&who("b"), evidence(Act::Drill))
        .await
        .unwrap();
    let age = Duration::from_millis(8);
    let trim = async || theirs.trim(&who("b"), age, chrono::Utc::now()).await;
    assert_eq!(trim().await.unwrap(), 2);
    assert_eq!(source.copy_to(&theirs).await.unwrap().copied.len(), 0);
    let (chains, faults) = theirs.verified().await.unwrap();
    assert_eq!((faults, chains["a-at-db1-01234567"].len()), (Vec::new(), 1));
}
