//! What agents ask before each tool call: `enforcer hook` as a process, by itself and inside `enforcer run`.

mod always;
mod bad;
mod contracts;
mod doctor;
mod guard;
mod inside;
mod install;
mod modes;
mod scene;
mod state;
mod tools;
