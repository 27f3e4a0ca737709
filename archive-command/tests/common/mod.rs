//! What both hook programs are tested with: a socket that answers as told, and a program in the place of `walden`.
#![allow(dead_code)] // Each test binary uses its part.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

#[path = "../../../src/wire.rs"]
pub mod wire;

use wire::{HookRequest, REQUEST_HEADER, Reply};

/// A folder of its own, with a space in its name; removed in the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let path =
            std::env::temp_dir().join(format!("walden hook {}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("hook.sock")
    }

    /// Makes it a server's data directory, with these files.
    pub fn data_directory(self, files: &[(&str, &[u8])]) -> Self {
        for folder in ["global", "pg_wal"] {
            fs::create_dir_all(self.0.join(folder)).unwrap();
        }
        for (file, content) in files.iter().chain(&[("global/pg_control", &[0; 20][..])]) {
            fs::write(self.0.join(file), content).unwrap();
        }
        self
    }

    /// A program that notes its arguments and exits with `code`.
    pub fn walden(&self, code: i32) -> PathBuf {
        let path = self.0.join("fake walden");
        let script = format!(
            "#!/bin/sh\nfor each; do echo \"$each\"; done > '{}/arguments'\nexit {code}\n",
            self.0.display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// What that program was started with; `None` when it was not.
    pub fn arguments(&self) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.0.join("arguments")).ok()?;
        Some(text.lines().map(str::to_string).collect())
    }

    /// Takes one request on the socket and says these bytes; gives the request.
    pub fn service(&self, answer: Vec<u8>) -> JoinHandle<HookRequest> {
        self.service_at(&self.socket(), answer)
    }

    /// Says this again and again, until nobody listens or for so many seconds; then gives the answer.
    pub fn service_that_works_on(
        &self,
        sign: Reply,
        seconds: u64,
        answer: Reply,
    ) -> JoinHandle<()> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let began = std::time::Instant::now();
            while stream.write_all(&sign.encode()).is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(200));
                if began.elapsed().as_secs() >= seconds {
                    return stream.write_all(&answer.encode()).unwrap();
                }
            }
        })
    }

    pub fn service_at(&self, path: &Path, answer: Vec<u8>) -> JoinHandle<HookRequest> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut header = [0; REQUEST_HEADER];
            stream.read_exact(&mut header).unwrap();
            let mut body = vec![0; HookRequest::body_len(&header).unwrap()];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(&answer).unwrap();
            HookRequest::decode(&header, &body).unwrap()
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program to test, with an environment that names no socket, configuration or cluster.
pub fn hook(program: &str, scratch: &Scratch) -> Command {
    let mut command = Command::new(program);
    let named = [
        &[wire::SOCKET_VARIABLE, wire::CONFIG_VARIABLE][..],
        &wire::IDENTITY_VARIABLES,
    ]
    .concat();
    for name in named {
        command.env_remove(name);
    }
    command.current_dir(&scratch.0);
    command
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the service says while it works, then its answer.
pub fn after_working(answer: Reply) -> Vec<u8> {
    [
        Reply::Working.encode(),
        Reply::Working.encode(),
        answer.encode(),
    ]
    .concat()
}
