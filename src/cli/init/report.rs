//! What `walden init` did, and what is to be done next.

use std::path::PathBuf;

use serde::Serialize;

use crate::postgres::catalog::ClusterDescription;
use crate::postgres::layout::ClusterName;
use crate::postgres::restore::assignment;
use crate::postgres::types::TimelineId;

/// What was done, for `--format json`.
#[derive(Debug, Serialize)]
pub struct InitOutput {
    pub configuration: Option<PathBuf>,
    pub configuration_written: bool,
    pub socket: PathBuf,
    pub repository: String,
    pub repository_created: bool,
    pub cluster: ClusterDescription,
    pub cluster_registered: bool,
    /// The server's timeline, where the archive that was there before does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_timeline: Option<TimelineId>,
    /// Variables of the environment that the configuration now says, and those that it does not.
    pub connection_kept: Vec<&'static str>,
    pub connection_not_kept: Vec<&'static str>,
    /// What the server's user cannot use, which root made for nobody it knows.
    pub belong_to_root: Vec<PathBuf>,
    /// Other clusters of the repository with the same system identifier.
    pub same_system: Vec<ClusterName>,
    /// The value to set.
    pub archive_command: String,
}

impl InitOutput {
    /// For people.
    pub fn in_words(&self) -> String {
        let cluster = &self.cluster;
        let majors: Vec<String> = cluster
            .versions
            .iter()
            .map(|version| version.major.to_string())
            .collect();
        let mut text = String::new();
        if let Some(path) = &self.configuration {
            let done = if self.configuration_written {
                "written"
            } else {
                "exists, unchanged"
            };
            text += &format!("configuration  {}  {done}\n", path.display());
        }
        let done = if self.repository_created {
            "created"
        } else {
            "exists"
        };
        text += &format!("repository     {}  {done}\n", self.repository);
        let done = if self.cluster_registered {
            "registered"
        } else {
            "was registered before"
        };
        text += &format!(
            "cluster        {}  {done}: system identifier {}, PostgreSQL {}, segments of {} MiB\n",
            cluster.name,
            cluster.system_identifier,
            majors.join(", "),
            cluster.segment_size.bytes() >> 20,
        );
        text += &same_system(&self.same_system, &cluster.name);
        if let Some(timeline) = self.unknown_timeline {
            text += &format!(
                "\nNOTE: the server is on timeline {timeline}, which this archive does not have: is it a copy, such as a \
                 restored one?\nA copy needs a name of its own, by a configuration of its own: its WAL would spoil the \
             original's archive.\n"
            );
        }
        text += &connection(self);
        let set = assignment("archive_command", &self.archive_command);
        if self.configuration.is_none() {
            text += "\nThe environment alone tells the settings: give the server the WALDEN_ variables of this process.\n";
        }
        if !self.belong_to_root.is_empty() {
            let paths: Vec<String> = self
                .belong_to_root
                .iter()
                .map(|path| format!("'{}'", path.display()))
                .collect();
            text += &format!(
                "\nRoot owns what PostgreSQL's user must use. Give it to that user, such as postgres:\n  chown -R postgres {}\n",
                paths.join(" ")
            );
        }
        text += &match self.cluster_registered {
            true => format!(
                "\nNext: keep `walden serve` running, and set in postgresql.conf\n  archive_mode = on\n  {set}then restart \
                 PostgreSQL and run `walden check` and `walden backup take`.\n"
            ),
            false => format!("\nThe line for postgresql.conf is\n  {set}"),
        };
        text
    }
}

/// Where else the connection comes from than from the file.
fn connection(report: &InitOutput) -> String {
    let mut text = String::new();
    if !report.connection_kept.is_empty() {
        text += &format!(
            "\nThe file keeps how to connect: {}\n",
            report.connection_kept.join(", ")
        );
    }
    if !report.connection_not_kept.is_empty() {
        let names = report.connection_not_kept.join(", ");
        text += &format!(
            "\nNOTE: only this environment has {names}: `walden serve` needs it, too. Give it these variables, put them \
             into `postgresql.dsn`, and a password into a password file.\n"
        );
    }
    text
}

/// What it means that clusters have one system identifier.
fn same_system(others: &[ClusterName], name: &ClusterName) -> String {
    if others.is_empty() {
        return String::new();
    }
    let others: Vec<String> = others.iter().map(|other| format!("\"{other}\"")).collect();
    let others = others.join(", ");
    format!(
        "\nNOTE: the repository has the same system identifier as {others}: one is a copy of the other, such as a restored one.\n\
         Each server must archive under one name alone, by the --config of its own line: WAL of the copy would spoil the \
         original's archive.\n\
         If this server takes the place of {others} for good, use that name instead of \"{name}\".\n"
    )
}
