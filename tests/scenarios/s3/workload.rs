//! A server that archives into a bucket behind a proxy, and what must be true whatever the proxy did.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::archive::{Primary, primary_with};
use crate::harness::{Cluster, Major, ObjectStore, Proxy, Rows, Service, Walden, wait_until};

/// `wal.timeout` of these clusters.
const DEADLINE: Duration = Duration::from_secs(8);
/// What a hook may take beyond it on a machine with much else to do.
const MARGIN: Duration = Duration::from_secs(12);
/// The service's memory under full load.
const MOST_MEMORY_KIB: u64 = 128 << 10;

/// A registered cluster whose archiver is timed. It archives, and the proxy makes no faults yet.
pub struct Workload {
    pub primary: Primary,
    pub proxy: Proxy,
    /// A line for each call of the hook: milliseconds and exit code.
    calls: PathBuf,
}

impl Workload {
    /// `None` where there is no server.
    pub fn new() -> Option<Self> {
        let store = ObjectStore::radosgw()?;
        let proxy = Proxy::before(store);
        let through = store.fresh_bucket().through(&proxy);
        let settings = format!(
            "wal.timeout = \"{}s\"\ns3.connect_timeout = \"2s\"\ns3.response_timeout = \"2s\"\n",
            DEADLINE.as_secs()
        );
        let primary = primary_with(Major::newest(), 1, |scratch, cluster| {
            Walden::on_s3(scratch, cluster, &through, &settings)
        });
        let calls = primary.scratch.join("calls");
        let hook = primary.walden.archive_command().replace("%p", "\"$1\"");
        let timed = primary.scratch.write(
            "timed",
            &format!(
                "began=$(date +%s%N)\n{hook}\ncode=$?\n\
                 echo $((($(date +%s%N) - began) / 1000000)) $code >>\"{}\"\nexit $code\n",
                calls.display()
            ),
        );
        primary.cluster.append_conf(&format!(
            "archive_command = 'sh \"{}\" %p'\n",
            timed.display()
        ));
        primary.cluster.reload();
        // The service looks after its jobs through the same faults.
        primary.walden.expect_log("it cannot be looked after");
        Some(Self {
            primary,
            proxy,
            calls,
        })
    }

    /// Commits and fills segments, and does not wait for them.
    pub fn write(&self, segments: usize) {
        for _ in 0..segments {
            self.primary.cluster.burst(2, 6);
            self.primary.cluster.switch_wal();
        }
    }

    /// Calls of the hook so far, with their exit codes.
    fn calls(&self) -> Vec<(Duration, i32)> {
        let text = fs::read_to_string(&self.calls).unwrap_or_default();
        let call = |line: &str| -> Option<(Duration, i32)> {
            let (time, code) = line.split_once(' ')?;
            Some((
                Duration::from_millis(time.parse().ok()?),
                code.parse().ok()?,
            ))
        };
        text.lines().filter_map(call).collect()
    }

    /// Waits until so many calls more have failed.
    pub fn wait_for_failures(&self, count: usize) {
        let failures = || self.calls().iter().filter(|(_, code)| *code != 0).count();
        let before = failures();
        wait_until(&format!("{count} calls of the hook have failed"), || {
            failures() >= before + count
        });
    }

    /// Everything written is archived without help, nothing acknowledged is lost, hooks kept their deadline, the service
    /// its memory; the archive replays to exactly the rows of the server.
    pub fn ends_well(&self, service: &Service<'_>) {
        let rows = self.primary.cluster.rows();
        self.primary.cluster.archive_now();
        assert!(
            service.resident_kib() < MOST_MEMORY_KIB,
            "{} KiB",
            service.resident_kib()
        );
        self.primary.check_archive();
        assert_eq!(
            self.primary.walden.json(["wal", "list"])["gaps"],
            serde_json::json!([])
        );
        let longest = self
            .calls()
            .into_iter()
            .map(|(time, _)| time)
            .max()
            .expect("calls of the hook");
        assert!(longest < DEADLINE + MARGIN, "a hook call took {longest:?}");
        assert_eq!(self.recover("end").rows(), rows);
    }

    /// A server that replays the archive until it has all; each time it gives up before, it says that it cannot get WAL
    /// and never takes that for the end.
    pub fn recover(&self, name: &str) -> Cluster {
        let mut replica = self
            .primary
            .replica(name, "recovery.signal", "archive_mode = off");
        for _ in 0..30 {
            if recovers(&mut replica) {
                return replica;
            }
        }
        panic!("recovery does not come to its end:\n{}", replica.log());
    }

    /// All rows there are.
    pub fn rows(&self) -> Rows {
        self.primary.cluster.rows()
    }
}

/// Starts a server; whether it recovered, or gave up because it cannot get WAL.
pub fn recovers(replica: &mut Cluster) -> bool {
    let _ = replica.try_start();
    let pid = replica.data.join("postmaster.pid");
    wait_until("recovery ends or gives up", || {
        !pid.exists() || replica.try_sql("select pg_is_in_recovery()").stdout.trim() == "f"
    });
    let recovered = pid.exists();
    if !recovered {
        let log = replica.log();
        assert!(log.contains("could not restore file"), "{log}");
        assert!(!log.contains("archive recovery complete"), "{log}");
    }
    recovered
}
