//! What the verbs that plan restores have in common.

use super::Context;
use super::progress::{Bar, ProgressStep};
use crate::postgres::index::update::IndexProgress;
use crate::postgres::planning::FreshPlanner;

/// Opens the cluster and its index for planning; shows how far the reading of segments is.
pub async fn open(context: &Context, needs_index: bool) -> anyhow::Result<FreshPlanner> {
    let cluster = context.cluster().await?;
    let (bar, size) = (Bar::default(), cluster.description.segment_size.bytes());
    let observe = move |verb: &'static str, IndexProgress { done, total }| {
        bar.show(
            verb,
            ProgressStep {
                done: done * size,
                total: total * size,
                phase: String::new(),
            },
        );
    };
    FreshPlanner::open(
        cluster,
        &context.settings.catalog.cache,
        needs_index,
        Box::new(observe),
    )
}
