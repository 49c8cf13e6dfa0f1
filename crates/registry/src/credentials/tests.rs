use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.to_owned(), password: password.to_owned() }
}

fn store_of(dir: &Path, text: &str) -> CredentialStore {
    std::fs::write(dir.join("auth.json"), text).unwrap();
    CredentialStore::file(dir.join("auth.json"))
}

#[test]
fn the_longest_key_wins() {
    let dir = tempfile::tempdir().unwrap();
    // a:1, b:2, c:3, d:4, e:5
    let store = store_of(
        dir.path(),
        r#"{"auths": {"r.example": {"auth": "YToxAA=="}, "r.example/team": {"auth": "Yjoy"}, "r.example/team/app": {"auth": "Yzoz"},
            "https://index.docker.io/v1/": {"auth": "ZDo0"}, "https://old.example/v2/": {"username": "e", "password": "5"},
            "empty.example": {}, "id.example": {"auth": "eDp5", "identitytoken": "refresh"}, "tok.example": {"registrytoken": "t"}}}"#,
    );
    for (registry, repository, wanted) in [
        ("r.example", "team/app", Some(basic("c", "3"))),
        ("r.example", "team/app/sub", Some(basic("c", "3"))),
        ("r.example", "team/other", Some(basic("b", "2"))),
        ("r.example", "teamapp", Some(basic("a", "1"))),
        ("r.example", "", Some(basic("a", "1"))),
        ("r.example:5000", "team/app", None),
        ("docker.io", "library/redis", Some(basic("d", "4"))),
        ("old.example", "x", Some(basic("e", "5"))),
        ("empty.example", "x", None),
        ("id.example", "x", Some(Credential::Identity("refresh".to_owned()))),
        ("tok.example", "x", Some(Credential::Token("t".to_owned()))),
        ("unknown", "x", None),
    ] {
        let found = store.get(registry, repository).unwrap().map(|(credential, _)| credential);
        assert!(found == wanted, "{registry}/{repository}");
    }
}

#[test]
fn damaged_files_are_told_without_their_secrets() {
    let dir = tempfile::tempdir().unwrap();
    for text in [
        r#"{"auths": {"r": {"auth": "hunter2!"}}}"#,
        r#"{"auths": {"r": {"auth": "aHVudGVyMg=="}}}"#,
        r#"{"auths": hunter2"#,
        "[]",
    ] {
        let fault = store_of(dir.path(), text).get("r", "").unwrap_err();
        assert_eq!(fault.kind(), Kind::InvalidInput);
        assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
    assert!(store_of(dir.path(), "").get("r", "").unwrap().is_none());
    assert!(!format!("{:?}", basic("a", "hunter2")).contains("hunter2"));
}

#[test]
fn what_is_put_is_found_and_erased_and_other_fields_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_of(dir.path(), r#"{"HttpHeaders": {"X": "y"}, "auths": {"other": {"auth": "YTox"}}}"#);
    let path = dir.path().join("auth.json");
    for registry in ["r.example:5000", "docker.io"] {
        assert_eq!(store.put(registry, &basic("u", "p:w")).unwrap(), Place::File(path.clone()));
        assert_eq!(store.get(registry, "x/y").unwrap().unwrap().0, basic("u", "p:w"));
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("HttpHeaders") && text.contains(HUB_KEY));
    assert_eq!(store.erase("docker.io").unwrap(), [Place::File(path)]);
    assert_eq!(store.erase("docker.io").unwrap(), []);
    assert!(store.get("docker.io", "").unwrap().is_none() && store.get("other", "").unwrap().is_some());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_new_file_gets_a_private_directory_and_a_link_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/config.json");
    CredentialStore::file(&path).put("r", &basic("u", "p")).unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("a/b")).unwrap().permissions().mode() & 0o777, 0o700);
    let link = dir.path().join("link.json");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    CredentialStore::file(&link).put("r2", &basic("u", "p")).unwrap();
    assert!(link.is_symlink() && std::fs::read_to_string(&path).unwrap().contains("r2"));
}

/// Writes a helper that keeps one credential in a file beside it. PATH is the process's, so it is named by a path that
/// only a test could have: tests of one process must not change the environment.
fn run_helper(dir: &Path, script: &str) -> std::process::Command {
    let program = dir.join("docker-credential-test");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.env("PATH", format!("{}:/usr/bin:/bin", dir.display())).env("BALE_TEST_HELPER_DIR", dir);
    command
}

/// Runs one test of this file again in a process of its own, with the helper in PATH.
fn again(name: &str, script: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = run_helper(dir.path(), script)
        .args([&format!("credentials::tests::{name}"), "--exact", "--nocapture"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn helper_dir() -> Option<PathBuf> {
    env::var_os("BALE_TEST_HELPER_DIR").map(PathBuf::from)
}

#[test]
fn helpers_are_asked() {
    let Some(dir) = helper_dir() else {
        return again(
            "helpers_are_asked",
            "#!/bin/sh\ncd \"$BALE_TEST_HELPER_DIR\"\ncase $1 in\nget) read -r s; [ -e kept ] && cat kept || { echo 'credentials not found in native keychain'; exit 1; };;\nstore) cat > kept;;\nerase) rm -f kept;;\nesac\n",
        );
    };
    for text in [r#"{"credsStore": "test"}"#, r#"{"credHelpers": {"r.example": "test"}}"#] {
        let store = store_of(&dir, text);
        assert!(store.get("r.example", "a/b").unwrap().is_none());
        assert_eq!(store.put("r.example", &basic("u", "p")).unwrap(), Place::Helper("test".to_owned()));
        assert!(!std::fs::read_to_string(dir.join("auth.json")).unwrap().contains("\"auth\""));
        assert_eq!(
            store.get("r.example", "a/b").unwrap(),
            Some((basic("u", "p"), Place::Helper("test".to_owned())))
        );
        store.put("r.example", &Credential::Identity("t".to_owned())).unwrap();
        assert_eq!(store.get("r.example", "").unwrap().unwrap().0, Credential::Identity("t".to_owned()));
        assert!(store.erase("r.example").unwrap().contains(&Place::Helper("test".to_owned())));
        assert!(store.get("r.example", "").unwrap().is_none());
    }
}

#[test]
fn a_helper_that_hangs_is_ended() {
    let Some(dir) = helper_dir() else {
        return again("a_helper_that_hangs_is_ended", "#!/bin/sh\nexec sleep 600\n");
    };
    let store = store_of(&dir, r#"{"credsStore": "test"}"#).with_helper_patience(Duration::from_millis(200));
    let fault = store.get("r", "").unwrap_err();
    assert_eq!(fault.kind(), Kind::Unavailable);
    assert!(fault.chain().contains("no answer within"), "{fault:?}");
}

#[test]
fn helpers_have_names_and_may_be_absent() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["../../x", "a b", "a;b", "a/b"] {
        let store = store_of(dir.path(), &serde_json::json!({"credHelpers": {"r": bad}}).to_string());
        assert_eq!(store.get("r", "").unwrap_err().kind(), Kind::InvalidInput, "{bad}");
    }
    // For everything: passed over. For this registry: an error, since the user meant it.
    assert!(store_of(dir.path(), r#"{"credsStore": "not-there-at-all"}"#).get("r", "").unwrap().is_none());
    let fault =
        store_of(dir.path(), r#"{"credHelpers": {"r": "not-there-at-all"}}"#).get("r", "").unwrap_err();
    assert_eq!(fault.kind(), Kind::ProgramNotFound);
}
