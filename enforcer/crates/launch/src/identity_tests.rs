use super::*;
use crate::rig::root;

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
