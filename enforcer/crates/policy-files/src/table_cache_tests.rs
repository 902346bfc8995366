use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;
use enforcer_decide::Engine;

const TEXT: &str = r#"{"version": "2", "exec": {"default": "allow", "rules": [
    {"id": "no", "decision": "deny", "argv": {"program": "forbidden"}}]},
    "connect": {"default": "deny"}, "limits": {"exec": "7/1m"}, "breaker": {"denials": 3}}"#;

struct Trial {
    root: TempDir,
    policy: Policy,
    engine: Engine,
}

impl Trial {
    fn new() -> Self {
        let policy = enforcer_policy::parse(TEXT).unwrap().policy;
        let engine = Engine::new(policy.clone(), 7).unwrap();
        let trial = Self {
            root: TempDir::new().unwrap(),
            policy,
            engine,
        };
        trial
            .cache()
            .keep(&trial.policy, &none(), trial.engine.tables());
        trial
    }

    fn cache(&self) -> TableCache {
        TableCache::new(TEXT, Some(self.root.path()))
    }

    fn found(&self) -> Option<Tables> {
        self.cache().tables(&self.policy, &none())
    }

    fn file(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.root.path().join(DIRECTORY)).unwrap();
        entries.next().unwrap().unwrap().path()
    }
}

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

#[test]
fn what_was_kept_is_found_with_its_limits() {
    let trial = Trial::new();
    let found = trial.found().unwrap();
    assert_eq!(found.to_bytes(), trial.engine.tables().to_bytes());
    assert_eq!(found.header.limits, trial.engine.tables().header.limits);
    assert_eq!(found.header.limits.breaker.denials, 3);
}

#[test]
fn another_text_meaning_or_agent_finds_nothing() {
    let trial = Trial::new();
    let other = TableCache::new(&TEXT.replace('7', "8"), Some(trial.root.path()));
    assert!(other.tables(&trial.policy, &none()).is_none());
    let capabilities = BTreeSet::from(["deploy".to_owned()]);
    assert!(trial.cache().tables(&trial.policy, &capabilities).is_none());
    let mut elsewhere = trial.policy.clone();
    elsewhere.exec.trusted_dirs.push("/opt/bin".to_owned());
    assert!(trial.cache().tables(&elsewhere, &none()).is_none());
    assert!(
        TableCache::new(TEXT, None)
            .tables(&trial.policy, &none())
            .is_none()
    );
}

#[test]
fn what_is_torn_or_was_moved_is_not_believed() {
    let trial = Trial::new();
    let file = trial.file();
    let whole = fs::read(&file).unwrap();
    for cut in [0, 3, 4, 20, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(trial.found().is_none(), "{cut}");
    }
    for at in [0, 5, 40, whole.len() / 2, whole.len() - 1] {
        let mut bent = whole.clone();
        bent[at] ^= 1;
        fs::write(&file, &bent).unwrap();
        assert!(trial.found().is_none(), "{at}");
    }
    // The tables of another policy under this one's name.
    let other = TEXT.replace("forbidden", "harmless");
    let policy = enforcer_policy::parse(&other).unwrap().policy;
    let engine = Engine::new(policy.clone(), 7).unwrap();
    fs::remove_file(&file).unwrap();
    TableCache::new(&other, Some(trial.root.path())).keep(&policy, &none(), engine.tables());
    fs::rename(trial.file(), &file).unwrap();
    assert!(trial.found().is_none());
}

#[test]
fn what_others_could_have_written_is_not_believed() {
    let trial = Trial::new();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for path in [
        trial.root.path().to_owned(),
        trial.root.path().join(DIRECTORY),
        trial.file(),
    ] {
        let before = fs::metadata(&path).unwrap().permissions();
        mode(&path, 0o777);
        assert!(trial.found().is_none(), "{}", path.display());
        fs::set_permissions(&path, before).unwrap();
        assert!(trial.found().is_some());
    }
    let file = trial.file();
    let elsewhere = trial.root.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(trial.found().is_none());
}

#[test]
fn the_oldest_go() {
    let trial = Trial::new();
    for number in 0..MOST + 5 {
        let text = format!("{TEXT} {}", " ".repeat(number));
        let cache = TableCache::new(&text, Some(trial.root.path()));
        cache.keep(&trial.policy, &none(), trial.engine.tables());
    }
    let left = fs::read_dir(trial.root.path().join(DIRECTORY)).unwrap();
    assert_eq!(left.count(), MOST);
}

#[test]
fn tables_that_were_kept_by_who_proves_nothing_are_not_proven() {
    let trial = Trial::new();
    let proven =
        |capabilities: &BTreeSet<String>| trial.cache().is_proven(&trial.policy, capabilities);
    assert!(trial.found().is_some() && !proven(&none()));
    let tables = trial.engine.tables();
    trial.cache().keep_proven(&trial.policy, &none(), tables);
    assert!(proven(&none()));
    assert!(!proven(&BTreeSet::from(["deploy".to_owned()])));
    // Another text, and the same text where its patterns mean something else.
    let other = TableCache::new(&format!("{TEXT} "), Some(trial.root.path()));
    assert!(!other.is_proven(&trial.policy, &none()));
    let elsewhere = TEXT.replace("forbidden", "forbidden-here");
    let elsewhere = enforcer_policy::parse(&elsewhere).unwrap().policy;
    assert!(!trial.cache().is_proven(&elsewhere, &none()));
}
