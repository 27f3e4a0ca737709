//! WAL made up: records laid out over pages and segments as the server does. Also part of the benchmarks, so it names
//! nothing of the library.
#![allow(dead_code)] // Each benchmark uses its part.

pub const PAGE: u64 = 8192;

/// Writes WAL of one timeline, 1 unless it is set, from a segment's start on.
pub struct Writer {
    pub bytes: Vec<u8>,
    pub timeline: u32,
    /// Where the last record begins.
    pub prev: u64,
    magic: u16,
    segment: u64,
    start: u64,
}

/// A record to be written.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub xid: u32,
    pub rmgr: u8,
    pub info: u8,
    pub main: Vec<u8>,
    /// A block of the relation with this file number, and the bytes of its image.
    pub block: Option<(u32, Vec<u8>)>,
}

impl Draft {
    /// Headers of the parts, then the parts.
    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some((number, image)) = &self.block {
            body.extend_from_slice(&[0, if image.is_empty() { 0 } else { 0x10 }, 0, 0]);
            if !image.is_empty() {
                body.extend_from_slice(&(image.len() as u16).to_le_bytes());
                body.extend_from_slice(&[0, 0, 0]);
            }
            for part in [1663, 5, *number, 7] {
                body.extend_from_slice(&part.to_le_bytes());
            }
        }
        match self.main.len() {
            0 => {}
            length @ 1..256 => body.extend_from_slice(&[255, length as u8]),
            length => {
                body.push(254);
                body.extend_from_slice(&(length as u32).to_le_bytes());
            }
        }
        body.extend(self.block.iter().flat_map(|(_, image)| image));
        body.extend_from_slice(&self.main);
        body
    }
}

/// A record with its header and CRC.
fn seal(draft: &Draft, body: &[u8], prev: u64) -> Vec<u8> {
    let mut record = Vec::new();
    record.extend_from_slice(&(24 + body.len() as u32).to_le_bytes());
    record.extend_from_slice(&draft.xid.to_le_bytes());
    record.extend_from_slice(&prev.to_le_bytes());
    record.extend_from_slice(&[draft.info, draft.rmgr, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
    record.extend_from_slice(&crc.to_le_bytes());
    record.extend_from_slice(body);
    record
}

impl Writer {
    /// `start` is a segment's first LSN, `magic` the major's.
    pub fn new(magic: u16, segment: u64, start: u64) -> Self {
        Self {
            bytes: Vec::new(),
            timeline: 1,
            prev: 0,
            magic,
            segment,
            start,
        }
    }

    pub fn position(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn page_header(&mut self, flags: u16, remaining: u32) {
        let address = self.position();
        let long = address.is_multiple_of(self.segment);
        self.bytes.extend_from_slice(&self.magic.to_le_bytes());
        self.bytes
            .extend_from_slice(&(flags | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend_from_slice(&self.timeline.to_le_bytes());
        self.bytes.extend_from_slice(&address.to_le_bytes());
        self.bytes.extend_from_slice(&remaining.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        if long {
            self.bytes.extend_from_slice(&7u64.to_le_bytes());
            self.bytes
                .extend_from_slice(&(self.segment as u32).to_le_bytes());
            self.bytes.extend_from_slice(&(PAGE as u32).to_le_bytes());
        }
    }

    /// Writes a record; gives its LSN.
    pub fn write(&mut self, draft: &Draft) -> u64 {
        self.write_body(draft, &draft.body())
    }

    /// Writes a record with any body, and a CRC that is right.
    pub fn write_body(&mut self, draft: &Draft, body: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        if self.position().is_multiple_of(PAGE) {
            self.page_header(0, 0);
        }
        let lsn = self.position();
        let record = seal(draft, body, self.prev);
        let mut rest = &record[..];
        while !rest.is_empty() {
            if self.position().is_multiple_of(PAGE) {
                self.page_header(1, rest.len() as u32);
            }
            let room = (PAGE - self.position() % PAGE) as usize;
            let (here, later) = rest.split_at(rest.len().min(room));
            self.bytes.extend_from_slice(here);
            rest = later;
        }
        self.prev = lsn;
        lsn
    }

    /// Gives a record up after `length` bytes, as a crash does, and goes on at the next page with one that says so.
    pub fn lose(&mut self, draft: &Draft, length: usize) -> u64 {
        let prev = self.prev;
        let lsn = self.write(draft);
        let within_page = (PAGE - lsn % PAGE) as usize;
        assert!(
            length >= within_page && length < draft.body().len(),
            "the record must cross a page"
        );
        let cut = (lsn - self.start) as usize + within_page;
        self.bytes.truncate(cut);
        self.prev = prev;
        self.page_header(8, 0);
        let main = [lsn.to_le_bytes(), [0; 8]].concat();
        self.write(&Draft {
            info: 0xD0,
            main,
            ..Draft::default()
        });
        lsn
    }

    /// Ends the segment with zeros.
    pub fn fill(&mut self) {
        let length = (self.position().next_multiple_of(self.segment) - self.start) as usize;
        self.bytes.resize(length, 0);
    }
}
