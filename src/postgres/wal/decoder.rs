//! From bytes to records: pages in order, records put together across them.

use super::bytes::align8;
use super::checks::{is_switch, recoverable, verify};
use super::checksum;
use super::facts::overwritten;
use super::join::{Head, RecordPart, Tail};
use super::pages::{First, PAGE, PageHeader};
use super::record::{FirstRecord, HEADER, KEPT, LONGEST, Record, RecordHeader, rmgr};
use super::stop::{StopReason, WalStop};
use crate::postgres::types::{LongPageHeader, Lsn, TimelineId};

/// Reads WAL that is pushed in pieces of any size, from a segment's start on, one segment after another.
///
/// Records within a page are read where they lie; those that cross pages are put together in one buffer of at most
/// [`KEPT`] bytes. After the first position that is no valid WAL the rest is ignored.
#[derive(Debug)]
pub struct Decoder {
    /// Where the next page begins.
    position: Lsn,
    /// A page that is not whole yet.
    page: Vec<u8>,
    /// The first page's header: what the others must agree with.
    origin: Option<LongPageHeader>,
    timeline: Option<TimelineId>,
    state: DecoderState,
    assembly: Assembly,
    head: Option<Head>,
    /// The record that was given up for an overwritten continuation: the next one must name it.
    lost: Option<Lsn>,
    first: Option<FirstRecord>,
    /// The last valid record.
    last: Option<Lsn>,
    end: Option<Lsn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DecoderState {
    /// Nothing was read yet.
    Start,
    /// Within a record that began before the first page.
    Head,
    /// A record begins next.
    Between,
    /// Within the record of `assembly`.
    Within,
    /// A switch of segments was read: the rest of this one is zeros.
    Switched,
    Stopped(WalStop),
}

/// A record that goes on on the next page.
#[derive(Debug, Default)]
struct Assembly {
    lsn: Lsn,
    total: u64,
    got: u64,
    /// The first [`KEPT`] bytes of it.
    kept: Vec<u8>,
    /// Of what follows the header, once not all is kept.
    crc: Option<u32>,
}

impl Assembly {
    fn begin(&mut self, lsn: Lsn, total: u32, bytes: &[u8]) {
        self.kept.clear();
        self.kept.shrink_to(2 * PAGE);
        (self.lsn, self.total, self.got, self.crc) = (lsn, u64::from(total), 0, None);
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.got += bytes.len() as u64;
        if let Some(crc) = &mut self.crc {
            *crc = crc32c::crc32c_append(*crc, bytes);
        } else if self.kept.len() + bytes.len() <= KEPT {
            self.kept.extend_from_slice(bytes);
        } else {
            let so_far = crc32c::crc32c(self.kept.get(HEADER..).unwrap_or_default());
            self.crc = Some(crc32c::crc32c_append(so_far, bytes));
        }
    }
}

impl Decoder {
    /// Begins at `start`, where a segment begins.
    pub fn new(start: Lsn) -> Self {
        Self {
            position: start,
            page: Vec::new(),
            origin: None,
            timeline: None,
            state: DecoderState::Start,
            assembly: Assembly::default(),
            head: None,
            lost: None,
            first: None,
            last: None,
            end: None,
        }
    }

    /// Begins at a page within the segment of that header, or at its first.
    pub fn within(segment: LongPageHeader, start: Lsn) -> Self {
        Self {
            origin: Some(segment),
            ..Self::new(start)
        }
    }

