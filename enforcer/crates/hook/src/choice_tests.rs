//! A project's own policy, and the rule sets that it includes.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

#[test]
fn what_a_projects_policy_includes_must_be_as_much_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().to_owned();
    let rules = project.join(".enforcer/rules");
    fs::create_dir_all(&rules).unwrap();
    let set = rules.join("site.json");
    fs::write(&set, r#"{"version": "2"}"#).unwrap();
    fs::write(
        project.join(PROJECT),
        r#"{"version": "2", "include": ["site", "git"], "exec": {}, "connect": {}}"#,
    )
    .unwrap();
    // Whoever runs the tests may have a mask that lets a group write.
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&set, 0o644);
    mode(&rules, 0o755);
    let read = || read(None, std::slice::from_ref(&project));

    let (file, texts) = read().unwrap();
    assert_eq!(file, project.join(PROJECT));
    assert_eq!(
        rule_files::files(&file, &texts),
        [file.clone(), set.clone(), rules.join("git.json")],
        "the file that would stand for a built-in rule set is one to guard, too"
    );

    mode(&set, 0o646);
    let said = read().unwrap_err();
    assert!(
        said.contains("site.json can be written by everyone"),
        "{said}"
    );
    mode(&set, 0o644);
    mode(&rules, 0o757);
    let said = read().unwrap_err();
    assert!(said.contains("rules can be written by everyone"), "{said}");
    mode(&rules, 0o755);

    let elsewhere = project.join("elsewhere");
    fs::rename(&rules, &elsewhere).unwrap();
    symlink(&elsewhere, &rules).unwrap();
    let said = read().unwrap_err();
    assert!(said.contains("rules is a symbolic link"), "{said}");
}
