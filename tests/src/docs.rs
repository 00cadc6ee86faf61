//! The documents: their commands run, their snippets register orders, both languages have the same, and the
//! configuration's page is what the types and the example say.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;
use wxpay_shared::config::{Config, ENV_PREFIX};

use crate::{
    deploy::{read, root},
    harness::{
        notice::Notice,
        pair::{APPID, DEADLINE, MCH_ID, V2_KEY, binary},
        process::{Plan, Server, free_port},
        wait_until,
    },
};

mod snippets;

/// Documents that exist in both languages.
const TWICE: [&str; 3] = ["connect", "runbook", "testing"];

/// A fenced piece of a document.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    text: String,
    /// The exit code with which it must end, where it is to be run.
    run: Option<i32>,
    /// Whether it is to be run before the programs start, since it makes their configuration.
    first: bool,
}

fn blocks(document: &str) -> Vec<Block> {
    let (mut blocks, mut run, mut first) = (Vec::new(), None, false);
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if let Some(mark) = line.strip_prefix("<!-- run").and_then(|rest| rest.strip_suffix("-->")) {
            run = Some(mark.trim().strip_prefix(':').map_or(0, |code| code.trim().parse().expect("an exit code")));
        } else if line == "<!-- first -->" {
            first = true;
        } else if let Some(language) = line.strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| line.trim() != "```");
            let text = inside.map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect();
            blocks.push(Block {
                language: language.to_owned(),
                text,
                run: run.take(),
                first: std::mem::take(&mut first),
            });
        }
    }
    blocks
}

/// What a reader of the documents has: his configuration, and `wxpayctl serve` on it.
struct Site {
    /// Before the directory, so that it ends before that is removed.
    _server: Server,
    directory: TempDir,
    ports: [u16; 3],
}

impl Site {
    /// Opens it after the reader did what this document wants first.
    async fn open(document: &str) -> Self {
        let directory = TempDir::with_prefix("wxpay-docs-").unwrap();
        let ports @ [listen, ops, admin] = [free_port(), free_port(), free_port()];
        let config = format!(
            r#"[ingress]
listen = "127.0.0.1:{listen}"
ops_listen = "127.0.0.1:{ops}"
[worker]
admin_listen = "127.0.0.1:{admin}"
[merchants.shop]
mch_id = "{MCH_ID}"
appids = ["{APPID}"]
v2_key_file = "shop-v2-key"
points = "1/100"
"#
        );
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("wxpay.toml", &config);
        write("shop-v2-key", V2_KEY);
        write("notification.xml", &Notice::new("FORGED", 1_000).xml("n").replace("1000", "1"));
        for block in blocks(&read(&format!("docs/{document}.md"))).iter().filter(|block| block.first) {
            let made =
                Command::new("sh").args(["-eu", "-c", &block.text]).current_dir(directory.path()).output().unwrap();
            assert!(made.status.success(), "{}", said(&made));
        }
        let server = Server::start(&Plan {
            program: &binary("wxpayctl"),
            arguments: &["serve", "--config", directory.path().join("wxpay.toml").to_str().unwrap()],
            environment: &[],
            directory: directory.path(),
            log: &directory.path().join("serve.log"),
            goodbye: "TERM",
            after: "",
        });
        let site = Self { directory, ports, _server: server };
        wait_until("the programs are ready", DEADLINE, async || site.sh("wxpayctl queue").status.success()).await;
        assert!(site.sh("wxpayctl orders register shop PAID-1 1000").status.success());
        site
    }

    fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[2])
    }

    /// Runs a program here, as a reader would in his directory.
    fn command(&self, program: &Path) -> Command {
        let path = format!("{}:{}", binary("").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env("PATH", path).env("WXPAY_ADMIN", self.admin());
        command
    }

    /// Runs lines of a document, at this site's ports instead of the usual ones.
    fn sh(&self, text: &str) -> Output {
        let usual = ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082"];
        let here = usual.iter().zip(self.ports);
        let text = here.fold(text.to_owned(), |text, (usual, port)| text.replace(usual, &format!("127.0.0.1:{port}")));
        // A command that waits for something must not wait for ever.
        self.command(Path::new("timeout")).args(["60", "sh", "-eu", "-c", &text]).output().unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_marked_command_runs_and_ends_as_it_says() {
    for name in TWICE {
        let site = Site::open(name).await;
        let mut run = 0;
        for block in blocks(&read(&format!("docs/{name}.md"))) {
            let Some(code) = block.run else { continue };
            assert_eq!(block.language, "sh");
            let output = site.sh(&block.text);
            assert_eq!(output.status.code(), Some(code), "docs/{name}.md:\n{}\n{}", block.text, said(&output));
            run += 1;
        }
        assert!(run >= 5, "docs/{name}.md: {run} commands");
    }
}

#[test]
fn both_languages_have_the_same_commands_and_snippets() {
    for name in TWICE {
        assert_eq!(
            blocks(&read(&format!("docs/{name}.md"))),
            blocks(&read(&format!("docs/{name}.zh-CN.md"))),
            "{name}"
        );
    }
}

/// The made pages are held against the code; their Chinese ones must have the same rows, each with a meaning of its own.
#[test]
fn the_chinese_references_have_the_same_rows() {
    let rows = |file: String| -> Vec<(String, String)> {
        let page = read(&file);
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let row = |line: &str| {
            let cells: Vec<_> = line.splitn(4, " | ").collect();
            (cells[..3].join(" | "), cells[3].to_owned())
        };
        rows.map(row).collect()
    };
    for name in ["configuration", "metrics"] {
        let (english, chinese) = (rows(format!("docs/{name}.md")), rows(format!("docs/{name}.zh-CN.md")));
        assert!(english.len() > 20, "{name}");
        let facts = |rows: &[(String, String)]| rows.iter().map(|(facts, _)| facts.clone()).collect::<Vec<_>>();
        assert_eq!(facts(&english), facts(&chinese), "{name}");
        assert!(chinese.iter().all(|(_, meaning)| !meaning.is_ascii()), "{name}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(|name| root().join(name)).into();
    documents.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for document in documents.iter().filter(|path| path.extension().is_some_and(|kind| kind == "md")) {
        let text = fs::read_to_string(document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let inside = !file.is_empty() && !file.contains("://");
            assert!(!inside || document.with_file_name(file).exists(), "{}: {target}", document.display());
        }
    }
}

/// A key of the example, as the configuration's page shows it.
struct Setting {
    section: String,
    key: String,
    value: String,
    /// Whether the example shows the default: it does so where a line is commented out.
    default: bool,
    meaning: String,
}

fn settings() -> Vec<Setting> {
    let (mut settings, mut section, mut meaning, mut fresh) = (Vec::new(), String::new(), String::new(), false);
    for line in read("wxpay.example.toml").lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let assigned = bare
            .split_once(" = ")
            .filter(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte)));
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (section, meaning) = (format!("{name}."), String::new());
        } else if let Some((key, value)) = assigned {
            // A path or an address of others has no default; the example only shows what it looks like.
            let default =
                line.starts_with('#') && !["secrets/", ".txt", "http://"].iter().any(|part| value.contains(part));
            let (section, key, value, meaning) = (section.clone(), key.to_owned(), value.to_owned(), meaning.clone());
            settings.push(Setting { section, key, value, default, meaning });
            fresh = true;
        } else if line.is_empty() {
            meaning.clear();
        } else {
            if std::mem::take(&mut fresh) {
                meaning.clear();
            }
            let space = if meaning.is_empty() { "" } else { " " };
            write!(meaning, "{space}{bare}").unwrap();
        }
    }
    settings
}

/// With `UPDATE_DOCS` set, the page is written anew.
#[test]
fn the_configurations_page_is_what_the_example_says() {
    let mut page = "# Configuration\n\nOne file for all programs, in TOML, `wxpay.toml` unless `--config` names another; \
        [`wxpay.example.toml`](../wxpay.example.toml)\nis one to start from. Each key can be given in the environment \
        instead. A secret stands in a file, which its `…_file` key\nnames; the same key without `_file` takes the secret \
        itself, best from the environment. This page is made from the example,\nwhich is held against the code.\n\n\
        | key | environment | default | meaning |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for Setting { section, key, value, default, meaning } in settings() {
        let name = format!("{section}{key}");
        let map = if value.starts_with('{') { "__PUB_KEY_ID_…" } else { "" };
        let environment = format!("{ENV_PREFIX}{}{map}", name.replace('.', "__").to_uppercase());
        let shown = if default { format!("`{value}`") } else { String::new() };
        writeln!(page, "| `{name}` | `{environment}` | {shown} | {} |", meaning.replace('|', "\\|")).unwrap();
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join("docs/configuration.md"), &page).unwrap();
    }
    assert_eq!(
        read("docs/configuration.md"),
        page,
        "UPDATE_DOCS=1 cargo test -p wxpay-tests -- the_configurations_page"
    );
}

/// The types name their keys in the error about one that they do not know.
fn keys_of(section: &str) -> Vec<String> {
    let directory = TempDir::with_prefix("wxpay-keys-").unwrap();
    let file = directory.path().join("wxpay.toml");
    let rest =
        if section == "merchants.shop" { "mch_id = \"1900000109\"\nappids = []\npoints = \"0/1\"\n" } else { "" };
    let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
    fs::write(&file, format!("{header}{rest}no_such_key = 1\n")).unwrap();
    let error = Config::load(Some(&file), []).unwrap_err().to_string();
    let expected = error.split("`, expected ").nth(1).unwrap_or_else(|| panic!("{section}: {error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_of_the_types_is_on_the_page() {
    let sections = ["", "ingress", "worker", "queue", "store", "seal", "telemetry", "merchants.shop"];
    let documented: Vec<String> =
        settings().into_iter().map(|setting| format!("{}{}", setting.section, setting.key)).collect();
    let mut known = Vec::new();
    for section in sections {
        let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
        for key in keys_of(section) {
            let name = format!("{prefix}{key}");
            let is_section = sections[1..].iter().any(|section| section.split('.').next() == Some(key.as_str()));
            let secret = documented.contains(&format!("{name}_file"));
            assert!(is_section || secret || documented.contains(&name), "{name} is not in wxpay.example.toml");
            known.push(name);
        }
    }
    for name in documented {
        assert!(known.contains(&name), "the types do not know {name}");
    }
}
