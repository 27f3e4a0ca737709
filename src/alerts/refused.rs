/// An answer: this message is not taken, others may be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);