    /// Reads on, and hands over each valid record that ends in these bytes.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&Record<'_>)) {
        if !self.page.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(PAGE - self.page.len()));
            self.page.extend_from_slice(taken);
            bytes = rest;
            if self.page.len() < PAGE {
                return;
            }
            let page = std::mem::take(&mut self.page);
            self.next_page(&page, &mut each);
            self.page = page;
            self.page.clear();
        }
        let mut pages = bytes.chunks_exact(PAGE);
        pages
            .by_ref()
            .for_each(|page| self.next_page(page, &mut each));
        self.page.extend_from_slice(pages.remainder());
    }

    /// Says that no more bytes follow, and gives the record that they cut off, if any.
    pub fn finish(&mut self) -> Option<Tail> {
        if !self.page.is_empty() && !self.skips(self.position) {
            self.stop(
                self.position,
                StopReason::PageCut {
                    bytes: self.page.len() as u32,
                },
            );
        }
        (self.state == DecoderState::Within).then(|| Tail {
            lsn: self.assembly.lsn,
            total_length: self.assembly.total as u32,
            piece: RecordPart::of(&self.assembly.kept, self.assembly.got, self.assembly.crc),
        })
    }

    /// The first position that is no valid WAL, if it was met.
    pub fn stopped(&self) -> Option<&WalStop> {
        if let DecoderState::Stopped(stop) = &self.state {
            Some(stop)
        } else {
            None
        }
    }

    /// The first page's header.
    pub fn origin(&self) -> Option<&LongPageHeader> {
        self.origin.as_ref()
    }

    /// The timeline of the last page.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.timeline
    }

    /// What the first page had of a record that began before it.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    pub fn first(&self) -> Option<FirstRecord> {
        self.first
    }

    /// The last valid record and its end.
    pub fn last(&self) -> Option<(Lsn, Lsn)> {
        self.last.zip(self.end)
    }

    /// Whether the last record was a switch of segments.
    pub fn switched(&self) -> bool {
        self.state == DecoderState::Switched
    }

    fn stop(&mut self, lsn: Lsn, why: StopReason) {
        self.state = DecoderState::Stopped(WalStop { lsn, why });
    }

    fn next_page(&mut self, page: &[u8], each: &mut impl FnMut(&Record<'_>)) {
        let address = self.position;
        self.position = plus(address, PAGE as u64);
        if self.skips(address) {
            return;
        }
        let header = match self.page_header(page, address) {
            Ok(header) => header,
            // A record that does not go on is where the chain breaks.
            Err(why) => {
                return self.stop(
                    if self.state == DecoderState::Within {
                        self.assembly.lsn
                    } else {
                        address
                    },
                    why,
                );
            }
        };
        let content = header.length();
        match self.begin_page(header.first, &page[content..], address, content, each) {
            Ok(Some(taken)) => self.records(page, address, content + taken, each),
            Ok(None) => {}
            Err(stop) => self.state = DecoderState::Stopped(stop),
        }
    }

    /// Whether the page at `address` no longer matters.
    fn skips(&self, address: Lsn) -> bool {
        match (&self.state, &self.origin) {
            (DecoderState::Stopped(_), _) => true,
            (DecoderState::Switched, Some(origin)) => {
                !address.0.is_multiple_of(origin.segment_size.bytes())
            }
            _ => false,
        }
    }

    fn page_header(&mut self, page: &[u8], address: Lsn) -> Result<PageHeader, StopReason> {
        let header = PageHeader::read(page, address, self.origin.as_ref())?;
        if let Some(before) = self.timeline
            && header.timeline < before
        {
            return Err(StopReason::Timeline {
                found: header.timeline,
                before,
            });
        }
        self.timeline = Some(header.timeline);
        self.origin = self.origin.or(header.long);
        Ok(header)
    }

    /// Bytes that the record which began before lacks, as the page says, too; `None`: a record begins with the page.
    fn remaining(&mut self, first: First, address: Lsn) -> Result<Option<u64>, WalStop> {
        let at = |lsn, why| WalStop { lsn, why };
        let remaining = match (&self.state, first) {
            (DecoderState::Start, First::Record | First::Overwrite)
            | (DecoderState::Between | DecoderState::Switched, First::Record | First::Overwrite) => {
                self.state = DecoderState::Between;
                return Ok(None);
            }
            (DecoderState::Within | DecoderState::Head, First::Overwrite) => {
                self.lost = (self.state == DecoderState::Within).then_some(self.assembly.lsn);
                self.state = DecoderState::Between;
                return Ok(None);
            }
            (DecoderState::Start, First::Continuation(remaining)) => {
                self.head = Some(Head {
                    remaining,
                    piece: RecordPart::default(),
                    end: None,
                });
                self.state = DecoderState::Head;
                u64::from(remaining)
            }
            (DecoderState::Head, _) => self.head.as_ref().map_or(0, Head::missing),
            (DecoderState::Within, _) => self.assembly.total - self.assembly.got,
            (_, First::Continuation(found)) => {
                return Err(at(address, StopReason::Continuation { missing: 0, found }));
            }
            (DecoderState::Stopped(stop), _) => return Err(stop.clone()),
        };
        let found = if let First::Continuation(found) = first {
            found
        } else {
            0
        };
        if u64::from(found) != remaining {
            let lsn = if self.state == DecoderState::Within {
                self.assembly.lsn
            } else {
                address
            };
            return Err(at(
                lsn,
                StopReason::Continuation {
                    missing: remaining,
                    found,
                },
            ));
        }
        Ok(Some(remaining))
    }

    /// Takes what the page has of a record that began before. Gives the bytes that it takes, or `None` if all.
    fn begin_page(
        &mut self,
        first: First,
        content: &[u8],
        address: Lsn,
        header_length: usize,
        each: &mut impl FnMut(&Record<'_>),
    ) -> Result<Option<usize>, WalStop> {
        let Some(remaining) = self.remaining(first, address)? else {
            return Ok(Some(0));
        };
        let taken = content.len().min(remaining as usize);
        if let (DecoderState::Head, Some(head)) = (&self.state, &mut self.head) {
            head.piece.add(&content[..taken]);
        } else {
            self.assembly.add(&content[..taken]);
        }
        if (taken as u64) < remaining {
            return Ok(None);
        }
        let aligned = align8(taken as u64);
        let end = plus(address, header_length as u64 + aligned);
        if self.state == DecoderState::Within {
            self.assembled(end, each)?;
        } else if let Some(head) = &mut self.head {
            head.end = Some(end);
            self.state = DecoderState::Between;
        }
        Ok((self.state == DecoderState::Between).then_some(aligned as usize))
    }

    /// The records that begin on a page, from `cursor` on.
    fn records(
        &mut self,
        page: &[u8],
        address: Lsn,
        mut cursor: usize,
        each: &mut impl FnMut(&Record<'_>),
    ) {
        while let Some((length, _)) = page
            .get(cursor..)
            .and_then(|rest| rest.split_first_chunk::<4>())
        {
            let lsn = plus(address, cursor as u64);
            let rest = &page[cursor..];
            let total = u32::from_le_bytes(*length);
            let checked = match total {
                0 => Err(StopReason::ZeroLength),
                _ if !(HEADER as u32..=LONGEST).contains(&total) => Err(StopReason::Length(total)),
                _ => RecordHeader::read(rest).map_or(Ok(None), |header| {
                    self.header(lsn, &header).map(|()| Some(header))
                }),
            };
            let header = match checked {
                Ok(header) => header,
                Err(why) => return self.stop(lsn, why),
            };
            let (Some(header), Some(bytes)) = (header, rest.get(..total as usize)) else {
                self.state = DecoderState::Within;
                return self.assembly.begin(lsn, total, rest);
            };
            cursor += align8(u64::from(total)) as usize;
            let end = plus(address, cursor as u64);
            if let Err(stop) =
                self.record(lsn, end, header, bytes, checksum::of_record(bytes), each)
            {
                self.state = DecoderState::Stopped(stop);
            }
            if self.state != DecoderState::Between {
                return;
            }
        }
    }

    /// What can be said of a record before its body is there.
    fn header(&self, lsn: Lsn, header: &RecordHeader) -> Result<(), StopReason> {
        let follows = self
            .last
            .map_or(header.prev < lsn, |last| header.prev == last);
        if !follows {
            return Err(StopReason::Previous {
                expected: self.last,
                found: header.prev,
            });
        }
        let custom = header.rmgr >= rmgr::FIRST_CUSTOM;
        if rmgr::name(header.rmgr).is_none() && !custom {
            Err(StopReason::ResourceManager(header.rmgr))
        } else {
            Ok(())
        }
    }

    /// The record of `assembly` is whole.
    fn assembled(&mut self, end: Lsn, each: &mut impl FnMut(&Record<'_>)) -> Result<(), WalStop> {
        let lsn = self.assembly.lsn;
        let kept = std::mem::take(&mut self.assembly.kept);
        let header = RecordHeader::read(&kept).ok_or(WalStop {
            lsn,
            why: StopReason::Parts,
        })?;
        self.header(lsn, &header)
            .map_err(|why| WalStop { lsn, why })?;
        let of_body = self.assembly.crc;
        let crc = of_body.map_or_else(
            || checksum::of_record(&kept),
            |crc| checksum::after_body(crc, &kept),
        );
        self.state = DecoderState::Between;
        let read = self.record(lsn, end, header, &kept, crc, each);
        self.assembly.kept = kept;
        read
    }

    /// Checks a record and hands it over. `bytes` are its first ones at least, `crc` that of all.
    fn record(
        &mut self,
        lsn: Lsn,
        end: Lsn,
        header: RecordHeader,
        bytes: &[u8],
        crc: u32,
        each: &mut impl FnMut(&Record<'_>),
    ) -> Result<(), WalStop> {
        let wrong = |why| WalStop { lsn, why };
        let Some(origin) = &self.origin else {
            return Err(wrong(StopReason::LongHeader));
        };
        verify(&header, crc).map_err(wrong)?;
        let mut record = Record::read(origin.major, lsn, end, header, bytes).map_err(wrong)?;
        if let Some(lost) = self.lost.take()
            && overwritten(&record) != Some(lost)
        {
            return Err(wrong(StopReason::Overwrite));
        }
        recoverable(&record).map_err(wrong)?;
        if is_switch(&record) {
            let size = origin.segment_size.bytes();
            // Of a switch's header the last byte may be on the next segment's first page.
            let last_byte = end.0.saturating_sub(1);
            record.end = plus(Lsn(last_byte - last_byte % size), size);
            self.state = DecoderState::Switched;
        }
        if self.first.is_none() {
            self.first = Some(FirstRecord {
                lsn,
                prev: header.prev,
            });
        }
        (self.last, self.end) = (Some(lsn), Some(record.end));
        each(&record);
        Ok(())
    }
}

/// The position so many bytes on. No name of a segment lets a cluster get past the end of the range.
fn plus(lsn: Lsn, bytes: u64) -> Lsn {
    Lsn(lsn.0.saturating_add(bytes))
}
