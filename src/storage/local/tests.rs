use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{CWD, FileType, mknodat};

use super::*;
use crate::storage::Walk;

#[test]
fn each_problem_of_a_file_system_has_its_next_step() {
    // EACCES, ENOSPC, EROFS, ESTALE, EIO and ENOENT, as Linux numbers them.
    let steps = [13, 28, 30, 116, 5, 2]
        .map(|number| next_step(&io::Error::from_raw_os_error(number)).unwrap());
    assert_eq!(HashSet::from(steps.clone()).len(), steps.len(), "{steps:?}");
    assert_eq!(
        next_step(&io::Error::from_raw_os_error(122)),
        Some(steps[1].clone()),
        "a quota is a full disk"
    );
    assert_eq!(next_step(&io::Error::other("a thread panicked")), None);
}

#[tokio::test]
async fn leftovers_of_interrupted_puts_are_invisible_and_swept_when_old() {
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalStorage::new(folder.path());
    let key = Key::new("a/b").unwrap();
    assert_eq!(
        storage
            .put(&key, "x".into(), PutMode::CreateOnly)
            .await
            .unwrap(),
        PutOutcome::Stored
    );
    let leftover = folder.path().join("a").join(format!("{TEMPORARY}1"));
    fs::write(&leftover, "half").unwrap();
    assert_eq!(storage.list("a/", None).await.unwrap().len(), 1);
    assert_eq!(
        storage
            .sweep(Duration::from_secs(3600), &|_| true)
            .await
            .unwrap(),
        0
    );
    assert_eq!(storage.sweep(Duration::ZERO, &|_| true).await.unwrap(), 1);
    assert!(!leftover.exists() && folder.path().join("a/b").exists());
}

#[tokio::test]
async fn folders_above_are_made_durable_once_and_again_when_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalStorage::new(folder.path());
    let known = || storage.durable.0.lock().unwrap().len();
    for (name, expected) in [
        ("a/first", 1),
        ("a/b/1", 2),
        ("a/b/2", 2),
        ("a/c/1", 3),
        ("top", 4),
    ] {
        let _ = storage
            .put(&Key::new(name).unwrap(), "x".into(), PutMode::CreateOnly)
            .await
            .unwrap();
        assert_eq!(known(), expected, "{name}");
    }
    // Also where the object is there: another process may have put it, and died.
    let second = LocalStorage::new(folder.path());
    let outcome = second
        .put(&Key::new("a/b/1").unwrap(), "x".into(), PutMode::CreateOnly)
        .await
        .unwrap();
    assert_eq!(outcome, PutOutcome::AlreadyExists);
    assert_eq!(second.durable.0.lock().unwrap().len(), 1);
    fs::rename(folder.path().join("a/b"), folder.path().join("a/old")).unwrap();
    let _ = storage
        .put(&Key::new("a/b/1").unwrap(), "x".into(), PutMode::CreateOnly)
        .await
        .unwrap();
    assert_eq!(known(), 5);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("mounted");
    let storage = LocalStorage::new(&root);
    let put = |name: &'static str| {
        let storage = storage.clone();
        async move {
            storage
                .put(&Key::new(name).unwrap(), "x".into(), PutMode::CreateOnly)
                .await
        }
    };
    for name in ["marker", "main/cluster", "main/wal/group/1"] {
        assert_eq!(put(name).await.unwrap(), PutOutcome::Stored, "{name}");
    }
    fs::rename(&root, folder.path().join("elsewhere")).unwrap();
    for without in ["the folder", "the mount"] {
        for name in ["main/wal/group/2", "main/wal/history"] {
            let error = put(name).await.unwrap_err();
            assert!(
                !error.lasting && error.source.to_string().contains("is gone"),
                "{without}: {error:?}"
            );
        }
        fs::create_dir_all(&root).unwrap();
    }
    fs::remove_dir(&root).unwrap();
    fs::rename(folder.path().join("elsewhere"), &root).unwrap();
    assert_eq!(put("main/wal/group/2").await.unwrap(), PutOutcome::Stored);
}

