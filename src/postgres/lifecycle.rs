//! The rules by which a bucket may act on a cluster's objects by itself: which are right, and which of those that are
//! there would take away what is needed. Pure.
//!
//! No rule that Walden sets deletes a current version: age does not tell what retention keeps. A last good backup may be
//! of any age, a pin holds one, and a later backup's manifest may name the packs of an earlier one.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::retention::{ItemKind, Keep, Policy, Tier};
use crate::storage::classes::is_instant;
use crate::storage::lifecycle::LifecycleRule;

/// Days after which an upload that nobody completed is given up: longer than any upload takes.
const UPLOADS: u32 = 7;
/// Days that versions are kept beyond what retention keeps: expiry may be late.
const MARGIN: i64 = 30;

/// Where a cluster's objects lie in its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The repository's prefix in the bucket: empty, or ending with `/`.
    pub repository: String,
    /// The cluster's name.
    pub cluster: String,
}

impl Place {
    /// Below it lies all of the cluster, and nothing else.
    fn prefix(&self) -> String {
        format!("{}{}/", self.repository, self.cluster)
    }

    /// The object without which there is no repository.
    fn marker(&self) -> String {
        format!("{}walden.json", self.repository)
    }

    fn id(&self, what: &str) -> String {
        format!("walden {} {what}", self.prefix())
    }

    /// Whether a rule of that id is one that Walden sets for this cluster.
    pub fn is_ours(&self, id: &str) -> bool {
        id.strip_prefix("walden ")
            .and_then(|rest| rest.strip_prefix(&self.prefix()))
            .is_some_and(|rest| rest.starts_with(' '))
    }

    fn holds(&self, rule: &LifecycleRule) -> bool {
        rule.acts_below(&self.prefix()) || rule.acts_below(&self.marker())
    }

    /// The rules that are right. `keeps`: how long a version is kept that was overwritten or deleted; `None`: for ever.
    pub fn rules(&self, keeps: Option<u32>) -> Vec<LifecycleRule> {
        let rule = |what: &str| LifecycleRule {
            id: self.id(what),
            enabled: true,
            prefix: self.prefix(),
            ..LifecycleRule::default()
        };
        let uploads = LifecycleRule {
            gives_up_uploads: Some(UPLOADS),
            ..rule("incomplete uploads")
        };
        let versions = keeps.map(|days| LifecycleRule {
            noncurrent_expire: Some(days),
            removes_markers: true,
            ..rule("old versions")
        });
        [Some(uploads), versions].into_iter().flatten().collect()
    }

    /// How the bucket's rules compare with those that are right.
    pub fn compare(&self, there: &[LifecycleRule], right: &[LifecycleRule]) -> Comparison {
        let keeps = right.iter().find_map(|rule| rule.noncurrent_expire);
        let mut found = Comparison::default();
        for rule in there.iter().filter(|rule| self.holds(rule)) {
            let below = match rule.prefix.as_str() {
                "" => "all objects of the bucket".to_string(),
                prefix => format!("objects below \"{prefix}\""),
            };
            let id = &rule.id;
            if let Some(when) = &rule.expires {
                let what = format!("rule \"{id}\" deletes {below} {when}");
                found.dangers.push(what);
            }
            for (when, class) in rule.moves.iter().filter(|(_, class)| !is_instant(class)) {
                let what = format!("rule \"{id}\" moves {below} to {class} {when}");
                found.dangers.push(what);
            }
            match rule.noncurrent_expire {
                Some(days) if keeps.is_none_or(|keeps| days < keeps) => {
                    found.hasty.push(format!(
                        "rule \"{id}\" deletes versions of {below} {days} days after they were replaced or deleted"
                    ));
                }
                _ => (),
            }
        }
        let is_there = |rule: &&LifecycleRule| there.contains(rule);
        let missing = right.iter().filter(|rule| !is_there(rule));
        found.missing = missing.map(|rule| rule.id.clone()).collect();
        let stale = there
            .iter()
            .filter(|rule| self.is_ours(&rule.id) && !right.contains(rule));
        found.stale = stale.map(|rule| rule.id.clone()).collect();
        found
    }
}

