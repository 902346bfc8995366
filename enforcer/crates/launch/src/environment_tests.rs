use std::os::unix::fs::{PermissionsExt, chown};

use super::*;
use crate::rig::root;

type Variables = Vec<(OsString, OsString)>;

fn variables(list: &[(&str, &str)]) -> Variables {
    list.iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn nobody() -> Identity {
    Identity::resolve(Some("nobody"), |_| None).unwrap()
}

#[test]
fn it_is_kept_but_for_our_own_and_roots_home() {
    if !root() {
        return;
    }
    let caller = User::from_uid(Uid::from_raw(0)).unwrap().unwrap();
    let home = caller.dir.to_str().unwrap();
    let given = variables(&[
        ("HOME", home),
        ("LOGNAME", &caller.name),
        ("USER", "kept"),
        ("ENFORCER_X", "gone"),
        ("PATH", "/a:/b"),
        ("SUDO_UID", "1"),
    ]);
    let nobody = nobody();
    let expected = variables(&[
        ("HOME", nobody.home.to_str().unwrap()),
        ("LOGNAME", "nobody"),
        ("USER", "kept"),
        ("PATH", "/a:/b"),
        ("SUDO_UID", "1"),
    ]);
    let found = Environment::of(&nobody, given.clone(), &[]).unwrap();
    assert_eq!(found.variables, expected);

    let same = Environment::of(&Identity::current().unwrap(), given, &[]).unwrap();
    assert_eq!(same.get("HOME"), Some(OsStr::new(home)));
    assert_eq!(same.variables.len(), 5);
}

#[test]
fn a_path_is_one_that_the_user_can_search() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let open = |path: &Path, mode| {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    open(&at("open"), 0o755);
    open(&at("closed"), 0o700);
    open(&at("closed/below"), 0o755);
    open(&at("home"), 0o755);
    let user = Identity {
        home: at("home"),
        ..nobody()
    };
    let path = |parts: &[PathBuf]| {
        let parts: Vec<&OsStr> = parts.iter().map(|part| part.as_os_str()).collect();
        parts.join(OsStr::new(":"))
    };
    let given = path(&[
        at("closed/below"),
        at("open"),
        at("absent"),
        "rel".into(),
        at("closed"),
    ]);
    let of = || {
        let given = vec![("PATH".into(), given.clone())];
        let found = Environment::of(&user, given, &[]).unwrap();
        found.get("PATH").unwrap().to_owned()
    };
    let kept = [at("open"), at("absent"), "rel".into()];
    assert_eq!(of(), path(&kept));

    // Directories of its own come first, where they are its own.
    fs::create_dir_all(at("home/bin")).unwrap();
    assert_eq!(of(), path(&kept), "root's");
    chown(at("home/bin"), Some(user.uid), None).unwrap();
    let [open, absent, relative] = kept;
    assert_eq!(of(), path(&[at("home/bin"), open, absent, relative]));
}

#[test]
fn what_is_wanted_is_there_or_is_missed() {
    let given = || variables(&[("KEY", "k"), ("OTHER", "o")]);
    let wanted: Vec<WantedVariable> = ["KEY", "NEW=a=b", "OTHER=", "ABSENT_HERE"]
        .iter()
        .map(|text| WantedVariable::parse(text).unwrap())
        .collect();
    let current = Identity::current().unwrap();
    let found = Environment::of(&current, given(), &wanted).unwrap();
    assert_eq!(found.get("KEY"), Some(OsStr::new("k")));
    assert_eq!(found.get("NEW"), Some(OsStr::new("a=b")));
    assert_eq!(found.get("OTHER"), Some(OsStr::new("")));
    assert_eq!(found.missing, ["ABSENT_HERE"]);
    assert_eq!(found.variables.len(), 3);
}

#[test]
fn names_are_names() {
    for bad in [
        "",
        "=x",
        "1A",
        "A B",
        "A-B",
        "ENFORCER_LOG",
        "ENFORCER_LOG=1",
    ] {
        assert!(WantedVariable::parse(bad).is_err(), "{bad}");
    }
}
