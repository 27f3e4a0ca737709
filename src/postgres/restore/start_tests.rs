use super::super::listening::unfit;
use super::*;

#[test]
fn a_folder_that_no_socket_fits_into_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let why = |name: &str| {
        let folder = folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        unfit(&folder, 5432)
    };
    assert_eq!(why("plain folder"), None);
    assert!(why("it's").unwrap().contains("quote"));
    assert!(why(&"x".repeat(100)).unwrap().contains("too long"));
    fs::write(folder.path().join("plain folder/.s.PGSQL.5432"), "").unwrap();
    assert!(why("plain folder").unwrap().contains("already"));
}

#[test]
fn the_setting_to_raise_is_named_with_its_value() {
    for words in [
        "FATAL:  hot standby is not possible because max_connections = 30 is a lower setting than on the master \
         server (its value was 60)",
        "WARNING:  x | DETAIL:  max_connections = 30 is a lower setting than on the primary server, where its \
         value was 60.",
    ] {
        assert_eq!(
            wanted_setting(words).as_deref(),
            Some("max_connections = 60")
        );
    }
    assert_eq!(wanted_setting("nothing of the kind"), None);
}
