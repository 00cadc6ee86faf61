//! Which arguments are taken.

use clap::{CommandFactory as _, Parser as _};

use super::super::Cli;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_replay_must_say_which() {
    for (args, good) in [
        (&["dlq", "replay"][..], false),
        (&["dlq", "replay", "--limit", "5"], false),
        (&["dlq", "replay", "--all"], true),
        (&["dlq", "replay", "--all", "--with-reason", "unknown_order"], false),
        (&["dlq", "replay", "--reason", "unknown_order", "--merchant", "dev"], true),
        (&["dlq", "replay", "--reason", "no_such_reason"], false),
        (&["dlq", "replay", "0198a5e2-7a54", "0198a5e2-7a55"], true),
        (&["dlq", "replay", "--older-than", "2h", "--newer-than", "1d", "--dry-run", "--rate", "5"], true),
        (&["dlq", "replay", "--all", "--order", "dev/A1"], false),
        (&["dlq", "replay", "--all", "--rate", "0"], false),
        (&["dlq", "replay", "--order", "A1"], false),
        (&["dlq", "list", "--merchant", "dev", "--order", "dev/A1", "--newer-than", "1d"], true),
        (&["dlq", "list", "--older-than", "yesterday"], false),
        (&["dlq", "export", "--to", "x"], false),
        (&["dlq", "export", "--all"], false),
        (&["dlq", "export", "--all", "--to", "x"], true),
        (&["dlq", "discard", "0198a5e2-7a54"], false),
        (&["dlq", "discard", "0198a5e2-7a54", "--reason", ""], false),
        (&["dlq", "discard", "--reason", "tests"], false),
        (&["dlq", "discard", "--with-reason", "unsealed", "--reason", "tests"], true),
        (&["orders", "register", "dev", "A1", "08"], false),
        (&["orders", "--admin", "http://[::1]:1", "show", "dev", "A1", "--json"], true),
        (&["simulate", "pay", "--out-trade-no", "A1", "--amount", "1"], false),
    ] {
        let parsed = Cli::try_parse_from(["wxpayctl"].iter().chain(args));
        assert_eq!(parsed.is_ok(), good, "{args:?} {:?}", parsed.err().map(|error| error.to_string()));
    }
}