/// How a bucket's rules are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Rules that take away what a restore needs, or needs at once.
    pub dangers: Vec<String>,
    /// Rules that delete versions earlier than ours would.
    pub hasty: Vec<String>,
    /// Of ours, by id: not there as they must be.
    pub missing: Vec<String>,
    /// Of ours, by id: there, and not as they must be.
    pub stale: Vec<String>,
}

/// Days for which the settings have versions kept that were replaced or deleted; `None`: for ever.
pub fn keeps_versions(settings: &Settings) -> Option<u32> {
    if let Some(set) = settings.s3.keep_versions {
        return u32::try_from(set.as_secs().div_ceil(24 * 3600)).ok();
    }
    longest(&Policy::new(settings)).map(days_beyond)
}

/// How long the policy keeps anything; `None`: for ever, as it does with a kind of which it says nothing.
fn longest(policy: &Policy) -> Option<TimeDelta> {
    let mut longest = policy.window.unwrap_or_default();
    for kind in ItemKind::ALL {
        if !policy.limits(kind) {
            return None;
        }
        for (tier, keep) in policy.of(kind).tiers.iter() {
            let period = TimeDelta::days(match tier {
                Tier::Hourly | Tier::Daily => 1,
                Tier::Weekly => 7,
                Tier::Monthly => 31,
                Tier::Quarterly => 92,
                Tier::Yearly => 366,
            });
            // The period that the end lies in counts whole.
            let span = match keep {
                Keep::Count(count) => period * i32::try_from(count).ok()?.checked_add(1)?,
                Keep::For(span) => span.checked_add(&period)?,
            };
            longest = longest.max(span);
        }
    }
    Some(longest)
}

/// Days that versions are kept if retention keeps nothing longer than that.
pub fn days_beyond(longest: TimeDelta) -> u32 {
    let days = longest.num_days() + i64::from(longest > TimeDelta::days(longest.num_days()));
    u32::try_from(days.saturating_add(MARGIN).clamp(1, i64::from(i32::MAX))).unwrap_or(1)
}

/// As the S3 API takes it (`aws s3api put-bucket-lifecycle-configuration`).
pub fn as_json(rules: &[LifecycleRule]) -> Value {
    let one = |rule: &LifecycleRule| {
        let mut json = json!({
            "ID": rule.id,
            "Status": "Enabled",
            "Filter": { "Prefix": rule.prefix },
        });
        if let Some(days) = rule.gives_up_uploads {
            json["AbortIncompleteMultipartUpload"] = json!({ "DaysAfterInitiation": days });
        }
        if let Some(days) = rule.noncurrent_expire {
            json["NoncurrentVersionExpiration"] = json!({ "NoncurrentDays": days });
        }
        if rule.removes_markers {
            json["Expiration"] = json!({ "ExpiredObjectDeleteMarker": true });
        }
        json
    };
    json!({ "Rules": rules.iter().map(one).collect::<Vec<_>>() })
}

/// As a Terraform resource of the provider `hashicorp/aws`.
pub fn as_terraform(rules: &[LifecycleRule], bucket: &str) -> String {
    let mut text = format!(
        "# This resource owns all rules of the bucket: add the rules of others here, too.\n\
         resource \"aws_s3_bucket_lifecycle_configuration\" \"walden\" {{\n  bucket = {}\n",
        quoted(bucket)
    );
    for rule in rules {
        text += &format!(
            "\n  rule {{\n    id     = {}\n    status = \"Enabled\"\n\n    filter {{\n      prefix = {}\n    }}\n",
            quoted(&rule.id),
            quoted(&rule.prefix)
        );
        let mut block = |name: &str, what: String| {
            text += &format!("\n    {name} {{\n      {what}\n    }}\n");
        };
        if let Some(days) = rule.gives_up_uploads {
            let what = format!("days_after_initiation = {days}");
            block("abort_incomplete_multipart_upload", what);
        }
        if let Some(days) = rule.noncurrent_expire {
            let what = format!("noncurrent_days = {days}");
            block("noncurrent_version_expiration", what);
        }
        if rule.removes_markers {
            block("expiration", "expired_object_delete_marker = true".into());
        }
        text += "  }\n";
    }
    text + "}\n"
}

/// A text of HCL: `${` and `%{` begin a template there.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    let text = text.replace("${", "$${").replace("%{", "%%{");
    format!("\"{text}\"")
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
