//! TBD
use crate::{cli::Verdict, screen::Screen};
use anyhow::Result;
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_args: Args, _screen: &mut Screen<'_>) -> Result<Verdict> {
    Ok(Verdict::Fine)
}
