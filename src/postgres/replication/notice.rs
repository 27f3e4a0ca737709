//! Notices of the server, in the log.

use super::messages::ServerError;

/// Logs a notice of the server at the level that fits it.
pub(super) fn log(notice: &ServerError) {
    match notice.severity.as_str() {
        "WARNING" => tracing::warn!(code = notice.code, "PostgreSQL: {}", notice.message),
        _ => tracing::debug!(code = notice.code, "PostgreSQL: {}", notice.message),
    }
}
