//! Rule sets beside a policy: what is refused, what is told, and that each is read once.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;
use crate::policy_file::{LoadedPolicy, load};

/// A user that owns nothing here.
const STRANGER: u32 = 54_321;
const POLICY: &str =
    "{\"version\": \"2\",\n\"include\": [\"site\"], \"exec\": {}, \"connect\": {}}";
const SITE: &str =
    r#"{"version": "2", "exec": {"rules": [{"id": "no-x", "decision": "deny", "glob": ["x *"]}]}}"#;

/// A directory with a policy that includes `rules/site.json`.
struct Trial {
    dir: tempfile::TempDir,
    policy: PathBuf,
    set: PathBuf,
}

impl Trial {
    fn new() -> Self {
        Self::with(POLICY)
    }

    fn with(policy: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let rules = dir.path().join(DIRECTORY);
        fs::create_dir(&rules).unwrap();
        fs::set_permissions(&rules, Permissions::from_mode(0o755)).unwrap();
        let trial = Self {
            policy: dir.path().join("p.json"),
            set: rules.join("site.json"),
            dir,
        };
        put(&trial.policy, policy);
        put(&trial.set, SITE);
        trial
    }

    fn load(&self) -> Result<LoadedPolicy, PolicyFileError> {
        load(&self.policy, Some(STRANGER))
    }

