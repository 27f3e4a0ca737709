//! The repository's store: there, writable, true to create-only, with the right time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;

use super::{Check, CheckError, CheckRequest, CheckStatus, Verdict};
use crate::error::{Hint, one_line};
use crate::repo::Repository;
use crate::repo::store_check::{self, CreateOnlyEffect, WriteEffect};
use crate::storage::{AtRest, Promise, Promises, Storage};

/// The checks of this file.
pub(super) const CHECKS: &[Check] = &[
    Check::Repository,
    Check::Writable,
    Check::CreateOnly,
    Check::CreateOnlyLarge,
    Check::Clock,
    Check::Encryption,
];
/// Those that one written object answers.
const BY_WRITING: &[Check] = &[Check::Writable, Check::Clock, Check::Encryption];

/// Clocks that differ by more make times in listings and proofs of age wrong.
const SKEW_WARNING: Duration = Duration::from_secs(30);
/// S3 refuses requests from clocks that differ by 15 minutes; well before that something is wrong.
const SKEW_CRITICAL: Duration = Duration::from_secs(300);

/// The largest pack (`backup.pack_size`); what would only be larger is no object of ours.
const LARGEST: usize = 64 << 20;

const WRITE_HINT: &str = "check that the user who runs Walden may write to the repository";

/// Checks the store; the repository, if it can be opened.
pub(super) async fn check(
    request: &CheckRequest<'_>,
    verdicts: &mut Vec<Verdict>,
) -> Option<Repository> {
    let open = async {
        let repository = Repository::open(request.storage.clone()).await?;
        Ok::<_, anyhow::Error>((repository, request.layout()?.folder()))
    };
    let (repository, folder) = match request.within("the repository", open).await {
        Ok(opened) => opened,
        Err(error) => {
            verdicts.push(Check::Repository.failed(&error));
            verdicts.extend(
                CHECKS
                    .iter()
                    .skip(1)
                    .map(|check| check.because(Check::Repository)),
            );
            return None;
        }
    };
    let (format, promises) = (repository.marker().format, request.storage.promises());
    verdicts.push(Check::Repository.ok(format!("{}, format {format}", repository.describe())));
    if request.wants(BY_WRITING) {
        let written = request
            .within("the store", store_check::write(&*request.storage, &folder))
            .await;
        verdicts.extend(decide_written(&written, &promises));
    }
    if request.wants(&[Check::CreateOnly]) {
        let effect = request
            .within(
                "the store",
                store_check::create_only(&request.storage, &folder),
            )
            .await;
        verdicts.push(decide_create_only(Check::CreateOnly, &effect, &promises));
    }
    if request.wants(&[Check::CreateOnlyLarge]) {
        verdicts.push(match in_parts_from(&promises) {
            // Sent several times: not what one wants every hour.
            Some(size) if !request.checks.contains(&Check::CreateOnlyLarge) => {
                Check::CreateOnlyLarge.skipped(format!(
                    "sends objects of {} MiB: ask for it by --check {}",
                    size >> 20,
                    Check::CreateOnlyLarge.name()
                ))
            }
            Some(size) => {
                let effect = request
                    .within(
                        "the store",
                        store_check::create_only_large(&request.storage, &folder, size),
                    )
                    .await;
                decide_create_only(Check::CreateOnlyLarge, &effect, &promises)
            }
            None => Check::CreateOnlyLarge.skipped("no object of Walden's is stored in parts here"),
        });
    }
    Some(repository)
}

fn decide_written(written: &Result<WriteEffect, CheckError>, promises: &Promises) -> Vec<Verdict> {
    match written {
        Ok(written) => {
            let told = written
                .meta
                .as_ref()
                .and_then(|meta| meta.encryption.as_deref());
            let encryption = decide_encryption(promises.encryption.as_ref(), told);
            vec![
                decide_writable(written),
                decide_clock(written.clock_skew()),
                encryption,
            ]
        }
        Err(error) => {
            let others = BY_WRITING
                .iter()
                .skip(1)
                .map(|check| check.because(Check::Writable));
            std::iter::once(not_written(Check::Writable, error))
                .chain(others)
                .collect()
        }
    }
}

