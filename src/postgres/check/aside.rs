//! What is kept aside, told by the check of the archiver: nobody else is told of it.

use super::{CheckError, CheckRequest, CheckStatus, Verdict};
use crate::plain::counted;
use crate::postgres::archive::aside::has_more;
use crate::postgres::cluster::Cluster;
use crate::postgres::load::load_wal;
use crate::postgres::types::WalFileName;

/// What is kept aside.
struct Aside {
    files: usize,
    /// A segment of which less is kept under its name.
    longer: Option<WalFileName>,
}

/// Adds it to what was said.
pub(super) async fn add(
    request: &CheckRequest<'_>,
    cluster: &Cluster,
    verdict: Verdict,
) -> Verdict {
    decide(
        request.within("the repository", gather(cluster)).await,
        verdict,
    )
}

async fn gather(cluster: &Cluster) -> anyhow::Result<Aside> {
    let found = load_wal(cluster).await?.aside;
    let mut longer = None;
    for name in &found {
        if longer.is_none() && has_more(cluster, name).await? {
            longer = Some(*name);
        }
    }
    Ok(Aside {
        files: found.len(),
        longer,
    })
}

fn decide(aside: Result<Aside, CheckError>, verdict: Verdict) -> Verdict {
    let message = &verdict.message;
    match aside {
        Ok(Aside { files: 0, .. }) => verdict,
        Ok(Aside {
            files,
            longer: None,
        }) => Verdict {
            message: format!(
                "{message}; {} kept aside, see `walden wal list`",
                counted(files as u64, "file")
            ),
            ..verdict
        },
        Ok(Aside {
            longer: Some(name), ..
        }) => {
            let message = format!(
                "{message}; \"{name}\", kept aside, has more WAL than \"{}\"",
                name.handed_over()
            );
            let hint = verdict.hint.unwrap_or_else(|| {
                "take a base backup: recovery ends where the shorter one ends".into()
            });
            Verdict {
                message,
                hint: Some(hint),
                status: verdict.status.max(CheckStatus::Warning),
                ..verdict
            }
        }
        Err(CheckError { what, .. }) => Verdict {
            message: format!("{message}; what is kept aside is not known: {what}"),
            ..verdict
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::Check;

    #[test]
    fn what_is_kept_aside_is_told_and_more_wal_there_is_warned_of() {
        let name: WalFileName = "000000010000000000000004".parse().unwrap();
        let name = name.aside(7).unwrap();
        let told = |aside| {
            let verdict = decide(aside, Check::Archiver.ok("none waits"));
            (verdict.status, verdict.message)
        };
        assert_eq!(
            told(Ok(Aside {
                files: 0,
                longer: None
            })),
            (CheckStatus::Ok, "none waits".into())
        );
        let (status, message) = told(Ok(Aside {
            files: 2,
            longer: None,
        }));
        assert!(
            status == CheckStatus::Ok && message.contains("2 files kept aside"),
            "{message}"
        );
        let (status, message) = told(Ok(Aside {
            files: 1,
            longer: Some(name),
        }));
        assert!(
            status == CheckStatus::Warning && message.contains(&name.to_string()),
            "{message}"
        );
        let (status, message) = told(Err(CheckError {
            what: "it is silent".into(),
            hint: None,
        }));
        assert!(
            status == CheckStatus::Ok && message.contains("not known: it is silent"),
            "{message}"
        );
    }
}
