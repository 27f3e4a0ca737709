//! What speaks against a restore is told, all of it, and nothing else is.

use std::collections::BTreeMap;

use super::*;
use crate::postgres::dump_restore::plain::PlainDump;
use crate::postgres::dump_restore::source::Compression;
use crate::postgres::dump_restore::toc::{Toc, TocEntry};

fn target() -> TargetFacts {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    TargetFacts {
        major: 16,
        user: "admin".into(),
        is_superuser: true,
        roles: names(&["admin", "owner", "reader"]),
        extensions: names(&["pgcrypto"]),
        databases: names(&["postgres", "shop"]),
        ..TargetFacts::default()
    }
}

fn existing() -> ExistingDatabase {
    ExistingDatabase {
        is_ours: true,
        ..ExistingDatabase::default()
    }
}

fn archive() -> DumpContent {
    let mut table = TocEntry::of(2, "TABLE", "public", "stock", &[]);
    table.set_owner("owner");
    let mut grant = TocEntry::of(3, "ACL", "public", "TABLE stock", &[2]);
    grant.set_definition("GRANT SELECT ON TABLE public.stock TO reader;".into());
    let mut settings = TocEntry::of(5, "DATABASE PROPERTIES", "", "shop", &[]);
    settings.set_definition("ALTER ROLE gone IN DATABASE shop SET a TO 'b';".into());
    let extension = TocEntry::of(4, "EXTENSION", "", "pgcrypto", &[]);
    DumpContent::Archive(Box::new(Toc::of(
        "15.3",
        "16.1",
        vec![table, grant, extension, settings],
    )))
}

/// Decides with one thing changed.
fn decided(
    change: impl FnOnce(&mut TargetFacts, &mut RestoreOptions, &mut DumpContent),
) -> Result<RestorePlan, Vec<Reason>> {
    let (mut target, mut content) = (target(), archive());
    let mut options = RestoreOptions {
        jobs: 4,
        ..RestoreOptions::default()
    };
    change(&mut target, &mut options, &mut content);
    let form = match &content {
        DumpContent::Archive(_) => DumpForm::Custom,
        DumpContent::Script(_) => DumpForm::Script(Compression::None),
    };
    decide(&RestoreRequest {
        dump: DumpFacts {
            content: &content,
            form,
            bytes: 1 << 30,
            is_partial: false,
            facts: None,
        },
        target: &target,
        database: "shop",
        options: &options,
        is_remote: false,
        free: Some(2 << 30),
    })
}

/// The only reason.
fn reason(change: impl FnOnce(&mut TargetFacts, &mut RestoreOptions, &mut DumpContent)) -> String {
    let reasons = decided(change).unwrap_err();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(!reasons[0].hint.is_empty());
    reasons[0].what.clone()
}

#[test]
fn what_nothing_speaks_against_is_planned() {
    let plan = decided(|_, _, _| ()).unwrap();
    assert_eq!(
        (plan.replaces, plan.program_major, plan.jobs, plan.chosen),
        (false, 16, 4, None)
    );
    assert_eq!(
        plan.notes,
        ["what role \"gone\" sets in the database is left out: the server has no such role"]
    );
    let plan = decided(|target, options, _| {
        target.major = 18;
        target.existing = Some(existing());
        options.single_transaction = true;
    });
    let plan = plan.unwrap();
    assert_eq!(
        (plan.replaces, plan.program_major, plan.jobs),
        (true, 18, 1)
    );
    let plan = decided(|target, _, _| {
        let slots = vec!["s".to_string()];
        target.existing = Some(ExistingDatabase {
            slots,
            ..existing()
        });
    });
    assert!(plan.unwrap().notes[0].contains("slot \"s\" stays with the old database"));
}

#[test]
fn versions_decide_before_anything_fails_in_the_middle() {
    let older = reason(|target, _, _| target.major = 14);
    assert_eq!(
        older,
        "the dump is of PostgreSQL 15, the server is of version 14"
    );
    let newer_program = reason(|_, _, content| {
        *content = DumpContent::Archive(Box::new(Toc::of("15.3", "17.2", vec![])))
    });
    assert!(
        newer_program.contains("made by pg_dump 17"),
        "{newer_program}"
    );
    // A newer program than the server's is used where the dump needs it.
    let plan = decided(|target, _, content| {
        target.major = 15;
        *content = DumpContent::Archive(Box::new(Toc::of("15.3", "16.0", vec![])));
    });
    assert_eq!(plan.unwrap().program_major, 16);
}

#[test]
fn what_the_server_lacks_is_named_unless_it_is_not_wanted() {
    let no_role = |target: &mut TargetFacts| assert!(target.roles.remove("owner"));
    let no_reader = |target: &mut TargetFacts| assert!(target.roles.remove("reader"));
    assert!(reason(|target, _, _| no_role(target)).contains("no role \"owner\", which owns"));
    assert!(reason(|target, _, _| no_reader(target)).contains("no role \"reader\", to which"));
    let done_without =
        |target: &mut TargetFacts, options: &mut RestoreOptions, _: &mut DumpContent| {
            no_role(target);
            no_reader(target);
            options.no_owner = true;
            options.no_privileges = true;
        };
    decided(done_without).unwrap();
    let mapped = |to: &'static str| {
        move |target: &mut TargetFacts, options: &mut RestoreOptions, _: &mut DumpContent| {
            no_role(target);
            options.role_map = BTreeMap::from([("owner".to_string(), to.to_string())]);
        }
    };
    decided(mapped("admin")).unwrap();
    assert!(reason(mapped("nobody")).contains("no role \"owner\""));
    assert!(reason(|target, _, _| target.extensions.clear()).contains("extension \"pgcrypto\""));
}

