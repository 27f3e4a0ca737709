//! Tells people when something is late or wrong, and when it is over.
//!
//! Whoever knows the facts hands over [`Seen`]: what is not good. [`decide`] compares it with the [`AlertState`] that the
//! repository keeps (pure), [`Evaluator`] stores the next state and has [`Channels`] tell it. Whoever stores the next number
//! of the state is the one that tells, so two services beside each other do not both.

mod channels;
mod command;
pub mod decide;
mod evaluate;
mod file;
mod mail;
mod message;
mod reach;
mod refused;
pub mod state;
mod store;
mod template;

pub use channels::{Channels, send as send_request};
pub use evaluate::{Evaluated, Evaluator, not_judged};
pub use file::rule_names;
pub use file::{AlertsFile, parse as parse_file};
pub use message::Origin;
pub use reach::Reach;
pub use store::AlertStore;
