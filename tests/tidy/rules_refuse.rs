//! Each rule sees an offending text and refuses it, and lets its lawful neighbour pass.

use super::circles;
use super::facts::Facts;
use super::rules::{Finding, dependencies, habits, imports, sizes};

fn what(findings: &[Finding]) -> Vec<&str> {
    findings
        .iter()
        .map(|finding| finding.what.as_str())
        .collect()
}

fn imports_of(module: &str, text: &str) -> Vec<String> {
    what(&imports(&Facts::read(text, module), module))
        .into_iter()
        .map(str::to_string)
        .collect()
}

fn is_refused(module: &str, text: &str, path: &str) {
    let found = imports_of(module, text);
    assert!(
        found.len() == 1 && found[0].ends_with(&format!("\"{path}\"")),
        "{module}: {text}: {found:?}"
    );
}

fn passes(module: &str, text: &str) {
    assert_eq!(
        imports_of(module, text),
        Vec::<String>::new(),
        "{module}: {text}"
    );
}

#[test]
fn the_keeper_knows_no_postgresql() {
    is_refused(
        "storage::local",
        "use crate::postgres::types::Lsn;",
        "crate::postgres::types::Lsn",
    );
    is_refused(
        "repo",
        "use crate::{error::Hint, postgres};",
        "crate::postgres",
    );
    is_refused(
        "codec",
        "fn f() -> crate::config::Settings { g() }",
        "crate::config::Settings",
    );
    is_refused(
        "storage",
        "fn f() { log!(\"{}\", super::cli::verbose()) }",
        "crate::cli::verbose",
    );
    is_refused("storage", "use super::*;", "crate::*");
    passes(
        "repo::object",
        "use super::Repository; use crate::{codec::{seal, self}, storage as kept};",
    );
    passes(
        "storage",
        "// crate::postgres\nconst A: &str = \"crate::postgres::x\"; pub(in crate::storage) fn f() {}",
    );
}

#[test]
fn nothing_names_the_edges() {
    for edge in ["cli", "service", "http"] {
        let path = format!("crate::{edge}::run");
        is_refused(
            "postgres::backup::take",
            &format!("fn f() {{ {path}() }}"),
            &path,
        );
        passes("cli::backup", &format!("use {path};"));
    }
    is_refused(
        "config::raw",
        "use crate::storage::Key;",
        "crate::storage::Key",
    );
}

#[test]
fn the_core_knows_keys_and_no_storage() {
    is_refused(
        "postgres::layout",
        "use crate::storage::{Key, Storage as S};",
        "crate::storage::Storage",
    );
    is_refused(
        "postgres::catalog::plan",
        "use crate::storage::Key;",
        "crate::storage::Key",
    );
    is_refused(
        "postgres::catalog::plan",
        "use super::super::backup::manifest;",
        "crate::postgres::backup::manifest",
    );
    is_refused(
        "postgres::catalog::plan",
        "use super::super::load::load_backups;",
        "crate::postgres::load::load_backups",
    );
    passes(
        "postgres::load",
        "use crate::storage::Storage; use tokio::task::JoinSet; async fn f() {}",
    );
    passes(
        "postgres::catalog::plan",
        "use super::model::Plan; use crate::postgres::layout::BackupId;",
    );
}

#[test]
fn activities_have_an_order() {
    let what = imports_of(
        "postgres::index::update",
        "use crate::postgres::names::record;",
    );
    assert_eq!(
        what,
        [
            "\"postgres::index::update\" comes before \"crate::postgres::names::record\" and may not name it"
        ]
    );
    passes(
        "postgres::names::store",
        "use crate::postgres::index::Index; use super::read::Resolve;",
    );
}

#[test]
fn the_core_neither_waits_nor_reads_a_clock() {
    let text = "use std::{collections::BTreeMap, fs};";
    is_refused("postgres::types::lsn", text, "std::fs");
    is_refused(
        "postgres::catalog",
        "fn f() { let t = chrono::Utc::now(); }",
        "chrono::Utc::now",
    );
    is_refused(
        "retention",
        "fn f() { SystemTime::now(); }",
        "SystemTime::now",
    );
    is_refused("postgres::types", "async fn f() {}", "async");
    is_refused(
        "postgres::wal::page",
        "use tokio::sync::Mutex;",
        "tokio::sync::Mutex",
    );
    passes(
        "postgres::types",
        "use std::time::Duration; use chrono::{DateTime, Utc}; use std::{fmt, io::Read};",
    );
}

#[test]
fn tests_of_the_core_may_use_what_they_like() {
    passes(
        "postgres::types",
        "#[cfg(test)]\nmod tests { use std::fs; async fn f() {} mod inner { use crate::cli; } }",
    );
    passes(
        "postgres::types",
        "#[cfg(test)] use crate::storage::MemoryStorage;",
    );
    is_refused(
        "postgres::types",
        "#[cfg(test)] mod tests { use std::fs; } use std::net;",
        "std::net",
    );
    let facts = Facts::read(
        "#[cfg(test)] mod a; #[cfg(test)] #[path = \"b_tests.rs\"] mod b; mod c;",
        "x",
    );
    assert_eq!(facts.test_modules, ["a", "b_tests.rs"]);
}

