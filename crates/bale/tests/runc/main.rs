//! The runtime's command line, driven as its callers drive it. `RUNTIME=runc` runs the same cases against runc, to
//! prove the cases; what only bale promises is left out then. (crun passes what does not look at runc's words.)

mod commands;
mod config;
mod exec;
mod life;
mod mounts;
mod namespaces;
mod net_devices;
mod notify;
mod refusals;
mod stage;
