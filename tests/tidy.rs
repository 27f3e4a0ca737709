//! The shape of the code, checked: who may name whom, sizes, purity of the core, dependencies that say why.
//!
//! Rules are data at the top; files are read as token streams, so strings and comments cannot confuse them. Each rule
//! has a test that feeds it an offending text.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/facts.rs"]
mod facts;
#[path = "tidy/rules_refuse.rs"]
mod rules_refuse;

use std::fs;
use std::path::{Path, PathBuf};

use facts::{Facts, Function, Named};

/// Modules of the library and what they may name below `crate::`. The longest matching module decides.
struct Layer {
    name: &'static str,
    modules: &'static [&'static str],
    may_name: &'static [&'static str],
    /// Nothing that does I/O, waits, or reads a clock.
    pure: bool,
}

const LEAVES: &[&str] = &[
    "budget",
    "config",
    "data_directory",
    "error",
    "fsync",
    "folder_place",
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
    "config",
    "error",
    "fsync",
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
const ORDER: &[&str] = &[
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
const IMPURE: &[&str] = &[
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

/// How long something may be.
struct Limit {
    function_lines: usize,
    /// Lines flatter who writes long ones.
    function_tokens: usize,
    file_lines: usize,
}

const PRODUCT: Limit = Limit {
    function_lines: 70,
    function_tokens: 450,
    file_lines: 500,
};
/// A test is a story, told without a break.
const TESTS: Limit = Limit {
    function_lines: 120,
    function_tokens: 800,
    file_lines: 800,
};

const WHY_LAYERS: &str = "arrows point from rim to core (docs/architecture.md): the core stays a question over facts \
     that a test can ask without a server, the keeper stays usable for other sources than PostgreSQL, and no change at \
     the rim reaches below it. Move the code to the layer that may know this, or pass the value in";
const WHY_ORDER: &str = "parts that name each other can only be understood, tested and changed together: name what stands \
     before, or move what both need there (ORDER in tests/tidy.rs)";
const WHY_CIRCLE: &str = "files that import each other can only be understood together: move what both need to a file \
     of its own, or pass it in";
const WHY_PURE: &str = "the core decides over facts that it is given: no I/O, no clock, no waiting. So every decision \
     can be printed, repeated and tested. Gather the fact in an activity and pass it in";
const WHY_FUNCTION: &str = "a function that fits a screen can be read at once. Name its steps";
const WHY_FILE: &str = "a file is one thought. Split it along its parts";
const WHY_UNFINISHED: &str =
    "what is in the tree works; what is unfinished or for debugging stays out of it";
const WHY_DETACHED: &str = "a task whose handle is dropped outlives its owner and hides its panic. Keep the handle, or \
     use a JoinSet";
const WHY_IGNORED: &str =
    "a test that does not run proves nothing. Make it run, or say 'skipped' aloud with the reason";
const WHY_DEPENDENCY: &str =
    "each dependency is code to trust and to build: say in a comment behind it why it is there";
const WHY_HOOKS: &str = "PostgreSQL starts the hook programs once for each segment: they cost about as much as \
     /bin/true because they are made of the standard library alone";

/// A place that breaks a rule.
#[derive(Debug)]
struct Finding {
    line: usize,
    what: String,
    why: &'static str,
}

/// Whether `path` is `prefix` or lies below it.
fn below(path: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || path == prefix
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with("::"))
}

fn layer_of(module: &str) -> &'static Layer {
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
            panic!("module \"{module}\" has no layer yet: give it one at the top of tests/tidy.rs")
        });
    layer
}

/// The import table and the purity of the core.
fn imports(facts: &Facts, module: &str) -> Vec<Finding> {
    let layer = layer_of(module);
    let mut findings = Vec::new();
    for Named { line, path } in &facts.named {
        if let Some(inside) = path.strip_prefix("crate::")
            && !layer.may_name.iter().any(|allowed| below(inside, allowed))
        {
            let what = format!(
                "\"{module}\" belongs to the {} and may not name \"{path}\"",
                layer.name
            );
            findings.push(Finding {
                line: *line,
                what,
                why: WHY_LAYERS,
            });
        }
        let later = out_of_order(module, path).filter(|_| layer.name == "activities");
        findings.extend(later.map(|what| Finding {
            line: *line,
            what,
            why: WHY_ORDER,
        }));
        let around = format!("::{path}::");
        if layer.pure
            && IMPURE
                .iter()
                .any(|part| around.contains(&format!("::{part}::")))
        {
            let what = format!(
                "\"{module}\" belongs to the {} and names \"{path}\"",
                layer.name
            );
            findings.push(Finding {
                line: *line,
                what,
                why: WHY_PURE,
            });
        }
    }
    if layer.pure {
        for (line, word) in &facts.keywords {
            let what = format!(
                "\"{module}\" belongs to the {} and says \"{word}\"",
                layer.name
            );
            findings.push(Finding {
                line: *line,
                what,
                why: WHY_PURE,
            });
        }
    }
    findings
}

