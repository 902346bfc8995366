use super::*;
use crate::rig::Rig;

#[test]
fn an_agent_with_uid_0_sees_no_cgroups_and_changes_no_settings() {
    let Some(mut rig) = Rig::new("confine", "root") else {
        return;
    };
    let hidden = tempfile::tempdir().unwrap();
    fs::write(hidden.path().join("trail"), "x").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "secret").unwrap();
    let fixed = tempfile::tempdir().unwrap();
    let hide = [hidden.path().to_owned(), file.path().to_owned()];
    let read_only = [fixed.path().to_owned()];
    rig.confinement = Some(Confinement::plan(&hide, &read_only, rig.place.path()).unwrap());
    // The mounts must hold by themselves, not because nobody may try.
    rig.loosened = vec!["namespaces".to_owned(), "mount".to_owned()];
    let (hidden, fixed, file) = (
        hidden.path().display(),
        fixed.path().display(),
        file.path().display(),
    );
    let out = rig.sh(&format!(
        "echo cgroups: $(ls -A /sys/fs/cgroup) $(ls -A /sys/fs/bpf); echo hidden: $(ls -A {hidden}); \
         echo file: $(cat {file}); \
         (echo x > {hidden}/new) || echo A refused; (echo x > {fixed}/new) || echo B refused; \
         (cat /proc/sys/kernel/hostname > /proc/sys/kernel/hostname) || echo C refused; \
         umount {hidden} || echo D refused; mount -o remount,rw {fixed} || echo E refused; \
         nsenter -t 1 -m true || echo F refused; ls /proc/1/root/sys/fs/cgroup/ || echo G refused"
    ));
    assert!(
        out.contains("cgroups:\n") && out.contains("hidden:\n") && out.contains("file:\n"),
        "{out}"
    );
    for letter in 'A'..='G' {
        assert!(
            out.contains(&format!("{letter} refused")),
            "{letter}: {out}"
        );
    }
    #[cfg(target_arch = "x86_64")]
    {
        // unshare(NEWUSER | NEWNS) gives every capability over the new namespace; umount2 and a remount there
        // still meet locked mounts: EINVAL, EPERM.
        let (_, out) = rig.perl(&format!(
            "my ($h, $f, $n) = ('{hidden}', '{fixed}', 'none'); \
             print syscall(272, 0x10020000), ' '; print syscall(166, $h, 0), ' ', $!+0, ' '; \
             print syscall(165, $n, $f, $n, 0x1020, 0), ' ', $!+0"
        ));
        assert_eq!(out, "0 -1 22 -1 1");
    }
    // Only in the agent's own view.
    assert_eq!(fs::read_to_string(format!("{hidden}/trail")).unwrap(), "x");
    fs::write(format!("{fixed}/new"), "x").unwrap();
    assert!(rig.cgroup.path().join("cgroup.procs").exists());
}

#[test]
fn only_outermost_paths_are_covered() {
    let paths = ["/a/b", "/a", "/a-b", "/a/b/c", "/c/d", "/a"]
        .map(PathBuf::from)
        .to_vec();
    assert_eq!(outermost(paths), ["/a", "/a-b", "/c/d"].map(PathBuf::from));
}

#[test]
fn what_lies_above_is_held_from_the_outside_in() {
    let paths = ["/etc/enforcer/p.json", "/etc/enforcer/rules", "/x"].map(PathBuf::from);
    let held: Vec<&Path> = above(&paths).into_iter().collect();
    assert_eq!(held, ["/etc", "/etc/enforcer"].map(Path::new));
}

#[test]
fn the_working_directory_is_never_covered() {
    let here = tempfile::tempdir().unwrap();
    let work = fs::canonicalize(here.path()).unwrap().join("work");
    fs::create_dir(&work).unwrap();
    let hide = [here.path().to_owned()];
    let error = Confinement::plan(&hide, &[], &work).unwrap_err();
    assert!(matches!(error, LaunchError::Confine { .. }), "{error}");
    assert!(Confinement::plan(&[work], &[], Path::new("/")).is_ok());
    let missing = Confinement::plan(&[], &[PathBuf::from("/no/such/place")], Path::new("/"));
    assert!(missing.unwrap_err().to_string().contains("/no/such/place"));
}
