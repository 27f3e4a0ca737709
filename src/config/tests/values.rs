//! What values are taken and refused.

use proptest::prelude::*;

use super::*;

#[test]
fn a_wrong_type_shows_the_value_and_what_is_allowed() {
    for (line, parts) in [
        (
            "[wal]\ncompression_level = \"fast\"",
            ["\"fast\"", "an integer from -7 to 19"],
        ),
        (
            "[wal]\ncompression_level = \"3\"",
            ["\"3\"", "an integer from -7 to 19"],
        ),
        (
            "[wal]\ncompression_level = 1.5",
            ["\"1.5\"", "an integer from -7 to 19"],
        ),
        (
            "[wal]\nworkers = \"many\"",
            ["\"many\"", "\"auto\": the number of CPUs"],
        ),
        ("[wal]\nmemory = 64", ["\"64\"", "units KiB, MiB, GiB"]),
        ("[wal]\ntimeout = 60", ["\"60\"", "units ms, s, m, h, d"]),
        (
            "[backup]\nverify_checksums = \"yes\"",
            ["\"yes\"", "true or false"],
        ),
        (
            "[backup]\ncheckpoint = \"slow\"",
            ["\"slow\"", "\"fast\" or \"spread\""],
        ),
        ("[cluster]\nname = []", ["\"[]\"", "a-z"]),
    ] {
        let (error, hint) = Machine::with_url_and(line).error();
        assert_says(&error, &["walden.toml\" line 4"]);
        assert_says(&error, &parts);
        assert_says(&hint, &["walden config example"]);
    }
}

#[test]
fn a_value_beyond_its_bounds_is_refused_and_the_bounds_are_accepted() {
    for (variable, good, bad) in [
        ("WALDEN_WAL__COMPRESSION_LEVEL", ["-7", "19"], ["-8", "20"]),
        ("WALDEN_WAL__LOOK_AHEAD", ["0", "64"], ["-1", "65"]),
        ("WALDEN_WAL__WORKERS", ["1", "64"], ["0", "65"]),
        ("WALDEN_WAL__TIMEOUT", ["1s", "1h"], ["999ms", "61m"]),
        (
            "WALDEN_BACKUP__PACK_SIZE",
            ["1MiB", "64MiB"],
            ["1023KiB", "65537KiB"],
        ),
        (
            "WALDEN_BACKUP__MAX_RATE",
            ["32KiB", "1GiB"],
            ["31KiB", "1025MiB"],
        ),
        (
            "WALDEN_BACKUP__MAX_RATE",
            ["", "1 GiB"],
            ["99999999999GiB", "1MB"],
        ),
        ("WALDEN_CLUSTER__NAME", ["0", "a_b-c"], ["_a", "Main"]),
        (
            "WALDEN_HTTP__LISTEN",
            ["", "[::]:1"],
            ["localhost:80", "127.0.0.1"],
        ),
        (
            "WALDEN_CLUSTER__DATA_DIRECTORY",
            ["", "/a b"],
            ["data", "./x"],
        ),
    ] {
        for value in good {
            Machine::with(URL).variable(variable, value).settings();
        }
        for value in bad {
            let (error, _) = Machine::with(URL).variable(variable, value).error();
            assert_says(
                &error,
                &["environment", variable, &format!("{value:?}"), "allowed is"],
            );
        }
    }
}

#[test]
fn a_bad_value_in_the_file_is_refused_even_where_the_environment_overrides_it() {
    let machine =
        Machine::with_url_and("[wal]\nlook_ahead = 99\n").variable("WALDEN_WAL__LOOK_AHEAD", "3");
    assert_says(&machine.error().0, &["line 4", "wal.look_ahead is \"99\""]);
}

#[test]
fn an_empty_text_unsets_what_the_file_sets() {
    let machine = Machine::with_url_and("[backup]\nmax_rate = \"1MiB\"\n");
    assert_eq!(machine.settings().backup.max_rate, Some(1 << 20));
    assert_eq!(
        machine
            .variable("WALDEN_BACKUP__MAX_RATE", "")
            .settings()
            .backup
            .max_rate,
        None
    );
}

#[test]
fn a_socket_path_fits_into_a_socket_address() {
    let path = |bytes: usize| format!("/{}", "s".repeat(bytes - 1));
    let machine = |bytes| Machine::with(URL).variable("WALDEN_SERVICE__SOCKET", path(bytes));
    machine(107).settings();
    assert_says(
        &machine(108).error().0,
        &["it has 108 bytes", "at most 107 bytes"],
    );
}

#[test]
fn a_cluster_name_has_at_most_63_characters() {
    let machine = |length| Machine::with(URL).variable("WALDEN_CLUSTER__NAME", "a".repeat(length));
    machine(63).settings();
    assert_says(&machine(64).error().0, &["up to 63"]);
}

#[test]
fn a_long_value_is_cut_in_the_message() {
    let (error, _) = Machine::with(URL)
        .variable("WALDEN_CLUSTER__NAME", "a".repeat(1_000_000))
        .error();
    assert!(error.len() < 1000);
}

#[test]
fn a_file_url_may_hold_spaces_raw_or_encoded() {
    for url in [
        "file:///srv/my archive",
        "file:///srv/my%20archive",
        "FILE://localhost/srv//my archive/",
    ] {
        assert_eq!(
            RepositoryUrl::parse(url),
            Ok(RepositoryUrl::File("/srv/my archive".into())),
            "{url}"
        );
    }
    assert_eq!(
        RepositoryUrl::parse("file:///100%25"),
        Ok(RepositoryUrl::File("/100%".into()))
    );
}

