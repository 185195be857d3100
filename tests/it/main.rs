//! burstd as its users meet it: the promises, tried over real HTTP and on the real program.

#![expect(unreachable_pub, reason = "nobody depends on a test")]

mod adversity;
mod boxed;
mod canary;
mod cli;
mod clocks;
mod contract;
mod doctor;
mod drain;
mod faults;
mod fuzz;
mod governor;
mod kills;
mod life;
mod list;
mod manager;
mod memory;
mod model;
mod nemesis;
mod notices;
mod own;
mod packages;
mod policy;
mod process;
mod redrive;
mod refusals;
mod reload;
mod simulation;
mod stats;
mod store;
mod support;
mod tasks;
mod template;
mod tidy;
mod transport;
mod trouble;
mod unread;
mod wire;
