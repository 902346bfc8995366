//! The stage with real agents: a mount namespace in which ordinary users with homes of their own reach the agents and
//! `enforcer`, wherever the checkout is.

use std::ffi::OsString;

use super::compiled::Compiled;
use crate::{agents, root};

/// The test executable of this stage, which no other stage runs.
pub const EXECUTABLE: &str = "agents";
/// Users that the stage has. Each test takes some for itself.
const USERS: u32 = 100;
/// Their first uid: the end of what distributions give to ordinary users.
const FIRST_UID: u32 = 59_000;
/// Makes the namespace and runs what follows in it: agents, the built `enforcer`, policies; number of users, first uid.
///
/// What it changes in `/etc`, `/home` and `/opt` are copies and mounts of this namespace, which are gone with it.
const APART: &str = r#"
set -eu
tree=$1 enforcer=$2 policies=$3 users=$4 first=$5
shift 5
scratch=$(mktemp -d)
# A directory of our own in the place of $1, with everything in it that is there.
apart() {
    [ -d "$1" ] || return 0
    mount -t tmpfs -o mode=755 apart "$scratch"
    for entry in "$1"/* "$1"/.[!.]*; do
        if [ -d "$entry" ] && [ ! -L "$entry" ]; then
            mkdir "$scratch/${entry##*/}"
            mount --rbind "$entry" "$scratch/${entry##*/}"
        elif [ -e "$entry" ] || [ -L "$entry" ]; then
            cp -a "$entry" "$scratch/"
        fi
    done
    mount --move "$scratch" "$1"
}
apart /etc
apart /home
apart /opt
rmdir "$scratch"
for ((n = 0; n < users; n++)); do
    echo "coder$n:x:$((first + n)):$((first + n))::/home/coder$n:/bin/bash" >>/etc/passwd
    echo "coder$n:x:$((first + n)):" >>/etc/group
done
mkdir -p /opt/enforcer-agents /opt/enforcer/bin /opt/enforcer/policies
mount --bind "$tree" /opt/enforcer-agents
cp "$enforcer" /opt/enforcer/bin/enforcer
cp "$policies"/*.json /opt/enforcer/policies/
cp -r "$policies"/rules /opt/enforcer/policies/
chmod -R u=rwX,go=rX /opt/enforcer
# Where agents look for the settings of the machine: empty here, and filled for one test at a time.
mkdir -p /etc/claude-code /etc/codex /etc/gemini-cli /etc/qwen-code
for directory in /etc/claude-code /etc/codex /etc/gemini-cli /etc/qwen-code; do
    mount -t tmpfs -o mode=755 empty "$directory"
done
export ENFORCER_BIN=/opt/enforcer/bin/enforcer ENFORCER_AGENTS=/opt/enforcer-agents
# Agents wait much of their time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}
exec "$@"
"#;

/// The command line that goes before the tests' own. Installs the agents first.
///
/// # Errors
/// When they cannot be installed.
pub fn before(built: &Compiled) -> anyhow::Result<Vec<OsString>> {
    let tree = agents::ensure()?;
    let mut words: Vec<OsString> = ["unshare", "--mount", "--propagation", "private"]
        .map(OsString::from)
        .to_vec();
    words.extend(["bash", "-c", APART, "apart"].map(OsString::from));
    words.push(tree.into());
    words.push(built.enforcer.clone().into());
    words.push(root::repository().join("policies").into());
    words.push(USERS.to_string().into());
    words.push(FIRST_UID.to_string().into());
    Ok(words)
}
