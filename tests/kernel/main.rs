//! The kernel programs by themselves: grants, unix sockets, packets, processes outside, the self-test.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is how a test fails")]

mod addresses;
mod grants;
mod many;
mod network;
mod outside;
mod selftest;
mod unix;
mod verified;
mod world;
