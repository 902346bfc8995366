use std::os::unix::fs::symlink;

use super::*;

/// `project` with `src`, a link `out` to a directory beside it, and a link `loop` to itself.
fn scene() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path();
    for directory in ["project/src", "outside/deep"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    symlink(top.join("outside/deep"), top.join("project/out")).unwrap();
    symlink("loop", top.join("project/loop")).unwrap();
    symlink("../../etc/none", top.join("project/dangling")).unwrap();
    scratch
}

fn reals(top: &Path, text: &str) -> Vec<String> {
    let project = top.join("project");
    let from = From {
        cwd: &project,
        home: Some(Path::new("/home/ann")),
    };
    let prefix = format!("{}/", top.display());
    path(text, &from, false)
        .unwrap()
        .into_iter()
        .map(|way| {
            way.real
                .strip_prefix(&prefix)
                .map_or(way.real.clone(), str::to_owned)
        })
        .collect()
}

#[test]
fn paths_are_read_in_every_way() {
    let scratch = scene();
    let top = scratch.path();
    for (text, expected) in [
        ("src/x", &["project/src/x"][..]),
        ("./src/../src//x", &["project/src/x"]),
        ("../outside/x", &["outside/x"]),
        ("out/x", &["outside/deep/x"]),
        // The kernel goes up from where the link leads, others from where it stands.
        ("out/../x", &["outside/x", "project/x"]),
        ("nothing/here/../x", &["project/nothing/x"]),
        ("~/x", &["/home/ann/x"]),
        ("~", &["/home/ann"]),
        ("/../../x", &["/x"]),
        ("file:///a/b%20c", &["/a/b c"]),
        ("a~b", &["project/a~b"]),
    ] {
        assert_eq!(reals(top, text), expected, "{text}");
    }
    assert!(reals(top, "dangling")[0].ends_with("etc/none"));
}

#[test]
fn what_cannot_be_resolved_is_a_fault() {
    let scratch = scene();
    let project = scratch.path().join("project");
    let from = From {
        cwd: &project,
        home: None,
    };
    let long = "a/".repeat(3000);
    for (text, why) in [
        ("loop/x", "loop of symbolic links"),
        ("~/x", "no home directory"),
        ("~root/x", "another user's"),
        ("file://host/x", "file URL"),
        ("/proc/self/root/etc/passwd", "link of /proc"),
        ("/proc/self/cwd/x", "link of /proc"),
        ("/dev/fd/0", "link of /proc"),
        (&long, "longer than any path"),
    ] {
        let said = path(text, &from, false).unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn patterns_begin_in_a_directory() {
    let scratch = scene();
    let top = scratch.path();
    let project = top.join("project");
    let from = From {
        cwd: &project,
        home: None,
    };
    let first =
        |text: &str, base: &str| pattern(text, base, &from).map(|ways| ways[0].real.clone());
    let own = |name: &str| Ok(top.join(name).display().to_string());
    assert_eq!(first("**/*.rs", "."), own("project"));
    assert_eq!(first("src/*.rs", "."), own("project/src"));
    assert_eq!(first("*.rs", "src"), own("project/src"));
    assert_eq!(first("../outside/*", "."), own("outside"));
    assert_eq!(first("/etc/*", "."), Ok("/etc".to_owned()));
    assert_eq!(first("/*", "."), Ok("/".to_owned()));
    assert_eq!(first("src/x.rs", "."), own("project/src/x.rs"));
    for bad in [
        "*/../../etc/*",
        "{a,../..}/x",
        "{/etc,a}/x",
        "x{a,/etc/}*",
        "*~/x",
    ] {
        assert!(first(bad, ".").is_err(), "{bad}");
    }
}
