//! Compiled tables, kept from one start to the next: compiling takes a hundred times longer than reading.
//!
//! They are found by a digest of all that they were made from: the policy's text, what it means on this machine, the
//! agent's capabilities, and the program that compiled them. What cannot be read, or is not whole, is compiled anew. They lie
//! where the policy's own reader could be misled just as well: in root's state for `run`, in the user's for a hook.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use enforcer_decide::Engine;
use enforcer_files::own_files::{self, OwnFileError};
use enforcer_policy::{
    Policy,
    compile::{
        CompileError, Tables,
        stored::{self, Partial},
    },
    model::Patterns,
};

/// Where they lie, below the directory for state.
const DIRECTORY: &str = "tables";
/// What the files of tables end with.
const TABLES: &str = "tables";
/// Tables that are kept: a few policies, a few sets of capabilities.
const MOST: usize = 32;
/// Marks that are kept, which are small: two for each of those, and those of older policies.
const MOST_MARKS: usize = 128;

/// Why no seed made tables.
#[derive(Debug, Error)]
pub enum FreshError {
    /// There is no secret number to be had.
    #[error("/dev/urandom cannot be read: {0}")]
    Random(io::Error),
    /// The policy has no tables.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Under none of several.
    #[error("no seed tells the policy's program names apart; report this as a defect")]
    Collisions,
}

/// Compiles a policy for an agent with these capabilities under a fresh secret seed. Two names with one hash under it are
/// told apart by another.
///
/// # Errors
///
/// [`FreshError`].
pub fn compiled(policy: &Policy, capabilities: &BTreeSet<String>) -> Result<Engine, FreshError> {
    for _ in 0..8 {
        let mut seed = [0; 8];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut seed))
            .map_err(FreshError::Random)?;
        let seed = u64::from_ne_bytes(seed);
        match Engine::with_capabilities(policy.clone(), capabilities.clone(), seed) {
            Err(CompileError::Collision { .. }) => {}
            made => return Ok(made?),
        }
    }
    Err(FreshError::Collisions)
}

/// What is kept of one policy.
#[derive(Clone, Debug)]
pub struct TableCache {
    root: Option<PathBuf>,
    digest: [u8; 32],
}

impl TableCache {
    /// What is kept of a policy with this text ([`enforcer_policy::Sources::key`]: with all that it includes) below a
    /// directory for state; nothing without one.
    pub fn new(text: &str, root: Option<&Path>) -> Self {
        let mut hash = Sha256::new();
        hash.update(program());
        hash.update(text.as_bytes());
        Self {
            root: root.map(Path::to_owned),
            digest: hash.finalize().into(),
        }
    }

    /// Whether the text was checked before, by this program, and nothing was wrong.
    pub fn is_checked(&self) -> bool {
        self.is_marked(&self.name("checked", &[]))
    }

    /// Remembers that nothing is wrong with the text. Only time is lost if it cannot be.
    pub fn checked(&self) {
        let Ok(Some(made)) = self.made() else { return };
        let _ = own_files::replace(&made.join(self.name("checked", &[])), b"checked\n");
    }

    /// The tables of the policy for an agent with these capabilities, if they are kept and whole.
    pub fn tables(&self, policy: &Policy, capabilities: &BTreeSet<String>) -> Option<Tables> {
        let name = self.name(TABLES, &meaning(policy, capabilities));
        read(&self.known()?.join(&name), &name, policy)
    }

    /// Keeps tables. Only time is lost if they cannot be.
    pub fn keep(&self, policy: &Policy, capabilities: &BTreeSet<String>, tables: &Tables) {
        let Ok(Some(made)) = self.made() else { return };
        let name = self.name(TABLES, &meaning(policy, capabilities));
        let bytes = tables.to_bytes();
        let sum = sum_for(&name, &bytes).to_le_bytes();
        if own_files::replace(&made.join(name), &[&sum[..], &bytes].concat()).is_ok() {
            prune(&made);
        }
    }

    /// Whether the examples of the policy's rules were proven by this program for what it means here, with these tables.
    pub fn is_proven(&self, policy: &Policy, capabilities: &BTreeSet<String>) -> bool {
        self.is_marked(&self.name("proven", &meaning(policy, capabilities)))
    }

    fn is_marked(&self, name: &str) -> bool {
        let mark = self.known().map(|known| known.join(name));
        mark.is_some_and(|mark| matches!(own_files::read(&mark), Ok(Some(_))))
    }

    /// Keeps tables, and remembers that nothing is wrong with the policy, and that the examples of its rules hold. Only time is
    /// lost if that cannot be.
    pub fn keep_proven(&self, policy: &Policy, capabilities: &BTreeSet<String>, tables: &Tables) {
        self.checked();
        self.keep(policy, capabilities, tables);
        let Ok(Some(made)) = self.made() else { return };
        let name = self.name("proven", &meaning(policy, capabilities));
        let _ = own_files::replace(&made.join(name), b"proven\n");
    }

    /// The directory, if it is there and nobody else could have written in it.
    fn known(&self) -> Option<PathBuf> {
        own_files::known_directory(self.root.as_ref()?, DIRECTORY).ok()
    }

    fn made(&self) -> Result<Option<PathBuf>, OwnFileError> {
        let made = |root| own_files::directory(root, DIRECTORY);
        self.root.as_deref().map(made).transpose()
    }

    fn name(&self, kind: &str, more: &[u8]) -> String {
        use std::fmt::Write as _;
        let mut hash = Sha256::new();
        hash.update(self.digest);
        hash.update(more);
        let mut name = String::new();
        for byte in &hash.finalize()[..16] {
            let _ = write!(name, "{byte:02x}");
        }
        format!("{name}.{kind}")
    }
}

/// Takes the oldest tables and the oldest marks away when there are many.
fn prune(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let files = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let metadata = path.symlink_metadata().ok()?;
        Some(((metadata.mtime(), metadata.mtime_nsec()), path))
    });
    let (tables, marks): (Vec<_>, Vec<_>) =
        files.partition(|(_, path)| path.extension().is_some_and(|kind| kind == TABLES));
    for (mut files, most) in [(tables, MOST), (marks, MOST_MARKS)] {
        files.sort_unstable();
        for (_, path) in &files[..files.len().saturating_sub(most)] {
            let _ = fs::remove_file(path);
        }
    }
}

/// What the policy means for this agent and on this machine, which is not in its text.
fn meaning(policy: &Policy, capabilities: &BTreeSet<String>) -> Vec<u8> {
    let mut names: Vec<u8> = Vec::new();
    for name in capabilities {
        names.extend(name.as_bytes());
        names.push(0);
    }
    names.extend(patterns(policy));
    names
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
            Patterns::Glob(texts) | Patterns::Regex(texts) => add(texts),
            Patterns::Argv(pattern) => {
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

/// The sum in front of tables, with the name of their file: one that was moved is noticed. It guards against accidents
/// only: who could forge the tables could forge it too.
fn sum_for(name: &str, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(name.as_bytes());
    sum.update(bytes);
    sum.finalize()
}

/// The tables in a file, if they are whole.
fn read(file: &Path, name: &str, policy: &Policy) -> Option<Tables> {
    let mut file = own_files::open(file, false).ok()??;
    let mut sum = crc32fast::Hasher::new();
    sum.update(name.as_bytes());
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

#[cfg(test)]
#[path = "table_cache_tests.rs"]
mod tests;
