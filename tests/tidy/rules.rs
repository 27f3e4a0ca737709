//! The rules, each over what one file says.

use super::facts::{Facts, Function, Named};
use super::layers::{IMPURE, ORDER, below, layer_of};

/// A place that breaks a rule.
#[derive(Debug)]
pub struct Finding {
    pub line: usize,
    pub what: String,
    pub why: &'static str,
}

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
     before, or move what both need there (ORDER in tests/tidy/layers.rs)";
pub const WHY_CIRCLE: &str = "files that import each other can only be understood together: move what both need to a file \
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

/// The import table and the purity of the core.
pub fn imports(facts: &Facts, module: &str) -> Vec<Finding> {
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
pub fn sizes(facts: &Facts, lines: usize, is_test: bool) -> Vec<Finding> {
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
pub fn habits(facts: &Facts) -> Vec<Finding> {
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
pub fn dependencies(manifest: &str, is_hook: bool) -> Vec<Finding> {
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
