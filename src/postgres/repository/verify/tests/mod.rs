//! What a verification of one small cluster in memory tells, whatever is wrong with it.

mod extent;
mod meanwhile;
mod problems;

use std::sync::Arc;

use super::*;
use crate::postgres::archive::testing::cluster_in;
use crate::postgres::repository::testing::{SECOND, damage, example};
use crate::storage::{MemoryStorage, PutMode, Storage, get_all};

const PACK: &str = "main/base/20260101-000000Z/pack-000002";
const SEGMENT_3: &str = "main/wal/0000000100000000/000000010000000000000003.zst";

fn options() -> VerifyOptions {
    VerifyOptions {
        scope: VerifyScope::All,
        extent: SampleExtent::All,
        seed: 1,
        after: None,
        workers: 2,
        memory: 1 << 20,
    }
}

/// All of it, or a sample.
async fn verified_to(cluster: &Cluster, extent: SampleExtent) -> VerifyReport {
    let options = VerifyOptions {
        extent,
        ..options()
    };
    verified(cluster, options).await
}

async fn verified(cluster: &Cluster, options: VerifyOptions) -> VerifyReport {
    let verification = Arc::new(Verification::new(cluster.clone(), options));
    verification.run().await.unwrap();
    let progress = &verification.progress;
    assert_eq!(
        progress.total.load(Ordering::Relaxed) == 0,
        progress.done.load(Ordering::Relaxed) == 0
    );
    verification.report(true)
}

fn found(report: &VerifyReport) -> Vec<(ProblemKind, &str, u64)> {
    let findings = report.found.findings.list.iter();
    findings
        .map(|finding| (finding.problem, finding.object.as_str(), finding.files))
        .collect()
}

fn samples() -> [SampleExtent; 3] {
    [
        SampleExtent::All,
        SampleExtent::Percent(100.0),
        SampleExtent::Objects(1000),
    ]
}

/// WAL alone, as of the example's cluster.
async fn wal_alone(cluster: &Cluster, every: u64) -> VerifyResult {
    verify(cluster, VerifyScope::Wal { every }, 2)
        .await
        .unwrap()
}
