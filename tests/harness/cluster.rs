//! A PostgreSQL cluster of one major.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Major, Scratch, Walden, initdb, process, wait_until};

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Fast,
    Immediate,
}

/// What a new cluster should be like.
#[derive(Debug, Clone)]
pub struct Builder {
    major: Major,
    segment_mib: u32,
    checksums: bool,
    settings: Vec<(String, String)>,
    listen: bool,
}

impl Builder {
    /// `--wal-segsize`.
    pub fn segment_mib(mut self, mib: u32) -> Self {
        self.segment_mib = mib;
        self
    }

    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// A line of postgresql.conf.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Listens on 127.0.0.1, too.
    pub fn on_loopback(mut self) -> Self {
        self.listen = true;
        self
    }

    /// A new data directory, then start.
    pub fn start(self, scratch: &Scratch) -> Cluster {
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let data = scratch.join(&format!("pg{}-{number}", self.major.number));
        initdb::copy(&self.major, self.segment_mib, self.checksums, &data);
        let mut cluster = Cluster::of(self.major, data, scratch.path().to_path_buf());
        cluster.append_conf(&format!(
            "fsync = off\nshared_buffers = 16MB\nmax_connections = 30\ntrack_commit_timestamp = on\nmax_wal_senders = 5\n\
             min_wal_size = {}MB\nlog_timezone = UTC\ntimezone = UTC\nmax_wal_size = 1GB\nwal_level = replica\n",
            2 * self.segment_mib
        ));
        // For what walden starts from a copy of this configuration: copies of several tests must not meet on one port.
        cluster.append_conf(&format!("port = {}\nlisten_addresses = ''\n", next_port()));
        cluster.listen = self.listen;
        for (name, value) in &self.settings {
            cluster.append_conf(&format!("{name} = '{value}'\n"));
        }
        cluster.start();
        cluster
    }
}

static NEXT: AtomicU32 = AtomicU32::new(1);
/// Servers on loopback need ports of their own; sockets only need names of their own.
static PORT: AtomicU32 = AtomicU32::new(0);

/// A port that no other cluster of this process has.
fn next_port() -> u32 {
    20_000 + std::process::id() % 10_000 + PORT.fetch_add(1, Ordering::SeqCst)
}

/// A cluster; its server is stopped when this goes away.
#[derive(Debug)]
pub struct Cluster {
    pub major: Major,
    pub data: PathBuf,
    /// Where its unix socket lies.
    pub socket_folder: PathBuf,
    pub port: u32,
    listen: bool,
    running: bool,
}

impl Cluster {
    /// A new cluster with 16 MiB segments and checksums off.
    pub fn builder(major: Major) -> Builder {
        Builder {
            major,
            segment_mib: 16,
            checksums: false,
            settings: Vec::new(),
            listen: false,
        }
    }

    /// A data directory that is there already, such as a restored one; not started yet.
    pub fn of(major: Major, data: PathBuf, socket_folder: PathBuf) -> Self {
        let port = next_port();
        Self {
            major,
            data,
            socket_folder,
            port,
            listen: false,
            running: false,
        }
    }

    /// Adds lines to postgresql.conf; they count from the next start or reload on.
    pub fn append_conf(&self, lines: &str) {
        let path = self.data.join("postgresql.conf");
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(path)
            .expect("open postgresql.conf");
        file.write_all(lines.as_bytes())
            .expect("write postgresql.conf");
    }

    /// The path of the server's log.
    pub fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts the server; panics with its log when that fails.
    pub fn start(&mut self) {
        let output = self.try_start();
        assert!(
            output.success(),
            "PostgreSQL {} does not start:\n{}",
            self.major.number,
            self.log()
        );
    }

    /// Starts the server and says how that went.
    pub fn try_start(&mut self) -> process::Output {
        let options = format!(
            "-p {} -c \"unix_socket_directories={}\" -c listen_addresses={}",
            self.port,
            self.socket_folder.display(),
            if self.listen { "127.0.0.1" } else { "" }
        );
        let mut command = self.pg_ctl();
        command
            .arg("-l")
            .arg(self.log_path())
            .args(["-w", "-t", "60", "-o", &options, "start"]);
        // pg_ctl's server would hold our pipes open.
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let status = command.status().expect("run pg_ctl");
        self.running = self.data.join("postmaster.pid").exists();
        process::Output {
            code: status.code(),
            stdout: String::new(),
            stderr: String::new(),
        }
    }

    /// Stops the server.
    pub fn stop(&mut self, how: Stop) {
        let mode = if how == Stop::Fast {
            "fast"
        } else {
            "immediate"
        };
        let output = process::finish(self.pg_ctl().args(["-m", mode, "-w", "-t", "60", "stop"]));
        assert!(
            output.success(),
            "PostgreSQL does not stop: {}\n{}",
            output.stderr,
            self.log()
        );
        self.running = false;
    }

    pub fn restart(&mut self) {
        self.stop(Stop::Fast);
        self.start();
    }

    pub fn reload(&self) {
        assert!(process::finish(self.pg_ctl().arg("reload")).success());
    }

    fn pg_ctl(&self) -> std::process::Command {
        let mut command = process::command(self.major.program("pg_ctl"));
        command.arg("-D").arg(&self.data);
        command
    }

