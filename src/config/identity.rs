//! Which cluster of which repository settings mean.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{RepositoryUrl, Settings};

/// Variables of S3's client that name a server when `s3.endpoint` does not.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];

/// A cluster of a repository, as far as settings tell. `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    cluster: String,
    url: RepositoryUrl,
    /// Where the bucket is.
    server: Option<Server>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Server {
    Endpoint(String),
    /// Amazon's; `None`: what the machine says.
    Region(Option<String>),
}

impl Identity {
    /// What `settings` mean where `variable` gives the environment.
    pub fn of(settings: &Settings, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let named = || ENDPOINT_VARIABLES.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        let from_environment = || named().map(|value| value.to_string_lossy().into_owned());
        let server = || match settings.s3.endpoint.clone().or_else(from_environment) {
            Some(endpoint) => Server::Endpoint(endpoint.trim_end_matches('/').to_string()),
            None => Server::Region(settings.s3.region.clone()),
        };
        let url = settings.repository.url.clone();
        let server = matches!(url, RepositoryUrl::S3 { .. }).then(server);
        Self { cluster: settings.cluster.name.clone(), url, server }
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
    let place = |path: &PathBuf| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    one == two || place(one).is_some_and(|one| place(two) == Some(one))
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster \"{}\" of {}", self.cluster, self.url)?;
        match &self.server {
            Some(Server::Endpoint(endpoint)) => write!(f, " at {endpoint}"),
            Some(Server::Region(Some(region))) => write!(f, " in {region}"),
            Some(Server::Region(None)) | None => Ok(()),
        }
    }
}
