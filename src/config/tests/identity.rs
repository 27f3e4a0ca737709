use super::*;

fn of(machine: &Machine) -> ClusterIdentity {
    let variable = |name: &str| {
        machine
            .env
            .iter()
            .find(|(each, _)| each == name)
            .map(|(_, value)| value.into())
    };
    ClusterIdentity::of(&machine.settings(), variable)
}

#[test]
fn the_cluster_and_the_place_of_its_repository_are_who_is_meant() {
    let base = of(&Machine::with_url_and(""));
    assert!(
        base.is(&of(&Machine::with_url_and(
            "[wal]\nprefetch = 3\n[s3]\nendpoint = \"http://x\"\n"
        ))),
        "no matter"
    );
    assert!(!base.is(&of(&Machine::with_url_and("[cluster]\nname = \"copy\"\n"))));
    assert!(!base.is(&of(
        &Machine::with_url_and("").variable("WALDEN_REPOSITORY__URL", "file:///srv/archive2")
    )));
    assert_eq!(base.to_string(), "cluster \"main\" of file:///srv/archive");
}

#[test]
fn one_folder_has_many_names() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
    let at = |name: &str| {
        let url = format!("file://{}", folder.path().join(name).display());
        of(&Machine::new().variable("WALDEN_REPOSITORY__URL", url))
    };
    assert!(at("real").is(&at("link")));
    assert!(at("none").is(&at("none")), "an unmounted disk");
    assert!(!at("none").is(&at("neither")) && !at("real").is(&at("none")));
}

#[test]
fn a_bucket_is_one_of_a_server() {
    let at = |variables: &[(&str, &str)]| {
        let machine = Machine::with("[repository]\nurl = \"s3://bucket/x\"\n");
        of(&variables.iter().fold(machine, |machine, (name, value)| {
            machine.variable(name, *value)
        }))
    };
    let amazon = at(&[]);
    let own = at(&[("WALDEN_S3__ENDPOINT", "http://s3.example:9000/")]);
    assert!(!amazon.is(&own) && own.is(&own.clone()));
    assert!(own.is(&at(&[("AWS_ENDPOINT_URL", "http://s3.example:9000")])));
    assert!(own.is(&at(&[
        ("WALDEN_S3__ENDPOINT", "http://s3.example:9000"),
        ("AWS_ENDPOINT_URL", "http://y")
    ])));
    assert!(!amazon.is(&at(&[("WALDEN_S3__REGION", "cn-north-1")])));
    let by_profile = at(&[("WALDEN_S3__PROFILE", "one")]);
    assert!(!amazon.is(&by_profile) && by_profile.is(&at(&[("AWS_PROFILE", "one")])));
    assert!(by_profile.is(&at(&[
        ("WALDEN_S3__PROFILE", "one"),
        ("AWS_PROFILE", "two")
    ])));
    assert!(!by_profile.is(&at(&[
        ("AWS_PROFILE", "one"),
        ("AWS_CONFIG_FILE", "/etc/other")
    ])));
    assert!(
        at(&[("WALDEN_S3__REGION", "cn-north-1")]).is(&at(&[("AWS_DEFAULT_REGION", "cn-north-1")]))
    );
    assert!(!amazon.is(&at(&[("AWS_REGION", "cn-north-1")])));
    let own_by_profile = [
        ("WALDEN_S3__ENDPOINT", "http://s3.example:9000"),
        ("AWS_PROFILE", "one"),
    ];
    assert!(own.is(&at(&own_by_profile)), "the server is named");
    assert_eq!(
        by_profile.to_string(),
        "cluster \"main\" of s3://bucket/x by profile one"
    );
    assert_eq!(
        own.to_string(),
        "cluster \"main\" of s3://bucket/x at http://s3.example:9000"
    );
}

/// The hook programs send these, and nothing else of their environment.
#[test]
fn every_variable_that_decides_is_sent_by_the_hooks() {
    for path in [
        "repository.url",
        "cluster.name",
        "s3.endpoint",
        "s3.region",
        "s3.profile",
    ] {
        let variable = KEYS.iter().find(|key| key.is(path)).unwrap().variable();
        assert!(
            crate::wire::IDENTITY_VARIABLES.contains(&variable.as_str()),
            "{variable}"
        );
    }
    let asked = std::cell::RefCell::new(std::collections::BTreeSet::new());
    ClusterIdentity::of(
        &Machine::with("[repository]\nurl = \"s3://bucket/x\"\n").settings(),
        |name| {
            asked.borrow_mut().insert(name.to_string());
            None
        },
    );
    for variable in asked.into_inner() {
        assert!(
            crate::wire::IDENTITY_VARIABLES.contains(&variable.as_str()),
            "{variable}"
        );
    }
}
