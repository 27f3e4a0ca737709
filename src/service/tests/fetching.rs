use super::*;
use crate::postgres::archive::testing::{content, pusher, segment};
use crate::service::spool::Spool;

/// A service over an archive that has these files.
async fn archive(names: &[&str]) -> Running {
    let service = Running::start().await;
    for name in names {
        let bytes = match *name {
            "00000002.history" => b"1\t0/300100\tx\n".to_vec(),
            name => segment(name, 1),
        };
        pusher(&service.cluster)
            .push(&service.wal.ready(name, &bytes))
            .await
            .unwrap();
    }
    service
}

fn numbers(from: u32, to: u32) -> Vec<String> {
    (from..=to).map(number).collect()
}

fn names(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_is_fetched_ahead_and_handed_over() {
    let all = numbers(1, 7);
    let service = archive(&names(&all)).await;
    assert_eq!(service.fetch(&all[0]).await, Reply::Done);
    until("four lie ready", || service.spooled() == all[1..5]).await;
    service.settle().await;
    assert_eq!(service.spooled(), all[1..5], "no more than wal.prefetch");
    for name in &all {
        let gets = service.storage.calls(&format!("get {name}"));
        assert_eq!(service.fetch(name).await, Reply::Done);
        assert!(
            content(&service.destination()) == Some(segment(name, 1)),
            "{name}"
        );
        if all[1..5].contains(name) {
            assert_eq!(
                service.storage.calls(&format!("get {name}")),
                gets,
                "{name} was there already"
            );
        }
    }
    let spool = service.spool();
    service.stop().await;
    assert!(!spool.exists(), "a service that stops leaves no spool");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_pg_wal_is_the_same_server_with_the_same_spool() {
    let all = numbers(1, 3);
    let service = archive(&names(&all)).await;
    let link = service.wal.0.path().join("link");
    std::os::unix::fs::symlink(service.wal.folder(), &link).unwrap();
    assert_eq!(service.fetch(&all[0]).await, Reply::Done);
    until("two lie ready", || service.spooled() == all[1..3]).await;
    service.settle().await;
    let gets = service.storage.calls(&format!("get {}", all[1]));
    let destination = link
        .join("RECOVERYXLOG")
        .into_os_string()
        .as_bytes()
        .to_vec();
    let (name, end) = (all[1].as_bytes().to_vec(), Vec::new());
    let reply = ask(
        &service.socket,
        HookRequest::Fetch {
            whose: For::Socket,
            name,
            destination,
            end,
        },
    )
    .await;
    assert!(matches!(reply, Reply::Delivered { .. }), "{reply:?}");
    assert_eq!(
        service.storage.calls(&format!("get {}", all[1])),
        gets,
        "it was there already"
    );
    service.settle().await;
    assert!(service.spooled().contains(&all[2]), "nothing was cleared");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_the_plain_answer_comes_and_the_store_is_left_in_peace() {
    let all = numbers(1, 3);
    let service = archive(&names(&all)).await;
    for name in &all {
        assert_eq!(service.fetch(name).await, Reply::Done);
    }
    service.settle().await;
    let before = service.storage.all_calls();
    assert_eq!(service.fetch(&number(4)).await, Reply::Absent);
    assert_eq!(service.fetch("00000002.history").await, Reply::Absent);
    let proof = service.storage.all_calls() - before;
    let began = std::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(service.fetch(&number(4)).await, Reply::Absent);
        assert_eq!(service.fetch("00000002.history").await, Reply::Absent);
    }
    let seconds = began.elapsed().as_secs() as u32 + 2;
    let most = (proof + 2) * seconds;
    assert!(
        service.storage.all_calls() - before <= most,
        "however often it asks: a look and a proof a second each"
    );
    // The server goes on: what is polled for comes, and is never absent once it was acknowledged (P6).
    assert_eq!(service.fetch(&number(4)).await, Reply::Absent);
    pusher(&service.cluster)
        .push(&service.wal.segment(&number(4), 1))
        .await
        .unwrap();
    assert_eq!(service.fetch(&number(4)).await, Reply::Done);
    service.stop().await;
}

/// P3: what proves the end was looked at after the question.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_that_opened_just_now_is_no_end() {
    let service = archive(&[&number(1)]).await;
    assert_eq!(service.fetch(&number(1)).await, Reply::Done);
    assert_eq!(service.fetch(&number(2)).await, Reply::Absent);
    pusher(&service.cluster)
        .push(&service.wal.segment(&number(3), 1))
        .await
        .unwrap();
    let (late, missing) = (number(2), number(2));
    let (reply, ()) = tokio::join!(service.fetch(&missing), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        pusher(&service.cluster)
            .push(&service.wal.segment(&late, 1))
            .await
            .unwrap();
    });
    assert_eq!(
        reply,
        Reply::Done,
        "it waits for the segment that is missing"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fetching_ahead_follows_the_path_of_timelines() {
    let child = |each: u32| format!("0000000200000000{each:08X}");
    let wanted = [number(2), child(3), child(4)];
    let service = archive(&[
        &number(1),
        &number(2),
        &number(3),
        "00000002.history",
        &child(3),
        &child(4),
    ])
    .await;
    assert_eq!(service.fetch("00000002.history").await, Reply::Done);
    assert_eq!(service.fetch(&number(1)).await, Reply::Done);
    until("the child's segments lie ready", || {
        service.spooled() == wanted
    })
    .await;
    for name in &wanted {
        assert_eq!(service.fetch(name).await, Reply::Done);
        assert!(
            content(&service.destination()) == Some(segment(name, 1)),
            "{name}"
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_order_of_asking_drops_what_lay_ready() {
    let all = numbers(1, 20);
    let service = archive(&names(&all)).await;
    assert_eq!(service.fetch(&all[0]).await, Reply::Done);
    until("what follows lies ready", || service.spooled() == all[1..5]).await;
    assert_eq!(service.fetch(&all[14]).await, Reply::Done);
    until("what follows that lies ready, and nothing else", || {
        service.spooled() == all[15..19]
    })
    .await;
    // The last one again, as recovery does at its end.
    assert_eq!(service.fetch(&all[14]).await, Reply::Done);
    assert!(content(&service.destination()) == Some(segment(&all[14], 1)));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_and_damage_are_unknown_also_when_fetched_ahead() {
    let service = archive(&[&number(1), &number(3), &number(4)]).await;
    let key = service.cluster.layout.wal(&number(4).parse().unwrap());
    let half = service.storage.get(&key, 0..300).await.unwrap().unwrap();
    let _ = service
        .storage
        .put(&key, half.into(), PutMode::Overwrite)
        .await
        .unwrap();
    assert_eq!(service.fetch(&number(1)).await, Reply::Done);
    service.settle().await;
    let reply = text(&service.fetch(&number(2)).await);
    assert!(
        reply.contains(&number(2)) && reply.contains("missing") && reply.contains("HINT: "),
        "{reply}"
    );
    assert_eq!(service.fetch(&number(3)).await, Reply::Done);
    service.settle().await;
    let reply = text(&service.fetch(&number(4)).await);
    assert!(
        reply.contains(key.as_str()) && reply.contains("damaged"),
        "{reply}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_known_end_nothing_is_fetched() {
    let all = numbers(1, 6);
    let service = archive(&names(&all)).await;
    assert_eq!(
        service.fetch_until(&number(1), &number(3)).await,
        Reply::Done
    );
    until("the last one lies ready", || {
        service.spooled() == [number(2)]
    })
    .await;
    service.settle().await;
    assert_eq!(
        service.fetch_until(&number(3), &number(3)).await,
        Reply::Absent
    );
    assert_eq!(service.spooled(), [number(2)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_left_by_a_killed_service_is_never_served() {
    let service = archive(&[&number(1)]).await;
    std::fs::create_dir(service.spool()).unwrap();
    let stale = service
        .spool()
        .join(format!("0000000000000000-{}-1", number(1)));
    std::fs::write(&stale, "stale").unwrap();
    assert_eq!(service.fetch(&number(1)).await, Reply::Done);
    assert!(content(&service.destination()) == Some(segment(&number(1), 1)));
    until("it is removed", || !stale.exists()).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_in_place_for_a_hook_that_is_gone() {
    let service = archive(&[&number(1), &number(2)]).await;
    let destination = service.destination().into_os_string().into_encoded_bytes();
    let request = |name: String| HookRequest::Fetch {
        whose: For::Socket,
        name: name.into(),
        destination: destination.clone(),
        end: Vec::new(),
    };
    let mut killed = UnixStream::connect(&service.socket).unwrap();
    killed
        .write_all(&request(number(2)).encode().unwrap())
        .unwrap();
    until("it is looked for", || {
        service.storage.calls(&format!("get {}", number(2))) > 0
    })
    .await;
    drop(killed);
    let left = format!("{}-1", number(2));
    until("its file lies in the spool", || {
        std::fs::read_dir(service.spool()).is_ok_and(|mut all| {
            all.any(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .ends_with(&left)
            })
        })
    })
    .await;
    assert_eq!(service.fetch(&number(1)).await, Reply::Done);
    service.settle().await;
    assert!(content(&service.destination()) == Some(segment(&number(1), 1)));
    let spool = service.spool();
    service.stop().await;
    assert!(!spool.exists(), "what it left is removed, too");
}

/// A standby asks no longer than some seconds, and again.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_its_asker_left_waits_for_the_next() {
    let service = archive(&[&number(1), &number(7)]).await;
    service.storage.gets.send_replace(false);
    let (name, end) = (number(1).into_bytes(), Vec::new());
    let destination = service.destination().into_os_string().into_encoded_bytes();
    let request = HookRequest::Fetch {
        whose: For::Socket,
        name,
        destination,
        end,
    }
    .encode()
    .unwrap();
    let leave = async || {
        let mut impatient = UnixStream::connect(&service.socket).unwrap();
        impatient.write_all(&request).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    leave().await;
    leave().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.storage.gets.send_replace(true);
    until("it lies ready", || service.spooled() == [number(1)]).await;
    assert_eq!(service.fetch(&number(7)).await, Reply::Done);
    service.settle().await;
    let gets = service.storage.calls(&format!("get {}", number(1)));
    assert_eq!(service.fetch(&number(1)).await, Reply::Done);
    assert_eq!(
        service.storage.calls(&format!("get {}", number(1))),
        gets,
        "it was there already"
    );
    service.stop().await;
}

/// P3: at its start a standby chooses its timeline, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_hiccup_while_a_standby_starts_is_no_answer_about_a_timeline() {
    let service = archive(&["00000002.history"]).await;
    let data = service.wal.folder().parent().unwrap().to_path_buf();
    service.wal.belongs_to(7);
    std::fs::write(data.join("standby.signal"), "").unwrap();
    std::fs::write(
        data.join("postmaster.pid"),
        "1\n2\n3\n4\n5\n6\n7\nstarting\n",
    )
    .unwrap();
    service
        .storage
        .garbled
        .store(2, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(service.fetch("00000002.history").await, Reply::Done);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_made_anew_is_served_again() {
    let all = numbers(1, 3);
    let service = archive(&names(&all)).await;
    assert_eq!(service.fetch(&all[0]).await, Reply::Done);
    until("what follows lies ready", || service.spooled() == all[1..]).await;
    // Not while what comes after it is looked for.
    service.settle().await;
    std::fs::remove_dir_all(service.wal.folder()).unwrap();
    std::fs::create_dir(service.wal.folder()).unwrap();
    for name in [&all[1], &all[0], &all[2]] {
        assert_eq!(service.fetch(name).await, Reply::Done);
        assert!(
            content(&service.destination()) == Some(segment(name, 1)),
            "{name}"
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_told_later_holds_for_what_lies_ready() {
    let all = numbers(1, 3);
    let service = archive(&names(&all)).await;
    assert_eq!(service.fetch(&all[0]).await, Reply::Done);
    until("what follows lies ready", || service.spooled() == all[1..]).await;
    assert_eq!(service.fetch_until(&all[1], &all[1]).await, Reply::Absent);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_cleared_of_its_own_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut spools = [(), ()].map(|()| Spool::beside(folder.path()).unwrap());
    let name = number(1).parse().unwrap();
    let places: Vec<PathBuf> = spools.iter_mut().map(|spool| spool.place(&name)).collect();
    spools[0].make().unwrap();
    places
        .iter()
        .for_each(|place| std::fs::write(place, "x").unwrap());
    spools[0].clear();
    assert!(!places[0].exists() && places[1].exists());
    spools[1].clear();
    assert!(!spools[1].exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_cannot_be_written_is_told() {
    let service = archive(&[&number(1)]).await;
    let request = HookRequest::Fetch {
        whose: For::Socket,
        name: number(1).into(),
        destination: b"/nowhere/at/all".to_vec(),
        end: Vec::new(),
    };
    let reply = text(&ask(&service.socket, request).await);
    assert!(reply.contains("HINT: "), "{reply}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_data_directory_is_neither_answered_nor_archived() {
    let service = archive(&names(&numbers(1, 2))).await;
    let ours = service.cluster.description.system_identifier.0;
    service.wal.belongs_to(ours + 1);
    for name in [number(1), number(9)] {
        let reply = text(&service.fetch(&name).await);
        assert!(
            reply.contains("system identifier") && reply.contains("HINT: "),
            "{reply}"
        );
    }
    // What another cluster archives is refused, too: a history file does not say whose it is.
    let history = service.wal.ready(
        "00000002.history",
        b"1\t0/300000\tno recovery target specified\n",
    );
    assert!(text(&service.push(&history).await).contains("system identifier"));
    service.wal.belongs_to(ours);
    assert_eq!(service.push(&history).await, Reply::Done);
    assert_eq!(service.fetch(&number(9)).await, Reply::Absent);
    service.stop().await;
}
