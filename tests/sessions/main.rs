//! Real work under the policies: it goes as it goes without us, and an observer without us counts as many execs as
//! stand in the trail.

mod hook;
mod observe;
mod terminal;
mod tools;
