//! An HTTP server that notes what it is asked, and answers as it is told to.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::http::Message;

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    With(u16),
    /// The same, with a body.
    Saying(u16, &'static str),
    /// They are taken, and nothing comes back.
    Never,
}

#[derive(Debug)]
struct Shared {
    answers: Answers,
    requests: Vec<Message>,
    /// Connections that get no answer, kept open.
    silent: Vec<TcpStream>,
}

/// The server; it ends with the test process.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Receiver {
    /// Listens on a port of its own.
    pub fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("address").port();
        let shared = Arc::new(Mutex::new(Shared {
            answers,
            requests: Vec::new(),
            silent: Vec::new(),
        }));
        let own = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = own.clone();
                thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn answer_with(&self, answers: Answers) {
        self.shared.lock().expect("lock").answers = answers;
    }

    /// Requests for a path so far.
    pub fn requests(&self, path: &str) -> Vec<Message> {
        let shared = self.shared.lock().expect("lock");
        let is_meant = |request: &&Message| request.start.split(' ').nth(1) == Some(path);
        shared.requests.iter().filter(is_meant).cloned().collect()
    }

    /// Their bodies as JSON.
    pub fn bodies(&self, path: &str) -> Vec<serde_json::Value> {
        let requests = self.requests(path);
        let read = |request: &Message| serde_json::from_slice(&request.body).expect("a JSON body");
        requests.iter().map(read).collect()
    }
}

fn answer(stream: TcpStream, shared: &Mutex<Shared>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let Ok(Some(mut request)) = Message::read_head(&mut reader) else {
        return;
    };
    if request.read_body(&mut reader).is_err() {
        return;
    }
    let (mut stream, mut shared) = (stream, shared.lock().expect("lock"));
    let (status, body) = match shared.answers {
        Answers::Never => return shared.silent.push(stream),
        Answers::With(status) => (status, ""),
        Answers::Saying(status, body) => (status, body),
    };
    if status < 300 {
        shared.requests.push(request);
    }
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(text.as_bytes());
}
