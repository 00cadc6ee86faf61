//! One test binary for everything that needs more than one file of the product: the contract suites of queue and store,
//! and the real programs on real servers.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod harness;

mod queue_contract;
mod rabbit_faults;
mod store_contract;
mod crash;
mod vectors;
mod pipeline;
mod tidy;