#[test]
fn a_url_that_is_not_a_folder_of_this_machine_says_what_is_supported() {
    for (url, part) in [
        ("", "supported: file"),
        (
            "gs://bucket/prefix",
            "scheme \"gs\" is not supported; supported: file",
        ),
        ("s3:bucket", "begins with \"s3://\""),
        ("s3://", "\"\" is not a bucket's name"),
        ("s3://a/b", "\"a\" is not a bucket's name"),
        ("s3://bucket name/b", "not a bucket's name"),
        ("s3://bucket/a//b", "\"a//b\" is not a prefix"),
        ("s3://bucket/../b", "not a prefix"),
        ("s3://bucket/a?b", "not a prefix"),
        ("/srv/archive", "\"file:///srv/archive\""),
        ("archive", "absolute path"),
        ("file://archive/main", "three slashes"),
        ("file://localhostile/main", "three slashes"),
        ("file://./archive", "three slashes"),
        ("file:/archive", "begins with \"file:///\""),
        ("file:///", "a folder below"),
        ("file:///a/../b", "\"..\""),
        ("file:///a?b", "%3F"),
        ("file:///a%2", "two hexadecimal digits"),
        ("file:///a%zz", "two hexadecimal digits"),
        ("file:///a%00b", "zero byte"),
    ] {
        let (error, _) = Machine::new()
            .variable("WALDEN_REPOSITORY__URL", url)
            .error();
        assert_says(
            &error,
            &[&format!("WALDEN_REPOSITORY__URL is {url:?}"), part],
        );
    }
}

#[test]
fn an_s3_url_names_a_bucket_and_perhaps_a_prefix() {
    let s3 = |bucket: &str, prefix: &str| {
        Ok(RepositoryUrl::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        })
    };
    assert_eq!(RepositoryUrl::parse("s3://my-bucket"), s3("my-bucket", ""));
    assert_eq!(RepositoryUrl::parse("s3://my-bucket/"), s3("my-bucket", ""));
    assert_eq!(
        RepositoryUrl::parse("S3://my.bucket/walden/prod_1/"),
        s3("my.bucket", "walden/prod_1/")
    );
    for url in ["s3://bucket", "s3://bucket/a/b"] {
        assert_eq!(RepositoryUrl::parse(url).unwrap().to_string(), url);
    }
}

#[test]
fn an_endpoint_is_a_servers_url_alone() {
    let load = |url: &str| {
        Machine::with(URL)
            .variable("WALDEN_S3__ENDPOINT", url)
            .load()
    };
    for good in [
        "http://127.0.0.1:9000",
        "https://s3.example.org",
        "https://s3.example.org/",
    ] {
        assert_eq!(
            load(good).unwrap().s3.endpoint.as_deref(),
            Some(good.trim_end_matches('/'))
        );
    }
    for bad in [
        "s3.example.org",
        "ftp://host",
        "https://",
        "https://user@host",
        "https://host/path",
        "https://a b",
    ] {
        assert!(load(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_url_is_shown_as_people_write_the_path() {
    let shown = |url: &str| RepositoryUrl::parse(url).unwrap().to_string();
    assert_eq!(
        shown("file:///srv/my%20archive/%C3%A4"),
        "file:///srv/my archive/ä"
    );
    assert_eq!(
        shown("file:///100%25/%3F%23%FF"),
        "file:///100%25/%3F%23%FF"
    );
}

proptest! {
    #[test]
    fn any_text_is_answered_without_panic(text in "\\PC*|[\\[\\]a-z.=\"'#\n0-9_ -]*") {
        let _ = raw::Entries::default().add_file(Path::new("x.toml"), &text);
    }

    #[test]
    fn any_value_of_any_key_is_answered_without_panic(key in 0..KEYS.len(), value in "\\PC*|\"[^\"\\\\\n]*\"|-?[0-9]{1,30}|\\[.*\\]") {
        let key = &KEYS[key];
        let text = format!("[{}]\n{} = {value}\n", key.section, key.name);
        let _ = raw::Entries::default().add_file(Path::new("x.toml"), &text);
        let _ = Machine::with(URL).variable(&key.variable(), value).load();
    }

    #[test]
    fn a_given_text_survives_the_rendered_file(text in "[^\0]*") {
        let file = render_commented(&[("postgresql.dsn", &text), ("repository.url", "file:///r")]).unwrap();
        let mut entries = raw::Entries::default();
        entries.add_file(Path::new("x.toml"), &file).unwrap();
        prop_assert_eq!(entries.secret("postgresql.dsn").unwrap().expose(), text);
    }

    #[test]
    fn a_url_of_any_bytes_survives_its_text(name in proptest::collection::vec(1u8.., 1..20)) {
        prop_assume!(!name.contains(&b'/') && name != b"." && name != b"..");
        let url = RepositoryUrl::File(Path::new("/r").join(std::ffi::OsString::from_vec(name)));
        prop_assert_eq!(RepositoryUrl::parse(&url.to_string()), Ok(url));
    }

    #[test]
    fn a_url_survives_its_text(path in "(/[^/\0]{1,9}){1,4}") {
        prop_assume!(!path.split('/').any(|part| part == ".."));
        let url = RepositoryUrl::File(Path::new(&path).components().collect());
        prop_assume!(url != RepositoryUrl::File("/".into()));
        prop_assert_eq!(RepositoryUrl::parse(&url.to_string()), Ok(url));
    }

    #[test]
    fn a_size_and_a_duration_survive_their_text(kib in 32u64..=1 << 20, ms in 1000u64..=3_600_000) {
        for (path, text) in [("backup.max_rate", format!("{kib}KiB")), ("wal.timeout", format!("{ms}ms"))] {
            let parse = |text: String| value::parse(raw::find(path).unwrap(), &value::Raw::Text(text), true);
            let value = parse(text).unwrap();
            prop_assert_eq!(parse(value.to_string()), Ok(value));
        }
    }
}
