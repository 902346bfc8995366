//! The programs, a file for each: what they read of their context. What is judged is in [`crate::judge`].

mod addresses;
mod cgroup_attached;
mod connect4;
mod connect6;
mod exec_check;
mod exec_committed;
mod judge_trial;
mod packet_out;
mod ptrace_access_check;
mod sendmsg4;
mod sendmsg6;
mod sock_create;
mod socket_connect;
mod task_forked;
mod task_kill;
mod unix_connect;
mod unix_may_send;
mod unix_sendmsg;
mod unix_stream_connect;
