//! Keeping summaries small.

use serde::Serialize;

use super::summary::{Event, Summary, What};

/// Bytes of JSON that a stored summary takes at most.
pub const STORED: usize = 64 << 10;
/// Items to which lists within events are shortened before events go.
const SHORT: usize = 16;

impl Summary {
    /// Shortens it until its JSON takes no more than so many bytes: always the longest of its lists. What goes is
    /// counted.
    pub fn fit(&mut self, bytes: usize) {
        while length(self) > bytes {
            let lengths = [
                (length(&self.events), self.events.is_empty()),
                (length(&self.created), self.created.is_empty()),
                (length(&self.rows.largest), self.rows.largest.is_empty()),
                (length(&self.oldest_ended), self.oldest_ended.is_empty()),
            ];
            let lists = lengths.iter().enumerate().filter(|(_, (_, empty))| !empty);
            match lists.max_by_key(|(_, (length, _))| *length).map(|(index, _)| index) {
                Some(0) if self.events.iter_mut().map(shorten).fold(false, |any, one| any | one) => {}
                Some(0) => self.events_left_out += halve(&mut self.events).len() as u64,
                Some(1) => self.created_left_out += halve(&mut self.created).len() as u64,
                Some(2) => halve(&mut self.rows.largest).iter().for_each(|rows| self.rows.leave_out(&rows.counts)),
                Some(_) => self.ended_left_out += halve(&mut self.oldest_ended).len() as u64,
                None => return,
            }
        }
    }
}

fn length(value: &impl Serialize) -> usize {
    // Plain data with text keys always has a JSON form.
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

/// Takes the latter half away.
fn halve<T>(list: &mut Vec<T>) -> Vec<T> {
    list.split_off(list.len() / 2)
}

/// Shortens the lists of an event; says whether there was anything to shorten.
fn shorten(event: &mut Event) -> bool {
    match &mut event.what {
        What::Dropped { subxids, files, relations, cut, .. } => {
            let long = subxids.len().max(files.len()).max(relations.len()) > SHORT;
            subxids.truncate(SHORT);
            files.truncate(SHORT);
            relations.truncate(SHORT);
            *cut |= long;
            long
        }
        What::TablesTruncated { tables, cut, .. } => {
            let long = tables.len() > SHORT;
            tables.truncate(SHORT);
            *cut |= long;
            long
        }
        _ => false,
    }
}
