//! Policies that lie ready: `walden init --preset NAME` writes one, `deploy/presets` has their files.

/// Settings of a policy that many use.
#[derive(Debug)]
pub struct Preset {
    pub name: &'static str,
    /// For whom it is.
    pub about: &'static str,
    /// `section.name`, and the value as a variable would give it.
    pub settings: &'static [(&'static str, &'static str)],
}

impl Preset {
    /// The preset of a name.
    pub fn of(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }
}

/// All of them.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "hourly",
        about: "Hourly dumps: 24 hours, 7 days, 4 weeks, 12 months. Weekly base backups; any moment of the last 7 days.",
        settings: &[
            ("retention.window", "7d"),
            ("retention_base.weekly", "4"),
            ("retention_base.monthly", "12"),
            ("retention_dump.hourly", "24"),
            ("retention_dump.daily", "7"),
            ("retention_dump.weekly", "4"),
            ("retention_dump.monthly", "12"),
            ("retention_schema.daily", "7"),
            ("retention_schema.monthly", "12"),
            ("schedule.backup", "0 2 * * 0"),
            ("schedule.dump", "0 * * * *"),
            ("schedule.schema_dump", "30 1 * * *"),
            ("schedule.expire", "30 5 * * *"),
        ],
    },
    Preset {
        name: "daily",
        about: "Daily dumps: 30 days, 12 weeks, 12 months, 7 years. Weekly base backups; any moment of the last 7 days.",
        settings: &[
            ("retention.window", "7d"),
            ("retention_base.weekly", "4"),
            ("retention_base.monthly", "12"),
            ("retention_dump.daily", "30"),
            ("retention_dump.weekly", "12"),
            ("retention_dump.monthly", "12"),
            ("retention_dump.yearly", "7"),
            ("retention_schema.monthly", "12"),
            ("retention_schema.yearly", "7"),
            ("schedule.backup", "0 2 * * 0"),
            ("schedule.dump", "0 1 * * *"),
            ("schedule.schema_dump", "30 1 * * *"),
            ("schedule.expire", "30 5 * * *"),
        ],
    },
    Preset {
        name: "pitr",
        about: "Daily base backups; any moment of the last 7 days, and the first base backup of each of 7 years.",
        settings: &[
            ("retention.window", "7d"),
            ("retention_base.daily", "7"),
            ("retention_base.yearly", "7"),
            ("retention_dump.daily", "7"),
            ("retention_schema.daily", "7"),
            ("schedule.backup", "0 2 * * *"),
            ("schedule.dump", "0 1 * * *"),
            ("schedule.schema_dump", "30 1 * * *"),
            ("schedule.expire", "30 5 * * *"),
        ],
    },
    Preset {
        name: "quarterly",
        about: "Hourly dumps: 24 hours, 30 days, 12 weeks, 12 months, and quarters for 7 years. Weekly base backups; any \
                moment of the last 7 days.",
        settings: &[
            ("retention.window", "7d"),
            ("retention_base.weekly", "12"),
            ("retention_base.quarterly", "28"),
            ("retention_dump.hourly", "24"),
            ("retention_dump.daily", "30"),
            ("retention_dump.weekly", "12"),
            ("retention_dump.monthly", "12"),
            ("retention_dump.quarterly", "28"),
            ("retention_schema.monthly", "12"),
            ("retention_schema.quarterly", "28"),
            ("schedule.backup", "0 2 * * 0"),
            ("schedule.dump", "0 * * * *"),
            ("schedule.schema_dump", "30 1 * * *"),
            ("schedule.expire", "30 5 * * *"),
        ],
    },
    Preset {
        name: "month",
        about: "Daily base backups for 30 days; any moment of the last 7 days. No tiers beyond.",
        settings: &[
            ("retention.window", "7d"),
            ("retention_base.daily", "30"),
            ("retention_dump.daily", "30"),
            ("retention_schema.daily", "30"),
            ("schedule.backup", "0 2 * * *"),
            ("schedule.dump", "0 1 * * *"),
            ("schedule.schema_dump", "30 1 * * *"),
            ("schedule.expire", "30 5 * * *"),
        ],
    },
];
