//! The launcher above a hook that runs inside an agent: its policy, its names, and the one state and trail that both
//! have.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::shared::Handover;
use enforcer_control::{
    SOCKET_NAME, client,
    protocol::{Operation, ToolAnswer, ToolReport},
};
use enforcer_files::directories::RUNNING;
use enforcer_launch::agent_of;

/// The launcher of the agent that this process belongs to.
#[derive(Debug)]
pub struct Launcher {
    /// Who the agent is.
    pub facts: Handover,
    /// The policy's text.
    pub policy: String,
    socket: PathBuf,
}

/// Finds the launcher; `None` outside every agent.
///
/// # Errors
///
/// In words: this process belongs to an agent, and what its launcher left for the hook cannot be read.
pub fn find() -> Result<Option<Launcher>, String> {
    let membership = fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| format!("/proc/self/cgroup cannot be read: {error}"))?;
    let Some(id) = agent_of(&membership) else {
        return Ok(None);
    };
    let directory = Path::new(RUNNING.path).join(&id);
    let read = |name: &str| {
        read_of_root(&directory.join(name)).map_err(|why| {
            format!("This agent's launcher ({id}) cannot be asked, so nothing is allowed: {why}")
        })
    };
    let facts = serde_json::from_str(&read(Handover::FILE)?).map_err(|error| {
        format!(
            "This agent's launcher ({id}) is of another version, so nothing is allowed: {error}"
        )
    })?;
    Ok(Some(Launcher {
        facts,
        policy: read(Handover::POLICY)?,
        socket: directory.join(SOCKET_NAME),
    }))
}

/// A file that nobody but root can have put there.
fn read_of_root(path: &Path) -> Result<String, String> {
    let fault = |why: String| format!("{}: {why}", path.display());
    let metadata = fs::symlink_metadata(path).map_err(|error| fault(error.to_string()))?;
    if !metadata.is_file() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(fault("it is not a file of root's alone".to_owned()));
    }
    fs::read_to_string(path).map_err(|error| fault(error.to_string()))
}

impl Launcher {
    /// Reports a judged call; gives what is to be answered.
    ///
    /// # Errors
    ///
    /// In words: the launcher cannot be asked. Nothing is allowed then.
    pub fn report(&self, report: ToolReport) -> Result<ToolAnswer, String> {
        let fault = |why: String| {
            format!("This agent's launcher cannot be asked, so nothing is allowed: {why}")
        };
        let request = Operation::Tool {
            report: Box::new(report),
        };
        let reply =
            client::request(&self.socket, &request).map_err(|error| fault(error.to_string()))?;
        match (reply.tool, reply.error) {
            (Some(answer), None) => Ok(answer),
            (_, error) => Err(fault(
                error.unwrap_or_else(|| "it gave no answer".to_owned()),
            )),
        }
    }
}
