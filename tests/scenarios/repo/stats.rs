//! Repositories measured, against what lies on disk.

use serde_json::Value;

use super::{archiving, files, take};
use crate::harness::{Major, Scratch};

#[test]
fn the_numbers_of_stats_are_what_lies_on_disk() {
    let (scratch, major) = (Scratch::new("stats"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    let id = take(&walden);
    let last = cluster.archive_now();
    let stats = walden.json(["repo", "stats"]);
    let all = files(&walden.repository.join("main"));
    let on_disk = |part: &str| {
        let found: Vec<&Vec<u8>> = all
            .iter()
            .filter(|(name, _)| name.contains(part))
            .map(|(_, bytes)| bytes)
            .collect();
        (
            found.len() as u64,
            found.iter().map(|bytes| bytes.len() as u64).sum::<u64>(),
        )
    };
    let size = |value: &Value| {
        (
            value["objects"].as_u64().expect("a number"),
            value["stored_bytes"].as_u64().expect("bytes"),
        )
    };
    assert_eq!(size(&stats["total"]), on_disk(""));
    assert_eq!(size(&stats["kinds"]["packs"]), on_disk("/pack-"));
    assert_eq!(size(&stats["kinds"]["manifests"]), on_disk("manifest.zst"));
    assert_eq!(
        size(&stats["kinds"]["segments"]),
        on_disk("wal/0000000100000000/")
    );
    assert_eq!(
        size(&stats["kinds"]["backup_histories"]),
        on_disk(".backup.zst")
    );
    assert_eq!(stats["timelines"][0]["last"], Value::from(last));
    let backup = &stats["backups"][0];
    assert_eq!(
        (&backup["id"], &backup["state"]),
        (&Value::from(id.as_str()), &Value::from("complete"))
    );
    assert_eq!(
        backup["stored_bytes"].as_u64().expect("bytes"),
        on_disk(&id).1
    );
    let text = walden.ok(["repo", "stats"]);
    assert!(
        text.contains("WAL segments") && text.contains(&id) && text.contains("newest: "),
        "{text}"
    );
}
