//! Execs that nobody makes, judged by the kernel's own program: for tests that hold the kernel against user space.
//!
//! `judge_trial` is loaded, never attached; `BPF_PROG_TEST_RUN` runs it over this process's memory.

use std::{ffi::CString, sync::Arc};

use aya::{
    Ebpf,
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use enforcer_common::load::LoadSettings;

use super::{
    KernelError,
    agent::{Agent, AgentPlan},
    object, offsets,
    record::HostRecord,
    tables::HostMaps,
};
use enforcer_policy::{Decision, ExecAction, Judgement, compile::Tables};

/// The program's name in the object.
const PROGRAM: &str = "judge_trial";
/// Directories that a program can lie in.
const DIRECTORIES: usize = 2;

/// The kernel program over one policy.
#[derive(Debug)]
pub struct Trial {
    ebpf: Ebpf,
    slot: u32,
}

impl Trial {
    /// Loads the program and fills its maps.
    ///
    /// # Errors
    ///
    /// The kernel lacks something, or refuses something.
    pub fn load(tables: &Tables) -> Result<Self, KernelError> {
        let settings = LoadSettings { agent_level: 0 };
        let mut ebpf = object::load(&offsets::running_kernel()?, &settings)?;
        let plan = AgentPlan {
            ring_bytes: 1 << 12,
            ..AgentPlan::new(tables)
        };
        let maps = Arc::new(HostMaps::of(&ebpf)?);
        maps.record
            .set(&0, &HostRecord::new(settings.agent_level))?;
        let agent = Agent::choose(&maps, &plan, |_| Ok(()))?.settle(&plan)?;
        let slot = agent.place().slot;
        let refused = |error: &dyn std::error::Error| KernelError::Program {
            program: PROGRAM,
            reason: object::chain(error),
        };
        let program = ebpf
            .program_mut(PROGRAM)
            .ok_or_else(|| KernelError::map("programs", PROGRAM))?;
        <&mut RawTracePoint>::try_from(program)
            .and_then(RawTracePoint::load)
            .map_err(|error| refused(&error))?;
        Ok(Self { ebpf, slot })
    }

    /// What the kernel says of an exec; `None` where the texts cannot be those of one (a NUL in a word), or there was
    /// nothing to judge with.
    ///
    /// # Errors
    ///
    /// The kernel does not run the program.
    pub fn exec(&self, action: &ExecAction) -> Result<Option<Judgement>, KernelError> {
        let failed = |reason: String| KernelError::Program {
            program: PROGRAM,
            reason,
        };
        let text = |bytes: &[u8]| CString::new(bytes).ok();
        let script = action.script.as_ref();
        // The kernel puts the interpreter, its argument and the script's path in the place of `argv[0]`.
        let mut words: Vec<&[u8]> = Vec::new();
        match script {
            None => words.extend(action.argv.first().map(Vec::as_slice)),
            Some(script) => {
                words.push(&script.interpreter);
                words.extend(script.argument.as_deref());
                words.push(&action.path);
            }
        }
        words.extend(action.argv.iter().skip(1).map(Vec::as_slice));
        let mut area = Vec::new();
        for word in words {
            if word.contains(&0) {
                return Ok(None);
            }
            area.extend_from_slice(word);
            area.push(0);
        }
        let interpreter = script.map(|script| text(&script.interpreter));
        let own = action.resolved.as_deref().unwrap_or_else(|| {
            let path = script.map_or(&action.path, |script| &script.interpreter);
            path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
        });
        // Its path: the directories, nearest first. A name alone is that of a file in no tree.
        let mut parts = own.rsplit(|byte| *byte == b'/');
        let own = parts.next().unwrap_or_default();
        let mut directories: Vec<&[u8]> = parts.filter(|part| !part.is_empty()).collect();
        let in_tree = action
            .resolved
            .as_deref()
            .is_some_and(|path| path.contains(&b'/'));
        if directories.len() > DIRECTORIES {
            return Err(failed(format!("more than {DIRECTORIES} directories")));
        }
        directories.resize(DIRECTORIES, b"");
        let mut above = Vec::new();
        for name in directories {
            above.extend(text(name));
        }
        let (Some(path), Some(own)) = (text(&action.path), text(own)) else {
            return Ok(None);
        };
        let mut options = RawTracePointRunOptions::new();
        let start = area.as_ptr() as u64;
        options.args[..10].copy_from_slice(&[
            u64::from(self.slot),
            path.as_ptr() as u64,
            interpreter
                .as_ref()
                .and_then(Option::as_ref)
                .map_or(0, |text| text.as_ptr() as u64),
            own.as_ptr() as u64,
            u64::from(!action.fileless),
            start,
            start + area.len() as u64,
            above.first().map_or(0, |text| text.as_ptr() as u64),
            above.get(1).map_or(0, |text| text.as_ptr() as u64),
            u64::from(in_tree),
        ]);
        let program: &RawTracePoint = self
            .ebpf
            .program(PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| failed("it is not in the object".to_owned()))?;
        let result = program
            .test_run(options)
            .map_err(|error| failed(object::chain(&error)))?
            .return_value;
        Ok((result != u32::MAX).then(|| Judgement {
            decision: Decision::from_number(result & 0xff),
            rank: result >> 16,
            cause: result >> 8 & 0xff,
        }))
    }
}
