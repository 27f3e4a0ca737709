//! Records of what was done into the other repository, as they are: what they say of each other must hold there, too.

use super::transfer::{AGAIN, Came, Copier, CopyGroup, CopySide};
use crate::error::Hint;
use crate::postgres::object_problem::ProblemKind;

impl Copier {
    /// Copies all records that are not there.
    pub async fn evidence(&self) -> anyhow::Result<()> {
        self.progress.set_phase("records of what was done");
        let (source, destination) = (self.source.journal(), self.destination.journal());
        let copied = source.copy_to(&destination).await.hint(AGAIN)?;
        for bytes in copied.copied {
            self.tally(CopyGroup::Evidence, bytes, Came::Copied);
        }
        for _ in 0..copied.present {
            self.tally(CopyGroup::Evidence, 0, Came::Present);
        }
        for (key, why) in copied.unread {
            self.failed(CopySide::Source, &key, ProblemKind::Unread, why)?;
        }
        for key in copied.conflicts {
            let why = "the destination has another one of that name".to_string();
            self.failed(CopySide::Destination, &key, ProblemKind::Conflict, why)?;
        }
        Ok(())
    }
}