fn not_written(check: Check, error: &CheckError) -> Verdict {
    check
        .failed(error)
        .hint(error.hint.as_deref().unwrap_or(WRITE_HINT))
}

fn decide_writable(written: &WriteEffect) -> Verdict {
    let key = &written.key;
    if !written.read_back {
        return Check::Writable
            .critical(format!(
                "object \"{key}\" did not come back as it was stored"
            ))
            .hint("do not trust this store: what it answers is not what it keeps");
    }
    if !written.listed {
        return Check::Writable
            .critical(format!(
                "object \"{key}\" is there, but a listing does not show it"
            ))
            .hint(
                "use a store whose listings are up to date: Walden finds backups and gaps by them",
            );
    }
    let stays = |why: String| {
        Check::Writable
            .warning(format!(
                "objects can be stored and read, but object \"{key}\" could not be deleted{why}"
            ))
            .hint("grant that right if `walden backup delete` should work")
    };
    match &written.deleted {
        Ok(true) => Check::Writable.ok("an object was stored, read back, listed and deleted"),
        Ok(false) => stays(String::new()),
        Err(error) => stays(format!(": {}", one_line(error))),
    }
}

fn decide_clock(skew: Option<(Duration, bool)>) -> Verdict {
    let Some((skew, ahead)) = skew else {
        return Check::Clock.unknown("the store does not tell when it stored");
    };
    let by = format!(
        "the store's clock is {} s {} this machine's",
        skew.as_secs(),
        if ahead { "ahead of" } else { "behind" }
    );
    let hint = "let both keep time by NTP: `timedatectl` shows this machine's state";
    match skew {
        skew if skew > SKEW_CRITICAL => Check::Clock.critical(by).hint(hint),
        skew if skew > SKEW_WARNING => Check::Clock.warning(by).hint(hint),
        skew if skew < Duration::from_secs(2) => {
            Check::Clock.ok("the store and this machine agree")
        }
        _ => Check::Clock.ok(by),
    }
}

fn decide_encryption(by_store: Option<&AtRest>, told: Option<&str>) -> Verdict {
    let Some(AtRest {
        asked,
        setting,
        unasked,
    }) = by_store
    else {
        return Check::Encryption
            .ok("not known: a folder is encrypted if the file system below it is");
    };
    match (asked.as_deref(), told) {
        (Some(asked), told) if told != Some(asked) => Check::Encryption
            .warning(match told {
                Some(told) => format!("the store encrypts by {told}, {setting} asks for {asked}"),
                None => format!("{setting} asks for {asked}, and the store does not say that it encrypts"),
            })
            .hint(format!("use a store that knows this kind of encryption, or set {setting} = \"{unasked}\"")),
        (_, Some(told)) => Check::Encryption.ok(format!("the store says: {told}")),
        (_, None) => Check::Encryption
            .ok("the store does not say that it encrypts")
            .hint(format!("set {setting}, or the bucket's default encryption, if the disks below are not encrypted")),
    }
}

/// Bytes from which on the store takes objects in parts; `None`: it does not, or none of ours is as large.
fn in_parts_from(promises: &Promises) -> Option<usize> {
    promises
        .in_parts_from
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size <= LARGEST)
}

fn decide_create_only(
    check: Check,
    effect: &Result<CreateOnlyEffect, CheckError>,
    promises: &Promises,
) -> Verdict {
    let effect = match effect {
        Ok(effect) => effect,
        Err(error) => return not_written(check, error),
    };
    let relied_on = if check == Check::CreateOnlyLarge {
        Promise::OneByOne
    } else {
        promises.create_only
    };
    match (effect.promise(), relied_on) {
        (Promise::Atomic, _) => check.ok("what is stored stays, also when several store at once"),
        (Promise::OneByOne, Promise::Atomic) => check
            .critical("what is stored stays, but of several that store at once a later one overwrites an earlier one")
            .hint(promises.if_it_overwrites),
        (Promise::OneByOne, _) => check
            .warning("what is stored stays, but only as long as no two store under one name at once")
            .hint("let only one server archive here under this cluster name"),
        (Promise::None, _) => check
            .critical(match effect.kept {
                false => "a create-only put overwrote what was there",
                true => "a create-only put under a taken name was answered \"stored\"",
            })
            .hint(promises.if_it_overwrites),
    }
}

