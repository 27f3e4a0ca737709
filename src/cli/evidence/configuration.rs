//! Who does something and under which settings. Changes of the settings are records, made by whoever sees them first.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::config::{self, Origin, Settings};
use crate::error::one_line;
use crate::evidence::record::{Act, Evidence, Record, SettingsSeen, Verdict, Who};
use crate::evidence::settings::{Values, change, seen, tells};
use crate::evidence::{Journal, LookBack};
use crate::owner::Owner;
use crate::postgres::cluster::Cluster;
use crate::storage::until;

/// How long a record may take: whoever did it waits.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Who runs this, and under which settings.
pub fn who_under(settings: &Settings) -> Who {
    Who {
        settings: Some(seen_in(settings)),
        ..who()
    }
}

/// Who runs this.
pub fn who() -> Who {
    let host = rustix::system::uname();
    Who {
        user: Owner::own().name(),
        host: host.nodename().to_string_lossy().into_owned(),
        token: None,
        settings: None,
    }
}

/// What is not the default, secrets hidden.
fn values(settings: &Settings) -> Values {
    let shown = config::effective(settings).into_iter();
    let set = shown.filter(|setting| setting.origin != Origin::Default);
    set.filter_map(|setting| Some((setting.key, setting.value?)))
        .collect()
}

/// What records say of these settings. Which of them the environment sets is part of their source: a service and a shell that
/// differ in it do not take turns in changing them.
fn seen_in(settings: &Settings) -> SettingsSeen {
    let shown = config::effective(settings).into_iter();
    let of_environment: Vec<String> = shown
        .filter(|setting| setting.origin == Origin::Environment)
        .map(|setting| setting.key)
        .collect();
    let source = match of_environment.is_empty() {
        true => settings.source.to_string(),
        false => format!(
            "{} and the environment ({})",
            settings.source,
            of_environment.join(", ")
        ),
    };
    seen(source, &values(settings))
}

/// Keeps a record if the settings at a moment are not as this user's last record of them says; whether the records say by now
/// what they are. A record of an act that follows must not name them if not: then whoever does something next looks again.
pub async fn tell_settings(settings: &Settings, cluster: &Cluster, at: DateTime<Utc>) -> bool {
    let (journal, who) = (cluster.journal(), who_under(settings));
    let deadline = Instant::now() + PATIENCE;
    let told = until(deadline.into(), told(&journal, &who, settings, at));
    let told = told.await;
    if let Err(error) = &told {
        tracing::info!(
            "whether the settings changed is not recorded: {}",
            one_line(error)
        );
    }
    told.is_ok()
}

async fn told(
    journal: &Journal,
    who: &Who,
    settings: &Settings,
    at: DateTime<Utc>,
) -> anyhow::Result<()> {
    let now = seen_in(settings);
    let is_same = |record: &Record| record.who.settings.as_ref() == Some(&now);
    let last = match journal
        .look_back(who, is_same, |record| tells(record, &now.source))
        .await?
    {
        LookBack::Enough => return Ok(()),
        LookBack::Found(record) => Some(record),
        LookBack::None => None,
    };
    let Some((subject, details)) = change(last.as_deref(), &now, &values(settings)) else {
        return Ok(());
    };
    let evidence = Evidence {
        act: Act::Configuration,
        subject,
        scope: None,
        began: at,
        ended: at,
        verdict: Verdict::Passed,
        reason: String::new(),
        phases: Vec::new(),
        checks: Vec::new(),
        rto_seconds: None,
        rpo_seconds: None,
        details,
    };
    journal.append(who, evidence).await.map(drop)
}