#[test]
#[should_panic(expected = "has no layer yet")]
fn a_module_without_a_layer_is_refused() {
    imports_of("gadgets", "");
}

#[test]
fn long_functions_and_files_are_refused() {
    let of = |lines: usize| {
        format!(
            "impl T {{\n  fn long(&self) -> fn(u8) {{\n{}  }}\n}}\n",
            "a(\"}\");\n".repeat(lines - 2)
        )
    };
    let found = |text: &str| sizes(&Facts::read(text, "x"), text.lines().count(), false);
    assert_eq!(what(&found(&of(70))), Vec::<&str>::new());
    let [finding] = &found(&of(71))[..] else {
        panic!("one finding")
    };
    assert_eq!(
        (finding.line, finding.what.as_str()),
        (2, "function \"long\" has 71 lines, the limit is 70")
    );
    let dense = |calls: usize| format!("fn dense() {{ {} }}", "a::b();".repeat(calls));
    assert_eq!(what(&found(&dense(74))), Vec::<&str>::new());
    assert_eq!(
        what(&found(&dense(75))),
        ["function \"dense\" has 456 tokens, the limit is 450"]
    );
    assert_eq!(
        what(&found(&format!(
            "#[cfg(test)] mod tests {{ {} }}",
            dense(75)
        ))),
        Vec::<&str>::new()
    );
    assert_eq!(
        what(&sizes(&Facts::read(&dense(75), "x"), 1, true)),
        Vec::<&str>::new()
    );
    assert_eq!(what(&found(&"//\n".repeat(500))), Vec::<&str>::new());
    assert_eq!(
        what(&found(&"//\n".repeat(501))),
        ["501 lines, the limit is 500"]
    );
}

#[test]
fn unfinished_work_and_ignored_tests_are_refused() {
    let found = |text: &str| habits(&Facts::read(text, "x")).len();
    assert_eq!(
        found("fn f() { if a { todo!() } else { dbg!(b); unimplemented!(\"c\") } }"),
        3
    );
    assert_eq!(
        found("#[test] #[ignore] fn f() {} #[ignore = \"slow\"] fn g() {}"),
        2
    );
    assert_eq!(found("// todo!()\nfn todo() { let ignore = \"dbg!\"; }"), 0);
}

#[test]
fn tasks_without_an_owner_are_refused() {
    let found = |body: &str| habits(&Facts::read(&format!("async fn f() {{ {body} }}"), "x")).len();
    assert_eq!(found("a(); tokio::spawn(async move { b().await; });"), 1);
    assert_eq!(
        found("if x { y() } let _ = tokio::task::spawn_blocking(z);"),
        1
    );
    assert_eq!(
        found(
            "let task = tokio::spawn(b()); tasks.spawn(c()); tokio::spawn(d()).await; tokio::spawn(e())"
        ),
        0
    );
}

#[test]
fn dependencies_without_a_reason_are_refused() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\" # bytes on their way\nb = \"1\"\n\
        [dev-dependencies]\nc = { version = \"1\", features = [\n  \"d\",\n] }\n[profile.dev]\ndebug = 1\n";
    let found = dependencies(manifest, false);
    assert_eq!(
        what(&found),
        [
            "dependency \"b\" does not say why",
            "dependency \"c\" does not say why"
        ]
    );
    assert_eq!(
        what(&dependencies("[dependencies]\na = \"1\" # needed\n", true)),
        ["dependency \"a\""]
    );
    assert!(dependencies("# none\n[dependencies]\n# none\n", true).is_empty());
}

#[test]
fn circles_of_files_are_refused_also_through_re_exports() {
    let found = |files: &[(&str, &str)]| {
        let read = |(module, text): &(&str, &str)| (module.to_string(), Facts::read(text, module));
        circles::Modules(files.iter().map(read).collect()).circles()
    };
    let (root, repo) = (
        ("", "mod repo; mod health;"),
        ("repo", "mod a; mod b; pub use b::Found;"),
    );
    let b = ("repo::b", "use super::a::Key; struct Found;");
    assert_eq!(
        found(&[root, repo, ("repo::a", "use super::Found;"), b]),
        ["repo::a -> repo::b -> repo::a"]
    );
    assert_eq!(
        found(&[
            root,
            repo,
            ("repo::a", "use crate::repo::Found as Other;"),
            b
        ])
        .len(),
        1
    );
    let long = [
        ("health", "use crate::repo::Found;"),
        ("repo::a", "use crate::health::Judge;"),
        b,
    ];
    assert_eq!(
        found(&[&[root, repo][..], &long].concat()),
        ["health -> repo::b -> repo::a -> health"]
    );
    // A module and what lies below it may see each other.
    assert!(
        found(&[
            root,
            repo,
            ("repo::a", "use super::Options; use std::fmt;"),
            b
        ])
        .is_empty()
    );
}
