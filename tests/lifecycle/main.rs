//! `enforcer run` from its start to its end: who the command is, how it ends, what stays, what the trail holds, and
//! what happens when a file or the machine is not as it should be.
//!
//! A kernel without ring buffers (before 5.8) cannot be imitated on a newer one: there is no test of it. The load of
//! the maps then fails in the same way, and with the same message, as any other map that the kernel refuses.

mod agent_set;
mod bad_place;
mod bad_policy;
mod command;
mod confined;
mod connector;
mod ends;
mod fresh;
mod host;
mod killed;
mod launch;
mod obedient;
mod operator;
mod output;
mod reload;
mod trail;