/// A name of a part of `postgres` that comes later than the one that names it.
fn out_of_order(module: &str, path: &str) -> Option<String> {
    let part = |path: &str| {
        let (_, inside) = path.split_once("postgres::")?;
        let name = inside.split("::").next()?;
        ORDER.iter().position(|part| *part == name)
    };
    let (own, named) = (part(module)?, part(path.strip_prefix("crate::")?)?);
    (own < named).then(|| format!("\"{module}\" comes before \"{path}\" and may not name it"))
}

/// Lengths of functions and of the file, which `is_test` or product; tests within a file of the product are tests.
fn sizes(facts: &Facts, lines: usize, is_test: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Function {
        name,
        line,
        lines,
        tokens,
        in_test,
    } in &facts.functions
    {
        let limit = if is_test || *in_test { TESTS } else { PRODUCT };
        for (count, unit, limit) in [
            (*lines, "lines", limit.function_lines),
            (*tokens, "tokens", limit.function_tokens),
        ] {
            if count > limit {
                let what = format!("function \"{name}\" has {count} {unit}, the limit is {limit}");
                findings.push(Finding {
                    line: *line,
                    what,
                    why: WHY_FUNCTION,
                });
            }
        }
    }
    let limit = if is_test { TESTS } else { PRODUCT }.file_lines;
    if lines > limit {
        findings.push(Finding {
            line: lines,
            what: format!("{lines} lines, the limit is {limit}"),
            why: WHY_FILE,
        });
    }
    findings
}

/// Unfinished work, tests that do not run, tasks without an owner.
fn habits(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, name) in &facts.macros {
        if ["todo", "unimplemented", "dbg"].contains(&name.as_str()) {
            findings.push(Finding {
                line: *line,
                what: format!("\"{name}!\""),
                why: WHY_UNFINISHED,
            });
        }
    }
    for line in &facts.ignored_tests {
        findings.push(Finding {
            line: *line,
            what: "an ignored test".into(),
            why: WHY_IGNORED,
        });
    }
    for (line, call) in &facts.detached {
        findings.push(Finding {
            line: *line,
            what: format!("the handle of {call} is dropped"),
            why: WHY_DETACHED,
        });
    }
    findings
}

/// Each dependency says why in a comment behind it; a hook program has none.
fn dependencies(manifest: &str, is_hook: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    let mut entry = String::new();
    for (index, line) in manifest.lines().map(str::trim).enumerate() {
        if line.starts_with('[') && entry.is_empty() {
            in_dependencies = line.contains("dependencies");
            // `[dependencies.name]` is an entry; the lines below it belong to it.
            if !line.contains("dependencies.") {
                continue;
            }
        }
        if !in_dependencies || line.is_empty() || line.starts_with('#') {
            continue;
        }
        entry.push_str(line);
        entry.push('\n');
        let code: String = entry
            .lines()
            .map(|line| line.split(" #").next().unwrap_or(line))
            .collect();
        let count = |wanted: [char; 2]| code.matches(wanted).count();
        if count(['[', '{']) > count([']', '}']) {
            continue;
        }
        let says_why = entry.lines().any(|line| {
            line.split_once(" #")
                .is_some_and(|(_, why)| why.trim().len() > 2)
        });
        let name = code
            .split(['=', ' '])
            .next()
            .unwrap_or_default()
            .to_string();
        if is_hook {
            findings.push(Finding {
                line: index + 1,
                what: format!("dependency \"{name}\""),
                why: WHY_HOOKS,
            });
        } else if !says_why {
            let what = format!("dependency \"{name}\" does not say why");
            findings.push(Finding {
                line: index + 1,
                what,
                why: WHY_DEPENDENCY,
            });
        }
        entry.clear();
    }
    findings
}

/// A file of the tree, with its path from the root.
struct SourceFile {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("cannot read \"{path}\": {error}"))
}

