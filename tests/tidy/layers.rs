//! Who may name whom: the table of layers, and the order of the parts of `postgres`.

/// Modules of the library and what they may name below `crate::`. The longest matching module decides.
pub struct Layer {
    pub name: &'static str,
    modules: &'static [&'static str],
    pub may_name: &'static [&'static str],
    /// Nothing that does I/O, waits, or reads a clock.
    pub pure: bool,
}

const LEAVES: &[&str] = &[
    "budget",
    "certificate",
    "config",
    "data_directory",
    "error",
    "fsync",
    "folder_place",
    "http_client",
    "metrics",
    "owner",
    "plain",
    "wire",
];
const KEEPER: &[&str] = &[
    "repo", "codec", "storage", "error", "fsync", "metrics", "owner", "plain",
];
const CORE: &[&str] = &[
    "postgres::types",
    "postgres::wal",
    "postgres::layout",
    "postgres::catalog",
    "retention",
    "health",
    "error",
    "plain",
];
const ACTIVITIES: &[&str] = &[
    "postgres",
    "evidence",
    "retention",
    "health",
    "repo",
    "codec",
    "storage",
    "budget",
    "certificate",
    "config",
    "error",
    "fsync",
    "http_client",
    "metrics",
    "owner",
    "folder_place",
    "plain",
    "wire",
];

const LAYERS: &[Layer] = &[
    Layer {
        name: "edges",
        modules: &["", "cli", "http"],
        may_name: &[""],
        pure: false,
    },
    // What answers beside the hook socket is handed to it.
    Layer {
        name: "edges (service)",
        modules: &["service"],
        may_name: &[
            "service",
            "postgres",
            "repo",
            "storage",
            "budget",
            "config",
            "error",
            "folder_place",
            "fsync",
            "metrics",
            "owner",
            "plain",
            "wire",
            "data_directory",
            "codec",
            "health",
            "jobs",
            "evidence",
            "alerts",
        ],
        pure: false,
    },
    // JSON that both the command line and HTTP answer with.
    Layer {
        name: "answers",
        modules: &["api"],
        may_name: &[
            "api",
            "postgres",
            "health",
            "retention",
            "evidence",
            "alerts",
        ],
        pure: true,
    },
    Layer {
        name: "activities",
        modules: &["postgres"],
        may_name: ACTIVITIES,
        pure: false,
    },
    Layer {
        name: "core",
        modules: CORE_MODULES,
        may_name: CORE,
        pure: true,
    },
    // Also built alone, by the fuzzer.
    Layer {
        name: "core (WAL)",
        modules: &["postgres::wal"],
        may_name: &["postgres::types", "postgres::wal"],
        pure: true,
    },
    // From where on something is not good is a setting; what that means is the core's knowledge.
    Layer {
        name: "core (health)",
        modules: &["health"],
        may_name: &[
            "postgres::types",
            "postgres::catalog",
            "postgres::layout::DumpKind",
            "health",
            "config::Health",
            "config::testing",
        ],
        pure: true,
    },
    // Which WAL a recovery reads is the catalog's knowledge.
    Layer {
        name: "core (retention)",
        modules: &["retention"],
        may_name: &[
            "postgres::types",
            "postgres::catalog::TimelinePath",
            "postgres::catalog::WalRange",
            "postgres::catalog::WalRanges",
            "postgres::catalog::WalSpan",
            "retention",
            "config",
        ],
        pure: true,
    },
    // Whoever did something hands over values.
    Layer {
        name: "evidence",
        modules: &["evidence"],
        may_name: &["evidence", "storage", "codec", "error", "plain"],
        pure: false,
    },
    Layer {
        name: "evidence (chain)",
        modules: &["evidence::record", "evidence::chain"],
        may_name: &[
            "evidence::record",
            "evidence::chain",
            "codec::Digest",
            "storage::Key",
        ],
        pure: true,
    },
    // What is not good is handed over; how it was judged is health's knowledge.
    Layer {
        name: "alerts",
        modules: &["alerts"],
        may_name: &[
            "alerts",
            "health",
            "storage",
            "codec::Digest",
            "config",
            "error",
            "http_client",
            "owner",
            "plain",
        ],
        pure: false,
    },
    Layer {
        name: "alerts (decisions)",
        modules: &[
            "alerts::state",
            "alerts::decide",
            "alerts::message",
            "alerts::template",
        ],
        may_name: &[
            "alerts::state",
            "alerts::decide",
            "alerts::message",
            "alerts::template",
            "health",
            "codec::Digest",
            "plain",
        ],
        pure: true,
    },
    // What runs when. What it runs is the edges' knowledge: a job is a child process.
    Layer {
        name: "jobs",
        modules: &["jobs"],
        may_name: &[
            "jobs",
            "storage",
            "config::Cron",
            "config::TimeZone",
            "error",
            "plain",
        ],
        pure: false,
    },
    Layer {
        name: "jobs (schedule)",
        modules: &[
            "jobs::schedule",
            "jobs::known",
            "jobs::job",
            "jobs::record",
            "jobs::decide",
            "jobs::status",
        ],
        may_name: &[
            "jobs::schedule",
            "jobs::known",
            "jobs::job",
            "jobs::record",
            "jobs::decide",
            "jobs::lease::Holder",
            "config::Cron",
            "config::TimeZone",
        ],
        pure: true,
    },
    // Keys are storage's type; which keys there are is the core's knowledge.
    Layer {
        name: "core (layout)",
        modules: &["postgres::layout"],
        may_name: &[
            "postgres::types",
            "postgres::layout",
            "storage::Key",
            "error",
        ],
        pure: true,
    },
    Layer {
        name: "keeper",
        modules: &["repo", "codec", "storage"],
        may_name: KEEPER,
        pure: false,
    },
    Layer {
        name: "leaves",
        modules: LEAVES,
        may_name: LEAVES,
        pure: false,
    },
];
/// Parts of `postgres` in order: each may name those before it, and itself.
pub const ORDER: &[&str] = &[
    "types",
    "wal",
    "layout",
    "catalog",
    "command_line",
    "cluster",
    "object_problem",
    "replication",
    "protection",
    "load",
    "archive",
    "backup",
    "index",
    "overview",
    "names",
    "idle",
    "dump",
    "promotion",
    "dump_restore",
    "repository",
    "restore",
    "expiry",
    "planning",
    "drill",
    "recover",
    "lifecycle",
    "check",
];
const CORE_MODULES: &[&str] = &["postgres::types", "postgres::catalog"];

/// What the core may not name, as consecutive parts of a path.
pub const IMPURE: &[&str] = &[
    "tokio",
    "async_trait",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::env",
    "SystemTime::now",
    "Instant::now",
    "Utc::now",
    "Local::now",
];

/// Whether `path` is `prefix` or lies below it.
pub fn below(path: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || path == prefix
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with("::"))
}

pub fn layer_of(module: &str) -> &'static Layer {
    let matches = LAYERS.iter().flat_map(|layer| {
        layer
            .modules
            .iter()
            .map(move |prefix| (prefix.len(), *prefix, layer))
    });
    let (_, _, layer) = matches
        .filter(|(_, prefix, _)| {
            if prefix.is_empty() {
                module.is_empty()
            } else {
                below(module, prefix)
            }
        })
        .max_by_key(|(length, ..)| *length)
        .unwrap_or_else(|| {
            panic!("module \"{module}\" has no layer yet: give it one in tests/tidy/layers.rs")
        });
    layer
}
