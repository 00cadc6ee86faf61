//! One test binary for everything that needs more than one file of the product: the contract suites of queue and store,
//! and the real programs on real servers.

mod harness;

mod queue_contract;