    /// Runs SQL through psql, unaligned, no headings; panics when it fails.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    /// The same in another database than `postgres`.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        assert!(output.success(), "{sql}\n{}\n{}", output.stderr, self.log());
        output.stdout.trim_end().to_string()
    }

    /// Runs statements one by one, as most that cannot run in a transaction need it.
    pub fn sql_each(&self, statements: &str) {
        let each: Vec<&str> = statements.split("; ").collect();
        let output = self.psql_each("postgres", &each);
        assert!(
            output.success(),
            "{statements}\n{}\n{}",
            output.stderr,
            self.log()
        );
    }

    /// Runs SQL and says how that went.
    pub fn try_sql(&self, sql: &str) -> process::Output {
        self.psql("postgres", sql)
    }

    fn psql(&self, database: &str, sql: &str) -> process::Output {
        self.psql_each(database, &[sql])
    }

    /// One session, each text for itself.
    fn psql_each(&self, database: &str, texts: &[&str]) -> process::Output {
        let mut psql = process::command(Major::with_clients().program("psql"));
        psql.args([
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "walden",
            "-d",
            database,
            "-p",
            &self.port.to_string(),
            "-h",
        ]);
        process::finish(
            psql.arg(&self.socket_folder)
                .args(texts.iter().flat_map(|text| ["-c", text])),
        )
    }

    /// A libpq connection string.
    pub fn dsn(&self) -> String {
        format!(
            "host='{}' port={} user=walden dbname=postgres",
            self.socket_folder.display(),
            self.port
        )
    }

    /// Finishes the current segment and gives its name.
    pub fn switch_wal(&self) -> String {
        self.sql("select pg_walfile_name(pg_switch_wal())")
    }

    /// Finishes the current segment and waits until the archiver has stored it.
    pub fn archive_now(&self) -> String {
        // A switch needs something written since the last one.
        self.sql("select pg_create_restore_point('archive_now')");
        let segment = self.switch_wal();
        wait_until(&format!("{segment} is archived"), || {
            self.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver") >= segment
        });
        segment
    }

    /// Turns archiving on, through the real hook program; restarts the server.
    pub fn archive_with(&mut self, walden: &Walden) {
        let command = walden.archive_command().replace('\'', "''");
        self.append_conf(&format!(
            "archive_mode = on\narchive_command = '{command}'\n"
        ));
        self.restart();
    }

    /// A streaming standby made from this cluster.
    pub fn standby(&self, scratch: &Scratch) -> Cluster {
        let mut standby = self.standby_to_start(scratch);
        standby.start();
        standby
    }

    /// A streaming standby of this server, not started yet.
    pub fn standby_to_start(&self, scratch: &Scratch) -> Cluster {
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let data = scratch.join(&format!("pg{}-{number}", self.major.number));
        self.pg_basebackup(&data, &[]);
        let standby = Cluster::of(self.major.clone(), data, scratch.path().to_path_buf());
        // Not by pg_basebackup -R: a newer client writes connection options that an older server does not know.
        let primary = format!(
            "host='{}' port={} user=walden",
            self.socket_folder.display(),
            self.port
        );
        standby.append_conf(&format!(
            "primary_conninfo = '{}'\n",
            primary.replace('\'', "''")
        ));
        fs::write(standby.data.join("standby.signal"), "").expect("write standby.signal");
        scratch.give(&standby.data.join("standby.signal"));
        standby
    }

    /// Copies the running cluster with PostgreSQL's own means, WAL not included.
    pub fn copy_to(&self, data: &Path) {
        self.pg_basebackup(data, &["-X", "none"]);
    }

    fn pg_basebackup(&self, data: &Path, options: &[&str]) {
        // The newest client there is copies from every major.
        let client = (13..=18)
            .rev()
            .filter_map(Major::find)
            .find(|major| major.has("pg_basebackup"))
            .expect("pg_basebackup");
        let mut copy = process::command(client.program("pg_basebackup"));
        copy.args(["-c", "fast", "--no-sync", "-D"])
            .arg(data)
            .args(["-d", &self.dsn()])
            .args(options);
        let output = process::finish(&mut copy);
        assert!(output.success(), "pg_basebackup failed: {}", output.stderr);
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.sql("select pg_promote(true, 60)");
        assert_eq!(
            self.sql("select pg_is_in_recovery()"),
            "f",
            "{}",
            self.log()
        );
    }

    /// Waits until a standby has replayed up to `lsn`.
    pub fn wait_for_replay(&self, lsn: &str) {
        wait_until(&format!("{lsn} is replayed"), || {
            self.sql(&format!(
                "select coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)"
            )) == "t"
        });
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        let content =
            fs::read_to_string(self.data.join("postmaster.pid")).expect("a running server");
        content
            .lines()
            .next()
            .and_then(|line| line.parse().ok())
            .expect("a process id")
    }

    /// Takes over a server that something else started in this data directory.
    pub fn adopt(&mut self, port: u32, socket_folder: &Path) {
        self.port = port;
        self.socket_folder = socket_folder.to_path_buf();
        self.running = true;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running && self.data.join("postmaster.pid").exists() {
            process::finish(self.pg_ctl().args(["-m", "immediate", "-w", "stop"]));
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- end of {}", self.log_path().display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
