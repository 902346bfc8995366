//! Run times of kernel programs, from the kernel's own statistics.

use std::{
    ops::Sub,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use anyhow::Context;
use aya::{
    Ebpf,
    programs::{
        BtfTracePoint, ProgramFd,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
    sys::{Stats, enable_stats},
};
use enforcer_common::load::LoadSettings;
use enforcer_kernel::{
    attach::PIN_ROOT,
    host::{self, Host},
    object::{self, CORE, Hook},
    offsets,
};

/// Statistics are taken as long as this lives; the kernel turns them off with the last holder.
#[derive(Debug)]
pub struct Clock(#[expect(dead_code, reason = "held, not read")] OwnedFd);

impl Clock {
    /// Turns statistics on.
    ///
    /// # Errors
    ///
    /// The kernel has none.
    pub fn start() -> anyhow::Result<Self> {
        let fd = enable_stats(Stats::RunTime).context("the kernel takes no statistics")?;
        Ok(Self(fd))
    }
}

/// How often a program ran, and how long in all.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Nanoseconds.
    pub time: f64,
    /// Runs.
    pub runs: f64,
}

impl Usage {
    /// Nanoseconds of a run; 0 when there was none.
    pub fn mean(self) -> f64 {
        if self.runs > 0.0 {
            self.time / self.runs
        } else {
            0.0
        }
    }
}

impl Sub for Usage {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            time: self.time - other.time,
            runs: self.runs - other.runs,
        }
    }
}

/// The statistics of one program.
#[derive(Debug)]
pub struct Statistics(ProgramFd);

impl Statistics {
    /// Of a program that sees the whole system, in the host of this build.
    ///
    /// # Errors
    ///
    /// There is no such host, or it has no such program.
    pub fn of(program: &str) -> anyhow::Result<Self> {
        let current = |name: &String| Host::open(name).is_ok_and(|host| host.is_current());
        let host = host::all().into_iter().find(current);
        let host = host.context("no kernel programs of this build are loaded")?;
        let path = Path::new(PIN_ROOT)
            .join(host)
            .join(format!("link-{program}"));
        let link =
            FdLink::from(PinnedLink::from_pin(&path).with_context(|| path.display().to_string())?);
        let id = link.info()?.program_id();
        let info = loaded_programs()
            .filter_map(Result::ok)
            .find(|info| info.id() == id)
            .with_context(|| format!("program {id} is gone"))?;
        Ok(Self(info.fd()?))
    }

    /// What they say now.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn read(&self) -> anyhow::Result<Usage> {
        let path = format!("/proc/self/fdinfo/{}", self.0.as_fd().as_raw_fd());
        let text = std::fs::read_to_string(&path).context(path)?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
                .with_context(|| format!("the kernel shows no {key}"))
        };
        Ok(Usage {
            time: value("run_time_ns:")?,
            runs: value("run_cnt:")?,
        })
    }
}

/// The system-wide programs of an instance that governs nobody; they can be put in force and taken out again.
#[derive(Debug)]
pub struct Unattached(Ebpf);

impl Unattached {
    /// Loads them.
    ///
    /// # Errors
    ///
    /// The kernel refuses one.
    pub fn load() -> anyhow::Result<Self> {
        let types = object::kernel_types()?;
        let settings = LoadSettings { agent_level: 2 };
        let mut ebpf = object::load(&offsets::running_kernel()?, &settings)?;
        for spec in CORE {
            if matches!(spec.hook, Hook::Tracepoint(_)) {
                object::load_program(&mut ebpf, spec, &types)?;
            }
        }
        Ok(Self(ebpf))
    }

    /// Puts them in force as long as the links live.
    ///
    /// # Errors
    ///
    /// The kernel refuses one.
    pub fn attach(&mut self) -> anyhow::Result<Vec<FdLink>> {
        let mut links = Vec::new();
        for spec in CORE {
            if matches!(spec.hook, Hook::Tracepoint(_)) {
                let program = self.0.program_mut(spec.name).context(spec.name)?;
                let program = <&mut BtfTracePoint>::try_from(program)?;
                let id = program.attach()?;
                links.push(program.take_link(id)?.into());
            }
        }
        Ok(links)
    }
}
