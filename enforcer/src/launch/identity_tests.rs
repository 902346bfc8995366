use super::*;

fn from(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
    let pairs: Vec<(String, OsString)> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    move |wanted| {
        pairs
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.clone())
    }
}

fn root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

#[test]
fn the_option_goes_before_sudo() {
    if !root() {
        return;
    }
    let sudo = from(&[("SUDO_UID", "12345"), ("SUDO_GID", "54321")]);
    let found = Identity::resolve(Some("nobody"), &sudo).unwrap();
    assert_eq!((found.uid, found.origin), (65534, Origin::Option));
    assert_eq!(found.name.as_deref(), Some("nobody"));
    assert!(found.groups.contains(&found.gid));

    let found = Identity::resolve(None, &sudo).unwrap();
    assert_eq!(
        (found.uid, found.gid, found.origin),
        (12345, 54321, Origin::Sudo)
    );
    assert_eq!(found.groups, [54321]);
    assert!(!found.is_root() && found.weaknesses().is_empty());
}

#[test]
fn doas_and_pkexec_name_their_caller() {
    if !root() {
        return;
    }
    let found = Identity::resolve(None, from(&[("DOAS_USER", "nobody")])).unwrap();
    assert_eq!((found.uid, found.origin), (65534, Origin::Doas));
    let found = Identity::resolve(None, from(&[("PKEXEC_UID", "65534")])).unwrap();
    assert_eq!((found.uid, found.origin), (65534, Origin::Pkexec));
    let found = Identity::resolve(None, from(&[])).unwrap();
    assert_eq!((found.uid, found.origin), (0, Origin::Current));
    assert!(found.weaknesses()[0].contains("uid 0"));
}

#[test]
fn a_bad_caller_is_an_error_and_never_root() {
    if !root() {
        return;
    }
    for bad in ["", "-1", "4294967295", "4294967296", "nobody", "1 2", "0x0"] {
        let error = Identity::resolve(None, from(&[("SUDO_UID", bad)])).unwrap_err();
        assert!(error.to_string().contains("--user"), "{bad}: {error}");
    }
    let bad_group = from(&[("SUDO_UID", "65534"), ("SUDO_GID", "x")]);
    assert!(Identity::resolve(None, bad_group).is_err());
    for bad in ["no-such-user-here", "", "4294967295"] {
        assert!(Identity::resolve(Some(bad), from(&[])).is_err(), "{bad}");
    }
}

#[test]
fn the_environment_is_kept_but_for_our_own_and_roots_home() {
    if !root() {
        return;
    }
    let caller = User::from_uid(Uid::from_raw(0)).unwrap().unwrap();
    let home = caller.dir.clone().into_os_string();
    let given: Vec<(OsString, OsString)> = vec![
        ("HOME".into(), home.clone()),
        ("LOGNAME".into(), caller.name.clone().into()),
        ("USER".into(), "kept".into()),
        ("ENFORCER_X".into(), "gone".into()),
        ("PATH".into(), "/a:/b".into()),
        ("SUDO_UID".into(), "1".into()),
    ];
    let nobody = Identity::resolve(Some("nobody"), from(&[])).unwrap();
    let expected: Vec<(OsString, OsString)> = vec![
        ("HOME".into(), nobody.home.clone().into()),
        ("LOGNAME".into(), "nobody".into()),
        ("USER".into(), "kept".into()),
        ("PATH".into(), "/a:/b".into()),
        ("SUDO_UID".into(), "1".into()),
    ];
    assert_eq!(nobody.environment(given.clone()), expected);

    let same = Identity::current().unwrap().environment(given);
    assert_eq!(same[0], ("HOME".into(), home));
    assert_eq!(same.len(), 5);
}
