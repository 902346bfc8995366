//! What all agents of the machine share, in order before another is added: directories of ours, the trail, the cgroup and
//! BPF file systems; and what earlier launchers have left behind is seen to.

use super::{Reports, error::Result, leftover, plan::RunPlan, terms::Proven, trail::Trail};
use enforcer_files::directories;
use enforcer_kernel::attach::mount_bpf;
use enforcer_launch::CgroupRoot;
use enforcer_say::say;

/// The machine, ready for an agent.
#[derive(Debug)]
pub struct House {
    /// Where it will be written what the agent does.
    pub trail: Trail,
    /// Where its cgroup will be.
    pub cgroups: CgroupRoot,
}

impl House {
    /// Puts it in order. After the policy is proven, so that a policy with a fault leaves no trail; before the agent has
    /// anything, so that what is left over of others is not taken for its own.
    ///
    /// # Errors
    ///
    /// A directory is not ours, the trail cannot be written, or the machine has no such file systems.
    pub fn open(plan: &RunPlan<'_>, proven: &Proven) -> Result<Self> {
        let reports = &plan.options.reports;
        let principal = &plan.terms.principal;
        prepare(reports)?;
        proven.keep_tables();
        let trail = Trail::open(reports.audit.as_deref(), principal.tenant.as_deref())?;
        let cgroups = CgroupRoot::find()?;
        mount_bpf()?;
        leftover::clean_up(&cgroups, reports.quiet);
        Ok(Self { trail, cgroups })
    }
}

/// Makes sure of the directories of ours that this run needs, and says what it has done for that.
///
/// # Errors
///
/// One is not ours.
pub fn prepare(reports: &Reports) -> Result<()> {
    let mut places = vec![directories::STATE, directories::RUNNING];
    let trail = reports.audit.as_deref();
    if trail.is_none_or(|trail| trail.starts_with(directories::TRAILS.path)) {
        places.push(directories::TRAILS);
    }
    if let Some(done) = directories::prepare(&places)?
        && !reports.quiet
    {
        say!("enforcer: {done}");
    }
    Ok(())
}
