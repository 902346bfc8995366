//! Tool calls that hooks inside the agent report: who takes them.

use super::protocol::{ToolAnswer, ToolReport};
use enforcer_decide::approval::Answer;

/// The process that reports, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// Process id; 0 if it is not known.
    pub pid: u32,
    /// User id.
    pub uid: u32,
}

/// Takes reports: counts them, records them, and says what the hook has to answer. Called on the desk's thread: it must
/// return soon.
pub trait ToolDesk: std::fmt::Debug + Send + Sync {
    /// Takes a report. `approved` is the earlier answer of a person that covers the call.
    fn tool(
        &self,
        reporter: Reporter,
        report: &ToolReport,
        approved: Option<&Answer>,
    ) -> ToolAnswer;
}
