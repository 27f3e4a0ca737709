//! What a restore does one after the other, and how long each took.

use std::time::Instant;

use serde::{Serialize, Serializer};

/// A step that is timed and named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseName {
    /// Digest, table of contents, version, roles, extensions, tablespaces, space.
    Validate,
    /// The new database, empty, under a name of its own.
    Create,
    /// `pg_restore` or `psql`.
    Fill,
    EndConnections,
    /// The new database takes the old one's place.
    Swap,
    DropOld,
}

impl PhaseName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Create => "create",
            Self::Fill => "fill",
            Self::EndConnections => "end connections",
            Self::Swap => "swap",
            Self::DropOld => "drop old",
        }
    }
}

impl Serialize for PhaseName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.as_str().replace(' ', "_"))
    }
}

/// A phase that is over.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    pub name: PhaseName,
    pub seconds: f64,
}

/// Times phases, and tells each as it begins.
#[derive(Debug, Default)]
pub struct Phases {
    over: Vec<Phase>,
    current: Option<(PhaseName, Instant)>,
}

impl Phases {
    /// Ends the current phase and begins another.
    pub fn begin(&mut self, name: PhaseName) {
        self.end();
        tracing::info!("restore: {}", name.as_str());
        self.current = Some((name, Instant::now()));
    }

    /// The phase under way, or the last one.
    pub fn current(&self) -> Option<PhaseName> {
        let over = self.over.last().map(|phase| phase.name);
        self.current.map(|(name, _)| name).or(over)
    }

    fn end(&mut self) {
        if let Some((name, begun)) = self.current.take() {
            let seconds = begun.elapsed().as_secs_f64();
            self.over.push(Phase { name, seconds });
        }
    }

    /// All phases.
    pub fn finish(&mut self) -> Vec<Phase> {
        self.end();
        self.over.clone()
    }
}
