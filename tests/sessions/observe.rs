//! The same work twice, in the same place: watched by `strace` and ungoverned, then under `enforcer run`.

use std::{
    ffi::OsString,
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use enforcer_tests::{Ended, Session};
use serde_json::Value;

/// A policy of this repository.
pub fn policy(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../policies")
        .join(name);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut policy: Value = serde_json::from_str(&text).unwrap();
    if policy["version"] == "2" {
        // Nobody answers here.
        policy["approvals"]["timeout_s"] = 1.into();
    }
    policy
}

/// Work to be done twice.
pub struct Work<'a> {
    pub session: Session,
    /// Makes what the script works on, in a fresh directory.
    pub prepare: &'a dyn Fn(&Path),
    /// For `sh`. Its execs must be the same each time, and those that are denied must exec nothing themselves.
    pub script: &'a str,
    pub variables: Vec<(&'static str, OsString)>,
}

/// Denied or asked under `coding-agent.json`, without harm where nobody denies it, and without children. One
/// directory in `PATH`: a shell tries a refused program in the next one, which counts again.
pub const DENIED: &str = "
set +e; PATH=/usr/bin; mkdir empty; : >denied; chmod u+s denied; find empty -delete; exit 0";
/// How many execs of [`DENIED`] are denied.
pub const DENIALS: usize = 2;

impl Work<'_> {
    /// Does it twice; the outputs, the exit statuses and the counts must be the same. The second run.
    pub fn twice(mut self) -> Ended {
        let script = self.session.directory().join("script");
        fs::write(&script, self.script).unwrap();
        self.variables.push(("LC_ALL", "C".into()));
        for (name, value) in &self.variables {
            self.session = self.session.variable(*name, value);
        }
        self.fresh();
        let log = self.session.directory().join("strace");
        fs::write(&log, "").unwrap();
        chown(&log, Some(self.session.uid()), None).unwrap();
        let mut observed = Command::new("strace");
        observed
            .args([
                "-f",
                "-qq",
                "-e",
                "trace=execve,execveat",
                "-e",
                "signal=none",
                "-o",
            ])
            .arg(&log)
            .arg("/bin/sh")
            .arg(&script)
            .current_dir(self.session.work())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        if self.session.uid() != 0 {
            let user = nix::unistd::User::from_uid(self.session.uid().into())
                .unwrap()
                .map_or(self.session.uid(), |user| user.gid.as_raw());
            observed.uid(self.session.uid()).gid(user);
        }
        let bare = observed.output().expect("strace is there");
        let counted = count(&log);

        self.fresh();
        let running = self.session.start([Path::new("/bin/sh"), &script]);
        let ended = running.wait();
        let told = String::from_utf8_lossy(&bare.stderr);
        assert_eq!(
            ended.text(),
            String::from_utf8_lossy(&bare.stdout),
            "the output differs; ungoverned it says {told}, governed {}",
            ended.stderr
        );
        assert_eq!(
            Some(ended.code()),
            bare.status.code(),
            "{told}; {}",
            ended.stderr
        );
        let governed = ended.trail.execs().count();
        println!("{governed} execs");
        assert_eq!(
            governed,
            counted.len(),
            "the observer sees {} execs, the trail has {governed}:\n{}\n{}",
            counted.len(),
            counted.join("\n"),
            ended
                .trail
                .execs()
                .map(|line| line.command().to_owned())
                .collect::<Vec<_>>()
                .join("\n"),
        );
        assert!(ended.trail.lines.iter().all(|line| line.lost().is_none()));
        ended.trail.assert_whole();
        ended
    }

    /// An empty working directory of the user, with what the work needs.
    fn fresh(&self) {
        let work = self.session.work();
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).unwrap();
        (self.prepare)(&work);
        give(&work, self.session.uid());
    }
}

fn give(path: &Path, uid: u32) {
    if uid == 0 {
        return;
    }
    chown(path, Some(uid), None).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
}

/// The execs in the log that the kernel carried out. One call may be on two lines; only its end has a result.
fn count(log: &Path) -> Vec<String> {
    fs::read_to_string(log)
        .unwrap()
        .lines()
        .filter(|line| line.contains("execve") && line.trim_end().ends_with(" = 0"))
        .map(str::to_owned)
        .collect()
}

/// Writes files below a directory.
pub fn files(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A program in the PATH of whoever runs the tests, and whether every user can reach it.
pub fn in_path(name: &str) -> Option<(PathBuf, bool)> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())?;
    let all = Command::new("test")
        .arg("-x")
        .arg(&found)
        .uid(65534)
        .gid(65534)
        .status()
        .is_ok_and(|status| status.success());
    Some((found, all))
}
