//! `wxpayctl`: parse, run, print, exit code.

use std::process::ExitCode;

use clap::Parser;
use wxpayctl::{
    cli::{self, Cli},
    screen::Screen,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = wxpay_shared::runtime::start(cli.log_filter()) {
        return wxpay_shared::runtime::exit_code(Err(error));
    }
    let mut out = std::io::stdout();
    let width = comfy_table::Table::new().width();
    let mut screen = Screen::new(&mut out, width, cli.json);
    let result = cli::run(cli, &mut screen).await;
    cli::exit_code(result, &mut screen)
}
