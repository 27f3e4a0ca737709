//! What keeps from deletion what somebody needs: pins of operators, leases of readers; and the records of what was
//! deleted.
//!
//! A reader puts its lease, then looks whether a deletion is under way. A deletion puts its own lease, then looks for
//! readers' leases. The store shows what was put to whoever looks later, so at least one of the two sees the other.

mod content;
mod deletion;
mod lease;
mod needs;
mod pin;
mod process;
mod record;
#[cfg(test)]
mod tests;

pub use deletion::{Deletion, OtherDeletion};
pub use lease::{
    BeingDeleted, LISTED_LIFE, Lease, LeaseContent, LeaseKind, NotRegistered, StoredLease, is_used,
    leases, register, register_writer, store_time, take_lease,
};
pub use needs::Needs;
pub use pin::{Pin, StoredPin, pin, pins, refuse_pinned, unpin};
pub use process::ProcessIdentity;
pub use record::{
    Expiry, ExpiryIntent, ExpiryOutcome, LeftItem, RecordNumbers, StoredIntent, find_intent,
    load_expired, newest_records,
};
