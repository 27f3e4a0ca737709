//! Rules by which a bucket deletes and moves objects by itself. Pure.

/// One rule, as far as it says what becomes of objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LifecycleRule {
    pub id: String,
    pub enabled: bool,
    pub prefix: String,
    /// It asks for tags, which no object of Walden's has.
    pub by_tags: bool,
    /// It is for objects of certain sizes alone.
    pub by_size: bool,
    /// When current versions are deleted.
    pub expires: Option<When>,
    /// Removes delete markers behind which nothing is left.
    pub removes_markers: bool,
    /// When current versions move to other classes.
    pub moves: Vec<(When, String)>,
    /// Days after which versions are deleted that are no longer current.
    pub noncurrent_expire: Option<u32>,
    /// Days after which an upload that nobody completed is given up.
    pub gives_up_uploads: Option<u32>,
    /// More than the above: versions that are kept by number, moves of versions that are not current.
    pub says_more: bool,
}

/// When a rule acts on an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Days after it was stored.
    Days(u32),
    /// From a date on.
    Date(String),
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Days(1) => f.write_str("a day after they were stored"),
            Self::Days(days) => write!(f, "{days} days after they were stored"),
            Self::Date(date) => write!(f, "from {date} on"),
        }
    }
}

impl LifecycleRule {
    /// Whether it acts on objects below a prefix that have no tags.
    pub fn acts_below(&self, prefix: &str) -> bool {
        let meets = self.prefix.starts_with(prefix) || prefix.starts_with(&self.prefix);
        self.enabled && !self.by_tags && meets
    }
}

/// Rules after ours took the place of those that are ours: others stay as they are, in their order.
pub fn merge<R>(there: Vec<R>, ours: Vec<R>, is_ours: impl Fn(&R) -> bool) -> Vec<R> {
    let mut rules: Vec<R> = there.into_iter().filter(|rule| !is_ours(rule)).collect();
    rules.extend(ours);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_acts_on_what_lies_below_its_prefix_and_on_parts_of_it() {
        let rule = |prefix: &str| LifecycleRule {
            enabled: true,
            prefix: prefix.into(),
            ..LifecycleRule::default()
        };
        for (prefix, acts) in [
            ("", true),
            ("a/", true),
            ("a/main/", true),
            ("a/main/wal/", true),
            ("a/ma", true),
            ("a/other/", false),
            ("b", false),
        ] {
            assert_eq!(rule(prefix).acts_below("a/main/"), acts, "{prefix}");
        }
        let by_tags = LifecycleRule {
            by_tags: true,
            ..rule("")
        };
        let disabled = LifecycleRule {
            enabled: false,
            ..rule("")
        };
        assert!(!by_tags.acts_below("a/") && !disabled.acts_below("a/"));
    }

    #[test]
    fn merging_replaces_what_is_ours_and_nothing_else() {
        let ours = |rule: &&str| rule.starts_with("walden");
        assert_eq!(
            merge(vec!["x", "walden 1", "y"], vec!["walden 2"], ours),
            ["x", "y", "walden 2"]
        );
        assert_eq!(merge(vec!["x"], vec![], ours), ["x"]);
    }
}
