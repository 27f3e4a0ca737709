//! Whether a request is for the cluster and the repository that are served here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::config::{self, ClusterIdentity};
use crate::error::one_line;
use crate::wire::For;

/// What is served here.
#[derive(Clone)]
pub struct ServedCluster {
    identity: Arc<ClusterIdentity>,
    /// The last reason why a request was sent away: each is logged once, not for each segment.
    told: Arc<Mutex<String>>,
}

impl ServedCluster {
    /// Answers for `identity`.
    pub fn new(identity: ClusterIdentity) -> Self {
        Self {
            identity: Arc::new(identity),
            told: Arc::default(),
        }
    }

    /// Why a request is not for this service; `None`: it is. The file is read for each request, as the hook would read it.
    pub async fn refusal(&self, whose: &For) -> Option<String> {
        let For::Configuration { file, variables } = whose else {
            return None;
        };
        let (ours, file, variables) = (self.identity.clone(), file.clone(), variables.clone());
        let compare = move || match meant(&file, &variables) {
            Ok(meant) if meant.is(&ours) => None,
            Ok(meant) => Some(format!(
                "the service serves {ours}, the request is for {meant}"
            )),
            Err(error) => Some(format!(
                "what the request is for cannot be read: {}",
                one_line(&error)
            )),
        };
        let refusal = tokio::task::spawn_blocking(compare)
            .await
            .unwrap_or_else(|panicked| Some(panicked.to_string()));
        if let Some(why) = &refusal {
            self.tell(&format!("a hook does its work itself: {why}"));
        }
        refusal
    }

    /// Logs why a request got no answer, unless that was the last thing said.
    pub fn tell(&self, why: &str) {
        let mut told = self
            .told
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if *told != why {
            tracing::warn!("{why}");
            *told = why.to_string();
        }
    }
}

/// What the hook's own work would be for.
fn meant(file: &[u8], variables: &[Vec<u8>]) -> anyhow::Result<ClusterIdentity> {
    let variables: Vec<(&OsStr, &OsStr)> = variables
        .iter()
        .filter_map(|variable| {
            let at = variable.iter().position(|byte| *byte == b'=')?;
            Some((
                OsStr::from_bytes(&variable[..at]),
                OsStr::from_bytes(&variable[at + 1..]),
            ))
        })
        .collect();
    let value = |name: &str| {
        variables
            .iter()
            .find(|(each, _)| *each == name)
            .map(|(_, value)| OsString::from(value))
    };
    let file = Some(Path::new(OsStr::from_bytes(file))).filter(|file| !file.as_os_str().is_empty());
    let settings = config::load(file, variables.iter().copied())?;
    Ok(ClusterIdentity::of(&settings, value))
}
