//! Files of the product that import each other in a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::facts::Facts;
use super::layers::below;

/// Re-exports of re-exports are followed so far.
const MOST_STEPS: usize = 5;

/// Product modules by name, each one file.
pub struct Modules(pub BTreeMap<String, Facts>);

impl Modules {
    /// The file in which `path` is defined, as far as imports tell: a re-export leads on.
    fn defines(&self, path: &str, steps: usize) -> Option<&str> {
        let ends = path
            .match_indices("::")
            .map(|(at, _)| at)
            .chain([path.len()]);
        let prefixes: Vec<&str> = ends.map(|end| &path[..end]).collect();
        let (module, facts) = prefixes
            .iter()
            .rev()
            .find_map(|prefix| self.0.get_key_value(*prefix))?;
        let name = path[module.len()..]
            .trim_start_matches("::")
            .split("::")
            .next()
            .filter(|name| !name.is_empty());
        let (Some(name), true) = (name, steps > 0) else {
            return Some(module);
        };
        let imported = facts
            .named
            .iter()
            .filter(|named| named.path.rsplit("::").next() == Some(name));
        let mut origins = imported
            .filter_map(|named| self.defines(&self.absolute(module, &named.path)?, steps - 1));
        Some(origins.find(|origin| origin != module).unwrap_or(module))
    }

    /// A path that `module` names, from the root; `None` when it leads out of the library.
    fn absolute(&self, module: &str, path: &str) -> Option<String> {
        if let Some(inside) = path.strip_prefix("crate::") {
            return Some(inside.to_string());
        }
        let below = if module.is_empty() {
            path.to_string()
        } else {
            format!("{module}::{path}")
        };
        let child = below
            .split("::")
            .take(module.split("::").filter(|part| !part.is_empty()).count() + 1);
        self.0
            .contains_key(&child.collect::<Vec<_>>().join("::"))
            .then_some(below)
    }

    /// Which file imports which. A module and what lies below it may see each other.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let of = |(module, facts): (&'_ String, &'_ Facts)| -> BTreeSet<&str> {
            let paths = facts
                .named
                .iter()
                .filter_map(|named| self.absolute(module, &named.path));
            let files = paths.filter_map(|path| self.defines(&path, MOST_STEPS));
            files
                .filter(|other| !below(other, module) && !below(module, other))
                .collect()
        };
        self.0
            .iter()
            .map(|(module, facts)| (&**module, of((module, facts))))
            .collect()
    }

    /// One way back for each circle: `a -> b -> a`.
    pub fn circles(&self) -> Vec<String> {
        let imports = self.imports();
        let mut found: Vec<Vec<&str>> = Vec::new();
        for start in imports.keys() {
            let known = found.iter().any(|circle| circle.contains(start));
            found.extend(way_back(&imports, start).filter(|_| !known));
        }
        found.iter().map(|circle| circle.join(" -> ")).collect()
    }
}

/// The shortest way from a file over its imports back to it.
fn way_back<'a>(
    imports: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    start: &'a str,
) -> Option<Vec<&'a str>> {
    let mut waiting = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = waiting.pop_front() {
        for next in imports.get(way.last()?).into_iter().flatten() {
            let longer = || way.iter().copied().chain([*next]).collect();
            if *next == start {
                return Some(longer());
            }
            if seen.insert(*next) {
                waiting.push_back(longer());
            }
        }
    }
    None
}
