//! `walden lifecycle`: the rules by which the bucket may clean up by itself, printed or set.

use anyhow::anyhow;
use clap::ValueEnum;

use super::context::open_storage;
use super::{Context, Exit, print_json, print_text};
use crate::config::RepositoryUrl;
use crate::error::with_hint;
use crate::plain::counted;
use crate::postgres::lifecycle::{Place, as_json, as_terraform, keeps_versions};

/// Arguments of `walden lifecycle`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print the rules.
    #[arg(long = "as", value_enum, default_value_t = Form::Json, value_name = "FORM")]
    form: Form,
    /// Set the rules instead of printing them. Rules of others stay; but who sets rules at the same moment may lose them.
    #[arg(long, conflicts_with = "form")]
    apply: bool,
}

/// What rules are printed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// `aws s3api put-bucket-lifecycle-configuration --lifecycle-configuration`, which replaces all rules.
    Json,
    /// The resource `aws_s3_bucket_lifecycle_configuration`.
    Terraform,
}

/// Runs the verb. Exit code 3 when another rule of the bucket takes away what is needed.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let settings = &context.settings;
    let RepositoryUrl::S3 { bucket, prefix } = &settings.repository.url else {
        let error = anyhow!(
            "\"{}\" is a folder, which has no lifecycle",
            settings.repository.url
        );
        return Err(with_hint(error, "this is for repositories in a bucket"));
    };
    let place = Place {
        repository: prefix.clone(),
        cluster: settings.cluster.name.clone(),
    };
    let rules = place.rules(keeps_versions(settings));
    if !args.apply {
        match args.form {
            Form::Json => print_json(&as_json(&rules))?,
            Form::Terraform => print_text(&as_terraform(&rules, bucket))?,
        }
        return Ok(Exit::Success);
    }
    let storage = open_storage(settings)?;
    let is_ours = |id: &str| place.is_ours(id);
    storage.set_lifecycle(&rules, &is_ours).await?;
    let there = storage.lifecycle().await?.unwrap_or_default();
    let others = there.iter().filter(|rule| !place.is_ours(&rule.id)).count();
    print_text(&format!(
        "set {} of bucket \"{bucket}\" for \"{prefix}{}/\"; {} of others stay\n",
        counted(rules.len() as u64, "rule"),
        place.cluster,
        counted(others as u64, "rule"),
    ))?;
    let dangers = place.compare(&there, &rules).dangers;
    for danger in &dangers {
        print_text(&format!("DANGER: {danger}\n"))?;
    }
    Ok(match dangers.is_empty() {
        true => Exit::Success,
        false => Exit::Unsound,
    })
}