#[tokio::test]
async fn operations_that_hang_keep_a_bounded_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalStorage::new(folder.path());
    let (mut away, begun) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..AT_ONCE + 3 {
        // As of a file server that went away.
        let ((server, answer), begun) = (std::sync::mpsc::channel::<()>(), begun.clone());
        away.push(server);
        let hang = move |_: &Path| {
            begun.fetch_add(1, Ordering::SeqCst);
            answer.recv().map_err(io::Error::other)
        };
        assert!(
            tokio::time::timeout(Duration::from_millis(20), storage.run("get", "a", hang))
                .await
                .is_err()
        );
    }
    assert_eq!(storage.places.available_permits(), 0);
    drop(away);
    let all = storage.places.acquire_many(AT_ONCE as u32);
    assert!(
        tokio::time::timeout(Duration::from_secs(30), all)
            .await
            .is_ok()
    );
    assert_eq!(
        begun.load(Ordering::SeqCst),
        AT_ONCE,
        "none of the given up ones was begun"
    );
}

#[tokio::test]
async fn an_unreadable_folder_is_unknown_not_absent() {
    let folder = tempfile::tempdir().unwrap();
    let (itself, key) = (folder.path().join("itself"), Key::new("a").unwrap());
    std::os::unix::fs::symlink(&itself, &itself).unwrap();
    let storage = LocalStorage::new(itself);
    assert!(
        storage
            .put(&key, "x".into(), PutMode::CreateOnly)
            .await
            .is_err()
    );
    assert!(storage.get(&key, 0..1).await.is_err());
    assert!(storage.head(&key).await.is_err());
    assert!(storage.list("", None).await.is_err());
}

#[tokio::test]
async fn what_is_no_file_is_no_object_and_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (root, storage) = (folder.path(), LocalStorage::new(folder.path()));
    let _ = storage
        .put(
            &Key::new("a/b/object").unwrap(),
            "x".into(),
            PutMode::CreateOnly,
        )
        .await;
    let put = storage
        .put(
            &Key::new("a/object").unwrap(),
            "x".into(),
            PutMode::CreateOnly,
        )
        .await
        .unwrap();
    assert_eq!(put, PutOutcome::Stored);
    mknodat(CWD, root.join("a/pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("a/socket")).unwrap();
    symlink("nowhere", root.join("a/dangling")).unwrap();
    symlink("itself", root.join("a/itself")).unwrap();
    symlink("/dev/null", root.join("a/device")).unwrap();
    for name in ["pipe", "socket", "dangling", "device"] {
        let key = Key::new(format!("a/{name}")).unwrap();
        let got = tokio::time::timeout(Duration::from_secs(9), storage.get(&key, 0..1)).await;
        assert_eq!((name, got.unwrap().unwrap()), (name, None));
        assert_eq!((name, storage.head(&key).await.unwrap()), (name, None));
        let put = storage
            .put(&key, "x".into(), PutMode::CreateOnly)
            .await
            .unwrap();
        assert_eq!(
            (name, put),
            (name, PutOutcome::AlreadyExists),
            "a stranger's thing stays"
        );
    }
    fs::write(
        root.join("a")
            .join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")),
        "x",
    )
    .unwrap();
    let listed = storage.list("a/", None).await.unwrap();
    assert_eq!(
        listed.iter().map(ListEntry::name).collect::<Vec<_>>(),
        ["a/object"]
    );
}

#[tokio::test]
async fn a_link_is_what_it_leads_to_and_one_that_leads_back_is_nothing() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (root, storage) = (folder.path(), LocalStorage::new(folder.path()));
    fs::create_dir(root.join("a")).unwrap();
    fs::write(elsewhere.path().join("object"), "x").unwrap();
    symlink(elsewhere.path(), root.join("a/moved")).unwrap();
    symlink(elsewhere.path().join("object"), root.join("a/object")).unwrap();
    symlink("..", root.join("a/up")).unwrap();
    symlink(".", root.join("a/here")).unwrap();
    let (mut walk, mut found) = (Walk::new(String::new()), Vec::new());
    while let Some(meta) = walk.next(&storage).await.unwrap() {
        found.push(meta.key.to_string());
    }
    assert_eq!(found, ["a/moved/object", "a/object"]);
}
