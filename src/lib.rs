//! Walden: continuous WAL archiving and point-in-time recovery for PostgreSQL.
//!
//! The layers, rim to core; nothing imports what stands above it in this table, and keeper and core do not know each
//! other (`tests/tidy.rs` checks this):
//!
//! | layer      | modules                                                                     |
//! |------------|-----------------------------------------------------------------------------|
//! | edges      | `cli`, `service`, `http`                                                    |
//! | jobs       | `jobs`: what runs when, and who runs it                                      |
//! | evidence   | `evidence`: chained records of what was done                                  |
//! | alerts     | `alerts`: who is told what fires                                             |
//! | answers    | `api`: JSON of `cli` and `http`                                               |
//! | activities | `postgres` but for the core, `postgres::load` among them           |
//! | core       | `postgres::{types, wal, layout, catalog}`, `health`, `retention`: pure      |
//! | keeper     | `repo`, `codec`, `storage`: bytes, no PostgreSQL                            |
//! | leaves     | `budget`, `certificate`, `config`, `data_directory`, `error`,                |
//! |            | `folder_place`, `fsync`, `http_client`, `metrics`, `owner`, `plain`, `wire`  |

pub mod alerts;
pub mod api;
pub mod budget;
pub mod certificate;
pub mod cli;
pub mod codec;
pub mod config;
pub mod data_directory;
pub mod error;
pub mod evidence;
pub mod folder_place;
pub mod fsync;
pub mod health;
pub mod http;
pub mod http_client;
pub mod jobs;
pub mod metrics;
pub mod owner;
pub mod plain;
pub mod postgres;
pub mod repo;
pub mod retention;
pub mod service;
pub mod storage;
pub mod wire;
