use super::*;
use crate::postgres::archive::testing::{pusher, segment};
use crate::postgres::load::load_wal;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_is_stored_ahead_and_answered_at_once() {
    let service = Running::start().await;
    let paths: Vec<PathBuf> = (1..=6)
        .map(|each| service.wal.segment(&number(each), 1))
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(service.push(&paths[0]).await, Reply::Done);
    until("four are stored ahead", || {
        (2..=5).all(|each| service.storage.calls(&format!("put {}", number(each))) == 1)
    })
    .await;
    service.settle().await;
    assert!(
        !service.is_stored(&number(6)).await,
        "no more than wal.look_ahead"
    );
    assert_eq!(service.push(&paths[1]).await, Reply::Done);
    assert_eq!(service.storage.calls(&format!("put {}", number(2))), 1);
    assert_eq!(service.storage.calls(&format!("get {}", number(2))), 0);
    until("one more is stored ahead", || {
        service.storage.calls(&format!("put {}", number(6))) == 1
    })
    .await;
    for path in &paths[2..] {
        assert_eq!(service.push(path).await, Reply::Done);
    }
    for each in 1..=6 {
        assert!(service.is_stored(&number(each)).await);
        assert_eq!(service.storage.calls(&format!("put {}", number(each))), 1);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_ready_between_calls_is_stored_ahead() {
    let service = Running::start().await;
    assert_eq!(
        service.push(&service.wal.segment(&number(1), 1)).await,
        Reply::Done
    );
    service.settle().await;
    service.wal.segment(&number(2), 1);
    until("it is stored without being asked for", || {
        service.storage.calls(&format!("put {}", number(2))) == 1
    })
    .await;
    service.settle().await;
    assert_eq!(
        service.push(&service.wal.folder().join(number(2))).await,
        Reply::Done
    );
    assert_eq!(
        service.storage.calls(&format!("put {}", number(2))),
        1,
        "proven by the file itself"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_ahead_and_vanished_from_the_repository_is_stored_again() {
    let service = Running::start().await;
    let first = service.wal.segment(&number(1), 1);
    let second = service.wal.segment(&number(2), 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(service.push(&first).await, Reply::Done);
    until("it is stored ahead", || {
        service.storage.calls(&format!("put {}", number(2))) == 1
    })
    .await;
    service.settle().await;
    let key = service.cluster.layout.wal(&number(2).parse().unwrap());
    service.storage.inner.delete(&key).await.unwrap();
    assert_eq!(service.push(&second).await, Reply::Done);
    assert!(
        service.is_stored(&number(2)).await,
        "acknowledged means stored (P1)"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_aside_is_told_and_does_not_count_as_there_because_of_its_name() {
    let service = Running::start().await;
    let name = format!("{}.partial", number(1));
    let push = async |seed| {
        let path = service.wal.ready(&name, &segment(&number(1), seed));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(service.push(&path).await, Reply::Done);
        path
    };
    push(1).await;
    let path = push(2).await;
    service.settle().await;
    let aside = async || load_wal(&service.cluster).await.unwrap().aside;
    service
        .storage
        .inner
        .delete(&service.cluster.layout.wal(&aside().await[0]))
        .await
        .unwrap();
    assert_eq!(service.push(&path).await, Reply::Done);
    assert_eq!(aside().await.len(), 1, "acknowledged means stored (P1)");
    let Reply::Status(status) = ask(&service.socket, HookRequest::Status).await else {
        panic!("no status")
    };
    let status: crate::service::status::ServiceStatus = serde_json::from_slice(&status).unwrap();
    assert_eq!(status.archiving.aside.count, 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_after_it_was_stored_ahead_is_looked_at_again() {
    let service = Running::start().await;
    let first = service.wal.segment(&number(1), 1);
    let second = service.wal.segment(&number(2), 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(service.push(&first).await, Reply::Done);
    until("it is stored ahead", || {
        service.storage.calls(&format!("put {}", number(2))) == 1
    })
    .await;
    service.settle().await;
    std::fs::write(&second, segment(&number(2), 9)).unwrap();
    let reply = text(&service.push(&second).await);
    assert!(
        reply.contains("archived already with other content") && reply.contains("HINT: "),
        "{reply}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_files_go_first_and_every_kind_is_stored() {
    let service = Running::start_with(|options| options.workers = 1).await;
    let first = service.wal.segment(&number(1), 1);
    service.wal.segment(&number(2), 1);
    service
        .wal
        .ready(&format!("{}.partial", number(3)), &segment(&number(3), 1));
    service.wal.ready("00000002.history", b"1\t0/300100\tx\n");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(service.push(&first).await, Reply::Done);
    let partial = format!("{}.partial", number(3));
    until("all are stored", || {
        service.storage.calls(&format!("put {partial}")) == 1
    })
    .await;
    service.settle().await;
    let mut stored = service.storage.put_in_order();
    // What the server asks for is stored beside what is stored ahead.
    stored.retain(|name| *name != number(1));
    assert_eq!(stored, ["00000002.history".into(), number(2), partial]);
    assert!(service.is_stored(&number(1)).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_stops_storing_ahead_until_the_archiver_gets_on() {
    let service = Running::start().await;
    let wrong = service.wal.ready(&number(1), &[1; 1 << 20]);
    let second = service.wal.segment(&number(2), 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let reply = text(&service.push(&wrong).await);
    assert!(
        reply.contains(&number(1)) && reply.contains("HINT: "),
        "{reply}"
    );
    service.settle().await;
    let before = service.storage.all_calls();
    service.wal.segment(&number(3), 1);
    service.settle().await;
    assert_eq!(
        service.storage.all_calls(),
        before,
        "nothing is stored ahead of a file that is refused"
    );
    assert_eq!(service.push(&second).await, Reply::Done);
    until("it goes on", || {
        service.storage.calls(&format!("put {}", number(3))) == 1
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_longer_than_what_is_remembered_drains() {
    let service = Running::start().await;
    let paths: Vec<PathBuf> = (1..=150)
        .map(|each| service.wal.segment(&number(each), 1))
        .collect();
    for path in &paths {
        assert_eq!(service.push(path).await, Reply::Done);
        let name = path.file_name().unwrap().to_str().unwrap();
        let status = service.wal.folder().join("archive_status");
        std::fs::rename(
            status.join(format!("{name}.ready")),
            status.join(format!("{name}.done")),
        )
        .unwrap();
    }
    for each in 1..=150 {
        assert!(service.is_stored(&number(each)).await);
        assert!(
            service.storage.calls(&format!("put {}", number(each))) <= 2,
            "{}",
            number(each)
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_larger_than_the_budget_go_one_by_one() {
    let service = Running::start_with(|options| options.memory = 1).await;
    let paths: Vec<PathBuf> = (1..=6)
        .map(|each| service.wal.segment(&number(each), 1))
        .collect();
    service.storage.open.send_replace(false);
    let (socket, path) = (
        service.socket.clone(),
        paths[0].as_os_str().as_bytes().to_vec(),
    );
    let first = tokio::spawn(async move {
        ask(
            &socket,
            HookRequest::Push {
                whose: For::Socket,
                path,
            },
        )
        .await
    });
    until("one is being stored", || {
        !service.storage.put_in_order().is_empty()
    })
    .await;
    service.settle().await;
    // Which one went first is the scheduler's choice: the one asked for and those ahead of it start side by side.
    assert_eq!(
        service.storage.put_in_order().len(),
        1,
        "the others wait for their turn"
    );
    service.storage.open.send_replace(true);
    assert_eq!(first.await.unwrap(), Reply::Done);
    for path in &paths[1..] {
        assert_eq!(service.push(path).await, Reply::Done);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_data_directory_known_a_backlog_is_stored_before_the_first_call() {
    let wal = PgWal::new();
    for each in 1..=3 {
        wal.segment(&number(each), 1);
    }
    // A file written this very moment could still change without a trace: it would be looked at again.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let service = Running::start_with(|options| options.pg_wal = Some(wal.folder())).await;
    until("all are stored", || {
        (1..=3).all(|each| service.storage.calls(&format!("put {}", number(each))) == 1)
    })
    .await;
    service.settle().await;
    for each in 1..=3 {
        assert_eq!(
            service.push(&wal.folder().join(number(each))).await,
            Reply::Done
        );
        assert_eq!(service.storage.calls(&format!("put {}", number(each))), 1);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_damaged_on_their_way_are_read_once_more_and_an_object_that_is_damaged_is_no_success()
{
    let service = Running::start_with(|options| options.look_ahead = 0).await;
    let (stored, path) = (
        number(1),
        service.wal.ready(&number(1), &segment(&number(1), 1)),
    );
    pusher(&service.cluster).push(&path).await.unwrap();
    service.storage.garbled.store(1, Ordering::SeqCst);
    assert_eq!(
        service.push(&path).await,
        Reply::Done,
        "it had been stored before"
    );
    service.storage.garbled.store(1, Ordering::SeqCst);
    assert_eq!(service.fetch(&stored).await, Reply::Done);
    let again = service.wal.ready(&number(2), &segment(&number(2), 1));
    pusher(&service.cluster).push(&again).await.unwrap();
    service.storage.garbled.store(2, Ordering::SeqCst);
    let reply = text(&service.push(&again).await);
    assert!(
        reply.contains("damaged") && reply.contains("HINT: "),
        "{reply}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_known_also_when_nothing_is_stored_ahead() {
    let service = Running::start_with(|options| options.look_ahead = 0).await;
    let status = async || match ask(&service.socket, HookRequest::Status).await {
        Reply::Status(json) => {
            serde_json::from_slice::<crate::service::status::ServiceStatus>(&json).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(status().await.archiving.backlogs, [], "nobody asked yet");
    let first = service.wal.segment(&number(1), 1);
    service.wal.segment(&number(2), 1);
    assert_eq!(service.push(&first).await, Reply::Done);
    let backlogs = status().await.archiving.backlogs;
    assert_eq!(
        (backlogs.len(), backlogs[0].files, backlogs[0].stored),
        (1, 2, 1)
    );
    assert!(!service.is_stored(&number(2)).await);
    // The speed of before is none while pushes fail.
    assert_eq!(
        service.push(&service.wal.folder().join(number(2))).await,
        Reply::Done
    );
    let wrong = service.wal.ready(&number(3), &[1; 1 << 20]);
    let archiving = status().await.archiving;
    assert!(
        archiving.backlogs[0]
            .eta_seconds
            .is_some_and(|seconds| seconds > 0.0),
        "{archiving:?}"
    );
    assert!(text(&service.push(&wrong).await).contains(&number(3)));
    let archiving = status().await.archiving;
    assert!(
        archiving.resting && archiving.files_per_second.is_some(),
        "{archiving:?}"
    );
    assert_eq!(archiving.backlogs[0].eta_seconds, None);
    service.stop().await;
}

/// Restored or cloned again at the same place: moved away first, or removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_made_anew_in_place_is_watched_like_the_first() {
    let service = Running::start().await;
    let asked = |each| service.wal.folder().join(number(each));
    for (round, moved) in [(0, true), (1, false)] {
        let first = 10 * round + 1;
        service.wal.segment(&number(first), 1);
        assert_eq!(service.push(&asked(first)).await, Reply::Done);
        service.settle().await;
        match moved {
            true => std::fs::rename(
                service.wal.folder(),
                service.wal.folder().with_extension("old"),
            )
            .unwrap(),
            false => std::fs::remove_dir_all(service.wal.folder()).unwrap(),
        }
        std::fs::create_dir_all(service.wal.folder().join("archive_status")).unwrap();
        service.wal.segment(&number(first + 1), 1);
        assert_eq!(service.push(&asked(first + 1)).await, Reply::Done);
        service.settle().await;
        service.wal.segment(&number(first + 2), 1);
        let next = format!("put {}", number(first + 2));
        until("the next one is stored without being asked for", || {
            service.storage.calls(&next) == 1
        })
        .await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_ahead_of_another_folder_at_this_place_is_stored_again() {
    let service = Running::start().await;
    let first = service.wal.segment(&number(1), 1);
    service.wal.segment(&number(2), 1);
    assert_eq!(service.push(&first).await, Reply::Done);
    until("one is stored ahead", || {
        service.storage.calls(&format!("put {}", number(2))) == 1
    })
    .await;
    service.settle().await;
    std::fs::rename(
        service.wal.folder(),
        service.wal.folder().with_extension("old"),
    )
    .unwrap();
    std::fs::create_dir_all(service.wal.folder().join("archive_status")).unwrap();
    let first = service.wal.segment(&number(1), 1);
    let second = service.wal.segment(&number(2), 9);
    assert_eq!(service.push(&first).await, Reply::Done);
    until("the other one is tried ahead", || {
        service.storage.calls(&format!("put {}", number(2))) == 2
    })
    .await;
    let reply = text(&service.push(&second).await);
    assert!(
        reply.contains("archived already with other content"),
        "{reply}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_the_data_directory_makes_no_second_server() {
    let (wal, links) = (PgWal::new(), tempfile::tempdir().unwrap());
    let link = links.path().join("data");
    std::os::unix::fs::symlink(wal.0.path(), &link).unwrap();
    let service = Running::start_with(|options| options.pg_wal = Some(link.join("pg_wal"))).await;
    // A file that the first scan finds while it is written may be stored twice: it could have changed without a trace.
    service.settle().await;
    for each in 1..=12 {
        wal.segment(&number(each), 1);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    for each in 1..=12 {
        // As PostgreSQL names it: by its working directory, in which there are no links.
        assert_eq!(
            service.push(&wal.folder().join(number(each))).await,
            Reply::Done
        );
    }
    service.settle().await;
    for each in 1..=12 {
        assert_eq!(
            service.storage.calls(&format!("put {}", number(each))),
            1,
            "{each}"
        );
    }
    let Reply::Status(status) = ask(&service.socket, HookRequest::Status).await else {
        panic!("no status")
    };
    let status: crate::service::status::ServiceStatus = serde_json::from_slice(&status).unwrap();
    assert_eq!(status.archiving.backlogs.len(), 1);
    service.stop().await;
}
