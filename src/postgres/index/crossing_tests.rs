//! Commits that cross a segment's end and are too long to be kept whole: some of their transactions are not named.

use super::testing::{FIRST, SIZE, TIMELINE, cluster, indexed, segment, summarize};
use super::*;
use crate::postgres::archive::testing::SEGMENT;
use crate::postgres::catalog::WalIndex;
use crate::postgres::wal::testing::{Draft, Writer};
use crate::postgres::wal::{Summary, rmgr};

/// Three segments, with this record across the end of the first one and a commit across that of the second. Of both
/// summaries keep the bytes at their ends.
fn crossed_by(record: &Draft) -> Vec<(SegmentName, Summary)> {
    let mut wal = Writer::new(0xD110, SIZE, FIRST * SIZE);
    for (end, record) in [(FIRST + 1, record), (FIRST + 2, &commit(4000, 4001..7001))] {
        while wal.position() + 8000 < end * SIZE {
            wal.write(&Draft {
                rmgr: rmgr::XLOG,
                info: 0xB0,
                block: Some((1, vec![1; 7000])),
                ..Draft::default()
            });
        }
        wal.write(record);
    }
    wal.fill();
    wal.bytes
        .chunks_exact(SEGMENT)
        .zip(FIRST..)
        .map(|(one, n)| (segment(1, n), summarize(one, n)))
        .collect()
}

fn commit(xid: u32, subxids: std::ops::Range<u32>) -> Draft {
    let mut main = 5000i64.to_le_bytes().to_vec();
    [1 << 1, subxids.len() as u32]
        .iter()
        .for_each(|part: &u32| main.extend_from_slice(&part.to_le_bytes()));
    subxids.for_each(|xid| main.extend_from_slice(&xid.to_le_bytes()));
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0x80,
        main,
        ..Draft::default()
    }
}

#[tokio::test]
async fn a_transaction_that_is_not_read_of_a_commit_that_crosses_may_have_ended_there() {
    let (cluster, _) = cluster().await;
    // COMMIT PREPARED has the transaction's number behind those of its subtransactions.
    let mut prepared = Draft {
        info: 0xB0,
        ..commit(0, 101..3101)
    };
    prepared.main[8] |= 1 << 4;
    prepared.main.extend_from_slice(&100u32.to_le_bytes());
    for (record, later) in [(commit(100, 101..3101), 99), (prepared, 1 << 30)] {
        let segments = crossed_by(&record);
        assert_eq!(segments.len(), 3);
        let index = indexed(&cluster, &segments, 9);
        let ending = |xid: u32| index.ending(xid, TIMELINE, FIRST, FIRST + 3).unwrap().found;
        for xid in [100, 101, 200, 1500, 3100] {
            assert_eq!(ending(xid), [FIRST + 1], "{xid}");
        }
        assert_eq!(ending(4001), [FIRST + 2], "where it is known to have ended");
        assert_eq!(
            ending(6000),
            [FIRST + 1, FIRST + 2],
            "it may be one of either"
        );
        assert!(
            [later, 1 << 24].iter().all(|xid| ending(*xid).is_empty()),
            "not begun yet, or ended long before"
        );
    }
}