    /// Why it is refused, with short names.
    fn refusal(&self) -> String {
        let said = self.load().unwrap_err().to_string();
        said.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn put(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn a_rule_set_beside_the_policy_is_read_with_it() {
    let trial = Trial::new();
    let loaded = trial.load().unwrap();
    assert_eq!(loaded.parsed.policy.exec.rules[0].id, "no-x");
    assert_eq!(loaded.parsed.warnings, []);
    assert_eq!(
        files(&trial.policy, loaded.parsed.sources()),
        [trial.policy.clone(), trial.set.clone()]
    );
    let place = loaded.parsed.place(&loaded.parsed.rule_path(0));
    assert!(
        place
            .in_file("p")
            .starts_with(&trial.set.display().to_string())
    );
}

#[test]
fn a_rule_set_that_the_agent_could_change_is_refused_with_the_mend() {
    let trial = Trial::new();
    fs::set_permissions(&trial.set, Permissions::from_mode(0o666)).unwrap();
    let said = trial.refusal();
    assert!(
        said.starts_with("rule set rules/site.json can be written by everyone (mode 666), so the agent could change it"),
        "{said}"
    );
    assert!(said.contains("chmod 644"), "{said}");
    assert!(load(&trial.policy, None).is_ok());

    fs::set_permissions(&trial.set, Permissions::from_mode(0o644)).unwrap();
    let rules = trial.set.parent().unwrap();
    fs::set_permissions(rules, Permissions::from_mode(0o777)).unwrap();
    let said = trial.refusal();
    assert!(
        said.starts_with("rule set rules/site.json lies below "),
        "{said}"
    );
    assert!(said.contains("chown root:root"), "{said}");

    fs::set_permissions(rules, Permissions::from_mode(0o755)).unwrap();
    if nix::unistd::geteuid().is_root() {
        chown(&trial.set, Some(STRANGER), None).unwrap();
        let said = trial.refusal();
        assert!(
            said.contains("belongs to the agent's user (uid 54321)"),
            "{said}"
        );
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let trial = Trial::new();
    let elsewhere = trial.dir.path().join("elsewhere.json");
    put(&elsewhere, SITE);
    for target in [elsewhere.as_path(), Path::new("/nonexistent")] {
        fs::remove_file(&trial.set).unwrap();
        symlink(target, &trial.set).unwrap();
        assert_eq!(
            trial.refusal(),
            "rule set rules/site.json is a symlink; name the file that it leads to"
        );
    }
    fs::remove_file(&trial.set).unwrap();
    fs::create_dir(&trial.set).unwrap();
    assert_eq!(
        trial.refusal(),
        "rule set rules/site.json is a directory; name a regular file"
    );
}

#[test]
fn a_file_beside_the_policy_is_refused_rather_than_passed_over_for_the_built_in() {
    let name = enforcer_policy::rule_set::built_in_names().next().unwrap();
    let trial = Trial::with(&POLICY.replace("site", name));
    assert!(trial.load().is_ok());
    symlink(&trial.set, beside(&trial.policy, name)).unwrap();
    assert!(trial.refusal().contains("is a symlink"));
}

#[test]
fn names_with_a_path_lead_nowhere() {
    let outside = Trial::with(&POLICY.replace("site", "../outside"));
    put(&outside.dir.path().join("outside.json"), SITE);
    let said = outside.refusal();
    assert!(
        said.starts_with(
            "p.json:2:13: include[0]: \"../outside\" cannot be the name of a rule set"
        ),
        "{said}"
    );
}

#[test]
fn a_rule_set_includes_none_so_there_is_no_circle() {
    let trial = Trial::new();
    put(&trial.set, "{\"version\": \"2\",\n\"include\": [\"site\"]}");
    let said = trial.refusal();
    assert!(
        said.starts_with("rules/site.json:2:1: include: unknown key \"include\""),
        "{said}"
    );
}

#[test]
fn too_much_is_refused_before_it_is_read_whole() {
    let trial = Trial::new();
    let file = fs::File::create(&trial.set).unwrap();
    file.set_len(MAX_BYTES as u64 + 1).unwrap();
    let said = trial.refusal();
    assert!(
        said.starts_with("rule set rules/site.json is too large"),
        "{said}"
    );
    // Nor can many files be what one must not.
    let trial = Trial::with(&POLICY.replace("[\"site\"]", "[\"site\", \"two\"]"));
    let half = format!("{SITE}{}", " ".repeat(MAX_BYTES / 2));
    put(&trial.set, &half);
    put(&beside(&trial.policy, "two"), half.replace("no-x", "no-y"));
    let said = trial.refusal();
    assert!(
        said.contains("with what it includes up to \"two\", is too large"),
        "{said}"
    );
}

#[test]
fn a_missing_name_says_where_it_was_looked_for_and_what_may_be_meant() {
    let trial = Trial::with(&POLICY.replace("site", "sites"));
    let said = trial.refusal();
    assert_eq!(
        said,
        "p.json:2:13: include[0]: there is no rule set \"sites\": rules/sites.json is not there, and none of that name is \
         built in; did you mean \"site\"?"
    );
    let trial = Trial::with(&POLICY.replace("site", "nothing-like-any"));
    let said = trial.refusal();
    assert!(said.contains("; those that there are: "), "{said}");
    assert!(said.contains("site"), "{said}");
}

#[test]
fn a_file_that_stands_for_a_built_in_one_is_told_of() {
    let name = enforcer_policy::rule_set::built_in_names().next().unwrap();
    let trial = Trial::with(&POLICY.replace("site", name));
    let built_in = trial.load().unwrap();
    let file = beside(&trial.policy, name);
    put(&file, enforcer_policy::rule_set::built_in(name).unwrap());
    let same = trial.load().unwrap();
    assert_eq!(same.parsed.warnings, built_in.parsed.warnings);
    assert_eq!(same.parsed.text(), built_in.parsed.text());

    put(&file, SITE);
    let other = trial.load().unwrap();
    assert_eq!(other.parsed.policy.exec.rules.len(), 1);
    let [warning] = &other.parsed.warnings[..] else {
        panic!("{:?}", other.parsed.warnings);
    };
    let said = warning.in_file("p.json");
    assert!(
        said.starts_with("p.json:2:13: include[0]: the rule set "),
        "{said}"
    );
    assert!(said.contains("brings another one of that name"), "{said}");
    // An agent that is root could have put it there.
    let said = load(&trial.policy, Some(0)).unwrap_err().to_string();
    assert!(said.contains("brings another one of that name"), "{said}");
    assert!(said.contains("take the file away"), "{said}");
}

/// What was read counts, whatever becomes of the files then.
#[test]
fn each_file_is_read_once() {
    let trial = Trial::new();
    let texts = policy_file::sources(&trial.policy, Some(STRANGER)).unwrap();
    let key = texts.key().into_owned();
    put(&trial.set, SITE.replace("deny", "allow"));
    put(&trial.policy, "{}");
    let parsed = enforcer_policy::parse_sources(texts).unwrap();
    assert_eq!(
        parsed.policy.exec.rules[0].decision,
        enforcer_policy::Decision::Deny
    );
    assert_eq!(parsed.sources().key(), key);
    // All that comes later works with this text.
    assert!(parsed.text().contains("no-x") && !parsed.text().contains("allow"));
}

#[test]
fn a_rule_set_that_is_not_utf_8_is_told_with_its_file() {
    let trial = Trial::new();
    put(&trial.set, b"{\"version\": \"\xff\"}");
    let said = trial.refusal();
    assert!(
        said.starts_with("rules/site.json:1:14: the text is not UTF-8"),
        "{said}"
    );
}
