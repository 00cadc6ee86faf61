//! One test binary for everything that needs more than one file of the product: the contract suites of queue and store,
//! and the real programs on real servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod store_contract;
