//! The service itself, as it is installed, started and watched from outside.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::http::{Connection, path};

/// Between two looks at a service that starts.
const LOOK: Duration = Duration::from_millis(5);
/// Clock ticks of /proc in a second (USER_HZ).
const TICKS: f64 = 100.0;

/// How the service is started.
pub struct Settings {
    config: PathBuf,
    pub cache: PathBuf,
    log: PathBuf,
    pub address: SocketAddr,
}

impl Settings {
    /// For a repository, with everything else in `folder`.
    pub fn write(folder: &Path, repository: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let (address, cache) = (free.expect("a free port"), folder.join("cache"));
        let text = format!(
            "repository.url = \"file://{}\"\ncluster.name = \"main\"\nservice.socket = \"{}\"\ncatalog.cache = \"{}\"\n\
             catalog.names_interval = \"0s\"\nhttp.listen = \"{address}\"\nhttp.spool = \"{}\"\n",
            repository.display(),
            folder.join("sock").display(),
            cache.display(),
            folder.join("spool").display(),
        );
        let config = folder.join("walden.toml");
        fs::write(&config, text).expect("a configuration");
        Self {
            config,
            cache,
            log: folder.join("log"),
            address,
        }
    }

    pub fn start(&self) -> Service {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_walden"));
        command
            .arg("--config")
            .arg(&self.config)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let started = Instant::now();
        Service {
            child: command.spawn().expect("walden serve"),
            started,
            address: self.address,
            log: self.log.clone(),
        }
    }

    /// Bytes of the index.
    pub fn cache_bytes(&self) -> u64 {
        let files = fs::read_dir(&self.cache).expect("the cache");
        files
            .map(|file| {
                file.and_then(|file| file.metadata())
                    .map_or(0, |meta| meta.len())
            })
            .sum()
    }
}

/// A running service; ended by SIGTERM when it goes away.
pub struct Service {
    child: Child,
    pub started: Instant,
    address: SocketAddr,
    log: PathBuf,
}

impl Service {
    /// Waits until what is asked for is answered, and the answer is `right`; how long that took since the start.
    pub fn until(&mut self, path: &str, right: impl Fn(&serde_json::Value) -> bool) -> Duration {
        let mut connection = None;
        loop {
            if let Some(status) = self.child.try_wait().expect("the service's state") {
                panic!(
                    "walden serve ended with {status}:\n{}",
                    fs::read_to_string(&self.log).unwrap_or_default()
                );
            }
            connection = connection.or_else(|| Connection::open(self.address).ok());
            if let Some(connection) = &mut connection {
                let answer = connection.get(path);
                if answer.status == 200 && right(&answer.json()) {
                    return self.started.elapsed();
                }
            }
            sleep(LOOK);
        }
    }

    /// Waits until all of the repository was looked at and all of `segments` are indexed.
    pub fn until_indexed(&mut self, segments: u64) -> Duration {
        self.until(&path("events?kind=database-drop&limit=1"), |answer| {
            let indexed = &answer["indexed"];
            indexed["looked_at"].is_string()
                && indexed["segments"] == segments
                && indexed["not_indexed"] == 0
        })
    }

    /// MiB of memory: now, and at most so far.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the service's status");
        let field = |name| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("a field of memory");
            line.split_whitespace()
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .expect("a number")
                >> 10
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Seconds of processor time so far.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .expect("the service's times");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        fields[11..13]
            .iter()
            .map(|ticks| ticks.parse::<f64>().expect("a number"))
            .sum::<f64>()
            / TICKS
    }

    /// Ends it; how long that took.
    pub fn stop(mut self) -> Duration {
        let before = Instant::now();
        self.end();
        before.elapsed()
    }

    fn end(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}
