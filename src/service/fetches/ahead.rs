//! Fetches what recovery will ask for next.

use std::path::{Path, PathBuf};

use super::super::fetch_to_spool::{retrieve, sync};
use super::super::session::SessionFile;
use super::{FetchActor, FetchEvent};
use crate::budget::Share;
use crate::metrics::Phase;
use crate::postgres::types::WalFileName;

impl FetchActor {
    /// Drops what will not be asked for, and fetches what will.
    pub(super) fn fetch_ahead(&mut self, folder: &Path) {
        let Some(session) = self.sessions.get_mut(folder).filter(|_| !self.closed) else {
            return;
        };
        let wanted = session.wanted(self.prefetch, self.size);
        let stale = session.drop_unwanted(&wanted);
        let missing = wanted
            .into_iter()
            .map(WalFileName::Segment)
            .filter(|name| !session.entries.contains_key(name));
        let free = if session.halted {
            0
        } else {
            session
                .reach
                .min(self.prefetch)
                .saturating_sub(session.coming())
        };
        let next: Vec<WalFileName> = missing.take(free).collect();
        if !stale.is_empty() {
            self.tidy(move || {
                stale
                    .iter()
                    .for_each(|place| drop(std::fs::remove_file(place)))
            });
        }
        for name in next {
            // Who asks never waits for memory behind what nobody asked for yet.
            let Some(share) = self.budget.spare(self.memory_of(&name)) else {
                break;
            };
            self.obtain_ahead(folder.to_path_buf(), name, share);
        }
    }

    /// Fetches ahead: a miss or an error is nobody's trouble yet.
    fn obtain_ahead(&mut self, folder: PathBuf, name: WalFileName, share: Share) {
        let fetcher = self.fetcher.clone();
        let Some(session) = self.sessions.get_mut(&folder) else {
            return;
        };
        session.entries.insert(
            name,
            SessionFile::Coming {
                waiting: Vec::new(),
                ahead: true,
            },
        );
        let place = session.spool.place(&name);
        let spool = session.spool.clone();
        let (durations, syncs) = (self.durations.clone(), self.syncs);
        self.jobs.spawn(async move {
            let retrieved = durations
                .time(Phase::FetchAhead, retrieve(&fetcher, &spool, name, &place))
                .await;
            drop(share);
            if syncs && matches!(retrieved, Ok(true)) {
                sync(place.clone()).await;
            }
            let result = retrieved.map(|retrieved| retrieved.then_some(place));
            FetchEvent::Obtained {
                folder,
                name,
                result,
                proof: None,
                history: None,
            }
        });
    }
}
