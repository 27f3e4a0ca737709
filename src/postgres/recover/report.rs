//! What a recovery did, for people, programs and the evidence.

use serde::Serialize;

use crate::evidence::record::Phase;
use crate::postgres::dump_restore::names::QualifiedName;

/// A recovered table.
#[derive(Debug, Serialize)]
pub struct TableRecovery {
    pub table: QualifiedName,
    /// Where it is now, and on which server.
    pub database: String,
    pub server: String,
    /// Where the rows come from, in words.
    pub from: String,
    /// What was restored for it.
    pub way: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    pub phases: Vec<Phase>,
}

/// What became of it.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// What it is called now.
    pub recovered: QualifiedName,
    pub rows: u64,
    pub made: Made,
    /// Types, functions and schemas that were gone and that it needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also_made: Vec<String>,
    pub left_out: Vec<LeftOut>,
    /// `None`: the table is not there now.
    pub comparison: Option<Comparison>,
    pub put_back: PutBack,
}

/// What was made with the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Made {
    pub partitions: usize,
    pub indexes: usize,
    pub sequences: usize,
}

/// Something that did not come back with the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub what: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What makes it, once the table has its old name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
}

impl LeftOut {
    pub fn new(what: &str, name: &str) -> Self {
        Self {
            what: what.into(),
            name: name.into(),
            why: String::new(),
            sql: None,
        }
    }

    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }
}

/// How the recovered rows and the present ones differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The columns that tell rows apart; empty: whole rows were compared.
    pub key: Vec<String>,
    /// Recovered rows that are not there now.
    pub missing: u64,
    /// Rows that have other values now; `None`: without a key this cannot be told.
    pub changed: Option<u64>,
    pub same: u64,
    /// Rows that are there now and were not recovered.
    pub added: u64,
    /// Columns that only one of the two tables has, and why others were not compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How rows, or the table, get back into their place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutBack {
    /// Statements of one transaction.
    pub sql: Vec<String>,
    /// What gives changed rows their recovered values; it is never run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_sql: Option<String>,
    /// It was run.
    pub is_done: bool,
    /// So many rows were put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}
