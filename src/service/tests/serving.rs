use std::io::Read;

use super::*;
use crate::postgres::archive::testing::segment;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_finished_before_the_service_stops() {
    let service = Running::start_with(|options| options.look_ahead = 0).await;
    let path = service.wal.segment(&number(1), 1);
    service.storage.open.send_replace(false);
    let (socket, asked) = (service.socket.clone(), path.clone());
    let push = tokio::spawn(async move {
        ask(
            &socket,
            HookRequest::Push {
                whose: For::Socket,
                path: asked.as_os_str().as_bytes().to_vec(),
            },
        )
        .await
    });
    until("the push waits for the store", || {
        service.storage.calls(&format!("put {}", number(1))) == 1
    })
    .await;
    let (storage, cluster) = (service.storage.clone(), service.cluster.clone());
    service.stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!service.service.is_finished(), "it waits");
    storage.open.send_replace(true);
    assert_eq!(push.await.unwrap(), Reply::Done);
    service.service.await.unwrap().unwrap();
    let key = cluster.layout.wal(&number(1).parse().unwrap());
    assert!(storage.inner.head(&key).await.unwrap().is_some());
    assert!(!service.socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_ever() {
    let service = Running::start_with(|options| {
        options.look_ahead = 0;
        options.timeout = Duration::from_millis(300);
    })
    .await;
    let path = service.wal.segment(&number(1), 1);
    service.storage.open.send_replace(false);
    let reply = service.push(&path).await;
    assert!(text(&reply).contains("did not answer within"), "{reply:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_places_are_all_answered() {
    let service = Running::start().await;
    let paths: Vec<PathBuf> = (1..=20)
        .map(|each| service.wal.segment(&number(each), 1))
        .collect();
    let mut asks = tokio::task::JoinSet::new();
    for path in paths {
        let socket = service.socket.clone();
        asks.spawn(async move {
            ask(
                &socket,
                HookRequest::Push {
                    whose: For::Socket,
                    path: path.as_os_str().as_bytes().to_vec(),
                },
            )
            .await
        });
    }
    assert!(
        asks.join_all()
            .await
            .into_iter()
            .all(|reply| reply == Reply::Done)
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_socket_is_told_and_survived() {
    let service = Running::start().await;
    let say = |bytes: Vec<u8>| {
        let socket = service.socket.clone();
        let exchange = move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            Reply::read_from(&mut &answer[..])
        };
        tokio::task::spawn_blocking(exchange)
    };
    assert!(
        say(Vec::new()).await.unwrap().is_err(),
        "a probe gets no answer"
    );
    let other_version = b"WHK\x09\x01\0\x01\0\0\0\0\0x".to_vec();
    assert!(
        say(other_version).await.unwrap().is_err(),
        "the hook takes it for no service"
    );
    for garbage in [
        b"G".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xFF; 100_000],
    ] {
        let _ = say(garbage).await.unwrap();
    }
    let relative = HookRequest::Push {
        whose: For::Socket,
        path: b"pg_wal/x".to_vec(),
    };
    assert!(text(&ask(&service.socket, relative).await).contains("not absolute"));
    let no_wal = HookRequest::Push {
        whose: For::Socket,
        path: b"/etc/passwd".to_vec(),
    };
    assert!(text(&ask(&service.socket, no_wal).await).contains("passwd"));
    let no_name = HookRequest::Fetch {
        whose: For::Socket,
        name: b"passwd".to_vec(),
        destination: b"/tmp/x".to_vec(),
        end: Vec::new(),
    };
    assert!(text(&ask(&service.socket, no_name).await).contains("HINT: "));
    assert_eq!(
        service.push(&service.wal.segment(&number(1), 1)).await,
        Reply::Done
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_store_the_same_files_at_once() {
    let one = Running::start().await;
    let socket = one.wal.0.path().join("second.sock");
    let (stop, stopped) = oneshot::channel::<()>();
    let second = tokio::spawn(run(
        one.cluster.clone(),
        identity(&socket),
        options(&socket),
        async || None,
        async { drop(stopped.await) },
    ));
    until("the second listens", || socket.exists()).await;
    let paths: Vec<PathBuf> = (1..=12)
        .map(|each| one.wal.segment(&number(each), 1))
        .collect();
    for path in &paths {
        let request = HookRequest::Push {
            whose: For::Socket,
            path: path.as_os_str().as_bytes().to_vec(),
        };
        let replies = tokio::join!(ask(&one.socket, request.clone()), ask(&socket, request));
        assert_eq!(replies, (Reply::Done, Reply::Done));
    }
    for each in 1..=12 {
        assert!(one.is_stored(&number(each)).await);
    }
    stop.send(()).unwrap();
    second.await.unwrap().unwrap();
    let wal = one.stop().await;
    assert_eq!(
        std::fs::read(wal.folder().join(number(1))).unwrap(),
        segment(&number(1), 1)
    );
}
