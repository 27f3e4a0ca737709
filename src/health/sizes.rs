//! Judges the size of what was made last by those before it: half of a database does not come by itself.

use super::{HealthReason, Rule};

/// From so many earlier ones on there is an average.
const FEWEST: usize = 3;
/// So many of them count, the newest.
pub const MOST: usize = 10;

/// What is not good about a size. `earlier`: sizes of those before, the newest first; `limit`: percent, 0 for none. The first
/// rule is for less than half, the second for any other difference.
pub fn judge(
    [small, other]: [Rule; 2],
    (what, newest): (&str, u64),
    earlier: &[u64],
    limit: u64,
) -> Option<HealthReason> {
    let earlier = &earlier[..earlier.len().min(MOST)];
    let count = earlier.len() as u128;
    let sum: u128 = earlier.iter().map(|size| u128::from(*size)).sum();
    if earlier.len() < FEWEST || sum == 0 || limit == 0 {
        return None;
    }
    let (newest, limit) = (u128::from(newest) * count, u128::from(limit));
    let rule = match newest.abs_diff(sum) * 100 > sum * limit {
        _ if newest * 2 < sum => small,
        true => other,
        false => return None,
    };
    let percent = newest * 100 / sum;
    let what = format!("{what} has {percent} % of the average size of the {count} before it");
    Some(HealthReason::new(
        rule,
        what,
        "find out what came or went; if all is there, wait",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_judged_by_the_average_of_those_before_it() {
        let judged = |newest: u64, earlier: &[u64]| {
            let rules = [Rule::DumpSmall, Rule::DumpSize];
            let reason = judge(rules, ("it", newest), earlier, 20);
            reason.map(|reason| reason.rule)
        };
        for (newest, rule) in [
            (100, None),
            (80, None),
            (120, None),
            (79, Some(Rule::DumpSize)),
            (121, Some(Rule::DumpSize)),
            (50, Some(Rule::DumpSize)),
            (49, Some(Rule::DumpSmall)),
            (0, Some(Rule::DumpSmall)),
            (u64::MAX, Some(Rule::DumpSize)),
        ] {
            assert_eq!(judged(newest, &[90, 100, 110]), rule, "{newest}");
        }
        assert_eq!(judged(1, &[100, 100]), None, "too few");
        assert_eq!(judged(1, &[0, 0, 0]), None);
        let many = [[100; 10].as_slice(), &[1_000_000]].concat();
        assert_eq!(judged(100, &many), None, "long ago");
        let off = judge([Rule::DumpSmall, Rule::DumpSize], ("it", 1), &[100; 3], 0);
        assert_eq!(off, None);
    }
}