/// For whoever makes a repository: refuses a store that does not keep what create-only promises.
pub async fn refuse_unsafe(storage: &Arc<dyn Storage>, folder: &str) -> anyhow::Result<()> {
    let effect = store_check::create_only(storage, folder)
        .await
        .hint(WRITE_HINT)?;
    refuse(
        &storage.describe(),
        decide_create_only(Check::CreateOnly, &Ok(effect), &storage.promises()),
    )
}

fn refuse(store: &str, verdict: Verdict) -> anyhow::Result<()> {
    match verdict.status {
        CheckStatus::Critical => Err(anyhow!(
            "\"{store}\" cannot hold a repository: {}",
            verdict.message
        ))
        .hint(verdict.hint.unwrap_or_default()),
        CheckStatus::Warning => {
            tracing::warn!("{store}: {}", verdict.message);
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::error::hints;
    use crate::repo::probe_testing::{Conditional, Lenient};
    use crate::repo::store_check::Race;
    use crate::storage::s3::CreateOnly;
    use crate::storage::{Key, PutOutcome};

    #[test]
    fn a_buckets_encryption_is_what_was_asked_for() {
        let status = |asked: Option<&str>, told| {
            let by_store = AtRest {
                asked: asked.map(str::to_string),
                setting: "s3.encryption",
                unasked: "bucket",
            };
            decide_encryption(Some(&by_store), told).status
        };
        assert_eq!(status(None, Some("AES256")), CheckStatus::Ok);
        assert_eq!(
            status(None, None),
            CheckStatus::Ok,
            "it may be encrypted below"
        );
        assert_eq!(status(Some("aws:kms"), Some("aws:kms")), CheckStatus::Ok);
        assert_eq!(
            status(Some("aws:kms"), Some("AES256")),
            CheckStatus::Warning
        );
        assert_eq!(status(Some("AES256"), None), CheckStatus::Warning);
        assert!(
            decide_encryption(None, None)
                .message
                .starts_with("not known")
        );
    }

    #[test]
    fn parts_are_only_tried_where_a_pack_can_have_them() {
        let from = |size| {
            in_parts_from(&Promises {
                in_parts_from: size,
                ..Promises::default()
            })
        };
        assert_eq!(
            (from(None), from(Some(8 << 20)), from(Some(65 << 20))),
            (None, Some(8 << 20), None)
        );
    }

    fn written(read_back: bool, listed: bool, gone: bool) -> CheckStatus {
        let put_between = (SystemTime::now(), SystemTime::now());
        let key = Key::new("main/probe-1").unwrap();
        decide_writable(&WriteEffect {
            read_back,
            listed,
            meta: None,
            put_between,
            deleted: Ok(gone),
            key,
        })
        .status
    }

    #[test]
    fn a_store_must_give_back_list_and_delete_what_it_was_given() {
        assert_eq!(written(true, true, true), CheckStatus::Ok);
        assert_eq!(written(false, true, true), CheckStatus::Critical);
        assert_eq!(written(true, false, true), CheckStatus::Critical);
        assert_eq!(written(true, true, false), CheckStatus::Warning);
    }

    #[test]
    fn a_store_that_does_not_answer_leaves_the_rest_unknown() {
        let error = CheckError {
            what: "cannot put".into(),
            hint: None,
        };
        let verdicts = decide_written(&Err(error), &Promises::default());
        assert_eq!(verdicts[0].status, CheckStatus::Critical);
        assert!(verdicts[0].hint.as_ref().unwrap().contains("may write"));
        assert!(
            verdicts[1..]
                .iter()
                .all(|v| v.status == CheckStatus::Unknown && v.because == Some(Check::Writable))
        );
        assert_eq!(
            verdicts.iter().map(|v| v.check).collect::<Vec<_>>(),
            BY_WRITING
        );
    }

    #[test]
    fn clocks_may_differ_by_30_seconds_and_must_not_by_5_minutes() {
        let status =
            |seconds, ahead| decide_clock(Some((Duration::from_secs(seconds), ahead))).status;
        for ahead in [false, true] {
            assert_eq!(status(0, ahead), CheckStatus::Ok);
            assert_eq!(status(30, ahead), CheckStatus::Ok);
            assert_eq!(status(31, ahead), CheckStatus::Warning);
            assert_eq!(status(300, ahead), CheckStatus::Warning);
            assert_eq!(status(301, ahead), CheckStatus::Critical);
        }
        assert_eq!(decide_clock(None).status, CheckStatus::Unknown);
    }

    fn effect(
        second: PutOutcome,
        kept: bool,
        winners: usize,
    ) -> Result<CreateOnlyEffect, CheckError> {
        Ok(CreateOnlyEffect {
            second,
            kept,
            races: vec![Race {
                winners,
                kept: true,
            }],
        })
    }

    fn decide(effect: Result<CreateOnlyEffect, CheckError>, create_only: CreateOnly) -> Verdict {
        decide_create_only(Check::CreateOnly, &effect, &create_only.promises())
    }

    #[test]
    fn answers_that_do_not_say_what_happened_are_critical() {
        for relied_on in [CreateOnly::Conditional, CreateOnly::HeadThenPut] {
            assert_eq!(
                decide(effect(PutOutcome::AlreadyExists, true, 1), relied_on).status,
                CheckStatus::Ok
            );
            assert_eq!(
                decide(effect(PutOutcome::AlreadyExists, false, 1), relied_on).status,
                CheckStatus::Critical
            );
            assert_eq!(
                decide(effect(PutOutcome::Stored, false, 1), relied_on).status,
                CheckStatus::Critical
            );
            let lied = decide(effect(PutOutcome::Stored, true, 1), relied_on);
            assert!(
                lied.message.contains("answered \"stored\""),
                "{}",
                lied.message
            );
        }
    }

    #[test]
    fn creators_at_once_are_only_relied_on_where_the_store_decides() {
        for winners in [0, 2] {
            let raced = || effect(PutOutcome::AlreadyExists, true, winners);
            let told = decide(raced(), CreateOnly::Conditional);
            assert_eq!(told.status, CheckStatus::Critical);
            assert!(
                told.hint
                    .unwrap()
                    .contains("s3.create_only = \"head-then-put\"")
            );
            assert_eq!(
                decide(raced(), CreateOnly::HeadThenPut).status,
                CheckStatus::Warning
            );
            let large = decide_create_only(
                Check::CreateOnlyLarge,
                &raced(),
                &CreateOnly::Conditional.promises(),
            );
            assert_eq!(large.status, CheckStatus::Warning);
        }
    }

    #[tokio::test]
    async fn a_repository_in_a_store_that_ignores_the_condition_is_critical() {
        let storage: Arc<dyn Storage> = Arc::new(Lenient::new(Conditional::Ignored));
        let _ = Repository::init(storage.clone(), chrono::DateTime::UNIX_EPOCH)
            .await
            .unwrap();
        let settings =
            crate::config::load(None, [("WALDEN_REPOSITORY__URL", "file:///srv/x")]).unwrap();
        let (checks, timeout) = (CHECKS.iter().copied().collect(), Duration::from_secs(9));
        let mut verdicts = Vec::new();
        let request = CheckRequest {
            settings: &settings,
            storage,
            jobs: Box::new(|_| Box::pin(async { Ok(Default::default()) })),
            checks,
            probe: true,
            timeout,
        };
        assert!(check(&request, &mut verdicts).await.is_some());
        let critical: Vec<Check> = verdicts
            .iter()
            .filter(|verdict| verdict.status == CheckStatus::Critical)
            .map(|verdict| verdict.check)
            .collect();
        assert_eq!(critical, [Check::CreateOnly], "{verdicts:?}");
    }

    #[tokio::test]
    async fn a_store_that_overwrites_cannot_hold_a_repository() {
        for conditional in [
            Conditional::Ignored,
            Conditional::RefusedButDone,
            Conditional::LookedAtFirst,
        ] {
            let storage: Arc<dyn Storage> = Arc::new(Lenient::new(conditional));
            let effect = store_check::create_only(&storage, "main/").await.unwrap();
            let error =
                refuse("lenient:", decide(Ok(effect), CreateOnly::Conditional)).unwrap_err();
            assert!(
                one_line(&error).contains("\"lenient:\" cannot hold a repository"),
                "{error:#}"
            );
            assert!(hints(&error)[0].contains("If-None-Match"));
        }
    }
}
