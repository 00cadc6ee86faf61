//! Everything a person does with wxpay-notify: one file a command.
//!
//! `wxpayctl` holds what the two services must not: a signing key, an HTTP client, printing. What concerns orders,
//! points and dead letters goes through the worker's admin API, in both modes of operation, so there is one
//! implementation of it.

pub mod cli;
pub mod screen;

mod orders;
mod refunds;
mod points;
mod dlq;
mod queue;
pub mod client;

mod simulate;
mod verify;
mod random;
pub mod wechat_sender;

pub mod together;
pub mod dev_merchant;
mod config_check;
mod migrate;
mod healthcheck;
mod serve;
mod demo;
mod bench;
