use crate::jobs::record::RunId;
use crate::storage::Key;

/// The keys of a cluster's jobs, below one folder.
#[derive(Debug, Clone)]
pub struct JobKeys {
    /// Ends with `/`.
    folder: String,
}

impl JobKeys {
    /// Below `folder`, which ends with `/`.
    pub fn new(folder: String) -> Self {
        Self { folder }
    }

    /// The folder of what the runners of a job tell each other.
    pub fn job_folder(&self, job: &str) -> String {
        format!("{}{job}/", self.folder)
    }

    /// A generation of a job's lease.
    pub fn lease(&self, job: &str, generation: u64) -> Key {
        self.key(&format!("{job}/lease-{generation:016x}.json"))
    }

    /// The generation of a lease's key; `None` for others.
    pub fn parse_lease(&self, job: &str, key: &Key) -> Option<u64> {
        let digits = key
            .file_name()
            .strip_prefix("lease-")?
            .strip_suffix(".json")?;
        let generation = u64::from_str_radix(digits, 16).ok()?;
        (self.lease(job, generation) == *key).then_some(generation)
    }

    /// Asks a run to end.
    pub fn cancel(&self, job: &str, run: &RunId) -> Key {
        self.key(&format!("{job}/cancel-{run}.json"))
    }

    /// The folder of the records of runs.
    pub fn history_folder(&self) -> String {
        format!("{}history/", self.folder)
    }

    /// The record of a run.
    pub fn record(&self, job: &str, run: &RunId) -> Key {
        self.key(&format!("history/{run}-{job}.json"))
    }

    /// The run and the job of a record's key; `None` for others.
    pub fn parse_record(&self, key: &Key) -> Option<(RunId, String)> {
        let name = key.file_name().strip_suffix(".json")?;
        let (time, rest) = name.split_once('-')?;
        let (random, job) = rest.split_once('-')?;
        let run: RunId = format!("{time}-{random}").parse().ok()?;
        (!job.is_empty() && self.record(job, &run) == *key).then(|| (run, job.to_string()))
    }

    fn key(&self, rest: &str) -> Key {
        Key::new(format!("{}{rest}", self.folder))
            .expect("names of jobs, runs and clusters make keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_both_ways() {
        let keys = JobKeys::new("main/jobs/".into());
        let lease = keys.lease("schema-dump", 0x2a);
        assert_eq!(
            lease.as_str(),
            "main/jobs/schema-dump/lease-000000000000002a.json"
        );
        assert_eq!(keys.parse_lease("schema-dump", &lease), Some(0x2a));
        let run: RunId = "20260131T020000Z-1a2b3c4d".parse().unwrap();
        let record = keys.record("schema-dump", &run);
        assert_eq!(
            record.as_str(),
            "main/jobs/history/20260131T020000Z-1a2b3c4d-schema-dump.json"
        );
        assert_eq!(
            keys.parse_record(&record),
            Some((run.clone(), "schema-dump".into()))
        );
        assert_eq!(
            keys.parse_lease("schema-dump", &keys.cancel("schema-dump", &run)),
            None
        );
        for other in [
            "main/jobs/history/x.json",
            "main/jobs/history/20260131T020000Z-1a2b3c4d-.json",
        ] {
            assert_eq!(
                keys.parse_record(&Key::new(other).unwrap_or_else(|_| lease.clone())),
                None
            );
        }
        assert_eq!(
            keys.parse_lease("dump", &Key::new("main/jobs/dump/lease-2A.json").unwrap()),
            None
        );
    }
}
