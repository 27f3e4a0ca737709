//! What summaries say of the ends of transactions and of files, and how they are kept small.

mod ends;
mod fit;
mod made;

use super::testing::Draft;
use super::tests::{HEAP, SEGMENT, START, commit, insert, summaries, summarize, writer};
use super::*;

fn end(xid: u32, time: i64, info: u8, subxids: &[u32]) -> Draft {
    let mut main = time.to_le_bytes().to_vec();
    main.extend_from_slice(&2u32.to_le_bytes());
    main.extend_from_slice(&(subxids.len() as u32).to_le_bytes());
    subxids
        .iter()
        .for_each(|xid| main.extend_from_slice(&xid.to_le_bytes()));
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0x80 | info,
        main,
        block: None,
    }
}

fn abort(xid: u32, time: i64) -> Draft {
    Draft {
        info: 0x20,
        ..commit(xid, time)
    }
}

fn created(xid: u32, number: u32) -> Draft {
    let main = [1663, 5, number, 0]
        .iter()
        .flat_map(|field: &u32| field.to_le_bytes())
        .collect();
    Draft {
        xid,
        rmgr: rmgr::STORAGE,
        info: 0x10,
        main,
        block: None,
    }
}

fn row(xid: u32, number: u32) -> Draft {
    Draft {
        xid,
        rmgr: HEAP,
        info: 0,
        main: vec![0; 3],
        block: Some((number, vec![])),
    }
}

/// The summary of a segment with these records.
fn summary_of(drafts: &[Draft]) -> Summary {
    let mut wal = writer();
    for draft in drafts {
        wal.write(draft);
    }
    wal.fill();
    summarize(&wal.bytes, START)
}
