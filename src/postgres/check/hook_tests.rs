use super::*;
use crate::config;

const USER: Option<Owner> = Some(Owner { uid: 105, gid: 110 });

#[test]
fn a_hook_must_be_there_and_open_to_the_servers_user() {
    let decide = |name, found| decide_hook(name, &found, USER, false);
    assert_eq!(
        decide("/x/archive-command", ProgramState::Executable).status,
        CheckStatus::Ok
    );
    assert_eq!(
        decide("/x/archive-command", ProgramState::Absent).status,
        CheckStatus::Critical
    );
    assert_eq!(
        decide("archive-command", ProgramState::Absent).status,
        CheckStatus::Warning,
        "another PATH may have it"
    );
    let closed = decide(
        "/x/archive-command",
        ProgramState::Closed {
            by: "/x".into(),
            mode: 0o700,
        },
    );
    assert_eq!(closed.status, CheckStatus::Critical);
    assert!(closed.message.contains("uid 105") && closed.message.contains("\"/x\" has mode 0700"));
}

#[test]
fn a_program_on_another_path_is_proven_by_what_it_does() {
    assert_eq!(
        decide_hook("test", &ProgramState::Absent, USER, true).status,
        CheckStatus::Ok
    );
    assert_eq!(
        decide_hook("/x/test", &ProgramState::Absent, USER, true).status,
        CheckStatus::Critical
    );
}

#[test]
fn a_hook_that_asks_elsewhere_is_told() {
    let verdict = decide_socket(Path::new("/run/other.sock"), "archive_command = 'x'");
    assert_eq!(verdict.status, CheckStatus::Warning);
    assert!(
        verdict.message.contains("/run/other.sock")
            && verdict.hint.unwrap().contains("archive_command = 'x'")
    );
}

#[test]
fn a_hook_whose_own_work_is_for_another_cluster_is_told() {
    let settings = config::load(
        Some(Path::new("/dev/null")),
        [("WALDEN_REPOSITORY__URL", "file:///srv/x")],
    )
    .unwrap();
    let wanted = ClusterIdentity::of(&settings, |_| None);
    let status = |target| {
        decide_target("archive_command", &target, &wanted, "x").map(|verdict| verdict.status)
    };
    assert_eq!(status(HookTarget::Same), None);
    assert_eq!(
        status(HookTarget::Other("cluster \"copy\"".into())),
        Some(CheckStatus::Critical)
    );
    assert_eq!(
        status(HookTarget::Unreadable("no file".into())),
        Some(CheckStatus::Critical)
    );
    assert_eq!(
        [HookTarget::Nobody, HookTarget::Unseen].map(status),
        [Some(CheckStatus::Warning); 2]
    );
    let check = |setting| {
        decide_target(setting, &HookTarget::Nobody, &wanted, "x").map(|verdict| verdict.check)
    };
    assert_eq!(check("archive_command"), Some(Check::ArchiveCommand));
    assert_eq!(check("restore_command"), Some(Check::Hook));
}

fn service(answers: io::Result<Answers>, user: Option<Owner>) -> CheckStatus {
    decide_service(Path::new("/run/s"), &answers, user).status
}

fn serving(uid: u32, serves: Serves) -> io::Result<Answers> {
    Ok(Answers::User { uid, serves })
}

#[test]
fn the_service_must_be_the_servers_users_and_answer() {
    assert_eq!(service(serving(105, Serves::Us), USER), CheckStatus::Ok);
    assert_eq!(
        service(serving(0, Serves::Us), USER),
        CheckStatus::Critical,
        "it refuses others than its own user and root"
    );
    assert_eq!(service(serving(0, Serves::Us), None), CheckStatus::Ok);
    assert_eq!(service(Ok(Answers::Nobody), USER), CheckStatus::Warning);
    assert_eq!(service(Ok(Answers::Silent), USER), CheckStatus::Critical);
    assert_eq!(
        service(Err(ErrorKind::PermissionDenied.into()), USER),
        CheckStatus::Unknown
    );
}

#[test]
fn the_service_must_serve_this_cluster() {
    assert_eq!(
        service(serving(105, Serves::Another("it serves".into())), USER),
        CheckStatus::Critical
    );
    assert_eq!(
        service(serving(105, Serves::Untold), USER),
        CheckStatus::Warning
    );
    let answer = |reply: Reply| serves(&[Reply::Working.encode(), reply.encode()].concat());
    assert_eq!(answer(Reply::Done), Serves::Us);
    assert_eq!(
        answer(Reply::NotMine(b"it serves".to_vec())),
        Serves::Another("it serves".into())
    );
    assert_eq!(answer(Reply::Failed(b"no".to_vec())), Serves::Untold);
    assert_eq!(serves(b"garbage"), Serves::Untold);
}

#[test]
fn the_mode_of_every_folder_above_counts_for_another_user() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, file) = (
        folder.path().join("inner"),
        folder.path().join("inner/program"),
    );
    fs::create_dir(&inner).unwrap();
    fs::write(&file, "").unwrap();
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let stranger = Some(Owner {
        uid: u32::MAX - 1,
        gid: u32::MAX - 1,
    });
    mode(folder.path(), 0o755);
    mode(&inner, 0o755);
    mode(&file, 0o755);
    assert_eq!(find(&file, stranger), ProgramState::Executable);
    mode(&inner, 0o750);
    assert_eq!(
        find(&file, stranger),
        ProgramState::Closed {
            by: inner.canonicalize().unwrap(),
            mode: 0o750
        }
    );
    mode(&inner, 0o755);
    mode(&file, 0o644);
    assert_eq!(
        find(&file, stranger),
        ProgramState::Closed {
            by: file.canonicalize().unwrap(),
            mode: 0o644
        }
    );
    assert_eq!(
        find(&file, None),
        ProgramState::Closed {
            by: file.canonicalize().unwrap(),
            mode: 0o644
        }
    );
    assert_eq!(find(&inner.join("none"), None), ProgramState::Absent);
}
