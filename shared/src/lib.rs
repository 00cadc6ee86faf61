//! What ingress, worker and `wxpayctl` must agree on.
//!
//! Three layers, each knowing only those above it: the pure core (money, names, orders, the notification's formats), the
//! two contracts ([`queue`] and [`store`]) with their homes, and what every program needs to run (configuration, HTTP
//! listeners, logging).

pub mod fen;
pub mod ids;
pub mod clock;
pub mod points;
pub mod reason;
pub mod event;
pub mod order;
pub mod envelope;
pub mod wechat;

pub mod disk;
pub mod queue;
pub mod store;
pub mod settled;

pub mod config;
pub mod merchant;
pub mod metric;
pub mod trace;
pub mod reload;
pub mod admin;
pub mod networks;
pub mod tls;
pub mod http;
pub mod runtime;

/// Compares secrets in a time that does not depend on where they differ.
#[must_use]
pub fn secret_eq(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}
