//! The snippets that register an order: what each of them sends, and that those which can be run do it.

use std::{fs, path::Path};

use super::{Site, blocks, said};
use crate::deploy::read;

/// A language's snippet, the program that runs it, and what its file is called.
type Snippet = (&'static str, &'static str, &'static str);

/// Its program is on every machine that runs the tests.
const PYTHON: Snippet = ("python", "python3", "register.py");
/// Their programs may be missing.
const OTHERS: [Snippet; 4] = [
    ("php", "php", "register.php"),
    ("js", "node", "register.js"),
    ("java", "java", "RegisterOrder.java"),
    ("go", "go", "register.go"),
];

fn snippet(language: &str) -> String {
    blocks(&read("docs/connect.md")).into_iter().find(|block| block.language == language).unwrap().text
}

#[test]
fn every_snippet_names_each_field_the_path_and_the_token() {
    for (language, ..) in [PYTHON].into_iter().chain(OTHERS) {
        let text = snippet(language).replace('\\', "");
        for part in ["/orders\"", "shop", "WXPAY_ADMIN_TOKEN", "1999"] {
            assert!(text.contains(part), "{language} says nothing of {part}");
        }
        for field in ["merchant", "out_trade_no", "amount", "user"] {
            // The latter two in JavaScript.
            let forms = [format!("\"{field}\""), format!("{field}:"), format!(", {field} }}")];
            assert!(forms.iter().any(|form| text.contains(form)), "{language} does not send {field}");
        }
    }
}

async fn registers_an_order(site: &Site, (language, program, file): Snippet) {
    let path = site.directory.path().join(file);
    fs::write(&path, snippet(language)).unwrap();
    let mut command = site.command(Path::new(program));
    let output = if language == "go" { command.arg("run").arg(&path) } else { command.arg(&path) }.output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    assert!(output.status.success(), "{language}: {}", said(&output));
    let number = format!("{}-0001", program.trim_end_matches('3').to_uppercase());
    let order = site.sh(&format!("wxpayctl orders show shop {number}"));
    assert!(order.status.success(), "{language}: {}", said(&order));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_snippet_registers_an_order() {
    registers_an_order(&Site::open("connect").await, PYTHON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_other_snippets_those_that_this_machine_can_run_register_an_order() {
    let site = Site::open("connect").await;
    for snippet @ (language, program, _) in OTHERS {
        if site.sh(&format!("command -v {program}")).status.success() {
            registers_an_order(&site, snippet).await;
        } else {
            eprintln!("the snippet in {language} was not run: there is no {program}");
        }
    }
}
