use std::io::Read;

use super::*;

fn by_file(file: &Path, variables: &[&str]) -> For {
    let variables = variables
        .iter()
        .map(|variable| variable.as_bytes().to_vec())
        .collect();
    For::Configuration {
        file: file.as_os_str().as_bytes().to_vec(),
        variables,
    }
}

async fn push(service: &Running, whose: For, path: &Path) -> Reply {
    ask(
        &service.socket,
        HookRequest::Push {
            whose,
            path: path.as_os_str().as_bytes().to_vec(),
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_means_this_cluster_is_answered_however_the_repository_is_called() {
    let service = Running::start().await;
    let folder = service.wal.0.path();
    std::fs::create_dir(folder.join("repository")).unwrap();
    std::os::unix::fs::symlink("repository", folder.join("link")).unwrap();
    let _ = configured(&folder.join("linked.toml"), "main", &folder.join("link"));
    let _ = configured(
        &folder.join("other.toml"),
        "other",
        &folder.join("elsewhere"),
    );
    let url = format!(
        "WALDEN_REPOSITORY__URL=file://{}",
        folder.join("repository").display()
    );
    for whose in [
        For::Socket,
        by_file(&folder.join("hook.toml"), &[]),
        by_file(&folder.join("linked.toml"), &[]),
        by_file(
            &folder.join("other.toml"),
            &[&url, "WALDEN_CLUSTER__NAME=main"],
        ),
        by_file(Path::new("/dev/null"), &[&url]),
    ] {
        assert_eq!(
            ask(
                &service.socket,
                HookRequest::Serves {
                    whose: whose.clone()
                }
            )
            .await,
            Reply::Done,
            "{whose:?}"
        );
        assert_eq!(
            push(&service, whose, &service.wal.segment(&number(1), 1)).await,
            Reply::Done
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_means_another_cluster_or_repository_is_sent_away() {
    let service = Running::start().await;
    let folder = service.wal.0.path();
    let ours = folder.join("hook.toml");
    let _ = configured(
        &folder.join("copy.toml"),
        "copy",
        &folder.join("repository"),
    );
    let _ = configured(&folder.join("second.toml"), "main", &folder.join("second"));
    std::fs::write(folder.join("broken.toml"), "repository.url = ").unwrap();
    let path = service.wal.segment(&number(1), 1);
    for (whose, words) in [
        (
            by_file(&folder.join("copy.toml"), &[]),
            "the request is for cluster \"copy\"",
        ),
        (by_file(&folder.join("second.toml"), &[]), "/second"),
        (by_file(&ours, &["WALDEN_CLUSTER__NAME=b"]), "cluster \"b\""),
        (
            by_file(&ours, &["WALDEN_REPOSITORY__URL=s3://bucket/x"]),
            "s3://bucket/x",
        ),
        (by_file(&folder.join("none.toml"), &[]), "does not exist"),
        (by_file(&folder.join("broken.toml"), &[]), "not valid TOML"),
        (
            by_file(&ours, &["WALDEN_REPOSITORY__URL=x"]),
            "cannot be read",
        ),
    ] {
        let destination = service.destination().into_os_string().as_bytes().to_vec();
        let fetch = HookRequest::Fetch {
            whose: whose.clone(),
            name: number(1).into(),
            destination,
            end: Vec::new(),
        };
        for request in [
            fetch,
            HookRequest::Serves {
                whose: whose.clone(),
            },
        ] {
            let Reply::NotMine(text) = ask(&service.socket, request).await else {
                panic!("{whose:?} is not sent away")
            };
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains(words), "{text}");
        }
        assert!(matches!(
            push(&service, whose, &path).await,
            Reply::NotMine(_)
        ));
    }
    assert!(!service.is_stored(&number(1)).await && !service.spool().exists());
    service.stop().await;
}

/// Version 1 of the protocol did not say for whom a request is: its hooks do their work themselves.
#[tokio::test(flavor = "multi_thread")]
async fn the_hooks_of_an_older_version_get_no_answer() {
    let service = Running::start().await;
    let path = service
        .wal
        .segment(&number(1), 1)
        .into_os_string()
        .into_encoded_bytes();
    let header = |kind: u8, lengths: [usize; 3]| {
        let lengths = lengths
            .iter()
            .flat_map(|length| (*length as u16).to_le_bytes());
        [b'W', b'H', b'K', 1, kind, 0]
            .into_iter()
            .chain(lengths)
            .collect::<Vec<u8>>()
    };
    let push = [header(1, [path.len(), 0, 0]), path].concat();
    let fetch = [
        header(2, [24, 2, 0]),
        number(1).into_bytes(),
        b"/x".to_vec(),
    ]
    .concat();
    for request in [push, fetch, header(3, [0; 3])] {
        let socket = service.socket.clone();
        let exchange = move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.write_all(&request).unwrap();
            let mut answer = Vec::new();
            // What was not read when the other side closed resets the connection.
            let _ = stream.read_to_end(&mut answer);
            answer
        };
        assert_eq!(tokio::task::spawn_blocking(exchange).await.unwrap(), b"");
    }
    assert!(!service.is_stored(&number(1)).await);
    service.stop().await;
}