/// All Rust files below the folders, in order.
fn rust_files(folders: &[&str]) -> Vec<SourceFile> {
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a folder that can be listed").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .expect("below the root")
                    .to_string_lossy()
                    .into_owned();
                files.push(SourceFile {
                    text: read(&name),
                    path: name,
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

const SOURCES: &[&str] = &["src", "archive-command/src", "restore-command/src"];

/// `src/postgres/types/lsn.rs` is `postgres::types::lsn`.
fn module_of(path: &str) -> String {
    let name = path
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .trim_end_matches("/mod")
        .replace('/', "::");
    if name == "lib" || name == "main" {
        String::new()
    } else {
        name
    }
}

/// The modules that only tests have, from `#[cfg(test)] mod name;` and its `#[path]`.
fn test_modules(files: &[SourceFile]) -> Vec<String> {
    let mut modules = Vec::new();
    for file in files {
        let module = module_of(&file.path);
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for name in Facts::read(&file.text, &module).test_modules {
            if name.ends_with(".rs") {
                modules.push(module_of(&format!("{folder}/{name}")));
            } else {
                modules.push(if module.is_empty() {
                    name
                } else {
                    format!("{module}::{name}")
                });
            }
        }
    }
    modules
}

/// Fails with every finding, each rule explained once.
fn refuse(findings: Vec<(String, Finding)>) {
    let mut text = String::new();
    let mut reasons: Vec<&str> = Vec::new();
    for (path, Finding { line, what, why }) in &findings {
        text.push_str(&format!("{path}:{line}: {what}\n"));
        if !reasons.contains(why) {
            reasons.push(why);
        }
    }
    reasons
        .iter()
        .for_each(|why| text.push_str(&format!("WHY: {why}.\n")));
    assert!(
        findings.is_empty(),
        "{} places break a rule of the tree:\n{text}",
        findings.len()
    );
}

fn at(path: &str, findings: Vec<Finding>) -> impl Iterator<Item = (String, Finding)> {
    findings
        .into_iter()
        .map(move |finding| (path.to_string(), finding))
}

#[test]
fn modules_name_only_what_their_layer_may_know() {
    let files = rust_files(&["src"]);
    assert!(
        files.len() > 20,
        "the tree was not found below {}",
        root().display()
    );
    let tests = test_modules(&files);
    let mut findings = Vec::new();
    for file in &files {
        let module = module_of(&file.path);
        if !tests.iter().any(|test| below(&module, test)) {
            findings.extend(at(
                &file.path,
                imports(&Facts::read(&file.text, &module), &module),
            ));
        }
    }
    refuse(findings);
}

#[test]
fn no_file_imports_what_imports_it() {
    let files = rust_files(&["src"]);
    let tests = test_modules(&files);
    let modules = files.iter().map(|file| (module_of(&file.path), file));
    let product = modules.filter(|(module, _)| !tests.iter().any(|test| below(module, test)));
    let read = product.map(|(module, file)| (module.clone(), Facts::read(&file.text, &module)));
    let circles = circles::Modules(read.collect()).circles();
    let finding = |what| {
        (
            "src".to_string(),
            Finding {
                line: 0,
                what,
                why: WHY_CIRCLE,
            },
        )
    };
    refuse(circles.into_iter().map(finding).collect());
}

#[test]
fn functions_and_files_are_short() {
    let mut findings = Vec::new();
    let files = rust_files(&["src"]);
    let tests = test_modules(&files);
    for file in files
        .iter()
        .chain(&rust_files(&SOURCES[1..]))
        .chain(&rust_files(&["tests", "benches"]))
    {
        let module = module_of(&file.path);
        let is_test = !file.path.contains("src/") || tests.iter().any(|test| below(&module, test));
        let facts = Facts::read(&file.text, &module);
        findings.extend(at(
            &file.path,
            sizes(&facts, file.text.lines().count(), is_test),
        ));
    }
    refuse(findings);
}

#[test]
fn nothing_is_unfinished_ignored_or_detached() {
    let mut findings = Vec::new();
    for file in rust_files(&[SOURCES, &["tests", "benches"]].concat()) {
        findings.extend(at(
            &file.path,
            habits(&Facts::read(&file.text, &module_of(&file.path))),
        ));
    }
    refuse(findings);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifests = [
        ("Cargo.toml", false),
        ("fuzz/Cargo.toml", false),
        ("archive-command/Cargo.toml", true),
        ("restore-command/Cargo.toml", true),
    ];
    refuse(
        manifests
            .iter()
            .flat_map(|(path, is_hook)| at(path, dependencies(&read(path), *is_hook)))
            .collect(),
    );
}
