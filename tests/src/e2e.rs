//! One test binary for everything that needs more than one file of the product: the contract suites of queue and store,
//! and the real programs on real servers.

mod harness;

// The attribute tells the lints what these are.
#[cfg(test)]
mod queue_contract;
#[cfg(test)]
mod rabbit_faults;
#[cfg(test)]
mod rabbit_bundles;
#[cfg(test)]
mod shards;
#[cfg(test)]
mod only_worker;
#[cfg(test)]
mod waiting_orders;
#[cfg(test)]
mod store_contract;
#[cfg(test)]
mod sql_store;
#[cfg(test)]
mod sql_workers;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod manifest;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod vectors_v3;
#[cfg(test)]
mod pipeline;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod key_changes;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod at_start;
#[cfg(test)]
mod desk;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod worker_steps;
#[cfg(test)]
mod clock_jumps;
#[cfg(test)]
mod combined;
#[cfg(test)]
mod example;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod front;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod config_check;
#[cfg(test)]
mod alerts;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod console;
#[cfg(test)]
mod security;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod tidy;
