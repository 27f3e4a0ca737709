use std::path::{Path, PathBuf};

use rustix::process::Signal;
use walden::postgres::replication::{Connection, Mode};

use super::connect;
use crate::harness::{Cluster, Major, Scratch};

/// A cluster with checksums that listens on loopback, too, and has a pg_hba.conf of the test's.
pub struct Server {
    // Stopped before its folder goes.
    pub cluster: Cluster,
    pub scratch: Scratch,
    pub major: u32,
}

impl Server {
    /// With settings (`name = value` lines) and, unless empty, these lines as pg_hba.conf.
    pub fn start(major: &Major, settings: &str, hba: &str) -> Self {
        let scratch = Scratch::new("repl");
        let mut builder = Cluster::builder(major.clone())
            .checksums(true)
            .on_loopback();
        for line in settings.lines() {
            let (name, value) = line.split_once(" = ").expect("name = value");
            builder = builder.setting(name, value);
        }
        if !hba.is_empty() {
            let path = scratch.write("hba.conf", hba);
            builder = builder.setting("hba_file", path.to_str().expect("a UTF-8 path"));
        }
        let cluster = builder.start(&scratch);
        Self {
            cluster,
            scratch,
            major: major.number,
        }
    }

    pub fn data(&self) -> &Path {
        &self.cluster.data
    }

    pub fn port(&self) -> u32 {
        self.cluster.port
    }

    /// By the Unix socket, as superuser.
    pub fn dsn(&self) -> String {
        self.cluster.dsn()
    }

    /// By loopback; the user is still to be named.
    pub fn tcp(&self) -> String {
        format!("host=127.0.0.1 port={} dbname=postgres", self.port())
    }

    pub async fn sql(&self) -> Connection {
        connect(&self.dsn(), Mode::Sql).await
    }

    /// A folder of the server's user, outside the data directory.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.scratch.folder(name)
    }

    /// Puts a copy of a file into the data directory, closed to others as keys must be.
    pub fn install(&self, from: &Path, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        let to = self.data().join(name);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.scratch.give(&to);
    }

    /// Asks the server to stop, without waiting: `TERM` once all sessions have ended, `INT` at once.
    pub fn ask_to_stop(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.cluster.pid() as i32).expect("a process id");
        rustix::process::kill_process(pid, signal).unwrap();
    }
}
