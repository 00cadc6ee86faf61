//! Dockerfile.

use wxpay_shared::config::Config;

use super::{assert_runs, read};

/// The lines of the Dockerfile, those that go on joined.
fn instructions() -> Vec<String> {
    let text = read("Dockerfile").replace("\\\n", " ");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// The instructions of one stage.
fn stage(name: &str) -> Vec<String> {
    let instructions = instructions();
    let begins = |line: &&String| line.starts_with("FROM ");
    let is_it = |line: &String| line.starts_with("FROM ") && line.ends_with(&format!(" AS {name}"));
    let first = instructions.iter().position(is_it).unwrap_or_else(|| panic!("no stage {name}"));
    let rest = instructions[first + 1..].iter().take_while(|line| !begins(line));
    std::iter::once(&instructions[first]).chain(rest).cloned().collect()
}

fn list(instruction: &str) -> Vec<String> {
    serde_json::from_str(&instruction[instruction.find('[').unwrap()..]).unwrap()
}

#[test]
fn the_image_is_built_with_the_rust_that_the_workspace_asks_for() {
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(stage("build")[0].starts_with(&format!("FROM rust:{version}-")), "{version}");
    let built = "cargo build --release --locked -p wxpay-ingress -p wxpay-worker -p wxpayctl ";
    assert!(stage("build").iter().any(|line| line.contains(built)));
}

#[test]
fn each_image_runs_its_program_without_root_and_without_a_shell() {
    for program in ["ingress", "worker"] {
        let stage = stage(program);
        assert!(stage[0].contains("distroless") && stage[0].contains(":nonroot"), "{}", stage[0]);
        assert!(!stage.iter().any(|line| line.starts_with("USER") || line.starts_with("RUN")), "{program}");
        let copied: Vec<_> = stage
            .iter()
            .flat_map(|line| line.split(' '))
            .filter_map(|word| word.strip_prefix("/src/target/release/"))
            .collect();
        let runs = |kind: &str| list(stage.iter().find(|line| line.starts_with(kind)).unwrap());
        let (entry, health) = (runs("ENTRYPOINT"), runs("HEALTHCHECK"));
        assert_eq!(entry, [format!("wxpay-{program}")]);
        assert_eq!(health, ["wxpayctl", "healthcheck", program]);
        assert_eq!(copied, [entry[0].as_str(), health[0].as_str()]);
        for command in [entry, health] {
            assert_runs(&command.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_exposed_ports_are_the_defaults() {
    let config = Config::default();
    let exposed = |name: &str| stage(name).into_iter().find(|line| line.starts_with("EXPOSE")).unwrap();
    let (listen, ops) = (config.ingress.listen.port(), config.ingress.ops_listen.port());
    assert_eq!(exposed("ingress"), format!("EXPOSE {listen} {ops}"));
    assert_eq!(exposed("worker"), format!("EXPOSE {}", config.worker.admin_listen.port()));
}