#[test]
fn a_database_that_cannot_be_replaced_is_told() {
    let with = |change: fn(&mut ExistingDatabase)| {
        move |target: &mut TargetFacts, _: &mut RestoreOptions, _: &mut DumpContent| {
            let mut existing = existing();
            change(&mut existing);
            target.existing = Some(existing);
        }
    };
    assert!(
        reason(with(|existing| existing.prepared = 2))
            .contains("2 prepared transactions in \"shop\"")
    );
    decided(with(|existing| existing.is_ours = false)).unwrap();
    let of_another = reason(|target, options, content| {
        with(|existing| existing.is_ours = false)(target, options, content);
        target.is_superuser = false;
        target.may_create_databases = true;
    });
    assert!(of_another.contains("belongs to another role"));
    let some = reason(|target, options, _| {
        target.existing = Some(existing());
        options.tables = vec!["stock".into()];
    });
    assert!(some.contains("take the place of \"shop\""), "{some}");
    decided(|_, options, _| options.tables = vec!["public.stock".into()]).unwrap();
    assert!(reason(|_, options, _| options.tables = vec!["x".into()]).contains("no table \"x\""));
}

#[test]
fn the_user_the_name_and_the_space_are_looked_at() {
    assert!(reason(|target, _, _| target.is_standby = true).contains("standby"));
    assert!(
        reason(|target, _, _| target.is_superuser = false).contains("may not create databases")
    );
    let content = archive();
    let (target, options) = (target(), RestoreOptions::default());
    let request = |database: &'static str, free: Option<u64>| {
        let dump = DumpFacts {
            content: &content,
            form: DumpForm::Custom,
            bytes: 1 << 30,
            is_partial: false,
            facts: None,
        };
        (dump, database, free)
    };
    let ask = |(dump, database, free): (DumpFacts<'_>, &str, Option<u64>)| {
        let (target, options) = (&target, &options);
        let request = RestoreRequest {
            dump,
            target,
            database,
            options,
            is_remote: false,
            free,
        };
        decide(&request).map(|_| ())
    };
    for name in [
        "",
        "template1",
        "x123456789012345678901234567890123456789012345678901234567890123",
    ] {
        assert_eq!(ask(request(name, None)).unwrap_err().len(), 1, "{name}");
    }
    ask(request("shop", None)).unwrap();
    // Without rows it takes next to nothing.
    ask(request("shop", Some(1))).unwrap();
    let script = DumpContent::Script(PlainDump::default());
    let dump = DumpFacts {
        content: &script,
        form: DumpForm::Script(Compression::None),
        bytes: 2,
        is_partial: false,
        facts: None,
    };
    assert!(
        ask((dump, "shop", Some(1))).unwrap_err()[0]
            .what
            .contains("takes about")
    );
}

#[test]
fn a_script_is_run_as_it_is_or_not_at_all() {
    let script = |leads_out: Option<&str>| {
        let leads_out = leads_out.map(str::to_string);
        DumpContent::Script(PlainDump {
            leads_out,
            ..PlainDump::default()
        })
    };
    let plan = decided(|_, _, content| *content = script(None)).unwrap();
    assert_eq!((plan.jobs, plan.program_major), (1, 16));
    assert!(reason(|_, _, content| *content = script(Some("\\connect x"))).contains("\\connect x"));
    let reasons = decided(|_, options, content| {
        *content = script(None);
        options.no_owner = true;
        options.schema_only = true;
    });
    assert_eq!(reasons.unwrap_err().len(), 2);
}

#[test]
fn a_plain_dump_needs_what_the_manifest_says_of_its_database() {
    let facts = DatabaseFacts {
        oid: 5,
        owner: "chief".into(),
        encoding: "UTF8".into(),
        collate: "C".into(),
        ctype: "C".into(),
        provider: "libc".into(),
        locale: None,
        icu_rules: None,
        collation_version: None,
        tablespace: "fast".into(),
        connection_limit: -1,
        size: 1,
        comment: None,
        acl: Some(vec![
            "=T/chief".into(),
            "reader=c/chief".into(),
            "guest=c/chief".into(),
        ]),
        settings: Vec::new(),
    };
    let (content, target) = (DumpContent::Script(PlainDump::default()), target());
    let decided = |facts| {
        decide(&RestoreRequest {
            dump: DumpFacts {
                content: &content,
                form: DumpForm::Script(Compression::None),
                bytes: 1,
                is_partial: false,
                facts,
            },
            target: &target,
            database: "new",
            options: &RestoreOptions::default(),
            is_remote: false,
            free: None,
        })
    };
    assert!(decided(None).is_ok());
    let reasons = decided(Some(&facts)).unwrap_err();
    let whats: Vec<&str> = reasons.iter().map(|reason| reason.what.as_str()).collect();
    assert_eq!(
        whats,
        [
            "the server has no role \"chief\", which owns objects of the dump",
            "the server has no role \"guest\", to which the dump grants something",
            "the server has no tablespace \"fast\"",
        ]
    );
    // No option changes a plain dump.
    assert!(
        reasons.iter().all(|reason| !reason.hint.contains("--")),
        "{reasons:?}"
    );
}
