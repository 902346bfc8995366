//! Compiled tables, kept from one call to the next: compiling takes longer than an agent should wait for each call.
//!
//! They are found by a digest of all that they were made from: the policy's text, the agent's capabilities, and the
//! program that compiled them. What cannot be read is compiled anew. Whoever can write them can write the policy that
//! a hook without a launcher reads; below a launcher the kernel judges again what really runs.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::place;
use crate::{
    decide::{Engine, Subject},
    ground::Ground,
    launch::Identity,
    policy::{
        self, Policy, PolicyError,
        compile::{
            Tables,
            stored::{self, Partial},
        },
        model::Matcher,
    },
};

/// Where they lie, below [`place::root`].
const DIRECTORY: &str = "tables";
/// Files that are kept: a few policies, a few sets of capabilities.
const MOST: usize = 16;

/// A policy's text, and where what was made from it is kept.
#[derive(Debug)]
pub struct Source {
    /// The text.
    pub text: String,
    /// The policy's file, for messages.
    pub name: String,
    directory: Option<PathBuf>,
    digest: [u8; 32],
}

/// Why a policy cannot be used.
pub type Faults = Vec<PolicyError>;

impl Source {
    /// The text of the policy with this name. Without a place to keep tables in (`None`) each call compiles.
    pub fn new(text: String, name: String, root: Option<&Path>) -> Self {
        let mut hash = Sha256::new();
        hash.update(program());
        hash.update(text.as_bytes());
        Self {
            directory: root.and_then(|root| place::directory(root, DIRECTORY).ok()),
            digest: hash.finalize().into(),
            text,
            name,
        }
    }

    /// The policy. A text that was read before without a fault is not checked again.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn policy(&self) -> Result<Policy, Faults> {
        if let Some(mark) = self.file("checked", &[])
            && matches!(place::read(&mark), Ok(Some(_)))
            && let Ok(policy) = policy::parse_known(&self.text)
        {
            return Ok(policy);
        }
        let policy = policy::parse_all(&self.text)?.policy;
        if let Some(mark) = self.file("checked", &[]) {
            // Only time is lost without it.
            let _ = place::replace(&mark, b"checked\n");
        }
        Ok(policy)
    }

    /// The engine of the policy for one subject.
    ///
    /// # Errors
    ///
    /// Its tables cannot be made.
    pub fn engine(&self, policy: Policy, subject: &Subject) -> Result<Engine, String> {
        let capabilities = subject.capabilities_under(&policy);
        let mut names: Vec<u8> = Vec::new();
        for name in &capabilities {
            names.extend(name.as_bytes());
            names.push(0);
        }
        // What the policy means for this user and on this machine is not in its text.
        names.extend(patterns(&policy));
        let file = self.file("tables", &names);
        if let Some(file) = &file
            && let Some(tables) = kept(file, &policy)
        {
            return Ok(Engine::with_tables(policy, capabilities, tables));
        }
        let engine = compiled(&policy, &capabilities)?;
        if let Some(file) = &file {
            let bytes = engine.tables().to_bytes();
            let sum = crc32fast::hash(&bytes).to_le_bytes();
            // Only time is lost without them.
            if place::replace(file, &[&sum[..], &bytes].concat()).is_ok() {
                self.prune();
            }
        }
        Ok(engine)
    }

    fn file(&self, kind: &str, more: &[u8]) -> Option<PathBuf> {
        use std::fmt::Write as _;
        let mut hash = Sha256::new();
        hash.update(self.digest);
        hash.update(more);
        let mut name = String::new();
        for byte in &hash.finalize()[..16] {
            let _ = write!(name, "{byte:02x}");
        }
        Some(self.directory.as_ref()?.join(format!("{name}.{kind}")))
    }

    /// Takes the oldest files away when there are many.
    fn prune(&self) {
        let Some(entries) = self
            .directory
            .as_ref()
            .and_then(|dir| fs::read_dir(dir).ok())
        else {
            return;
        };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let metadata = path.symlink_metadata().ok()?;
                Some(((metadata.mtime(), metadata.mtime_nsec()), path))
            })
            .collect();
        files.sort_unstable();
        let many = files.len().saturating_sub(2 * MOST);
        for (_, path) in &files[..many] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes the tables of a policy before the first call needs them, for an agent without capabilities. Only time is lost
/// if they cannot be made or kept.
pub fn prepare(file: &Path, text: &str) {
    let Ok(root) = place::root() else { return };
    let source = Source::new(text.to_owned(), file.display().to_string(), Some(&root));
    if let Ok(mut policy) = source.policy() {
        if let Ok(identity) = Identity::current() {
            Ground::of(&identity).settle(&mut policy);
        }
        let _ = source.engine(policy, &Subject::default());
    }
}

/// A digest of all patterns and of the trusted directories.
fn patterns(policy: &Policy) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut add = |texts: &[String]| {
        for text in texts {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
        hash.update([1]);
    };
    for rule in &policy.exec.rules {
        match &rule.matcher {
            Matcher::Glob(texts) | Matcher::Regex(texts) => add(texts),
            Matcher::Argv(pattern) => {
                add(&pattern.program);
                add(&pattern.args_any);
            }
        }
    }
    for rule in &policy.connect.rules {
        add(&rule.unix);
    }
    add(&policy.exec.trusted_dirs);
    hash.finalize().to_vec()
}

/// Compiles under a fresh seed: two names with one hash under it are told apart by another.
fn compiled(policy: &Policy, capabilities: &BTreeSet<String>) -> Result<Engine, String> {
    use crate::policy::compile::CompileError;
    let mut seed = [0; 8];
    for _ in 0..8 {
        fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut seed))
            .map_err(|error| format!("/dev/urandom cannot be read: {error}"))?;
        match Engine::with_capabilities(
            policy.clone(),
            capabilities.clone(),
            u64::from_ne_bytes(seed),
        ) {
            Err(CompileError::Collision { .. }) => {}
            made => return made.map_err(|error| error.to_string()),
        }
    }
    Err("no seed tells the policy's program names apart; report this as a defect".to_owned())
}

/// The tables in a file, if they are whole. The sum in front guards against accidents only: who could forge the tables
/// could forge it too.
fn kept(file: &Path, policy: &Policy) -> Option<Tables> {
    let mut file = place::open(file, false).ok()??;
    let mut sum = crc32fast::Hasher::new();
    let mut take = |buffer: &mut [u8], sum: Option<&mut crc32fast::Hasher>| {
        file.read_exact(buffer).ok()?;
        if let Some(sum) = sum {
            sum.update(buffer);
        }
        Some(())
    };
    let mut expected = [0; 4];
    take(&mut expected, None)?;
    let mut first = [0; stored::FIRST];
    take(&mut first, Some(&mut sum))?;
    let mut buffer = first.to_vec();
    buffer.resize(stored::head_length(&first).ok()?, 0);
    take(&mut buffer[stored::FIRST..], Some(&mut sum))?;
    let mut partial = Partial::read(&buffer, policy).ok()?;
    while let Some(length) = partial.missing() {
        buffer.resize(length, 0);
        take(&mut buffer, Some(&mut sum))?;
        partial.add(&buffer).ok()?;
    }
    (sum.finalize() == u32::from_le_bytes(expected)).then(|| partial.finish().ok())?
}

/// What tells one build of this program from another.
fn program() -> Vec<u8> {
    let mut text = env!("CARGO_PKG_VERSION").as_bytes().to_vec();
    if let Ok(metadata) = fs::metadata("/proc/self/exe") {
        for number in [
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
        ] {
            text.extend(number.to_le_bytes());
        }
    }
    text
}
