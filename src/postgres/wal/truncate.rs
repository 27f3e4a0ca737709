//! Truncates summaries to a size.

use serde::Serialize;

use super::event::{EventDetail, WalEvent};
use super::event_overflow::EventGroup;
use super::summary::Summary;

/// Bytes of JSON that a stored summary takes at most.
pub const STORED: usize = 64 << 10;
/// Items to which lists within events are shortened before events go.
const SHORT: usize = 16;

impl Summary {
    /// Shortens it until its JSON takes no more than so many bytes: first events that nobody looks for go, then always
    /// the latter half of the longest list. What goes is counted.
    pub fn truncate_to(&mut self, bytes: usize) {
        while length(self) > bytes {
            if self.halve_events(EventGroup::Others) {
                continue;
            }
            let lists =
                EventGroup::ALL.map(|group| (Truncatable::Events(group), self.length_of(group)));
            let others = [
                (Truncatable::Created, length(&self.created)),
                (Truncatable::Rows, length(&self.rows.largest)),
                (Truncatable::Ended, length(&self.oldest_ended)),
                (Truncatable::Tablespaces, length(&self.tablespaces.made)),
            ];
            match lists
                .into_iter()
                .chain(others)
                .max_by_key(|(_, length)| *length)
            {
                Some((_, ..=EMPTY)) | None => return,
                Some((Truncatable::Events(EventGroup::Removals), _))
                    if self
                        .events
                        .iter_mut()
                        .map(shorten)
                        .fold(false, |any, one| any | one) => {}
                Some((Truncatable::Events(group), _)) => {
                    self.halve_events(group);
                }
                Some((Truncatable::Created, _)) => {
                    self.created_left_out += halve(&mut self.created).len() as u64
                }
                Some((Truncatable::Rows, _)) => {
                    halve(&mut self.rows.largest)
                        .iter()
                        .for_each(|rows| self.rows.leave_out(&rows.counts));
                }
                Some((Truncatable::Tablespaces, _)) => {
                    self.tablespaces.left_out += halve(&mut self.tablespaces.made).len() as u64;
                }
                Some((Truncatable::Ended, _)) => {
                    self.ended_left_out += halve(&mut self.oldest_ended).len() as u64
                }
            }
        }
    }

    /// Bytes of a group's events, as a list.
    fn length_of(&self, group: EventGroup) -> usize {
        length(
            &self
                .events
                .iter()
                .filter(|event| EventGroup::of(&event.what) == group)
                .collect::<Vec<_>>(),
        )
    }

    /// Takes the latter half of a group's events away; says whether there were any.
    fn halve_events(&mut self, group: EventGroup) -> bool {
        let is_of = |event: &WalEvent| EventGroup::of(&event.what) == group;
        let count = self.events.iter().filter(|event| is_of(event)).count();
        let mut seen = 0;
        self.events.retain(|event| {
            seen += usize::from(is_of(event));
            !is_of(event) || seen <= count / 2
        });
        self.events_left_out.add(group, (count - count / 2) as u64);
        count > 0
    }
}

/// What can be shortened.
enum Truncatable {
    Events(EventGroup),
    Created,
    Rows,
    Ended,
    Tablespaces,
}

/// Bytes of an empty list.
const EMPTY: usize = 2;

fn length(value: &impl Serialize) -> usize {
    // Plain data with text keys always has a JSON form.
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

/// Takes the latter half away.
fn halve<T>(list: &mut Vec<T>) -> Vec<T> {
    list.split_off(list.len() / 2)
}

/// Shortens the lists of an event; says whether there was anything to shorten.
fn shorten(event: &mut WalEvent) -> bool {
    match &mut event.what {
        EventDetail::FilesRemoved {
            subxids,
            files,
            relations,
            cut,
            ..
        } => {
            let long = subxids.len().max(files.len()).max(relations.len()) > SHORT;
            subxids.truncate(SHORT);
            files.truncate(SHORT);
            relations.truncate(SHORT);
            *cut |= long;
            long
        }
        EventDetail::TablesTruncated { tables, cut, .. } => {
            let long = tables.len() > SHORT;
            tables.truncate(SHORT);
            *cut |= long;
            long
        }
        _ => false,
    }
}
