use anyhow::anyhow;

use crate::error::{Hint, with_hint};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::{ListedDump, ListedDumps, list};
use crate::postgres::dump::manifest::{self, DumpManifest};
use crate::postgres::layout::{DumpId, DumpName, DumpObject};

/// The complete dump that somebody names: as `DATABASE/NAME`, by its name alone, by its file's, or as
/// `DATABASE_latest`.
pub async fn complete(cluster: &Cluster, text: &str) -> anyhow::Result<ListedDump> {
    let kept = list(cluster, None).await?;
    find(kept, text)
}

/// The same with its manifest.
pub async fn with_manifest(
    cluster: &Cluster,
    text: &str,
) -> anyhow::Result<(ListedDump, DumpManifest)> {
    let dump = complete(cluster, text).await?;
    match manifest::read(cluster, &dump.id).await? {
        Some(manifest) => Ok((dump, manifest)),
        None => Err(absent(text)),
    }
}

fn find(kept: ListedDumps, text: &str) -> anyhow::Result<ListedDump> {
    if let Some(dump) = latest(&kept, text) {
        return Ok(dump.clone());
    }
    let id = text.parse::<DumpId>().ok();
    let by_file = DumpObject::parse(text).map(|(name, _)| name);
    let name: Option<DumpName> = by_file.or_else(|| text.parse().ok());
    let is_it =
        |dump: &ListedDump| id.as_ref() == Some(&dump.id) || name.as_ref() == Some(dump.id.name());
    let unfinished = kept.unfinished.iter().any(is_it);
    let mut found: Vec<ListedDump> = kept.complete.into_iter().filter(is_it).collect();
    match (found.pop(), found.is_empty()) {
        (Some(dump), true) => Ok(dump),
        (Some(_), false) => Err(anyhow!("several databases have a dump \"{text}\""))
            .hint("name it as DATABASE/NAME"),
        (None, _) if unfinished => Err(anyhow!("dump \"{text}\" is not complete"))
            .hint("is it still being taken? `walden dump list` shows it"),
        (None, _) => Err(absent(text)),
    }
}

/// The newest one, as what lies in the repository names it: `shop_latest`, `shop_latest_schema`.
fn latest<'a>(kept: &'a ListedDumps, text: &str) -> Option<&'a ListedDump> {
    let named = kept
        .complete
        .iter()
        .map(|dump| (dump.id.database(), dump.id.kind()));
    let (database, kind) = named
        .into_iter()
        .find(|(database, kind)| text == format!("{database}_latest{}", kind.suffix()))?;
    kept.latest(database, kind)
}

fn absent(text: &str) -> anyhow::Error {
    with_hint(
        anyhow!("there is no dump \"{text}\""),
        "`walden dump list` shows the dumps",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(id: &str) -> ListedDump {
        ListedDump {
            id: id.parse().unwrap(),
            objects: Vec::new(),
        }
    }

    #[test]
    fn a_dump_is_found_by_its_id_its_name_and_its_file() {
        let kept = || ListedDumps {
            complete: vec![
                dump("a/x_20260131_140500"),
                dump("b/x_20260131_140500"),
                dump("b/b_20260131_150500"),
            ],
            unfinished: vec![dump("b/b_20260131_160500")],
        };
        for text in [
            "b/b_20260131_150500",
            "b_20260131_150500",
            "b_20260131_150500.dump",
            "b_20260131_150500.sql.zst",
        ] {
            assert_eq!(
                find(kept(), text).unwrap().id.to_string(),
                "b/b_20260131_150500"
            );
        }
        for (text, why) in [
            ("x_20260131_140500", "several databases"),
            ("b_20260131_160500", "is not complete"),
            ("b", "there is no dump"),
        ] {
            assert!(
                find(kept(), text).unwrap_err().to_string().contains(why),
                "{text}"
            );
        }
        let latest = find(kept(), "b_latest").unwrap();
        assert_eq!(latest.id.to_string(), "b/b_20260131_150500");
        assert_eq!(
            find(kept(), "a/x_20260131_140500").unwrap().id.database(),
            "a"
        );
    }
}
