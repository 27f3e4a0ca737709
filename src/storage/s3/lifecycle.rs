use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus,
    LifecycleExpiration, LifecycleRule as S3Rule, LifecycleRuleFilter, NoncurrentVersionExpiration,
    Transition, TransitionDefaultMinimumObjectSize,
};

use super::{S3Error, S3Storage};
use crate::storage::IsOwnRule;
use crate::storage::lifecycle::{LifecycleRule, When, merge};

/// All rules of a bucket, as it keeps them.
struct Kept {
    rules: Vec<S3Rule>,
    /// What holds for all of them.
    minimum: Option<TransitionDefaultMinimumObjectSize>,
}

impl S3Storage {
    /// The bucket's rules; `None`: the store has no such thing.
    pub(super) async fn rules(&self) -> Result<Option<Vec<LifecycleRule>>, S3Error> {
        match self.kept_rules().await {
            Ok(kept) => Ok(Some(kept.rules.iter().map(told).collect())),
            Err(error) if error.says_unsupported() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn kept_rules(&self) -> Result<Kept, S3Error> {
        let (options, api) = (&self.options, "GetBucketLifecycleConfiguration");
        let (client, _place) = self.enter(api, "").await?;
        let get = client
            .get_bucket_lifecycle_configuration()
            .bucket(&options.bucket)
            .set_expected_bucket_owner(options.bucket_owner.clone());
        match get.send().await {
            Ok(found) => Ok(Kept {
                rules: found.rules.unwrap_or_default(),
                minimum: found.transition_default_minimum_object_size,
            }),
            Err(error) => match S3Error::of(options, api, "", error) {
                error if error.says_no_lifecycle() => Ok(Kept {
                    rules: Vec::new(),
                    minimum: None,
                }),
                error => Err(error),
            },
        }
    }

    /// Puts `ours` in the place of what is ours, among the rules of others, and reads them back.
    pub(super) async fn replace_rules(
        &self,
        ours: &[LifecycleRule],
        is_ours: IsOwnRule<'_>,
    ) -> Result<(), S3Error> {
        let (options, api) = (&self.options, "PutBucketLifecycleConfiguration");
        let refused = |why: &str| S3Error::before(options, api, "", why);
        let Kept { rules, minimum } = self.kept_rules().await?;
        let own = ours.iter().map(rule).collect::<Result<Vec<_>, _>>();
        let own = own.map_err(|why| refused(&why))?;
        let merged = merge(rules, own, |rule| is_ours(rule.id().unwrap_or_default()));
        let configuration = BucketLifecycleConfiguration::builder()
            .set_rules(Some(merged.clone()))
            .build()
            .map_err(|error| refused(&error.to_string()))?;
        {
            let (client, _place) = self.enter(api, "").await?;
            let put = client
                .put_bucket_lifecycle_configuration()
                .bucket(&options.bucket)
                .lifecycle_configuration(configuration)
                .set_transition_default_minimum_object_size(minimum)
                .set_expected_bucket_owner(options.bucket_owner.clone());
            let sent = put.send().await;
            sent.map_err(|error| S3Error::of(options, api, "", error))?;
        }
        let found = self.kept_rules().await?.rules;
        let is_there = |rule: &S3Rule| found.iter().any(|found| told(found) == told(rule));
        match merged.iter().find(|rule| !is_there(rule)) {
            None => Ok(()),
            Some(lost) => {
                let why = format!(
                    "rule \"{}\" did not come back as it was set",
                    lost.id().unwrap_or_default()
                );
                Err(S3Error::bad_answer(options, api, "", &why))
            }
        }
    }
}

fn days(days: Option<i32>) -> Option<u32> {
    days.and_then(|days| u32::try_from(days).ok())
}

fn when(after: Option<i32>, date: Option<&aws_sdk_s3::primitives::DateTime>) -> Option<When> {
    match date {
        Some(date) => Some(When::Date(date.to_string())),
        None => days(after).map(When::Days),
    }
}

/// Which objects a rule is for: below which prefix, by tags, by size.
fn filter(rule: &S3Rule) -> (String, bool, bool) {
    #[expect(deprecated, reason = "older rules have their prefix there")]
    let old_prefix = rule.prefix();
    let Some(filter) = rule.filter() else {
        return (old_prefix.unwrap_or_default().to_string(), false, false);
    };
    let and = filter.and();
    let prefix = filter
        .prefix()
        .or(and.and_then(|and| and.prefix()))
        .or(old_prefix);
    let sizes = [
        filter.object_size_greater_than,
        filter.object_size_less_than,
        and.and_then(|and| and.object_size_greater_than),
        and.and_then(|and| and.object_size_less_than),
    ];
    let by_tags = filter.tag().is_some() || and.is_some_and(|and| !and.tags().is_empty());
    let by_size = sizes.iter().any(Option::is_some);
    (prefix.unwrap_or_default().to_string(), by_tags, by_size)
}

fn transition(transition: &Transition) -> (When, String) {
    let when = when(transition.days, transition.date());
    let class = transition.storage_class().map(|class| class.as_str());
    (
        when.unwrap_or(When::Days(0)),
        class.unwrap_or_default().to_string(),
    )
}

/// What a rule says, in our words.
fn told(rule: &S3Rule) -> LifecycleRule {
    let (prefix, by_tags, by_size) = filter(rule);
    let expiration = rule.expiration();
    let noncurrent = rule.noncurrent_version_expiration();
    let keeps_some = noncurrent.is_some_and(|one| one.newer_noncurrent_versions.is_some());
    LifecycleRule {
        id: rule.id().unwrap_or_default().to_string(),
        enabled: *rule.status() == ExpirationStatus::Enabled,
        prefix,
        by_tags,
        by_size,
        expires: expiration.and_then(|expiration| when(expiration.days, expiration.date())),
        removes_markers: expiration.and_then(LifecycleExpiration::expired_object_delete_marker)
            == Some(true),
        moves: rule.transitions().iter().map(transition).collect(),
        noncurrent_expire: noncurrent.and_then(|one| days(one.noncurrent_days)),
        gives_up_uploads: rule
            .abort_incomplete_multipart_upload()
            .and_then(|one| days(one.days_after_initiation)),
        says_more: keeps_some || !rule.noncurrent_version_transitions().is_empty(),
    }
}

/// One of our rules in the client's form. Errors: something in it that ours never have.
fn rule(ours: &LifecycleRule) -> Result<S3Rule, String> {
    let whole = |days: u32| i32::try_from(days).unwrap_or(i32::MAX);
    let uploads = ours.gives_up_uploads.map(|days| {
        AbortIncompleteMultipartUpload::builder()
            .days_after_initiation(whole(days))
            .build()
    });
    let noncurrent = ours.noncurrent_expire.map(|days| {
        NoncurrentVersionExpiration::builder()
            .noncurrent_days(whole(days))
            .build()
    });
    let markers = ours.removes_markers.then(|| {
        LifecycleExpiration::builder()
            .expired_object_delete_marker(true)
            .build()
    });
    let rule = S3Rule::builder()
        .id(&ours.id)
        .status(match ours.enabled {
            true => ExpirationStatus::Enabled,
            false => ExpirationStatus::Disabled,
        })
        .filter(LifecycleRuleFilter::builder().prefix(&ours.prefix).build())
        .set_abort_incomplete_multipart_upload(uploads)
        .set_noncurrent_version_expiration(noncurrent)
        .set_expiration(markers)
        .build()
        .map_err(|error| error.to_string())?;
    match told(&rule) == *ours {
        true => Ok(rule),
        false => Err(format!(
            "rule \"{}\" says more than Walden's rules do",
            ours.id
        )),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{LifecycleRuleAndOperator, Tag, Transition, TransitionStorageClass};

    use super::*;

    #[test]
    fn our_rules_come_back_as_they_were_and_never_delete_current_versions() {
        let ours = LifecycleRule {
            id: "walden a/ uploads".into(),
            enabled: true,
            prefix: "a/".into(),
            gives_up_uploads: Some(7),
            noncurrent_expire: Some(30),
            removes_markers: true,
            ..LifecycleRule::default()
        };
        assert_eq!(told(&rule(&ours).unwrap()), ours);
        let expiring = LifecycleRule {
            expires: Some(When::Days(1)),
            ..ours.clone()
        };
        assert!(rule(&expiring).unwrap_err().contains("walden a/ uploads"));
        let moving = LifecycleRule {
            moves: vec![(When::Days(1), "GLACIER".into())],
            ..ours
        };
        assert!(rule(&moving).is_err());
    }

    #[test]
    fn a_rule_of_somebody_else_is_understood() {
        let and = LifecycleRuleAndOperator::builder()
            .prefix("logs/")
            .object_size_greater_than(10)
            .tags(Tag::builder().key("a").value("b").build().unwrap())
            .build();
        let foreign = S3Rule::builder()
            .id("theirs")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().and(and).build())
            .expiration(LifecycleExpiration::builder().days(30).build())
            .transitions(
                Transition::builder()
                    .days(5)
                    .storage_class(TransitionStorageClass::Glacier)
                    .build(),
            )
            .build()
            .unwrap();
        let told = told(&foreign);
        assert!(told.by_tags && told.by_size && told.enabled);
        assert_eq!(told.prefix, "logs/");
        assert_eq!(told.expires, Some(When::Days(30)));
        assert_eq!(told.moves, [(When::Days(5), "GLACIER".to_string())]);
        #[expect(deprecated, reason = "older rules have their prefix there")]
        let old = S3Rule::builder()
            .prefix("old/")
            .status(ExpirationStatus::Disabled)
            .build()
            .unwrap();
        let old = super::told(&old);
        assert!(old.prefix == "old/" && !old.enabled);
    }
}
