//! Transaction numbers, which go round, and ranges of them.

use crate::postgres::wal::Xid;

/// The first and the last number of a range.
pub(super) type XidRange = (Xid, Xid);

/// Whether a transaction began after another one: numbers in use are less than 2^31 apart.
pub(super) fn is_newer(xid: Xid, than: Xid) -> bool {
    (xid.wrapping_sub(than) as i32) > 0
}

pub(super) fn newer(a: Xid, b: Xid) -> Xid {
    if is_newer(a, b) { a } else { b }
}

fn older(a: Xid, b: Xid) -> Xid {
    if is_newer(a, b) { b } else { a }
}

/// From the older begin to the newer end.
pub(super) fn span(a: XidRange, b: XidRange) -> XidRange {
    (older(a.0, b.0), newer(a.1, b.1))
}

/// Numbers of which both ranges are parts: all, where they are too far apart to tell which is older.
pub(super) fn of_both(a: XidRange, b: XidRange) -> XidRange {
    let (from, to) = span(a, b);
    let length = to.wrapping_sub(from);
    let is_within = |xid: Xid| xid.wrapping_sub(from) <= length;
    match length < 1 << 30 && [a.0, a.1, b.0, b.1].into_iter().all(is_within) {
        true => (from, to),
        false => (0, Xid::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_both_holds_what_both_hold_also_where_numbers_go_round() {
        assert_eq!(of_both((10, 20), (15, 40)), (10, 40));
        assert_eq!(of_both((u32::MAX - 5, 3), (1, 9)), (u32::MAX - 5, 9));
        let all = (0, u32::MAX);
        assert_eq!(
            of_both((0, (1 << 31) - 1), ((1 << 31) + 10, (1 << 31) + 20)),
            all
        );
        assert_eq!(
            [
                of_both((5, 9), (1 << 30, 1 << 31)),
                of_both(all, (5, 9)),
                of_both((5, 9), all)
            ],
            [all; 3]
        );
    }
}
