//! The newest records of what was done, as they were read last. One owner reads them in its own time.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::error::one_line;
use crate::evidence::record::{Act, Record};
use crate::evidence::{Journal, LatestRecords};
use crate::postgres::drill::DrillKind;

/// Records in memory at most.
const MOST: usize = 2000;
/// So many times as rarely as the rest of the repository they are looked for,
const RARER: u32 = 10;
/// and at least after this.
const REST: Duration = Duration::from_secs(300);

/// What is known of them.
#[derive(Debug, Clone, Default)]
pub struct KnownRecords {
    /// The newest first.
    pub records: Arc<[Arc<Record>]>,
    /// There are older ones.
    pub has_more: bool,
    /// When they were read; `None`: not yet.
    pub read_at: Option<DateTime<Utc>>,
    /// Why they could not be read since.
    pub failed: Option<String>,
}

impl KnownRecords {
    /// The drills of what is kept, the newest first.
    pub fn drills(&self) -> impl Iterator<Item = &Record> {
        let records = self.records.iter().map(|record| &**record);
        records.filter(|record| {
            let evidence = &record.evidence;
            evidence.act == Act::Drill && DrillKind::of(evidence) != DrillKind::RoundTrip
        })
    }
}

/// Reads them.
#[derive(Debug)]
pub struct RecordsReader {
    journal: Journal,
    rest: Duration,
    recent: LatestRecords,
    known: watch::Sender<KnownRecords>,
}

impl RecordsReader {
    /// Reads a cluster's records; `interval` lies between two readings of the rest of the repository.
    pub fn new(journal: Journal, interval: Duration) -> (Self, watch::Receiver<KnownRecords>) {
        let (known, receiver) = watch::channel(KnownRecords::default());
        let reader = Self {
            journal,
            rest: (interval * RARER).min(REST),
            recent: LatestRecords::default(),
            known,
        };
        (reader, receiver)
    }

    /// Works until `stopped` says so.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let work = async {
            loop {
                self.read().await;
                sleep(self.rest).await;
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
            () = work => Ok(()),
        }
    }

    /// Reads what is new.
    pub(super) async fn read(&mut self) {
        let at = Utc::now();
        let renewed = self.recent.renew(&self.journal, MOST).await;
        let failed = renewed.err().map(|error| one_line(&error));
        let (records, has_more) = (self.recent.newest_first(), self.recent.left_out > 0);
        self.known.send_modify(|known| {
            if failed.is_none() {
                known.records = records.into();
                known.has_more = has_more;
                known.read_at = Some(at);
            }
            known.failed = failed;
        });
    }
}
