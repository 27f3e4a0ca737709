//! What every backend must do, as one suite that tests run against each of them on an empty store.

mod percent;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::{
    Body, Key, LIST_PAGE, ListEntry, PutMode, PutOutcome, Storage, StorageError, get_all, list_all,
    put_stream_by,
};

/// Bytes of a part here, the fewest that S3 takes.
const PART: usize = 5 << 20;

/// Runs the whole suite on an empty store; panics at the first difference.
pub async fn check(storage: Arc<dyn Storage>) {
    check_without_races(storage.clone()).await;
    one_of_many_creators_wins(storage).await;
}

/// All but what happens when several create the same object at the same moment, which not every store can decide.
pub async fn check_without_races(storage: Arc<dyn Storage>) {
    absent_is_an_answer(&*storage).await;
    what_was_put_is_got(&*storage).await;
    what_is_streamed_is_got(&*storage).await;
    a_stream_never_overwrites(&*storage).await;
    a_stream_that_ends_early_leaves_nothing(&*storage).await;
    a_range_is_clipped(&*storage).await;
    create_only_never_overwrites(&*storage).await;
    overwriting_replaces_whole(&*storage).await;
    listings_are_sorted_and_one_level_deep(&*storage).await;
    listings_continue_page_by_page(storage.clone()).await;
    deleting_is_repeatable(&*storage).await;
    a_link_names_what_lies_beside_it(&*storage).await;
    percent::a_percent_sign_is_a_character_like_others(&*storage).await;
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

async fn stored(storage: &dyn Storage, name: &str, body: impl Into<Body>) {
    let outcome = storage
        .put(&key(name), body.into(), PutMode::CreateOnly)
        .await
        .expect("put");
    assert_eq!(outcome, PutOutcome::Stored, "{name}");
}

async fn content(storage: &dyn Storage, name: &str) -> Option<Bytes> {
    get_all(storage, &key(name), u64::MAX).await.expect("get")
}

async fn absent_is_an_answer(storage: &dyn Storage) {
    assert_eq!(content(storage, "absent/object").await, None);
    assert_eq!(
        storage.head(&key("absent/object")).await.expect("head"),
        None
    );
    assert!(list_all(storage, "absent/").await.expect("list").is_empty());
    stored(storage, "absent/file", "x").await;
    assert_eq!(
        content(storage, "absent").await,
        None,
        "a folder is no object"
    );
    assert_eq!(
        storage.head(&key("absent")).await.expect("head"),
        None,
        "a folder is no object"
    );
    assert_eq!(
        content(storage, "absent/file/below").await,
        None,
        "nothing lies below an object"
    );
}

async fn what_was_put_is_got(storage: &dyn Storage) {
    let pieces = Body(vec![
        Bytes::from_static(b"head "),
        Bytes::new(),
        Bytes::from(vec![7u8; 3 << 20]),
    ]);
    stored(storage, "put/pieces", pieces.clone()).await;
    assert_eq!(
        content(storage, "put/pieces").await,
        Some(pieces.to_bytes())
    );
    assert_eq!(
        storage
            .head(&key("put/pieces"))
            .await
            .expect("head")
            .map(|meta| meta.size),
        Some(pieces.len())
    );
    stored(storage, "put/empty", "").await;
    assert_eq!(content(storage, "put/empty").await, Some(Bytes::new()));
}

/// Pieces of so many bytes in all, each MiB another.
fn pieces(size: usize) -> Vec<Bytes> {
    (0..size)
        .step_by(1 << 20)
        .map(|at| vec![(at >> 20) as u8; (size - at).min(1 << 20)].into())
        .collect()
}

async fn streamed(
    storage: &dyn Storage,
    name: &str,
    content: impl Stream<Item = Result<Bytes, StorageError>> + Send,
    mode: PutMode,
) -> Result<PutOutcome, StorageError> {
    put_stream_by(storage, &key(name), content, mode, PART).await
}

async fn a_link_names_what_lies_beside_it(storage: &dyn Storage) {
    for name in ["one", "two"] {
        stored(storage, &format!("link/{name}"), name).await;
        storage.link(&key("link/latest"), name).await.expect("link");
        let named = storage
            .linked(&key("link/latest"))
            .await
            .expect("read a link");
        assert_eq!(named.as_deref(), Some(name));
    }
    storage.delete(&key("link/latest")).await.expect("delete");
    assert_eq!(
        storage
            .linked(&key("link/latest"))
            .await
            .expect("read a link"),
        None
    );
    assert_eq!(content(storage, "link/two").await, Some(Bytes::from("two")));
}

async fn what_is_streamed_is_got(storage: &dyn Storage) {
    // Nothing, less than a part, exactly one, a byte more, exactly two.
    for size in [0, 3, PART, PART + 1, 2 * PART] {
        let (name, pieces) = (format!("stream/{size}"), pieces(size));
        let given = stream::iter(pieces.clone()).map(Ok);
        assert_eq!(
            streamed(storage, &name, given, PutMode::CreateOnly)
                .await
                .expect("put"),
            PutOutcome::Stored
        );
        assert!(
            content(storage, &name).await == Some(Body(pieces).to_bytes()),
            "{size} bytes"
        );
    }
    let shorter = stream::iter(pieces(PART)).map(Ok);
    let name = format!("stream/{}", 2 * PART);
    assert_eq!(
        streamed(storage, &name, shorter, PutMode::Overwrite)
            .await
            .expect("put"),
        PutOutcome::Stored
    );
    assert!(
        content(storage, &name).await == Some(Body(pieces(PART)).to_bytes()),
        "it is replaced whole"
    );
}

async fn a_stream_never_overwrites(storage: &dyn Storage) {
    stored(storage, "stream/taken", "first").await;
    for size in [0, PART + 1] {
        let given = stream::iter(pieces(size)).map(Ok);
        let outcome = streamed(storage, "stream/taken", given, PutMode::CreateOnly)
            .await
            .expect("put");
        assert_eq!(outcome, PutOutcome::AlreadyExists, "{size} bytes");
    }
    // Another writer comes when parts are on their way.
    let last = stream::once(async {
        stored(storage, "stream/meanwhile", "first").await;
        Ok(Bytes::from("last"))
    });
    let given = stream::iter(pieces(PART)).map(Ok).chain(last);
    let outcome = streamed(storage, "stream/meanwhile", given, PutMode::CreateOnly)
        .await
        .expect("put");
    assert_eq!(outcome, PutOutcome::AlreadyExists);
    for name in ["stream/taken", "stream/meanwhile"] {
        assert_eq!(content(storage, name).await, Some("first".into()));
    }
}

async fn a_stream_that_ends_early_leaves_nothing(storage: &dyn Storage) {
    let broken = || StorageError {
        operation: "read",
        key: String::new(),
        store: "source".into(),
        lasting: true,
        source: anyhow::anyhow!("the source broke"),
    };
    for size in [3, PART + 1] {
        let given = stream::iter(pieces(size))
            .map(Ok)
            .chain(stream::once(async { Err(broken()) }));
        let error = streamed(storage, "ended/broken", given, PutMode::CreateOnly)
            .await
            .expect_err("it broke");
        assert_eq!(error.store, "source", "{size} bytes");
    }
    assert_eq!(
        storage
            .sweep(Duration::ZERO, &|_| true)
            .await
            .expect("sweep"),
        0,
        "it was given up at once"
    );
    // Dropped when a part is on its way and the next does not come.
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let never = stream::once(async move {
        let _ = asked.send(());
        std::future::pending().await
    });
    let given = stream::iter(pieces(2 * PART)).map(Ok).chain(never);
    tokio::select! {
        outcome = streamed(storage, "ended/dropped", given, PutMode::CreateOnly) => panic!("{outcome:?}"),
        _ = was_asked => (),
    }
    for name in ["ended/broken", "ended/dropped"] {
        assert_eq!(
            storage.head(&key(name)).await.expect("head"),
            None,
            "{name}"
        );
    }
    assert!(list_all(storage, "ended/").await.expect("list").is_empty());
    storage
        .sweep(Duration::ZERO, &|_| true)
        .await
        .expect("sweep");
    let given = stream::iter(pieces(PART)).map(Ok);
    let outcome = streamed(storage, "ended/dropped", given, PutMode::CreateOnly)
        .await
        .expect("put");
    assert_eq!(outcome, PutOutcome::Stored);
}

async fn a_range_is_clipped(storage: &dyn Storage) {
    stored(storage, "range/ten", "0123456789").await;
    for (range, expected) in [
        (0..4, "0123"),
        (4..10, "456789"),
        (8..100, "89"),
        (10..20, ""),
        (30..40, ""),
        (3..3, ""),
    ] {
        let found = storage
            .get(&key("range/ten"), range.clone())
            .await
            .expect("get");
        assert_eq!(found, Some(Bytes::from(expected)), "{range:?}");
    }
    assert_eq!(
        storage.get(&key("range/none"), 0..4).await.expect("get"),
        None
    );
    let whole = get_all(storage, &key("range/ten"), 10).await.expect("get");
    assert_eq!(whole, Some(Bytes::from("0123456789")));
    let error = get_all(storage, &key("range/ten"), 9)
        .await
        .expect_err("it is longer");
    assert!(
        error.lasting && error.source.to_string().contains("more than 9 bytes"),
        "{error:?}"
    );
    assert_eq!(
        get_all(storage, &key("range/none"), 9).await.expect("get"),
        None
    );
}

async fn create_only_never_overwrites(storage: &dyn Storage) {
    stored(storage, "once/name", "first").await;
    for body in ["first", "second", ""] {
        let outcome = storage
            .put(&key("once/name"), body.into(), PutMode::CreateOnly)
            .await
            .expect("put");
        assert_eq!(outcome, PutOutcome::AlreadyExists);
    }
    assert_eq!(content(storage, "once/name").await, Some("first".into()));
}

async fn overwriting_replaces_whole(storage: &dyn Storage) {
    for body in ["a longer first content", "short"] {
        let outcome = storage
            .put(&key("over/name"), body.into(), PutMode::Overwrite)
            .await
            .expect("put");
        assert_eq!(outcome, PutOutcome::Stored);
    }
    assert_eq!(content(storage, "over/name").await, Some("short".into()));
}

async fn one_of_many_creators_wins(storage: Arc<dyn Storage>) {
    for round in 0..10 {
        let name = format!("race/{round}");
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..6u8 {
            let (storage, key) = (storage.clone(), key(&name));
            tasks.spawn(async move {
                let body = Bytes::from(vec![writer; 50_000]);
                (
                    writer,
                    storage
                        .put(&key, body.into(), PutMode::CreateOnly)
                        .await
                        .expect("put"),
                )
            });
        }
        let results = tasks.join_all().await;
        let winners: Vec<u8> = results
            .iter()
            .filter(|(_, o)| *o == PutOutcome::Stored)
            .map(|(w, _)| *w)
            .collect();
        assert_eq!(winners.len(), 1, "one creator wins: {results:?}");
        assert_eq!(
            content(&*storage, &name).await,
            Some(Bytes::from(vec![winners[0]; 50_000]))
        );
    }
}

async fn listings_are_sorted_and_one_level_deep(storage: &dyn Storage) {
    for name in [
        "list/b",
        "list/a.x",
        "list/a/deep",
        "list/a/deeper/still",
        "list/a-1",
        "list/B",
        "listing/c",
    ] {
        stored(storage, name, name.to_string()).await;
    }
    let entries = list_all(storage, "list/").await.expect("list");
    let names: Vec<&str> = entries.iter().map(ListEntry::name).collect();
    assert_eq!(
        names,
        ["list/B", "list/a-1", "list/a.x", "list/a/", "list/b"]
    );
    assert!(matches!(&entries[3], ListEntry::Folder(_)));
    assert!(matches!(&entries[4], ListEntry::Object(meta) if meta.size == 6));
    // Behind what is there and what is not.
    for (after, expected) in [
        ("list/a.x", &["list/a/", "list/b"][..]),
        ("list/a.y", &["list/a/", "list/b"]),
        ("list/a/", &["list/b"]),
        ("list/a0", &["list/b"]),
        (
            "list/0",
            &["list/B", "list/a-1", "list/a.x", "list/a/", "list/b"],
        ),
        ("list/b", &[]),
        ("list/c/", &[]),
    ] {
        for rest in [
            storage.list("list/", Some(after)).await,
            storage.list_on("list/", after).await,
        ] {
            let rest = rest.expect("list");
            assert_eq!(
                rest.iter().map(ListEntry::name).collect::<Vec<_>>(),
                expected,
                "behind {after}"
            );
        }
    }
}

/// Stores several at once: the store may be far away.
async fn all_stored(storage: &Arc<dyn Storage>, names: &[String]) {
    let mut tasks = tokio::task::JoinSet::new();
    for names in names.chunks(100) {
        let (storage, names) = (storage.clone(), names.to_vec());
        tasks.spawn(async move {
            for name in names {
                stored(&*storage, &name, "x").await;
            }
        });
    }
    tasks.join_all().await;
}

async fn listings_continue_page_by_page(storage: Arc<dyn Storage>) {
    let expected: Vec<String> = (0..LIST_PAGE + 5)
        .map(|n| format!("pages/{n:06}"))
        .collect();
    all_stored(&storage, &expected).await;
    let first = storage.list("pages/", None).await.expect("list");
    assert_eq!(first.len(), LIST_PAGE);
    let all = list_all(&*storage, "pages/").await.expect("list");
    assert!(all.iter().map(ListEntry::name).eq(&expected));
    // What changes meanwhile is in a listing or not; what stays is in it once, in order.
    let last = first[LIST_PAGE - 1].name();
    for name in ["pages/000500", "pages/001002"] {
        storage.delete(&key(name)).await.expect("delete");
    }
    stored(&*storage, "pages/000000-", "x").await;
    stored(&*storage, "pages/001003-", "x").await;
    let rest = storage.list_on("pages/", last).await.expect("list");
    let rest: Vec<&str> = rest
        .iter()
        .map(ListEntry::name)
        .filter(|name| *name != "pages/001003-")
        .collect();
    assert_eq!(
        rest,
        [
            "pages/001000",
            "pages/001001",
            "pages/001003",
            "pages/001004"
        ]
    );
    // One that begins now shows all of it, and a page that is just full is not the last one.
    let behind = storage
        .list("pages/", Some("pages/001001"))
        .await
        .expect("list");
    let behind: Vec<&str> = behind.iter().map(ListEntry::name).collect();
    assert_eq!(behind, ["pages/001003", "pages/001003-", "pages/001004"]);
    for name in [
        "pages/001003",
        "pages/001003-",
        "pages/001004",
        "pages/001001",
        "pages/001000",
    ] {
        storage.delete(&key(name)).await.expect("delete");
    }
    let all = storage.list("pages/", None).await.expect("list");
    assert_eq!(all.len(), LIST_PAGE);
    assert!(
        storage
            .list_on("pages/", all[LIST_PAGE - 1].name())
            .await
            .expect("list")
            .is_empty()
    );
}

async fn deleting_is_repeatable(storage: &dyn Storage) {
    stored(storage, "gone/name", "x").await;
    for _ in 0..2 {
        storage.delete(&key("gone/name")).await.expect("delete");
    }
    assert_eq!(content(storage, "gone/name").await, None);
    assert!(list_all(storage, "gone/").await.expect("list").is_empty());
    stored(storage, "gone/name", "again").await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{LocalStorage, MemoryStorage};

    #[tokio::test]
    async fn memory_conforms() {
        check(Arc::new(MemoryStorage::default())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_folder_conforms() {
        let folder = tempfile::tempdir().unwrap();
        check(Arc::new(LocalStorage::new(folder.path().join("a folder")))).await;
    }
}
