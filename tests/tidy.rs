//! The shape of the code, checked: who may name whom, sizes, purity of the core, dependencies that say why.
//!
//! Who may name whom is a table (`tidy/layers.rs`); files are read as token streams, so strings and comments cannot
//! confuse the rules. Each rule has a test that feeds it an offending text.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/facts.rs"]
mod facts;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/rules_refuse.rs"]
mod rules_refuse;

use facts::Facts;
use files::{SOURCES, module_of, read, root, rust_files, test_modules};
use layers::below;
use rules::{Finding, WHY_CIRCLE, dependencies, habits, imports, sizes};

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
