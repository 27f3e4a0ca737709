use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::*;
use crate::http::listen::HttpConnections;

/// A door behind a socket.
struct Open {
    address: SocketAddr,
    door: Door,
    stopping: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Open {
    async fn new() -> Self {
        let door = Door::with("", &[]).await;
        let connections = HttpConnections::bind("127.0.0.1:0".parse().unwrap(), None, 4)
            .await
            .unwrap();
        let address = connections.address().unwrap();
        let stopping = watch::Sender::new(false);
        let serving = tokio::spawn(connections.run(door.router.clone(), stopping.subscribe()));
        Self {
            address,
            door,
            stopping,
            serving,
        }
    }

    /// Says these bytes on a connection of its own; what is answered until it is closed.
    async fn say(&self, bytes: Vec<u8>) -> String {
        let address = self.address;
        let exchange = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            // It may be closed while we still speak.
            let _ = stream.write_all(&bytes);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }

    async fn stop(self) {
        self.stopping.send_replace(true);
        self.serving.await.unwrap().unwrap();
        assert!(TcpStream::connect(self.address).is_err());
        drop(self.door);
    }
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_survived() {
    let open = Open::new().await;
    for garbage in [
        b"\0\0\0\0".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        vec![0xFF; 1 << 20],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03".to_vec(),
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
    ] {
        let answer = open.say(garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let long_path = open
        .say(request(&format!("/{}", "a".repeat(1 << 20))))
        .await;
    assert!(
        long_path.is_empty() || long_path.starts_with("HTTP/1.1 4"),
        "{long_path}"
    );
    let headers = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    assert!(
        open.say(headers.into_bytes())
            .await
            .starts_with("HTTP/1.1 431")
    );
    assert!(
        open.say(request("/healthz"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    open.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_all_places_and_says_nothing_is_given_up() {
    let open = Open::new().await;
    let silent: Vec<TcpStream> = (0..4)
        .map(|_| TcpStream::connect(open.address).unwrap())
        .collect();
    // Half a request is none.
    (&silent[0])
        .write_all(b"GET /healthz HTTP/1.1\r\n")
        .unwrap();
    assert!(
        open.say(request("/healthz"))
            .await
            .starts_with("HTTP/1.1 200"),
        "it waits its turn"
    );
    open.stop().await;
}
