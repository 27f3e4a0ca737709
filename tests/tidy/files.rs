//! The files of the tree, and the modules that they are.

use std::fs;
use std::path::{Path, PathBuf};

use super::facts::Facts;

/// A file of the tree, with its path from the root.
pub struct SourceFile {
    pub path: String,
    pub text: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("cannot read \"{path}\": {error}"))
}

/// All Rust files below the folders, in order.
pub fn rust_files(folders: &[&str]) -> Vec<SourceFile> {
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

pub const SOURCES: &[&str] = &["src", "archive-command/src", "restore-command/src"];

/// `src/postgres/types/lsn.rs` is `postgres::types::lsn`.
pub fn module_of(path: &str) -> String {
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
pub fn test_modules(files: &[SourceFile]) -> Vec<String> {
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
