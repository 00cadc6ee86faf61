//! The servers that tests run against, and the programs under test.

pub(crate) mod browser;
pub(crate) mod notice;
pub(crate) mod pair;
pub(crate) mod wechat;

pub(crate) use wxpay_servers::{database, process, rabbitmq, wait_until};
