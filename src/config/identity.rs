//! Which cluster of which repository settings mean.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{RepositoryUrl, Settings};

/// Variables of S3's client that name a server when `s3.endpoint` does not.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
/// The same for `s3.region`.
const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// The same for `s3.profile`.
const PROFILE_VARIABLES: [&str; 1] = ["AWS_PROFILE"];
/// Names the file with the profiles.
const PROFILES_VARIABLES: [&str; 1] = ["AWS_CONFIG_FILE"];

/// A cluster of a repository, as far as settings tell. `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterIdentity {
    cluster: String,
    url: RepositoryUrl,
    /// Where the bucket is.
    server: Option<S3Server>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum S3Server {
    Endpoint(String),
    /// The one that a profile names, or Amazon's; `None`: what the machine says. Compared as they are told: what differs
    /// may be the same, and is not taken for it.
    Found {
        region: Option<String>,
        profile: Option<String>,
        profiles: Option<String>,
    },
}

impl ClusterIdentity {
    /// What `settings` mean where `variable` gives the environment.
    pub fn of(settings: &Settings, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let from_environment = |names: &[&str]| {
            let named = names
                .iter()
                .find_map(|name| variable(name).filter(|value| !value.is_empty()));
            named.map(|value| value.to_string_lossy().into_owned())
        };
        let s3 = &settings.s3;
        let server = || match s3
            .endpoint
            .clone()
            .or_else(|| from_environment(&ENDPOINT_VARIABLES))
        {
            Some(endpoint) => S3Server::Endpoint(endpoint.trim_end_matches('/').to_string()),
            None => S3Server::Found {
                region: s3
                    .region
                    .clone()
                    .or_else(|| from_environment(&REGION_VARIABLES)),
                profile: s3
                    .profile
                    .clone()
                    .or_else(|| from_environment(&PROFILE_VARIABLES)),
                profiles: from_environment(&PROFILES_VARIABLES),
            },
        };
        let url = settings.repository.url.clone();
        let server = matches!(url, RepositoryUrl::S3 { .. }).then(server);
        Self {
            cluster: settings.cluster.name.clone(),
            url,
            server,
        }
    }

    /// Whether both are the same cluster in the same place; looks where folders really lie.
    pub fn is(&self, other: &Self) -> bool {
        let same_place = || match (&self.url, &other.url) {
            (RepositoryUrl::File(one), RepositoryUrl::File(two)) => is_same_folder(one, two),
            _ => false,
        };
        self == other || (self.cluster == other.cluster && same_place())
    }
}

/// Whether two paths lead to one folder, also by links and mounts. What cannot be looked at is not the same.
fn is_same_folder(one: &PathBuf, two: &PathBuf) -> bool {
    let place = |path: &PathBuf| {
        std::fs::metadata(path)
            .map(|meta| (meta.dev(), meta.ino()))
            .ok()
    };
    one == two || place(one).is_some_and(|one| place(two) == Some(one))
}

impl fmt::Display for ClusterIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster \"{}\" of {}", self.cluster, self.url)?;
        match &self.server {
            Some(S3Server::Endpoint(endpoint)) => write!(f, " at {endpoint}"),
            Some(S3Server::Found {
                region,
                profile,
                profiles,
            }) => {
                let told = [
                    (" in ", region),
                    (" by profile ", profile),
                    (" of ", profiles),
                ];
                told.iter().try_for_each(|(how, what)| {
                    what.iter().try_for_each(|what| write!(f, "{how}{what}"))
                })
            }
            None => Ok(()),
        }
    }
}
